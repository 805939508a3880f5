"""The number format of a run is decided once, by the first job that has its GPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from folds.training import amp as module
from folds.training.amp import decide_amp, recorded_amp


@dataclass
class OneJob:
    """What `decide_amp` reads of a job."""

    folder: str
    device: str = "cuda"
    amp: str = "auto"


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The formats of the GPUs that the jobs get, in their order."""
    formats: list[str] = []
    monkeypatch.setattr(module, "resolve_amp", lambda amp, device: (formats.pop(0) if amp == "auto" else amp, ""))
    return formats


def decided(folder: Path, **given: Any) -> str:
    return decide_amp(OneJob(str(folder), **given))  # type: ignore[arg-type]


def test_jobs_on_other_gpus_follow_the_first(tmp_path: Path, gpus: list[str]) -> None:
    gpus += ["fp16"]
    assert [decided(tmp_path) for _ in range(3)] == ["fp16"] * 3
    assert recorded_amp(tmp_path) == "fp16"
    assert [path.name for path in tmp_path.iterdir()] == ["amp.txt"]


def test_of_two_jobs_that_decide_at_once_one_wins(
    tmp_path: Path, gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def another_is_faster(amp: str, device: str) -> tuple[str, str]:
        (tmp_path / "amp.txt").write_text("fp16\n")
        return "bf16", ""

    monkeypatch.setattr(module, "resolve_amp", another_is_faster)
    assert decided(tmp_path) == "fp16"
    assert [path.name for path in tmp_path.iterdir()] == ["amp.txt"]


def test_a_requested_format_and_local_devices_are_not_recorded(tmp_path: Path, gpus: list[str]) -> None:
    gpus += ["bf16", "off"]
    assert decided(tmp_path, amp="fp16") == "fp16"
    assert decided(tmp_path, device="cuda:1") == "bf16"
    assert decided(tmp_path, device="cpu") == "off"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"auto\n", b"int3", b"", b"\xff\xfe"])
def test_a_damaged_record_is_not_followed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "amp.txt").write_bytes(content)
    assert recorded_amp(tmp_path) is None


def test_a_drive_without_hard_links_keeps_the_decision_too(
    tmp_path: Path, gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*paths: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(module.os, "link", refused)
    gpus += ["bf16"]
    assert [decided(tmp_path) for _ in range(2)] == ["bf16"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["amp.txt"]
