"""Files of torch from strangers are bounded in size, depth and kind before they are built."""

import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from folds.models.archive import load_archive, unusual


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def repack(record: bytes, compression=zipfile.ZIP_STORED) -> Path:
    """Write an archive as torch writes it, with another pickle."""
    torch.save({"w": torch.zeros(4)}, "plain.pt")
    with zipfile.ZipFile("plain.pt") as old, zipfile.ZipFile("made.pt", "w", compression) as new:
        for part in old.infolist():
            new.writestr(part.filename, record if part.filename.endswith("data.pkl") else old.read(part.filename))
    return Path("made.pt")


def tuple_bomb(levels: int, key: bool) -> bytes:
    """Return a pickle of a tuple that holds the tuple before it twice, as a value or as a key of a mapping."""
    opened = b"\x80\x02}" + (b"" if key else b"X\x01\x00\x00\x00a") + b"K\x01\x85q\x00"
    nested = b"".join(b"h" + struct.pack("B", i) + b"\x86q" + struct.pack("B", i + 1) for i in range(levels))
    return opened + nested + (b"K\x01" if key else b"") + b"s."


def test_what_torch_writes_is_read(tmp_path):
    torch.save({"w": torch.arange(3.0), "names": ("a", ["b"]), "kinds": {1, 2}}, "file.pt")
    found = load_archive(Path("file.pt"))
    assert found["w"].tolist() == [0, 1, 2]
    assert found["names"] == ("a", ["b"])


@pytest.mark.parametrize("key", [True, False])
def test_nested_repetition_of_tuples_is_refused(key):
    with pytest.raises(ValueError, match="tuples of nested repetitions"):
        load_archive(repack(tuple_bomb(40, key)))


def test_nested_repetition_of_lists_is_refused():
    value = ["laugh"]
    for _ in range(18):
        value = [value] * 10
    torch.save({"recipe": value}, "laughs.pt")
    with pytest.raises(ValueError, match="holds more than"):
        load_archive(Path("laughs.pt"))


def test_a_list_that_contains_itself_is_refused():
    value: list = []
    value.append(value)
    torch.save({"run": value}, "endless.pt")
    with pytest.raises(ValueError, match="nested more than"):
        load_archive(Path("endless.pt"))


def test_compressed_parts_are_refused():
    with pytest.raises(ValueError, match="compressed parts"):
        load_archive(repack(pickle.dumps({"a": "x" * 10**6}, protocol=2), zipfile.ZIP_DEFLATED))


def test_a_name_that_allocates_memory_is_refused():
    with pytest.raises(ValueError, match=r"unsupported GLOBAL"):
        load_archive(repack(b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."), plain=False)


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.zeros(2, device="meta"), "meta"),
        (torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8), "quantized"),
        (torch.zeros(2, dtype=torch.complex64), "complex"),
    ],
)
def test_tensors_that_are_no_weights_are_named(tensor, kind):
    assert kind in unusual(tensor)
    torch.save({"w": tensor}, "odd.pt")
    with pytest.raises(ValueError, match=r"unsupported GLOBAL|expected ordinary tensors"):
        load_archive(Path("odd.pt"))


def test_a_damaged_file_is_one_kind_of_error():
    for content in (b"", b"\x80\x02h\x05.", b"PK\x03\x04 no archive", b"\x80\x02((((t."):
        Path("damaged.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"is damaged|not an archive"):
            load_archive(Path("damaged.pt"))


def test_a_file_that_was_refused_is_refused_again():
    import argparse

    torch.save({"args": argparse.Namespace(lr=1.0)}, "args.pt")
    assert load_archive(Path("args.pt"), plain=False)["args"].lr == 1.0
    for _ in range(2):
        with pytest.raises(ValueError, match="unsupported GLOBAL"):
            load_archive(Path("args.pt"))
