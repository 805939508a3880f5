"""A model from a stranger is refused with one clear line, whatever was done to it, and never runs code."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ensemble as en
from ensemble.model_files import container, expected, weights
from ensemble.model_files.reading import read_model
from ensemble.prediction import arrays
from ensemble.tta.merge import MAX_VIEWS
from folds.errors import EnsembleError
from folds.utils.files import sha256_bytes
from tests.conftest import Called, made_once


@pytest.fixture(scope="session")
def _exported(tmp_path_factory: pytest.TempPathFactory, _grid: tuple[Path, Called]) -> Path:
    def make(folder: Path) -> None:
        en.export("test_resnet", folder / "model", root=_grid[0])
        en.export("test_resnet", folder / "model.zip", root=_grid[0])

    return made_once(tmp_path_factory, "exported", make)


@pytest.fixture
def model(_exported: Path, tmp_path: Path) -> Path:
    """A copy of an exported model."""
    shutil.copytree(_exported / "model", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def archive(_exported: Path, tmp_path: Path) -> Path:
    shutil.copyfile(_exported / "model.zip", tmp_path / "model.zip")
    return tmp_path / "model.zip"


def signed(text: str) -> str:
    """The text of a record with the hash that belongs to it: an attacker can compute hashes."""
    body = text.split("\n[integrity]\n")[0]
    return f'{body}\n[integrity]\nsha256 = "{sha256_bytes(body.encode())}"\n'


def change(model: Path, old: str, new: str) -> None:
    """Replace a part of the record, matched as a regular expression, and sign it again."""
    file = model / "model.toml"
    text, count = re.subn(old, lambda found: new, file.read_text(), count=1, flags=re.MULTILINE)
    assert count == 1, old
    file.write_text(signed(text))


def put(model: Path, name: str, content: bytes) -> None:
    """Replace a part, with its size and hash in the record."""
    (model / name).write_bytes(content)
    entry = f'"{name}" = {{"bytes" = {len(content)}, "sha256" = "{sha256_bytes(content)}"}}'
    change(model, rf'^"{re.escape(name)}" = .*$', entry)


def a_weight(model: Path) -> str:
    return f"weights/{sorted((model / 'weights').iterdir())[0].name}"


def refused(path: Path, expected: str) -> None:
    with pytest.raises(EnsembleError, match=expected) as caught:
        en.load(path)
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["model.toml", "README.md", "expected.npz", "weights"])
def test_a_changed_byte_anywhere_is_found(model: Path, name: str) -> None:
    file = model / (name if name != "weights" else a_weight(model))
    content = file.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(content), 8).tolist():
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(EnsembleError):
            read_model(model)
    file.write_bytes(content)
    assert read_model(model).record.classes


@pytest.mark.parametrize("cut", [0, 5, -1])
@pytest.mark.parametrize("name", ["model.toml", "README.md", "expected.npz", "weights"])
def test_a_truncated_part_is_refused(model: Path, name: str, cut: int) -> None:
    file = model / (name if name != "weights" else a_weight(model))
    file.write_bytes(file.read_bytes()[:cut])
    refused(model, "was not loaded|was changed|is missing|no model.toml")


def test_missing_and_additional_weights_are_refused(model: Path) -> None:
    name = a_weight(model)
    content = (model / name).read_bytes()
    (model / "weights/extra.safetensors").write_bytes(content)
    refused(model, r"weights/extra\.safetensors does not belong to it")
    (model / "weights/extra.safetensors").unlink()
    (model / name).unlink()
    refused(model, f"{re.escape(name)} is missing")


@pytest.mark.parametrize("name", ["run.py", "weights/x.pt", "weights/x.pkl", "weights/sub/x.safetensors"])
def test_files_that_are_no_parts_are_refused(model: Path, name: str) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"x")
    refused(model, "is not a part of a model|is not a regular file")


@pytest.mark.parametrize("name", ["model.toml", "expected.npz", "weights", "a weight"])
def test_links_are_refused(model: Path, name: str, tmp_path: Path) -> None:
    file = model / (a_weight(model) if name == "a weight" else name)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    refused(model, "is a link")


def test_a_pipe_is_not_waited_for(model: Path) -> None:
    (model / "README.md").unlink()
    os.mkfifo(model / "README.md")
    refused(model, "is not a regular file")


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "weights/../../x.safetensors", "weights/a/b", "C:\\x"]
)
def test_names_that_escape_are_refused(model: Path, name: str) -> None:
    own = a_weight(model)
    text = (model / "model.toml").read_text().replace(own, json.dumps(name)[1:-1])
    (model / "model.toml").write_text(signed(text))
    refused(model, r"expected weights/NAME\.safetensors|is not the name of a part")


class Shell:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {os.environ['MARK']}",)


def test_a_renamed_pickle_is_never_loaded(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    evil = pickle.dumps(Shell())
    put(model, a_weight(model), evil)
    refused(model, "is not a safetensors file")
    array = io.BytesIO()
    with zipfile.ZipFile(array, "w") as archive:
        for name in ("images", "probabilities", "members"):
            head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + evil)
    put(model, "expected.npz", array.getvalue())
    with pytest.raises(EnsembleError):
        read_model(model)
    assert not (tmp_path / "mark").exists()


def header(entries: object, length: int | None = None, data: bytes = b"") -> bytes:
    text = json.dumps(entries).encode() if not isinstance(entries, bytes) else entries
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (header({}, 2**63), "is not a safetensors file"),
        (header(b"{" + b" " * weights._MAX_HEADER + b"}"), "at most"),
        (header(b"{" * 200_000), "more than 100,000 tensors"),
        (header(b'{"a": 1, "a": 2}'), "a name is repeated"),
        (header({"a": {**ONE, "shape": [2**50]}}, data=b"1234"), "does not fit"),
        (header({"a": {**ONE, "shape": [10**9]}}, data=b"1234"), "does not fit"),
        (header({"a": {**ONE, "data_offsets": [0, 2**40]}}, data=b"1234"), "does not fit"),
        (header({"a": {**ONE, "data_offsets": [4, 0]}}, data=b"1234"), "does not fit"),
        (header({"a": {**ONE, "shape": [-1]}}, data=b"1234"), "does not fit"),
        (header({"a": {**ONE, "dtype": "O"}}, data=b"1234"), "does not fit"),
        (header({"a": ONE, "b": ONE}, data=b"1234"), "does not fit"),
        (header({"a": ONE}, data=b"12345678"), "belong to no tensor"),
        (header({"a": [1]}), "does not fit"),
        (header(b'{"a":' + b"[" * 100_000), "header is damaged"),
    ],
)
def test_headers_of_weights_are_bounded(model: Path, content: bytes, expected: str) -> None:
    put(model, a_weight(model), content)
    refused(model, expected)


def test_weights_of_another_head_are_refused(model: Path) -> None:
    text = (model / "model.toml").read_text()
    classes = text.split("\nclasses = ")[1].split("\n")[0]
    fewer = "[" + ", ".join(classes.strip("[]").split(", ")[:5]) + "]"
    (model / "model.toml").write_text(signed(text.replace(classes, fewer)))
    with pytest.raises(EnsembleError):
        en.load(model)
    en_weights = weights.unpack_weights((model / a_weight(model)).read_bytes())
    last = [name for name, value in en_weights.items() if value.ndim == 2][-1]  # of the head
    en_weights[last] = en_weights[last][:5].contiguous()
    (model / "model.toml").write_text(text)
    put(model, a_weight(model), weights.pack_weights(en_weights))
    refused(model, r"weights are 1 of another shape .*with 18 classes")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("test_resnet", "hf-hub:evil/model", "timm has no model"),
        ("test_resnet", "/srv/evil", "timm has no model"),
        ("test_resnet", "local-dir:evil", "timm has no model"),
        ('"arguments" = {}', '"arguments" = {"pretrained" = true}', "is not an argument that shapes"),
        ('"arguments" = {}', '"arguments" = {"checkpoint_path" = "x.pt"}', "is not an argument that shapes"),
        ('"arguments" = {}', '"arguments" = {"a" = {"b" = 1}}', "expected a number, text"),
        ('"arguments" = {}', '"arguments" = {"channels" = [100000, 100000, 100000, 100000]}', "too large|is damaged"),
        ('"height" = 32', '"height" = 999999', "expected a whole number from 1 to 4096"),
        ('"mean" = \\[', '"mean" = ["x", ', "'mean' is"),
    ],
)
def test_architectures_outside_of_timm_are_refused(model: Path, old: str, new: str, expected: str) -> None:
    text = (model / "model.toml").read_text()
    line = next(one for one in text.splitlines() if one.startswith("architecture = "))
    old = f'"timm_name" = "{old}"' if "test" in old else old
    new = f'"timm_name" = "{new}"' if "timm_name" in old else new
    changed = re.sub(old, lambda found: new, line, count=1)
    assert changed != line
    (model / "model.toml").write_text(signed(text.replace(line, changed)))
    refused(model, expected)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("^schema = 1$", "schema = 2", r"exported by a newer version \(.*ensemble .*schema 2; known: 1\)"),
        ("^schema = 1$", "schema = 2\nfuture = 3", "exported by a newer version"),
        ("^schema = 1$", "schema = -1", "has schema -1"),
        ("^target = ", "future = 1\ntarget = ", "'future', which this version does not know"),
        (r"^\[trained\]$", "[trained]\nsecret = 1", "'secret' is not known"),
        ("^pool = .*$", 'pool = "pickle"', "'pool' is 'pickle', expected"),
        ("^models = .*$", "models = [0, 1, 7]", "names a \\[\\[model\\]\\] that does not exist"),
        ("^models = .*$", "models = [0, 0]", "two models of one fold"),
        ("^tolerance = .*$", 'tolerance = {"cpu" = nan, "gpu" = 1.0, "fp16" = 1.0, "bf16" = 1.0}', "'tolerance'"),
        ("^tolerance = .*$", 'tolerance = {"cpu" = 1.0}', "'tolerance'"),
        ("^schema = 1$", "schema = 1\nx = " + "[" * 60 + "]" * 60, "cannot be read"),
        ("^schema = 1$", "schema = 1\n" + "a." * 60 + "b = 1", "a key has more than"),
        ("^schema = 1$", "schema = 1\nbroken", "cannot be read"),
        ("^name = .*$", 'name = "a\\u001b[2J"', "'name' is"),
        (
            "^schema = 1$",
            'schema = 1\nunit = "person"',
            r"'unit' is 'person', and \[combination\] answers for each image",
        ),
        ("^schema = 1$", 'schema = 1\nextra_columns = ["age"]', r"'extra_columns' are not the columns of \[comb"),
        (
            "^pool = .*$",
            'pool = "soft"\npooling = {"rule" = "log-odds", "runs" = ["b"], "damping" = [0.5], "prior" = [['
            + ", ".join(["0.0555555556"] * 18)
            + "]]}",
            r"'unit' is None, and \[combination\] answers for each person",
        ),
        ("^pool = .*$", 'pool = "soft"\npooling = {"rule" = "pickle"}', "pooling: 'rule' is 'pickle'"),
    ],
)
def test_records_are_bounded_and_versioned(model: Path, old: str, new: str, expected: str) -> None:
    change(model, old, new)
    refused(model, expected)


def test_a_record_that_is_too_long_is_not_parsed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model / "model.toml").write_text("#" * 2_000)
    monkeypatch.setattr("ensemble.model_files.reading.MAX_BYTES", 1_000)
    refused(model, r"model\.toml has more than 1,000 bytes")


def test_other_probabilities_are_refused(model: Path) -> None:
    stored = read_model(model).expected
    for name in ("members", "probabilities"):
        values = {key: getattr(stored, key).copy() for key in ("images", "members", "probabilities")}
        values[name][0, :2] += np.array([0.01, -0.01], np.float32)
        put(model, "expected.npz", expected.pack_expected(expected.Expected(**values)))
        refused(model, "fold models give probabilities" if name == "members" else "the combination of its fold models")
        loaded = en.load(model, verify=False)
        assert loaded.difference is None


def npz(entries: dict[str, bytes], **options: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:  # type: ignore[arg-type]
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def npy(text: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data


HUGE = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 99999, 99999, 3)}")
NESTED = npy("(" * 5_000)
ARRAYS = ("images.npy", "probabilities.npy", "members.npy")


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "is not a zip archive"),
        (npz(dict.fromkeys(ARRAYS, HUGE)), "another type or size"),
        (npz(dict.fromkeys(ARRAYS, NESTED)), "header of an array is damaged"),
        (npz(dict.fromkeys(ARRAYS, b"")), "something else than arrays"),
        (npz(dict.fromkeys(ARRAYS, bytes(10**6)), compression=zipfile.ZIP_DEFLATED), "is compressed"),
        (npz({"images.npy": b""}), "is missing"),
        (npz({**dict.fromkeys(ARRAYS, HUGE), "more.npy": b""}), "at most 3 are read"),
        (npz({"images.npy": b"", "../evil.npy": b""}), "not a part of a model"),
    ],
)
def test_expected_arrays_are_bounded(model: Path, content: bytes, wanted: str) -> None:
    put(model, "expected.npz", content)
    refused(model, wanted)


def expected_npz(images: np.ndarray, members: int) -> bytes:
    n, even = len(images), np.float32(1 / 18)
    answers = (np.full((n, 18), even), np.full((n, 18 * members), even))
    return expected.pack_expected(expected.Expected(images, *answers))


def test_many_tiny_expected_images_are_refused(model: Path) -> None:
    count = expected.MAX_IMAGES + 1
    put(model, "expected.npz", expected_npz(np.zeros((count, 1, 1, 3), np.uint8), 3))
    refused(model, "it has 33 images, at most 32 are read")
    change(model, r"^images = \d+\nseed", f"images = {count}\nseed")
    refused(model, "'images' is 33, expected a whole number from 1 to 32")


def test_expected_images_are_decoded_a_few_at_a_time(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    outputs = arrays.LoadedModels.outputs

    def counted(self: arrays.LoadedModels, pixels: arrays.Pixels) -> dict[str, np.ndarray]:
        sizes.extend(map(len, pixels.values()))
        return outputs(self, pixels)

    monkeypatch.setattr(arrays.LoadedModels, "outputs", counted)
    monkeypatch.setattr(arrays, "_AT_ONCE", 2 * 3 * 32 * 32)
    whole = read_model(model).expected
    assert en.load(model).difference <= 1e-4  # type: ignore[operator]
    assert sum(sizes) == len(whole) == 3
    assert max(sizes) == 2
    monkeypatch.setattr(arrays, "_ONE_IMAGE", 3 * 32 * 32 - 1)
    refused(model, "one image has 3,072 bytes in the 1 image sizes of its models, at most 3,071")


def test_a_model_that_runs_out_of_memory_is_one_error(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise RuntimeError("not enough memory: you tried to allocate 51539607552 bytes")

    monkeypatch.setattr(arrays.LoadedModels, "outputs", full)
    refused(model, "it cannot predict its expected images: not enough memory")


@pytest.mark.parametrize(
    ("views", "wanted"),
    [
        (["*".join(["scale:2"] * 2)], r"scales of scale:2\*scale:2 multiply to 4, expected 0.25 to 2"),
        (["scale:0.5*scale:0.5*scale:0.5*scale:2"], "multiply to 0.125"),
        (["*".join(["hflip"] * 9)], "has 9 factors, expected 8 or fewer"),
        (["*".join(["scale:2"] * 100_000)], "has 100,000 factors"),
        ([f"add:0.{i:04d}1" for i in range(MAX_VIEWS + 1)], "has 257 views, at most 256 are read"),
    ],
)
def test_views_are_bounded(model: Path, views: list[str], wanted: str) -> None:
    weights_of = ", ".join(f'"{view}" = 1.0' for view in views)
    change(model, "^merge = .*$", f'merge = {{"how" = "mean", "weights" = {{{weights_of}}}}}')
    refused(model, wanted)


def test_passes_of_all_runs_together_are_bounded(model: Path) -> None:
    """Runs that repeat the same models cost nothing in the file, and time for every image."""
    text = (model / "model.toml").read_text()
    start, end = text.index("[[run]]"), text.index("[[model]]")
    run = text[start:end]
    assert "models = [0, 1, 2]" in run
    copies = "".join(run.replace('name = "test_resnet"', f'name = "copy{i}"') for i in range(1366))
    (model / "model.toml").write_text(signed(text[:end] + copies + text[end:]))
    refused(model, r"need 4,101 forward passes per image \(models × views\), at most 4,096")


def zip64(size: int, between: bytes = b"", moved: int = 0) -> bytes:
    """The end of an archive with a second record, `between` the record and its locator, and the place it states."""
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 0, 0, size, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, moved, 1)
    return record + between + locator + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 0)


def test_a_second_end_is_read_only_where_zipfile_reads_it(archive: Path) -> None:
    archive.write_bytes(zip64(5 << 20))
    refused(archive, "table of contents has 5,242,880 bytes")
    # The locator names a small record; `zipfile` reads the large one before the locator.
    small = zip64(0)[:56]
    archive.write_bytes(small + zip64(5 << 20, moved=0))
    refused(archive, "is not a zip archive")
    archive.write_bytes(zip64(5 << 20, between=small))
    refused(archive, "is not a zip archive")
    # A comment as long as possible moves the record out of the last 64 KiB.
    end = zip64(5 << 20)
    archive.write_bytes(end[:-2] + struct.pack("<H", 65_535) + bytes(65_535))
    refused(archive, "table of contents has 5,242,880 bytes")


def rewritten(archive: Path, change: Callable[[zipfile.ZipFile, dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile(archive) as before:
        parts = {name: before.read(name) for name in before.namelist()}
    with zipfile.ZipFile(archive, "w") as after:
        change(after, parts)


def test_archives_with_other_entries_are_refused(archive: Path) -> None:
    assert read_model(archive).record.classes
    content = archive.read_bytes()

    def with_entry(name: str, mode: int = 0, compress: int = zipfile.ZIP_STORED) -> Callable[..., None]:
        def write(after: zipfile.ZipFile, parts: dict[str, bytes]) -> None:
            for own, data in parts.items():
                if own != name:
                    after.writestr(own, data)
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = compress
            after.writestr(entry, parts.get(name, b"x" * 1_000))

        return write

    cases = [
        (with_entry("../evil.safetensors"), "is not a part of a model"),
        (with_entry("/etc/x"), "is not a part of a model"),
        (with_entry("weights/../../x.safetensors"), "is not a part of a model"),
        (with_entry("README.md", mode=0o120777), "is a link"),
        (with_entry("README.md", compress=zipfile.ZIP_DEFLATED), "is compressed"),
        (with_entry("weights/more.safetensors"), "does not belong to it"),
    ]
    for write, expected_error in cases:
        archive.write_bytes(content)
        rewritten(archive, write)
        refused(archive, expected_error)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_with_two_files_of_one_name_is_refused(archive: Path) -> None:
    def twice(after: zipfile.ZipFile, parts: dict[str, bytes]) -> None:
        for name, data in [*parts.items(), *parts.items()]:
            after.writestr(name, data)

    rewritten(archive, twice)
    refused(archive, "two files named")


def test_damaged_archives_are_one_clear_error(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = archive.read_bytes()
    for damaged in (b"", b"PK", content[:-30], content[:1000], b"x" * 1000):
        archive.write_bytes(damaged)
        refused(archive, "was not loaded")
    archive.write_bytes(content)
    monkeypatch.setattr(container, "_MAX_DIRECTORY", 10)
    refused(archive, "its table of contents has")


def test_overlapping_entries_of_an_archive_are_refused(archive: Path) -> None:
    """A thousand entries may share the same bytes: each is then as large as promised, and together they are a bomb."""

    def overlapping(after: zipfile.ZipFile, parts: dict[str, bytes]) -> None:
        for name, data in parts.items():
            after.writestr(name, data)
        first = max(after.infolist(), key=lambda one: one.file_size)
        for i in range(20):
            entry = zipfile.ZipInfo(f"weights/copy{i}.safetensors")
            for field in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(entry, field, getattr(first, field))
            after.filelist.append(entry)
            after.NameToInfo[entry.filename] = entry

    rewritten(archive, overlapping)
    refused(archive, "its files overlap")


def test_a_model_can_be_read_without_anything_around_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "else").mkdir()
    shutil.move(model, tmp_path / "else" / "where")
    monkeypatch.chdir("/")
    loaded = en.load(tmp_path / "else/where")
    assert loaded.difference is not None
    assert loaded.difference <= 1e-5
