from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ttach

from ensemble import tta
from ensemble.tta import merge_views
from ensemble.views import View
from folds.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from folds.inference import softmax
from folds.predictions import read_sidecar
from tests.conftest import Called

Call = Callable[..., Called]


def test_the_plain_view_gives_the_fold_s_own_rows_again(grid: Path, call: Call) -> None:
    called = call("tta", "checkpoints/test_vit/fold1.pt", "--views", "none")
    assert called.code == 0, called.err
    whole, part = read_sidecar(Path("runs/test_vit.oof.npy")), read_sidecar(Path("runs/tta/test_vit.oof.npy"))
    assert whole is not None
    assert part is not None
    assert set(part.rows.ids.tolist()) == set(load_checkpoint(Path("checkpoints/test_vit/fold1.pt")).validation_ids)
    position = {name: i for i, name in enumerate(whole.rows.ids.tolist())}
    rows = [position[name] for name in part.rows.ids.tolist()]
    np.testing.assert_allclose(np.load("runs/tta/test_vit.oof.npy"), np.load("runs/test_vit.oof.npy")[rows], atol=1e-5)
    np.testing.assert_allclose(np.load("runs/tta/test_vit.fold1.test.npy"), np.load("runs/test_vit.fold1.test.npy"), atol=1e-5)


def test_a_run_is_augmented_in_all_its_folds_and_every_view_s_logits_are_kept(grid: Path, call: Call) -> None:
    called = call("tta", "test_resnet", "--views", "hflip,multiply:0.8", "--json")
    assert called.code == 0, called.err
    record = json.loads(called.out)
    assert [split["split"] for split in record["splits"]] == ["oof", "test"]
    assert list(record["splits"][0]["views"]) == ["none", "hflip", "multiply:0.8"]
    views = [np.load(f"runs/tta/test_resnet/views/{name}.oof.npy") for name in ("none", "hflip", "multiply0.8")]
    assert {view.shape for view in views} == {(210, 18)}
    np.testing.assert_allclose(np.load("runs/tta/test_resnet.oof.npy"), np.mean([softmax(view) for view in views], 0), atol=1e-6)
    sidecar = read_sidecar(Path("runs/tta/test_resnet/views/hflip.oof.npy"))
    assert sidecar is not None
    assert (sidecar.kind, sidecar.views, len(np.unique(sidecar.fold))) == ("logit", ("hflip",), 3)
    assert sorted(path.name for path in Path("runs/tta").glob("*.test.npy")) == [f"test_resnet.fold{i}.test.npy" for i in range(3)]


def test_folds_one_by_one_stitch_to_the_same_bytes_as_the_run(grid: Path, call: Call) -> None:
    call("tta", "test_resnet")
    expected = Path("runs/tta/test_resnet.oof.npy").read_bytes()
    for path in Path("runs/tta").glob("test_resnet.*"):
        path.unlink()
    for fold in (2, 0, 1):
        assert call("tta", f"checkpoints/test_resnet/fold{fold}.pt").code == 0
    assert Path("runs/tta/test_resnet.oof.npy").read_bytes() == expected


def test_the_logits_of_a_view_are_those_ttach_s_wrapper_feeds_to_its_merge(grid: Path, call: Call) -> None:
    import torch

    call("tta", "checkpoints/test_resnet/fold0.pt", "--views", "hflip")
    checkpoint = load_checkpoint(Path("checkpoints/test_resnet/fold0.pt"))
    pixels = np.load(next(path for path in Path(".ensemble/images").glob("*.npy") if len(np.load(path, mmap_mode="r")) == 42))
    mean, std = (torch.tensor(v)[:, None, None] for v in (checkpoint.architecture.mean, checkpoint.architecture.std))
    inputs = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
    wrapper = ttach.ClassificationTTAWrapper(checkpoint.build(), ttach.Compose([ttach.HorizontalFlip()]), merge_mode="mean")
    with torch.no_grad():
        expected = wrapper(inputs)  # the mean of logits: right for what it says it is
    views = [np.load(f"runs/tta/test_resnet/views/{name}.fold0.test.npy") for name in ("none", "hflip")]
    np.testing.assert_allclose(np.mean(views, 0), expected, atol=1e-4)


def test_the_same_views_again_change_nothing_and_other_views_want_force(grid: Path, call: Call) -> None:
    first = call("tta", "test_resnet")
    before = Path("runs/tta/test_resnet.oof.npy").read_bytes()
    again = call("tta", "test_resnet")
    assert (again.code, again.out) == (0, first.out)
    other = call("tta", "test_resnet", "--views", "vflip")
    assert other.code == 1
    assert "other views (none, hflip)" in other.err
    assert Path("runs/tta/test_resnet.oof.npy").read_bytes() == before
    assert call("tta", "test_resnet", "--merge", "geometric").code == 1
    assert call("tta", "test_resnet", "--views", "vflip", "--force").code == 0
    assert not Path("runs/tta/test_resnet/views/hflip.oof.npy").exists()


def never(*arguments: object, **named: object) -> None:
    raise AssertionError("it was predicted again")


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Fills with (split, views) of each prediction that is made; there are 42 test samples, and no fold of 42."""
    made: list[tuple[str, list[str]]] = []
    predict = tta.predict_logits

    def remember(model: object, pixels: object, index: np.ndarray, *rest: object, views: list[View], **named: object) -> np.ndarray:
        made.append(("test" if len(index) == 42 else "oof", [view.name for view in views]))
        return predict(model, pixels, index, *rest, views=views, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(tta, "predict_logits", remember)
    return made


def written() -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path("runs/tta").rglob("*.*") if path.is_file() and path.suffix != ".lock"}


def test_what_has_been_predicted_is_not_predicted_again_and_keeps_its_date(grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    first = call("tta", "test_resnet")
    before = written()
    with monkeypatch.context() as patch:
        patch.setattr(tta, "predict_logits", never)
        patch.setattr(Checkpoint, "build", never)
        again = call("tta", "test_resnet")
    assert (again.code, again.out) == (0, first.out), again.err
    assert "test_resnet fold 2: all views are there already; --force predicts them again" in again.err
    assert written() == before
    made = counted(monkeypatch)
    assert call("tta", "test_resnet", "--force").out == first.out
    assert made == [("oof", ["none", "hflip"]), ("test", ["none", "hflip"])] * 3
    assert {path: content for path, (content, _) in written().items() if path.suffix == ".npy"} == {
        path: content for path, (content, _) in before.items() if path.suffix == ".npy"
    }


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("hflip.oof.npy", [("oof", ["hflip"])] * 3),
        ("hflip.fold1.test.npy", [("test", ["hflip"])]),
        ("none.fold0.test.json", [("test", ["none"])]),
    ],
)
@pytest.mark.parametrize("damage", ["gone", "torn", "nonsense", "not finite"])
def test_a_view_that_is_gone_or_damaged_is_predicted_again_and_no_other(
    grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch, name: str, missing: list[tuple[str, list[str]]], damage: str
) -> None:
    first = call("tta", "test_resnet")
    before = {path: content for path, (content, _) in written().items() if path.suffix == ".npy"}
    path = Path("runs/tta/test_resnet/views") / name
    if damage == "gone":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "nonsense":
        path.write_bytes(b"[1]")
    else:
        array = path.with_suffix(".npy")
        np.save(array, np.load(array) * np.nan)
    made = counted(monkeypatch)
    again = call("tta", "test_resnet")
    assert (again.code, again.out) == (0, first.out), again.err
    assert made == missing
    assert {path: content for path, (content, _) in written().items() if path.suffix == ".npy"} == before


def test_a_single_fold_beside_a_damaged_view_says_how_to_make_the_others(grid: Path, call: Call) -> None:
    call("tta", "test_resnet")
    Path("runs/tta/test_resnet/views/hflip.oof.npy").write_bytes(b"damaged")
    alone = call("tta", "checkpoints/test_resnet/fold0.pt")
    assert alone.code == 1
    assert "hint: ensemble tta test_resnet predicts what is missing" in alone.err
    assert call("tta", "test_resnet").code == 0


def test_another_checkpoint_other_images_and_other_labels_are_predicted_again(grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("checkpoints/test_resnet/fold0.pt")
    call("tta", "test_resnet")
    made = counted(monkeypatch)
    checkpoint = load_checkpoint(path)
    save_checkpoint(path, replace(checkpoint, weights={name: value * 1.01 for name, value in checkpoint.weights.items()}))
    refused = call("tta", "test_resnet")
    assert (refused.code, made) == (1, [])
    assert "was made with another training of this fold" in refused.err
    # The merge is gone, the views of the older training are still there: none of them counts.
    for merge in Path("runs/tta").glob("test_resnet.*"):
        merge.unlink()
    assert call("tta", "test_resnet").code == 0
    assert made == [("oof", ["none", "hflip"]), ("test", ["none", "hflip"])]
    made.clear()
    images = sorted(Path("people/eval/images").iterdir())
    images[0].write_bytes(images[1].read_bytes())
    assert call("tta", "test_resnet").code == 0
    assert made == [("test", ["none", "hflip"])] * 3
    made.clear()
    assert call("tta", "test_resnet").code == 0
    assert made == []


def test_folds_that_were_not_there_are_all_that_is_predicted(grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    call("tta", "checkpoints/test_resnet/fold1.pt")
    made = counted(monkeypatch)
    assert call("tta", "test_resnet").code == 0
    assert made == [("oof", ["none", "hflip"]), ("test", ["none", "hflip"])] * 2


def test_a_view_that_changes_nothing_at_the_size_of_the_model_is_left_out_with_a_word(grid: Path, call: Call) -> None:
    called = call("tta", "checkpoints/test_vit/fold0.pt", "--views", "scale:1.02,1.2", "--json", "-q")
    assert called.code == 0, called.err
    assert called.err.startswith("warning: left out, because they ")
    assert "do the same to images of 32×32 px as another view: scale:1.02 (as none)" in called.err
    assert list(json.loads(called.out)["splits"][0]["views"]) == ["none", "scale:1.2"]


def test_where_there_is_no_such_checkpoint_those_there_are_get_listed(grid: Path, call: Call) -> None:
    called = call("tta", "ckpt.pt")
    assert called.code == 1
    assert "there is no checkpoint or run ckpt.pt" in called.err
    assert "checkpoints/test_resnet/fold0.pt" in called.err


def relabelled(folder: Path, change: Callable[[list[str]], list[str]]) -> Path:
    """The table the grid was trained on as a CSV, its labels changed."""
    sidecar = read_sidecar(folder / "runs/test_vit.oof.npy")
    assert sidecar is not None
    assert sidecar.rows.labels is not None
    assert sidecar.rows.persons is not None
    from folds.readers import read_data
    from folds.samples import DataSpec

    paths = read_data(DataSpec(folder / "people")).train.paths or ()
    rows = zip(sidecar.rows.ids, paths, change(sidecar.rows.labels.tolist()), sidecar.rows.persons, strict=True)
    (folder / "relabelled.csv").write_text("\n".join(["id,path,label,person", *(",".join(map(str, row)) for row in rows)]))
    return folder / "relabelled.csv"


def as_recorded(path: Path, table: Path) -> None:
    """Put into a checkpoint what training records of a CSV."""
    checkpoint, sidecar = load_checkpoint(path), read_sidecar(Path("runs/test_vit.oof.npy"))
    assert sidecar is not None
    assert sidecar.rows.labels is not None
    label_of = dict(zip(sidecar.rows.ids.tolist(), sidecar.rows.labels.tolist(), strict=True))
    labels = tuple(label_of[name] for name in checkpoint.validation_ids)
    data = {"data": str(table), "path": "path", "label": "label", "person": "person"}
    save_checkpoint(path, replace(checkpoint, validation_labels=labels, data=data))


def test_a_table_whose_labels_are_not_those_of_training_is_refused_and_shown(grid: Path, call: Call) -> None:
    path = Path("checkpoints/test_vit/fold0.pt")
    as_recorded(path, relabelled(grid, lambda labels: labels))
    assert call("tta", path).code == 0
    called = call("tta", path, "--data", relabelled(grid, lambda labels: labels[1:] + labels[:1]), "--force")
    assert called.code == 1
    assert "validation samples of test_vit fold 0 have another label in" in called.err
    assert ", was '" in called.err
    assert called.out == ""


def test_a_label_that_is_none_of_the_model_s_classes_is_refused_by_name(grid: Path, call: Call) -> None:
    path = Path("checkpoints/test_vit/fold0.pt")
    as_recorded(path, relabelled(grid, lambda labels: ["newcls", *labels[1:]]))
    called = call("tta", path)
    assert called.code == 1
    assert "none of the 18 declared classes" in called.err
    assert "'newcls': 1 samples, first relabelled.csv row 2" in called.err


@pytest.mark.parametrize("change", [{"run": "{outside}/x"}, {"run": "../../outside/x"}, {"fold": "../../../../outside/y"}])
def test_a_checkpoint_cannot_have_anything_written_outside_runs(grid: Path, call: Call, tmp_path: Path, change: dict[str, str]) -> None:
    import torch

    record = torch.load("checkpoints/test_vit/fold0.pt", weights_only=True)
    torch.save(record | {key: value.format(outside=tmp_path / "outside") for key, value in change.items()}, "evil.pt")
    before = set(tmp_path.rglob("*"))
    called = call("tta", "evil.pt")
    assert called.code == 1
    assert "evil.pt is a damaged checkpoint" in called.err
    assert set(tmp_path.rglob("*")) == before


def test_a_table_without_the_fold_s_people_is_refused(grid: Path, call: Call, tmp_path: Path) -> None:
    from folds.people import draw_people

    draw_people(tmp_path / "others", people=20, test_people=2, seed=5, size=(48, 64))
    called = call("tta", "checkpoints/test_vit/fold0.pt", "--data", tmp_path / "others")
    assert called.code == 1
    assert "lacks" in called.err
    assert "validation samples of test_vit fold 0" in called.err


def test_the_mean_is_of_probabilities_and_the_geometric_mean_has_the_argmax_of_the_mean_logits() -> None:
    logits = np.random.default_rng(0).normal(scale=3, size=(4, 200, 5))
    probabilities = softmax(logits)
    np.testing.assert_allclose(merge_views(logits, "mean"), probabilities.mean(0))
    product = probabilities.prod(0) ** (1 / 4)
    np.testing.assert_allclose(merge_views(logits, "geometric"), product / product.sum(1, keepdims=True))
    assert (merge_views(logits, "geometric").argmax(1) == logits.mean(0).argmax(1)).all()
    assert (merge_views(logits, "mean").argmax(1) != logits.mean(0).argmax(1)).any()


@pytest.mark.parametrize("how", ["mean", "geometric"])
def test_a_merge_of_extreme_logits_is_finite(how: str) -> None:
    merged = merge_views(np.array([[[1e4, -1e4, 0.0]], [[-1e4, 1e4, 0.0]]]), how)
    assert np.isfinite(merged).all()
    np.testing.assert_allclose(merged.sum(1), 1)
