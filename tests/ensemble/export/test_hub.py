"""Models go to the hub and come back through the same checks; only known names are downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import ensemble as en
from ensemble.export import hub
from folds.errors import EnsembleError, UsageError
from tests.conftest import Called
from tests.ensemble.export.test_predictor import exported  # noqa: F401
from tests.ensemble.prediction.test_predict import _blended  # noqa: F401

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server:
    """A stub of huggingface_hub that keeps repositories in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.downloaded, self.calls = folder, [], []
        self.constants = SimpleNamespace(ENDPOINT="https://hub.example", HF_HUB_OFFLINE=False)

    def HfApi(self) -> Server:
        return self

    def create_repo(self, repository: str, **options: Any) -> None:
        self.calls.append(("create", repository, options["private"]))
        (self.folder / repository).mkdir(parents=True, exist_ok=True)

    def upload_folder(self, *, repo_id: str, folder_path: str, allow_patterns: list[str], **options: Any) -> Any:
        for file in Path(folder_path).rglob("*"):
            name = file.relative_to(folder_path).as_posix()
            if file.is_file() and any(fnmatch(name, pattern) for pattern in allow_patterns):
                (self.folder / repo_id / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(file, self.folder / repo_id / name)
        return SimpleNamespace(oid=COMMIT)

    def model_info(self, repository: str, revision: str | None, files_metadata: bool) -> Any:
        root = self.folder / repository
        if not root.is_dir():
            raise RepositoryNotFoundError("404 Client Error")
        files = [file for file in root.rglob("*") if file.is_file()]
        listed = [SimpleNamespace(rfilename=f.relative_to(root).as_posix(), size=f.stat().st_size) for f in files]
        return SimpleNamespace(sha=COMMIT, siblings=listed)

    def hf_hub_download(self, repository: str, name: str, revision: str, local_dir: str) -> str:
        self.downloaded.append(name)
        target = Path(local_dir) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / repository / name, target)
        (Path(local_dir) / ".cache").mkdir(exist_ok=True)
        return str(target)


class RepositoryNotFoundError(Exception):
    pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server(tmp_path / "server")
    monkeypatch.setattr(hub, "_library", lambda: made)
    return made


def test_a_model_comes_back_as_it_was(server: Server, exported: Path, tmp_path: Path) -> None:  # noqa: F811
    pushed = en.push(exported / "views", "ann/masks")
    assert pushed.revision == COMMIT
    assert server.calls == [("create", "ann/masks", True)]
    (server.folder / "ann/masks/evil.py").write_text("raise SystemExit")
    (server.folder / "ann/masks/pytorch_model.bin").write_bytes(b"x")
    loaded = en.from_hub("ann/masks", cache=tmp_path / "cache")
    local = en.load(exported / "views")
    assert loaded.record.sha256 == local.record.sha256
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), np.uint8)
    np.testing.assert_array_equal(loaded.predict_proba(images), local.predict_proba(images))
    assert "evil.py" not in server.downloaded
    assert "pytorch_model.bin" not in server.downloaded
    count = len(server.downloaded)
    again = en.from_hub("ann/masks", revision=COMMIT, cache=tmp_path / "cache")
    assert again.record.sha256 == local.record.sha256
    assert len(server.downloaded) == count
    assert [one.name for one in (tmp_path / "cache/ann--masks").iterdir()] == [COMMIT]


def test_an_archive_is_pushed_as_a_folder(server: Server, exported: Path, tmp_path: Path) -> None:  # noqa: F811
    en.export(exported / "views", tmp_path / "m.zip")
    en.push(tmp_path / "m.zip", "ann/masks", public=True)
    assert server.calls == [("create", "ann/masks", False)]
    assert en.from_hub("ann/masks", cache=tmp_path / "cache").record.name == "views"


def test_a_changed_model_on_the_hub_is_refused(server: Server, exported: Path, tmp_path: Path) -> None:  # noqa: F811
    en.push(exported / "views", "ann/masks")
    (server.folder / "ann/masks/README.md").write_text("another card")
    with pytest.raises(EnsembleError, match=r"README\.md was changed"):
        en.from_hub("ann/masks", cache=tmp_path / "cache")


def test_what_is_no_model_is_neither_pushed_nor_loaded(server: Server, exported: Path, tmp_path: Path) -> None:  # noqa: F811
    shutil.copytree(exported / "views", tmp_path / "model")
    (tmp_path / "model/README.md").write_text("changed")
    with pytest.raises(EnsembleError, match=r"README\.md was changed"):
        en.push(tmp_path / "model", "ann/masks")
    assert not server.calls
    (server.folder / "ann/other").mkdir(parents=True)
    (server.folder / "ann/other/config.json").write_text("{}")
    with pytest.raises(EnsembleError, match=r"is not an exported model: it has no model\.toml"):
        en.from_hub("ann/other", cache=tmp_path / "cache")
    with pytest.raises(EnsembleError, match="the hub refused ann/nothing: RepositoryNotFoundError") as caught:
        en.from_hub("ann/nothing", cache=tmp_path / "cache")
    assert "check the name" in str(caught.value.hint)


def test_a_model_that_is_too_large_is_not_downloaded(
    server: Server,
    exported: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    en.push(exported / "views", "ann/masks")
    monkeypatch.setattr(hub, "MAX_BYTES", 1 << 20)
    with pytest.raises(EnsembleError, match="which are not downloaded"):
        en.from_hub("ann/masks", cache=tmp_path / "cache")
    assert not server.downloaded


@pytest.mark.parametrize("name", ["masks", "../x", "a/..", "a/b/c", "https://x/y", "a b/c", ""])
def test_names_of_repositories_are_checked(name: str) -> None:
    with pytest.raises(UsageError, match="repository must be owner/name"):
        en.from_hub(name)


@pytest.mark.parametrize("revision", ["../x", "a..b", "-x", ""])
def test_names_of_revisions_are_checked(revision: str) -> None:
    with pytest.raises(UsageError, match="revision must be"):
        en.from_hub("a/b", revision=revision)


def test_without_a_network_the_error_comes_soon(
    exported: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    call: Callable[..., Called],
) -> None:
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(EnsembleError, match=r"the hub \(http://127\.0\.0\.1:9\) cannot be reached"):
        en.from_hub("ann/masks", cache=tmp_path)
    done = call("push", exported / "views", "ann/masks")
    assert done.code == 1
    assert "cannot be reached" in done.err
