from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from folds.data.table import DataSpec
from folds.errors import EnsembleError
from folds.models.checkpoint import (
    FORMAT,
    Checkpoint,
    _file_key,
    available_checkpoints,
    hash_ids,
    load_checkpoint,
    save_checkpoint,
)
from folds.models.checkpoint_fields import _DATA
from folds.models.checkpoint_fields import CHECKPOINT_FIELDS as _FIELDS
from folds.models.factory import create_model
from folds.models.model_names import resolve

OLD = {"training_ids", "validation_ids", "validation_labels"}  # fields that this version does not write


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    architecture = resolve("test_vit", (32, 48), arguments={"depth": 2})
    return Checkpoint(
        run="vit-a",
        fold=1,
        k=3,
        architecture=architecture,
        weights=create_model(architecture, 3).state_dict(),
        classes=("0", "1", "10"),
        class_attributes={"0": {"mask": "worn"}},
        target="label",
        images={"height": 32, "width": 48, "fit": "squash", "window": None},
        data={"data": None, "path": "path", "label": "label", "person": "Persön", "test": None},
        recipe={"epochs": 2, "lr": None, "ema": 0.0},
        amp="off",
        training_hashes=hash_ids(["a", "b,c", "张"]),
        validation_hashes=hash_ids(["d"]),
        pseudo_hashes=hash_ids(["e"]),
        folds_sha="f" * 64,
        versions={"torch": torch.__version__.split("+")[0]},
    )


def test_a_checkpoint_is_read_as_it_was_written(checkpoint: Checkpoint) -> None:
    sha = save_checkpoint(Path("checkpoints/run/fold1.pt"), checkpoint)
    content = Path("checkpoints/run/fold1.pt").read_bytes()
    assert sha == hashlib.sha256(content).hexdigest()
    read = load_checkpoint(Path("checkpoints/run/fold1.pt"))
    assert set(read.weights) == set(checkpoint.weights)
    for name, value in checkpoint.weights.items():
        assert torch.equal(read.weights[name], value), name
    assert replace(read, weights={}) == replace(checkpoint, weights={}, run="run")  # named by its folder
    # The same kinds of value, too: what was a tuple is one again.
    assert repr(replace(read, weights={})) == repr(replace(checkpoint, weights={}, run="run"))


def test_built_model_gives_the_same_outputs_in_evaluation_mode(checkpoint: Checkpoint) -> None:
    save_checkpoint(Path("a.pt"), checkpoint)
    model = create_model(checkpoint.architecture, 3)
    model.load_state_dict(dict(checkpoint.weights))
    batch = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    again = load_checkpoint(Path("a.pt")).build()
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(batch), model.eval()(batch))


def test_the_bytes_depend_on_the_content_and_not_on_the_name(checkpoint: Checkpoint) -> None:
    first = save_checkpoint(Path("a.pt"), checkpoint)
    assert save_checkpoint(Path("elsewhere/a much longer name.pt"), checkpoint) == first
    assert Path("elsewhere/a much longer name.pt").read_bytes() == Path("a.pt").read_bytes()
    assert save_checkpoint(Path("a.pt"), replace(checkpoint, fold=2)) != first


def refused(path: str, *parts: str) -> EnsembleError:
    with pytest.raises(EnsembleError) as error:
        load_checkpoint(Path(path))
    assert type(error.value) is EnsembleError
    for part in (path, *parts):
        assert part in error.value.message
    return error.value


def test_a_missing_checkpoint_lists_those_there_are(checkpoint: Checkpoint) -> None:
    for name in ("swin/fold1.pt", "swin/fold0.pt", "resnet18/fold0.pt"):
        save_checkpoint(Path("checkpoints") / name, checkpoint)
    error = refused("ckpt.pt", "there is no checkpoint ckpt.pt")
    assert (
        error.hint
        == "existing checkpoints: checkpoints/resnet18/fold0.pt, checkpoints/swin/fold0.pt, checkpoints/swin/fold1.pt"
    )


def test_hint_without_checkpoints_names_the_training_command() -> None:
    assert "ensemble kfold" in str(refused("ckpt.pt").hint)
    Path("folder.pt").mkdir()
    refused("folder.pt", "there is no checkpoint")


def test_hint_lists_ten_checkpoints_and_counts_the_rest() -> None:
    for i in range(13):
        path = Path(f"checkpoints/run{i:02d}/fold0.pt")
        path.parent.mkdir(parents=True)
        path.touch()
    hint = available_checkpoints()
    assert hint.endswith(" and 3 more")
    assert "run09" in hint
    assert "run10" not in hint


class Payload:
    """Unpickled, it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("form", ["new", "legacy", "pickle"])
def test_a_file_that_holds_code_is_refused_and_not_run(form: str) -> None:
    trace = Path("was-run").absolute()
    content = {"format": FORMAT, "run": Payload(trace)}
    if form == "pickle":
        Path("evil.pt").write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, "evil.pt", _use_new_zipfile_serialization=form == "new")
    refused("evil.pt", "holds more than plain values and was not loaded, because it could run code")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists(), "the payload does nothing: this test could not fail"


def test_a_whole_pickled_model_is_refused() -> None:
    torch.save(create_model(resolve("test_resnet"), 2), "model.pt")
    refused("model.pt", "could run code")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello world", b"\x89PNG\r\n\x1a\n", b"id,label\n1,2\n", b"PK\x03\x04 no archive", b"\xff\xd8\xff\xe0"],
)
def test_a_file_that_is_something_else_is_not_said_to_hold_code(content: bytes) -> None:
    Path("other.pt").write_bytes(content)
    error = refused("other.pt", "is not a checkpoint")
    assert "ensemble kfold" in str(error.hint)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_an_error_that_names_it(checkpoint: Checkpoint, share: float) -> None:
    save_checkpoint(Path("cut.pt"), checkpoint)
    content = Path("cut.pt").read_bytes()
    Path("cut.pt").write_bytes(content[: int(len(content) * share)])
    refused("cut.pt", "is not a checkpoint")


@pytest.mark.parametrize(
    "record", [{"weight": torch.zeros(1)}, [1], {"format": "ensemble checkpoint 0"}, torch.zeros(1)]
)
def test_error_for_other_weights_names_init_weights(record: Any) -> None:
    torch.save(record, "other.pt")
    error = refused("other.pt", "is not a checkpoint of this program")
    assert "--init-weights FILE" in str(error.hint)


def spoiled(checkpoint: Checkpoint, change: Callable[[dict[str, Any]], object]) -> str:
    save_checkpoint(Path("a.pt"), checkpoint)
    record = torch.load("a.pt", weights_only=True)
    change(record)
    torch.save(record, "a.pt")
    return "a.pt"


def test_every_field_of_a_checkpoint_has_its_kind() -> None:
    assert set(_FIELDS) - OLD == set(map(_file_key, Checkpoint.__dataclass_fields__))


def test_fields_that_are_not_recorded_have_their_defaults(checkpoint: Checkpoint) -> None:
    read = load_checkpoint(
        Path(spoiled(checkpoint, lambda record: record.update(heads=None, optimistic=None, labels_sha=None)))
    )
    assert (read.heads, read.selected_on_validation, read.labels_sha) == ((), False, None)


@pytest.mark.parametrize(
    "run", ["/evil/x", "../../../evil/x", "a/b", "", ".", "..", ".hidden", "a\n", "a b", 5, None, ["a"], b"a"]
)
def test_a_run_that_is_no_name_of_a_file_is_refused(checkpoint: Checkpoint, run: Any) -> None:
    refused(spoiled(checkpoint, lambda record: record.update(run=run)), "is a damaged checkpoint: 'run' is")


@pytest.mark.parametrize("fold", ["../../../evil/y", "0", -1, True, 1.0, 10**30, None, [0]])
def test_a_fold_that_is_no_number_is_refused(checkpoint: Checkpoint, fold: Any) -> None:
    refused(spoiled(checkpoint, lambda record: record.update(fold=fold)), "is a damaged checkpoint: 'fold' is")


LATER = ("labels_sha", "heads", "optimistic", "pseudo_hashes")  # fields that an earlier version did not record
RIGHT = {
    ("run", 2),
    ("target", 2),
    ("folds_sha", 2),
    ("labels_sha", 2),
    ("fold", 0),
    ("k", 0),
    ("recipe", 4),
}  # of the kind the field has
RIGHT |= {("heads", 1), ("optimistic", 1), ("refit", 1)}  # not recorded


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (field, value)
        for field in map(_file_key, Checkpoint.__dataclass_fields__)
        for i, value in enumerate([5, None, "x" * 9, ["a", 5], {"a": {5}}, (5,), 2.5])
        if (field, i) not in RIGHT and (field not in LATER or value is not None)
    ],
)
def test_a_field_of_another_kind_is_one_error_that_names_it(checkpoint: Checkpoint, field: str, value: Any) -> None:
    error = refused(spoiled(checkpoint, lambda record: record.update({field: value})), "is a damaged checkpoint", field)
    assert "\n" not in error.message


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("classes", {"classes": ()}),
        ("classes", {"classes": ("a", "a", "b")}),
        ("validation_ids", {"validation_hashes": None, "validation_ids": ()}),
        ("validation_ids", {"validation_hashes": ""}),
        ("training_hashes", {"training_hashes": "0123456789abcdeg"}),
        ("validation_labels", {"validation_ids": ("a",), "validation_labels": ("0", "1")}),
        ("amp", {"amp": "int4"}),
        ("height", {"images": {"height": "32", "width": 48, "fit": "squash"}}),
        ("resize", {"images": {"height": 32, "width": 48, "fit": "stretch"}}),
        ("window", {"images": {"height": 32, "width": 48, "fit": "squash", "window": (9, 1)}}),
        ("colour", {"images": {"height": 32, "width": 48, "fit": "squash", "colour": 1}}),
        ("'data' is 5, expected names with values", {"data": 5}),
        ("data", {"data": {"path": "a"}}),
        ("'test' is 5", {"data": {"data": "a", "path": "a", "label": "b", "person": "c", "test": 5}}),
        ("seed", {"recipe": {"seed": "x"}}),
    ],
)
def test_parts_that_cannot_be_used_are_refused_by_name(
    checkpoint: Checkpoint, part: str, change: dict[str, Any]
) -> None:
    refused(spoiled(checkpoint, lambda record: record.update(change)), "is a damaged checkpoint", part)


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("timm has no model 'hf-hub:evil/model'", {"timm_name": "hf-hub:evil/model"}),
        ("timm has no model 'local-dir:there'", {"timm_name": "local-dir:there"}),
        ("timm has no model", {"timm_name": "resnet18.:/x"}),
        ("'checkpoint_path' is not an argument", {"arguments": {"checkpoint_path": "there/x.pkl"}}),
        ("'pretrained' is not an argument", {"arguments": {"pretrained": True}}),
        ("'pretrained_cfg' is not an argument", {"arguments": {"pretrained_cfg": {"file": "x"}}}),
        ("'cache_dir' is not an argument", {"arguments": {"cache_dir": "there"}}),
        ("expected a number, text", {"arguments": {"block_args": {"file": "x"}}}),
        ("'mean' is ('x',)", {"mean": ("x",)}),
        ("'std' is (0, 1, 1)", {"std": (0, 1, 1)}),
        ("'mean' is", {"mean": (float("nan"), 1.0, 1.0)}),
    ],
)
def test_an_architecture_cannot_name_a_file_or_hub(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, said: str, change: dict[str, Any]
) -> None:
    monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("timm was asked"))
    refused(spoiled(checkpoint, lambda record: record["architecture"].update(change)), said)


@pytest.mark.parametrize(
    ("said", "change"),
    [
        ("missing (e.g. ", lambda weights: weights.clear()),
        ("1 unknown (e.g. 'x')", lambda weights: weights.update(x=torch.zeros(1))),
        ("1 of another shape (e.g. 'head.weight')", lambda weights: weights.update({"head.weight": torch.zeros(2, 3)})),
    ],
)
def test_unsuitable_weights_are_a_one_line_error_naming_the_file(
    checkpoint: Checkpoint, said: str, change: Callable[[Any], object]
) -> None:
    path = Path(spoiled(checkpoint, lambda record: change(record["weights"])))
    with pytest.raises(EnsembleError) as error:
        load_checkpoint(path).build(path)
    assert error.value.message.startswith("a.pt is damaged: weights are ")
    assert said in error.value.message
    assert "\n" not in error.value.message
    assert error.value.hint == "train this fold again: ensemble kfold -c runs/vit-a/config.toml --fold 1 --force"


@pytest.mark.parametrize("field", LATER)
def test_what_an_earlier_version_did_not_record_has_its_default(checkpoint: Checkpoint, field: str) -> None:
    name = next(name for name in Checkpoint.__dataclass_fields__ if _file_key(name) == field)
    default = Checkpoint.__dataclass_fields__[name].default
    for change in (lambda record: record.pop(field), lambda record: record.update({field: None})):
        assert getattr(load_checkpoint(Path(spoiled(checkpoint, change))), name) == default


@pytest.mark.parametrize("head", [5, "round", "cosine:-1", "cosine:x", ["cosine"]])
def test_a_head_that_does_not_exist_is_damage(checkpoint: Checkpoint, head: Any) -> None:
    refused(
        spoiled(checkpoint, lambda record: record["architecture"].update(head=head)), "is a damaged checkpoint", "head"
    )


def test_records_without_pseudo_labels_or_cosine_head_are_as_before(checkpoint: Checkpoint) -> None:
    save_checkpoint(Path("a.pt"), replace(checkpoint, pseudo_hashes=()))
    record = torch.load("a.pt", weights_only=True)
    assert "pseudo_hashes" not in record
    assert "head" not in record["architecture"]


@pytest.mark.parametrize("part", ["weights", "classes", "architecture"])
def test_error_for_a_damaged_checkpoint_names_the_missing_field(checkpoint: Checkpoint, part: str) -> None:
    save_checkpoint(Path("a.pt"), checkpoint)
    record = torch.load("a.pt", weights_only=True)
    del record[part]
    torch.save(record, "a.pt")
    refused("a.pt", "is a damaged checkpoint", part)


def test_an_architecture_with_unknown_fields_is_damaged(checkpoint: Checkpoint) -> None:
    save_checkpoint(Path("a.pt"), checkpoint)
    record = torch.load("a.pt", weights_only=True)
    record["architecture"]["colour"] = "red"
    torch.save(record, "a.pt")
    refused("a.pt", "is a damaged checkpoint", "colour")


def test_an_existing_checkpoint_stays_whole_when_writing_fails(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(Path("a.pt"), checkpoint)
    before = Path("a.pt").read_bytes()

    def half(_: object, file: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(Path("a.pt"), replace(checkpoint, fold=2))
    assert Path("a.pt").read_bytes() == before
    assert [path.name for path in Path().iterdir()] == ["a.pt"]


def test_everything_that_says_how_a_table_is_read_is_known() -> None:
    assert set(vars(DataSpec(Path()))) <= set(_DATA)
