from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from folds.errors import EnsembleError
from folds.utils import files
from folds.utils.files import (
    check_not_existing,
    derive_seed,
    read_json,
    remove,
    sha256_bytes,
    sha256_file,
    write_atomic,
    write_json,
)
from folds.utils.locks import exclusive_lock

ROOT = Path(__file__).parents[3]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", [b"\x00bytes", "Bärlauch – 1\n", lambda file: file.write(b"from a function")])
def test_what_is_written_can_be_read_and_nothing_else_is_left(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    assert write_atomic(path, content) == path
    expected = b"from a function" if callable(content) else content.encode() if isinstance(content, str) else content
    assert path.read_bytes() == expected
    assert names(path.parent) == ["file.bin"]


def test_an_existing_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomic(path, "a long first version")
    write_atomic(path, "short")
    assert path.read_text() == "short"


def killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_write_stopped_in_the_middle_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "a.npy"
    write_atomic(path, "old")

    def content(file: IO[bytes]) -> None:
        file.write(b"half of the n")
        if where == "write":
            killed()

    if where == "fsync":
        monkeypatch.setattr(os, "fsync", killed)
    elif where == "replace":
        monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, content)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.npy"]


def test_a_killed_write_leaves_the_old_file_and_no_visible_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    write_atomic(path, "old")
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom folds.utils.files import write_atomic\n"
        "def content(file):\n file.write(b'x' * 100_000)\n file.flush()\n os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomic(Path(sys.argv[1]), content)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    # pathlib's glob also finds files that begin with a dot: what is left must not end like an array.
    assert list(tmp_path.glob("*.npy")) == [path]


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (order.append("rename"), replace(self, target))[1])
    write_atomic(tmp_path / "a", "x")
    assert order[:2] == ["fsync", "rename"]


WRITERS: dict[str, Any] = {
    "text": "x" * 100,
    "array": lambda file: np.save(file, np.zeros((300, 300))),
    "checkpoint": lambda file: torch.save({"weights": torch.zeros(90_000)}, file),
}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_reported_and_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "known")
    (tmp_path / f".a.npy.{os.getpid()}-known.tmp").symlink_to("/dev/full")
    with pytest.raises(EnsembleError, match=r"cannot write .*a\.npy: no space left on device") as error:
        write_atomic(tmp_path / "a.npy", WRITERS[kind])
    assert "`resume=True`" in str(error.value.hint)
    assert names(tmp_path) == []


def test_a_disk_that_is_full_only_at_fsync_is_the_same_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnsembleError, match="no space left on device") as error:
        write_atomic(tmp_path / "a", "x")
    assert "free some space" in str(error.value.hint)
    assert names(tmp_path) == []


def test_a_folder_of_that_name_is_refused_without_temporaries(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(EnsembleError, match="cannot write"):
        write_atomic(tmp_path / "a", "x")
    assert names(tmp_path) == ["a"]


def test_an_error_of_the_writer_is_not_reported_as_a_disk_error(tmp_path: Path) -> None:
    def content(_: IO[bytes]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomic(tmp_path / "a", content)
    assert names(tmp_path) == []


@settings(max_examples=40)
@given(
    st.lists(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8"))
    )
)
def test_json_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    assert read_json(write_json(path, value)) == value
    assert path.read_text(encoding="utf-8").endswith("\n")


def test_json_keeps_the_order_of_keys_and_letters_readable(tmp_path: Path) -> None:
    text = write_json(tmp_path / "a.json", {"z": "Größe", "a": 1}).read_text(encoding="utf-8")
    assert list(json.loads(text)) == ["z", "a"]
    assert "Größe" in text


@pytest.mark.parametrize("content", [b'{"a": 1,\n "b": }', b"", b"\xff\xfe\x00", b"[" * 200_000])
def test_a_file_that_is_not_json_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "done.json"
    path.write_bytes(content)
    with pytest.raises(EnsembleError, match="is not JSON") as error:
        read_json(path)
    assert error.value.message.startswith(str(path))
    assert "remove it" in str(error.value.hint)


def test_an_error_in_json_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1,\n "b": }')
    with pytest.raises(EnsembleError, match="line 2"):
        read_json(tmp_path / "a.json")


def test_a_missing_json_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(EnsembleError, match=r"cannot read .*a\.json: no such file"):
        read_json(tmp_path / "a.json")


def test_nothing_is_overwritten_without_force(tmp_path: Path) -> None:
    path = tmp_path / "blend"
    check_not_existing(path, "the blend")
    path.mkdir()
    check_not_existing(path, "the blend", force=True)
    with pytest.raises(EnsembleError, match=rf"the blend {path} exists") as error:
        check_not_existing(path, "the blend")
    assert "`force=True`" in str(error.value.hint)


@settings(max_examples=40)
@given(st.binary(max_size=2000))
def test_hashes_are_those_of_hashlib(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "hashed"
    path.write_bytes(data)
    assert sha256_bytes(data) == sha256_file(path) == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("parts", "seed"),
    [((0,), 3456079177858693020), ((0, "swin", 3), 6714052683904814764), (("7",), 4359823973405836615)],
)
def test_seeds_never_change_between_versions(parts: tuple[Any, ...], seed: int) -> None:
    assert derive_seed(*parts) == seed


def test_a_seed_is_the_first_63_bits_of_the_hash_of_its_parts() -> None:
    expected = int(hashlib.sha256(b"0\x1fswin\x1f3").hexdigest()[:16], 16) // 2
    assert derive_seed(0, "swin", 3) == expected


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers() | st.text("abc", max_size=3), min_size=1, max_size=4).map(tuple), max_size=50))
def test_different_parts_give_different_valid_seeds(parts: list[tuple[Any, ...]]) -> None:
    distinct = {tuple(map(str, one)) for one in parts}
    seeds = {derive_seed(*one) for one in distinct}
    assert len(seeds) == len(distinct)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_order_and_the_borders_of_parts_count() -> None:
    assert (
        len({derive_seed(1, 12), derive_seed(12, 1), derive_seed(11, 2), derive_seed(112), derive_seed(1, 1, 2)}) == 5
    )


def test_random_streams_of_neighboring_steps_differ() -> None:
    draws = np.stack(
        [np.random.default_rng(derive_seed(0, "run", 0, 1, step)).standard_normal(2000) for step in range(8)]
    )
    off_diagonal = np.corrcoef(draws)[~np.eye(8, dtype=bool)]
    assert np.abs(off_diagonal).max() < 0.1


@pytest.mark.parametrize("write", [write_atomic, write_json])
def test_the_written_path_is_given_back(tmp_path: Path, write: Callable[[Path, str], Path]) -> None:
    assert write(tmp_path / "x", "y") == tmp_path / "x"


def test_a_file_in_place_of_a_folder_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("mine")
    path = tmp_path / "runs" / "deep" / "a"
    for write in (lambda: write_atomic(path, b""), lambda: exclusive_lock(path, "the run").__enter__()):
        with pytest.raises(EnsembleError, match="runs is a file, expected a folder") as error:
            write()
        assert str(error.value.hint).startswith("move it away: mv ")


def test_a_folder_in_place_of_a_file_is_named_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path, Path(), tmp_path / "made"):
        path.mkdir(exist_ok=True)
        with pytest.raises(EnsembleError, match="it is a folder"):
            write_atomic(path, b"")
        with pytest.raises(EnsembleError, match="cannot write"), exclusive_lock(path, "the run"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_write_error_hidden_by_a_library_is_reported(tmp_path: Path) -> None:
    import torch

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(EnsembleError, match=r"cannot write .*weights.pt: file too large"):
            write_atomic(tmp_path / "weights.pt", lambda file: torch.save(torch.zeros(1_000_000), file))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert list(tmp_path.iterdir()) == []


def test_remove_deletes_content_and_accepts_missing_paths(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/b/file").write_text("x")
    (tmp_path / "a/.hidden").write_text("x")
    for name in ("a", "a", "nothing", "no/where"):
        remove(tmp_path / name)
    (tmp_path / "file").write_text("x")
    remove(tmp_path / "file")
    assert names(tmp_path) == []


def test_links_are_removed_not_followed_unless_the_path_is_one(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("x")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/link").symlink_to(tmp_path / "precious")
    (tmp_path / "run/dangling").symlink_to(tmp_path / "gone")
    remove(tmp_path / "run")
    assert names(tmp_path) == ["precious"]
    assert names(tmp_path / "precious") == ["file"]
    # On a larger disk, say: what is written next goes there too.
    (tmp_path / "run").symlink_to(tmp_path / "precious")
    remove(tmp_path / "run")
    assert names(tmp_path) == ["precious", "run"]
    assert names(tmp_path / "precious") == []


def test_a_failed_removal_names_the_file_and_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/b").mkdir(parents=True)

    def refused(self: Path) -> None:
        raise OSError(errno.EBUSY, "busy", str(self))

    monkeypatch.setattr(Path, "rmdir", refused)
    with pytest.raises(EnsembleError, match=r"cannot remove .*/a/b: (device or )?resource busy") as error:
        remove(tmp_path / "a")
    assert error.value.hint == f"ls -ld {tmp_path}/a shows who may remove it; then run the same command again"


def test_leftovers_of_dead_processes_are_removed(tmp_path, monkeypatch):
    import os

    from folds.utils import files

    monkeypatch.setattr(files, "_is_alive", lambda process: process == 77)
    names = [".a.npy.66-0123abcd.tmp", ".b.npy.77-0123abcd.tmp", ".new.66-0123abcd.tmp", "notes.tmp", ".c.tmp"]
    for name in names:
        (tmp_path / name).write_bytes(b"part")
        os.utime(tmp_path / name, (1, 1))
    os.utime(tmp_path / names[2])  # written a moment ago, perhaps by another machine
    files.write_atomic(tmp_path / "other.json", "{}")
    assert {path.name for path in tmp_path.iterdir()} == {*names[1:], "other.json"}


@pytest.mark.parametrize(
    ("text", "bytes_each"),
    [("é", 1), ("漢", 2), ("\U0001f600", 4), ("\\u6f22", 2), ("\\ud83d\\ude00", 4)],
)
def test_a_json_text_of_wide_characters_counts_as_large_as_it_becomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, bytes_each: int
) -> None:
    path = tmp_path / "x.json"
    path.write_text(f'["{text + 1000 * "a"}"]', encoding="utf-8")
    read = read_json(path)[0]
    wide = sys.getsizeof(read) - sys.getsizeof(read[:0])
    assert wide >= 1000 * bytes_each
    monkeypatch.setattr("folds.utils.files.MAX_JSON", 1100 * bytes_each)
    assert read_json(path) == [read]
    monkeypatch.setattr("folds.utils.files.MAX_JSON", 1000 * bytes_each)
    with pytest.raises(EnsembleError, match="bytes" if bytes_each == 1 else f"characters that need {bytes_each} bytes"):
        read_json(path)


@pytest.mark.parametrize("limit", ["MAX_JSON", "MAX_BRACKETS", "MAX_COMMAS"])
def test_json_larger_than_its_parsing_may_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([[i] for i in range(50)]))
    assert len(read_json(path)) == 50
    monkeypatch.setattr(f"folds.utils.files.{limit}", 40)
    with pytest.raises(EnsembleError, match=r"more than 40|too many"):
        read_json(path)
