"""What trackers of groups have stored: read from stand-ins for their packages, and from their own files."""

from __future__ import annotations

import json
import struct
import sys
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest


@dataclass
class Seen:
    """A run as the tracker shows it."""

    id: str
    group: str
    kind: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    steps: dict[int, dict[str, float]] = field(default_factory=dict)
    summary: dict[str, float] = field(default_factory=dict)
    files: dict[str, list[str]] = field(default_factory=dict)
    exit_code: int | None = None

    def write(self, step: int, values: dict[str, Any]) -> None:
        assert step not in self.steps, f"the step {step} is written twice"
        self.steps[step] = values


class Store(Protocol):
    tracker: str

    def seen(self) -> dict[str, Seen]:
        """Name of a run → what is stored of it."""


class FakeWandB(types.ModuleType):
    """Stands in for wandb: a run that is started offline has a file of its own, online it continues."""

    tracker = "wandb"

    class Settings:
        model_fields = dict.fromkeys(("silent", "console", "init_timeout"))

        def __init__(self, **given: Any) -> None:
            assert given.keys() <= self.model_fields.keys()

    class Artifact:
        def __init__(self, name: str, type: str) -> None:
            self.name, self.files = name, list[str]()

        def add_file(self, path: str, name: str) -> None:
            assert Path(path).is_file()
            self.files.append(name)

    def __init__(self) -> None:
        super().__init__("wandb")
        self.stored: dict[str, Seen] = {}
        self.open: set[str] = set()
        self.started: list[dict[str, Any]] = []
        self.refused = False
        self.base_url = "http://127.0.0.1:9"

    def setup(self) -> Any:
        return types.SimpleNamespace(settings=types.SimpleNamespace(base_url=self.base_url, mode="online"))

    def init(self, **given: Any) -> Any:
        self.started.append(given)
        name, online = given["name"], given["mode"] == "online"
        if online and self.refused:
            raise ConnectionError("nobody answers")
        assert name not in self.open, "a run is started twice"
        assert given["reinit"] == "create_new"
        before = self.stored.get(name)
        resumed = online and before is not None and before.id == given["id"]
        if not resumed:
            self.stored[name] = Seen(given["id"], given["group"], given["job_type"])
        seen = self.stored[name]
        seen.config |= given["config"]
        self.open.add(name)

        def finish(exit_code: int) -> None:
            seen.exit_code = exit_code
            self.open.remove(name)

        return types.SimpleNamespace(
            resumed=resumed,
            step=max(seen.steps) + 1 if seen.steps else 0,
            log=lambda values, step: seen.write(step, values),
            summary=seen.summary,
            log_artifact=lambda artifact: seen.files.update({artifact.name: artifact.files}),
            finish=finish,
        )

    def seen(self) -> dict[str, Seen]:
        assert not self.open
        return self.stored


class FakeTrackio(types.ModuleType):
    """Stands in for trackio."""

    tracker = "trackio"
    TRACKIO_DIR = Path("trackio")

    def __init__(self) -> None:
        super().__init__("trackio")
        self.all: list[tuple[str, Seen]] = []

    def init(self, project: str, *, name: str, group: str, config: dict[str, Any], resume: str, **others: Any) -> Any:
        assert others == {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        print("* Trackio project initialized")
        same = [seen for known, seen in self.all if known == name]
        if resume == "never" or not same:
            same.append(Seen(f"id{len(self.all)}", group))
            self.all.append((name, same[-1]))
        seen = same[-1]
        seen.config |= config
        return types.SimpleNamespace(
            id=seen.id,
            _next_step=max(seen.steps) + 1 if seen.steps else 0,
            log=lambda values, step: seen.write(step, values),
            log_artifact=lambda path, name, type: seen.files.update({name: [Path(path).name]}),
            finish=lambda: print("* Run finished"),
        )

    def seen(self) -> dict[str, Seen]:
        for _, seen in self.all:
            seen.kind = seen.config["kind"]
            if seen.kind == "summary" and seen.steps:
                seen.summary = seen.steps[max(seen.steps)]
        return {name: seen for name, seen in self.all if seen.steps or seen.files}


class WandBFiles:
    """The files of wandb itself, offline; of the files of a run the newest counts, as when they are sent."""

    tracker = "wandb"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def seen(self) -> dict[str, Seen]:
        found = {}
        for file in sorted(self.folder.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns):
            name, seen = _run_of(file)
            while seen.exit_code is None:  # the process of wandb ends the file after `finish` has returned
                time.sleep(0.02)
                name, seen = _run_of(file)
            found[name] = seen
        return found


def _run_of(file: Path) -> tuple[str, Seen]:
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    name, seen = "", Seen("", "")
    for content in _records(file.read_bytes()):
        one = Record()
        one.ParseFromString(content)
        kind = one.WhichOneof("record_type")
        if kind == "run":
            name, seen.id, seen.group, seen.kind = (
                one.run.display_name,
                one.run.run_id,
                one.run.run_group,
                one.run.job_type,
            )
            seen.config |= {item.key: json.loads(item.value_json) for item in one.run.config.update}
        elif kind == "history":
            seen.write(one.history.step.num, _values(one.history.item))
        elif kind == "summary":
            seen.summary |= _values(one.summary.update)
        elif kind == "artifact":
            seen.files[one.artifact.name] = [entry.path for entry in one.artifact.manifest.contents]
        elif kind == "exit":
            seen.exit_code = one.exit.exit_code
    return name, seen


def _values(items: Any) -> dict[str, Any]:
    named = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
    return {name: value for name, value in named.items() if not name.startswith("_")}


def _records(content: bytes) -> Iterator[bytes]:
    """The records of a file of wandb: blocks of 32 kB, in which a record has checksum, length and kind before it."""
    place, parts = 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


class TrackioFiles:
    """The files of trackio itself."""

    tracker = "trackio"

    def __init__(self, project: str) -> None:
        self.project = project

    def seen(self) -> dict[str, Seen]:
        import trackio
        from trackio.sqlite_storage import SQLiteStorage

        found = {}
        for run in trackio.Api().runs(self.project):
            config = run.config or {}
            seen = Seen(run.id, str(config.get("_Group")), str(config.get("kind")), config)
            for line in SQLiteStorage.get_logs(self.project, run.name, run_id=run.id):
                values = {key: value for key, value in line.items() if key not in ("step", "timestamp")}
                seen.write(line["step"], values)
                seen.summary = values if seen.kind == "summary" else {}
            found[run.name] = seen
        return found


def opened(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store: a stand-in, or the package itself where it is installed; nobody is logged in anywhere."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_DIR", "WANDB_PROJECT", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_PROJECT", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("TRACKIO_DIR", str(folder / "trackio"))
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(folder / name))
    if kind == "wandb":
        pytest.importorskip("wandb.sdk")
        return WandBFiles(folder)
    if kind == "trackio":
        pytest.importorskip("trackio.run")
        monkeypatch.setenv("TRACKIO_PROJECT", folder.name)
        return TrackioFiles(folder.name)
    fake = FakeWandB() if kind == "fake wandb" else FakeTrackio()
    monkeypatch.setitem(sys.modules, fake.tracker, fake)
    return fake
