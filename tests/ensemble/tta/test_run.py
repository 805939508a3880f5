from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ttach

from ensemble.tta import predict as view_predictions
from ensemble.tta import run as tta
from ensemble.tta import weights as view_weights
from ensemble.tta.files import load_common_rows
from ensemble.tta.merge import Merge, MergeConfig, margins
from ensemble.tta.views import View, deduplicate_views, parse_views, view_named
from ensemble.tta.weights import OOFViews, apply, fit
from folds.data.targets import resolve_target
from folds.models.checkpoint import Checkpoint, hash_ids, hash_labels, load_checkpoint, save_checkpoint
from folds.models.factory import create_model
from folds.predictions.files import PredictionMetadata, read_sidecar
from folds.predictions.reading import labels_and_groups
from folds.utils.numeric import softmax
from tests.conftest import Called

Call = Callable[..., Called]


def test_the_plain_view_equals_the_fold_predictions(grid: Path, call: Call) -> None:
    called = call("tta", "checkpoints/test_vit/fold1.pt", "--views", "none")
    assert called.code == 0, called.err
    whole, part = read_sidecar(Path("runs/test_vit.oof.npy")), read_sidecar(Path("runs/tta/test_vit.oof.npy"))
    assert whole is not None
    assert part is not None
    kept = load_checkpoint(Path("checkpoints/test_vit/fold1.pt")).validation_hashes
    assert set(hash_ids(part.rows.ids.tolist())) == set(kept)
    position = {name: i for i, name in enumerate(whole.rows.ids.tolist())}
    rows = [position[name] for name in part.rows.ids.tolist()]
    np.testing.assert_allclose(np.load("runs/tta/test_vit.oof.npy"), np.load("runs/test_vit.oof.npy")[rows], atol=1e-5)
    np.testing.assert_allclose(
        np.load("runs/tta/test_vit.fold1.test.npy"), np.load("runs/test_vit.fold1.test.npy"), atol=1e-5
    )


def test_all_folds_are_augmented_and_all_logits_written(grid: Path, call: Call) -> None:
    called = call("tta", "test_resnet", "--views", "hflip,multiply:0.8", "--json")
    assert called.code == 0, called.err
    record = json.loads(called.out)
    assert [split["split"] for split in record["splits"]] == ["oof", "test"]
    assert list(record["splits"][0]["views"]) == ["none", "hflip", "multiply:0.8"]
    views = [np.load(f"runs/tta/test_resnet/views/{name}.oof.npy") for name in ("none", "hflip", "multiply0.8")]
    assert {view.shape for view in views} == {(210, 18)}
    np.testing.assert_allclose(
        np.load("runs/tta/test_resnet.oof.npy"), np.mean([softmax(view) for view in views], 0), atol=1e-6
    )
    sidecar = read_sidecar(Path("runs/tta/test_resnet/views/hflip.oof.npy"))
    assert sidecar is not None
    assert (sidecar.kind, sidecar.views, len(np.unique(sidecar.fold))) == ("logit", ("hflip",), 3)
    assert sorted(path.name for path in Path("runs/tta").glob("*.test.npy")) == [
        f"test_resnet.fold{i}.test.npy" for i in range(3)
    ]


def test_single_folds_give_the_same_bytes_as_the_run(grid: Path, call: Call) -> None:
    call("tta", "test_resnet")
    expected = Path("runs/tta/test_resnet.oof.npy").read_bytes()
    for path in Path("runs/tta").glob("test_resnet.*"):
        path.unlink()
    for fold in (2, 0, 1):
        assert call("tta", f"checkpoints/test_resnet/fold{fold}.pt").code == 0
    assert Path("runs/tta/test_resnet.oof.npy").read_bytes() == expected


def test_view_logits_equal_those_of_the_ttach_wrapper(grid: Path, call: Call) -> None:
    import torch

    call("tta", "checkpoints/test_resnet/fold0.pt", "--views", "hflip")
    checkpoint = load_checkpoint(Path("checkpoints/test_resnet/fold0.pt"))
    pixels = np.load(
        next(path for path in Path(".ensemble/images").glob("*.npy") if len(np.load(path, mmap_mode="r")) == 42)
    )
    mean, std = (torch.tensor(v)[:, None, None] for v in (checkpoint.architecture.mean, checkpoint.architecture.std))
    inputs = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
    wrapper = ttach.ClassificationTTAWrapper(
        checkpoint.build(), ttach.Compose([ttach.HorizontalFlip()]), merge_mode="mean"
    )
    with torch.no_grad():
        expected = wrapper(inputs)  # the mean of the logits
    views = [np.load(f"runs/tta/test_resnet/views/{name}.fold0.test.npy") for name in ("none", "hflip")]
    np.testing.assert_allclose(np.mean(views, 0), expected, atol=1e-4)


def test_other_merges_reuse_the_written_views(grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    first = call("tta", "test_resnet", "--views", "hflip")
    before = merged_files()
    assert call("tta", "test_resnet", "--views", "hflip,vflip").code == 0
    assert sidecar_of("runs/tta/test_resnet.oof.npy").views == ("none", "hflip", "vflip")
    monkeypatch.setattr(view_predictions, "predict_logits", never)
    geometric = call("tta", "test_resnet", "--views", "hflip,vflip", "--merge", "geometric")
    assert geometric.code == 0, geometric.err
    assert (
        "runs/tta/test_resnet.oof.npy is rewritten: it merged none, hflip, vflip; the files of all views are kept"
        in geometric.err
    )
    views = [np.load(f"runs/tta/test_resnet/views/{name}.oof.npy") for name in ("none", "hflip", "vflip")]
    np.testing.assert_allclose(np.load("runs/tta/test_resnet.oof.npy"), softmax(np.mean(views, 0)), atol=1e-6)
    for path in ("runs/tta/test_resnet.oof.npy", *(f"runs/tta/test_resnet.fold{i}.test.npy" for i in range(3))):
        assert sidecar_of(path).views == ("none", "hflip", "vflip", "merge=geometric")
        assert (sidecar_of(path).merge or {})["how"] == "geometric"
    again = call("tta", "test_resnet", "--views", "hflip")
    assert (again.code, again.out, merged_files()) == (0, first.out, before)


def merged_files() -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path("runs/tta").glob("*.npy")}


def sidecar_of(path: str) -> PredictionMetadata:
    found = read_sidecar(Path(path))
    assert found is not None
    return found


def test_force_predicts_only_the_given_folds_again(grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    call("tta", "test_resnet", "--views", "hflip,vflip")
    before = written()
    made = counted(monkeypatch)
    assert call("tta", "checkpoints/test_resnet/fold1.pt", "--views", "hflip,vflip", "--force").code == 0
    assert made == [("oof", ["none", "hflip", "vflip"]), ("test", ["none", "hflip", "vflip"])]
    assert {path: content for path, (content, _) in written().items() if path.suffix == ".npy"} == {
        path: content for path, (content, _) in before.items() if path.suffix == ".npy"
    }


def test_new_views_of_one_fold_drop_other_folds_with_a_note(grid: Path, call: Call) -> None:
    call("tta", "test_resnet", "--views", "hflip")
    before = merged_files()
    alone = call("tta", "checkpoints/test_resnet/fold1.pt", "--views", "vflip")
    assert alone.code == 0, alone.err
    assert "runs/tta/test_resnet.oof.npy is rewritten without fold 0, 2, which lacks some of these views" in alone.err
    assert sorted(path.name for path in merged_files()) == ["test_resnet.fold1.test.npy", "test_resnet.oof.npy"]
    assert np.unique(sidecar_of("runs/tta/test_resnet.oof.npy").fold).tolist() == [1]
    assert call("tta", "test_resnet", "--views", "hflip").code == 0
    assert merged_files() == before


def never(*arguments: object, **named: object) -> None:
    raise AssertionError("it was predicted again")


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Return a list that records (split, views) of each prediction; 42 rows mean test, because no fold has 42."""
    made: list[tuple[str, list[str]]] = []
    predict = view_predictions.predict_logits

    def remember(
        model: object, pixels: object, index: np.ndarray, *rest: object, views: list[View], **named: object
    ) -> np.ndarray:
        made.append(("test" if len(index) == 42 else "oof", [view.name for view in views]))
        return predict(model, pixels, index, *rest, views=views, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(view_predictions, "predict_logits", remember)
    return made


def written() -> dict[Path, tuple[bytes, int]]:
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in Path("runs/tta").rglob("*.*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_predicted_views_are_reused_and_keep_their_date(
    grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = call("tta", "test_resnet")
    before = written()
    with monkeypatch.context() as patch:
        patch.setattr(view_predictions, "predict_logits", never)
        patch.setattr(Checkpoint, "build", never)
        again = call("tta", "test_resnet")
    assert (again.code, again.out) == (0, first.out), again.err
    assert "test_resnet fold 2: all views exist already; --force predicts them again" in again.err
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
def test_only_missing_or_damaged_views_are_predicted_again(
    grid: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    missing: list[tuple[str, list[str]]],
    damage: str,
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


def test_a_damaged_view_gives_the_command_for_other_folds(grid: Path, call: Call) -> None:
    call("tta", "test_resnet")
    Path("runs/tta/test_resnet/views/hflip.oof.npy").write_bytes(b"damaged")
    alone = call("tta", "checkpoints/test_resnet/fold0.pt")
    assert alone.code == 0, alone.err
    assert (
        "is rewritten without fold 1, 2, which lacks some of these views; "
        "ensemble tta test_resnet with the same options predicts them" in alone.err
    )
    whole = call("tta", "test_resnet")
    assert whole.code == 0
    assert "folds 0, 1, 2" in whole.out


def test_changed_checkpoint_images_or_labels_are_repredicted(
    grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("checkpoints/test_resnet/fold0.pt")
    call("tta", "test_resnet")
    made = counted(monkeypatch)
    checkpoint = load_checkpoint(path)
    save_checkpoint(
        path, replace(checkpoint, weights={name: value * 1.01 for name, value in checkpoint.weights.items()})
    )
    refused = call("tta", "test_resnet")
    assert (refused.code, made) == (1, [])
    assert "is from another training of this fold" in refused.err
    # Without the merge, the views of the older training still exist: none of them is used.
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


def test_only_missing_folds_are_predicted(grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    call("tta", "checkpoints/test_resnet/fold1.pt")
    made = counted(monkeypatch)
    assert call("tta", "test_resnet").code == 0
    assert made == [("oof", ["none", "hflip"]), ("test", ["none", "hflip"])] * 2


def test_a_view_without_effect_is_skipped_with_a_warning(grid: Path, call: Call) -> None:
    called = call("tta", "checkpoints/test_vit/fold0.pt", "--views", "scale:1.02,1.2", "--json", "-q")
    assert called.code == 0, called.err
    assert called.err.startswith("warning: duplicate views skipped")
    assert "equal to another view at 32×32 px: scale:1.02 (as none)" in called.err
    assert list(json.loads(called.out)["splits"][0]["views"]) == ["none", "scale:1.2"]


def test_a_missing_checkpoint_lists_the_existing_ones(grid: Path, call: Call) -> None:
    called = call("tta", "ckpt.pt")
    assert called.code == 1
    assert "checkpoint or run not found: ckpt.pt" in called.err
    assert "checkpoints/test_resnet/fold0.pt" in called.err


def relabelled(folder: Path, change: Callable[[list[str]], list[str]]) -> Path:
    """Write the training table of the grid as a CSV with changed labels."""
    sidecar = read_sidecar(folder / "runs/test_vit.oof.npy")
    assert sidecar is not None
    assert sidecar.rows.labels is not None
    assert sidecar.rows.persons is not None
    from folds.data.readers import read_data
    from folds.data.table import DataSpec

    paths = read_data(DataSpec(folder / "people")).train.paths or ()
    rows = zip(sidecar.rows.ids, paths, change(sidecar.rows.labels.tolist()), sidecar.rows.persons, strict=True)
    (folder / "relabelled.csv").write_text(
        "\n".join(["id,path,label,person", *(",".join(map(str, row)) for row in rows)])
    )
    return folder / "relabelled.csv"


def as_recorded(path: Path, table: Path) -> None:
    """Store in a checkpoint what training records of a CSV."""
    checkpoint, sidecar = load_checkpoint(path), read_sidecar(Path("runs/test_vit.oof.npy"))
    assert sidecar is not None
    assert sidecar.rows.labels is not None
    label_of = dict(zip(hash_ids(sidecar.rows.ids.tolist()), sidecar.rows.labels.tolist(), strict=True))
    labels = hash_labels(checkpoint.validation_hashes, [label_of[name] for name in checkpoint.validation_hashes])
    data = {"data": str(table), "path": "path", "label": "label", "person": "person"}
    save_checkpoint(path, replace(checkpoint, labels_sha=labels, data=data))


def test_labels_that_differ_from_training_are_rejected(grid: Path, call: Call) -> None:
    path = Path("checkpoints/test_vit/fold0.pt")
    as_recorded(path, relabelled(grid, lambda labels: labels))
    assert call("tta", path).code == 0
    called = call("tta", path, "--data", relabelled(grid, lambda labels: labels[1:] + labels[:1]), "--force")
    assert called.code == 1
    assert "validation samples of test_vit fold 0 have another label in" in called.err
    assert ", was '" in called.err
    assert called.out == ""


def test_a_label_outside_the_model_classes_is_named(grid: Path, call: Call) -> None:
    path = Path("checkpoints/test_vit/fold0.pt")
    as_recorded(path, relabelled(grid, lambda labels: ["newcls", *labels[1:]]))
    called = call("tta", path, "--data", "relabelled.csv")
    assert called.code == 1
    assert "not among the 18 declared classes" in called.err
    assert "'newcls': 1 samples, first relabelled.csv row 2" in called.err


@pytest.mark.parametrize(
    "change", [{"run": "{outside}/x"}, {"run": "../../outside/x"}, {"fold": "../../../../outside/y"}]
)
def test_a_checkpoint_cannot_write_outside_runs(grid: Path, call: Call, tmp_path: Path, change: dict[str, str]) -> None:
    import torch

    record = torch.load("checkpoints/test_vit/fold0.pt", weights_only=True)
    torch.save(record | {key: value.format(outside=tmp_path / "outside") for key, value in change.items()}, "evil.pt")
    before = set(tmp_path.rglob("*"))
    called = call("tta", "evil.pt")
    assert called.code == 1
    assert "evil.pt is a damaged checkpoint" in called.err
    assert set(tmp_path.rglob("*")) == before


def test_a_table_without_the_people_of_the_fold_is_rejected(grid: Path, call: Call, tmp_path: Path) -> None:
    from folds.data.synthetic.people import generate_people

    generate_people(tmp_path / "others", people=20, test_people=2, seed=5, size=(48, 64))
    called = call("tta", "checkpoints/test_vit/fold0.pt", "--data", tmp_path / "others")
    assert called.code == 1
    assert "lacks" in called.err
    assert "validation samples of test_vit fold 0" in called.err


BOTH = ("--views", "hflip*scale:0.8,1,1.2")


def test_budget_limits_test_views_and_sidecar_records_weights(
    grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = counted(monkeypatch)
    called = call("tta", "test_resnet", *BOTH, "--merge", "weighted", "--budget", "2", "--json")
    assert called.code == 0, called.err
    record = json.loads(called.out)
    weights = record["merge"]["weights"]
    assert 1 <= len(weights) <= 2
    assert sum(weights.values()) == pytest.approx(1)
    assert (
        made
        == [("oof", [view.name for view in deduplicate_views(parse_views(BOTH[1]), (32, 32))])] * 3
        + [("test", list(weights))] * 3
    )
    assert record["passes"]["test"] == len(weights)
    sidecar = sidecar_of("runs/tta/test_resnet.fold2.test.npy")
    assert Merge.from_json(sidecar.merge, 18).to_dict()["weights"] == weights
    views = {
        view: softmax(np.load(f"runs/tta/test_resnet/views/{view_named(view).file_name}.fold2.test.npy"))
        for view in weights
    }
    expected = sum(weights[view] * values for view, values in views.items())
    np.testing.assert_allclose(np.load("runs/tta/test_resnet.fold2.test.npy"), expected, atol=1e-6)


def test_out_of_fold_rows_are_merged_by_the_other_folds(grid: Path, call: Call) -> None:
    call("tta", "test_resnet", *BOTH, "--merge", "weighted", "--json")
    names = [view.name for view in deduplicate_views(parse_views(BOTH[1]), (32, 32))]
    found = load_common_rows(
        [Path(f"runs/tta/test_resnet/views/{view_named(name).file_name}.oof.npy") for name in names], {}
    )
    assert found is not None
    labels, persons = labels_and_groups(found[1])
    evidence = OOFViews(tuple(names), found[0], labels, persons, np.asarray(found[1].fold))
    mine = evidence.folds == 1
    merge = fit(evidence.take(~mine), MergeConfig("weighted"))
    np.testing.assert_allclose(
        np.load("runs/tta/test_resnet.oof.npy")[mine], apply(merge, evidence.take(mine))[0], atol=1e-6
    )
    assert (sidecar_of("runs/tta/test_resnet.oof.npy").merge or {})["nested"] is True


def test_adaptive_predicts_more_views_only_for_small_margins(
    grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = call("tta", "test_resnet", *BOTH)
    assert whole.code == 0
    full = merged_files()
    plain = {i: np.load(f"runs/tta/test_resnet/views/none.fold{i}.test.npy") for i in range(3)}
    for path in Path("runs/tta/test_resnet/views").glob("*.test.*"):
        path.unlink()
    level = float(np.median(margins(softmax(np.concatenate(list(plain.values()))))))
    monkeypatch.setattr(view_weights, "fit_threshold", lambda *arguments: level)
    predicted: list[int] = []
    predict = view_predictions.predict_logits

    def remember(
        model: object, pixels: object, index: np.ndarray, *rest: object, views: list[View], **named: object
    ) -> np.ndarray:
        predicted.append(len(index) * len(views))
        return predict(model, pixels, index, *rest, views=views, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(view_predictions, "predict_logits", remember)
    called = call("tta", "test_resnet", *BOTH, "--adaptive", "--json")
    assert called.code == 0, called.err
    doubtful = {i: margins(softmax(plain[i])) < level for i in range(3)}
    count = sum(int(mask.sum()) for mask in doubtful.values())
    assert 0 < count < 3 * 42
    assert sum(predicted) == 3 * 42 + 5 * count
    assert json.loads(called.out)["passes"]["test"] == pytest.approx(1 + 5 * count / (3 * 42))
    for i in range(3):
        view = Path(f"runs/tta/test_resnet/views/hflip-scale1.2.fold{i}.test.npy")
        everyone = sidecar_of(f"runs/tta/test_resnet.fold{i}.test.npy").rows.ids
        assert view.exists() == doubtful[i].any()
        if view.exists():  # other images have no row, instead of an empty one
            assert sidecar_of(str(view)).rows.ids.tolist() == everyone[doubtful[i]].tolist()
        path = Path(f"runs/tta/test_resnet.fold{i}.test.npy")
        merged, all_views = np.load(path), np.load(io.BytesIO(full[path]))
        np.testing.assert_allclose(merged[doubtful[i]], all_views[doubtful[i]], atol=1e-5)
        np.testing.assert_allclose(merged[~doubtful[i]], softmax(plain[i])[~doubtful[i]], atol=1e-5)
    # A later command without `adaptive` predicts only the missing images.
    predicted.clear()
    assert call("tta", "test_resnet", *BOTH).code == 0
    assert sum(predicted) == 5 * (3 * 42 - count)
    for path, content in full.items():
        np.testing.assert_allclose(np.load(path), np.load(io.BytesIO(content)), atol=1e-5)


def test_a_single_checkpoint_is_scored_by_groups_of_people(grid: Path, call: Call) -> None:
    called = call("tta", "checkpoints/test_resnet/fold0.pt", *BOTH, "--merge", "auto", "--json")
    assert called.code == 0, called.err
    gains = json.loads(called.out)["worth"]
    assert gains["against_plain"]["low"] <= gains["against_plain"]["difference"] <= gains["against_plain"]["high"]
    assert gains["against_plain"]["distinguishable"].split(":")[0] in ("yes", "no")
    assert set(gains["per_class_f1"]) == {"plain", "mean_of_all", "merged"}


def test_the_table_shows_weights_and_losses_of_views(grid: Path, call: Call) -> None:
    called = call("tta", "test_resnet", *BOTH, "--merge", "weighted", "--budget", "3")
    assert called.code == 0, called.err
    lines = called.out.splitlines()
    assert lines[0].split("  ")[0] == "view"
    assert lines[0].endswith("rows  weight  leave-one-out")
    assert any(line.startswith("mean of all 6 views") for line in lines)
    assert any("(people not used for fitting)" in line for line in lines)
    assert any(line.startswith("vs no TTA: ") and "significant" in line for line in lines)
    assert any(line.startswith("vs the mean of all views: ") for line in lines)
    assert lines[-1].startswith("forward passes per image: ")


def test_a_single_view_is_the_plain_image_for_every_merge(grid: Path, call: Call) -> None:
    called = call(
        "tta", "test_vit", "--views", "scale:1.02", "--merge", "auto", "--budget", "3", "--adaptive", "--json"
    )
    assert called.code == 0, called.err
    assert "warning: duplicate views skipped" in called.err
    record = json.loads(called.out)
    assert record["merge"]["weights"] == {"none": 1.0}
    assert "worth" not in record


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "0"], "--budget 0: expected 1 or more views per image"),
        (["--merge", "wieghted"], "did you mean weighted"),
        (["--views", "flip"], "unknown view 'flip'"),
        (["--views", "fivecrop:1.2"], "larger than the image"),
        (["--views", "tencrop:224"], "larger than the image"),
        (["--views", "scale:7"], "out of range"),
    ],
)
def test_invalid_options_are_rejected_before_prediction(grid: Path, call: Call, words: list[str], message: str) -> None:
    called = call("tta", "test_resnet", *words)
    assert called.code == 2
    assert message in called.err
    assert not Path("runs/tta").exists()


@pytest.mark.parametrize("words", [["--merge", "weighted"], ["--merge", "auto"], ["--budget", "1"], ["--adaptive"]])
def test_fitting_a_merge_needs_labels(
    grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    def unknown(sidecar: PredictionMetadata) -> None:
        raise ValueError("no labels to score on")

    monkeypatch.setattr(tta, "labels_and_groups", unknown)
    called = call("tta", "test_resnet", *words)
    assert called.code == 1
    assert (
        "fitting the merge needs labels, and those of the out-of-fold rows of test_resnet are not known" in called.err
    )
    assert "hint: --merge mean or --merge geometric of all views needs no labels" in called.err
    assert not list(Path("runs/tta").glob("*.npy"))


def test_checkpoints_of_two_runs_are_rejected(grid: Path, call: Call) -> None:
    Path("mixed").mkdir()
    for i, run in enumerate(("test_resnet", "test_vit")):
        Path(f"mixed/fold{i}.pt").write_bytes(Path(f"checkpoints/{run}/fold{i}.pt").read_bytes())
    called = call("tta", "mixed")
    assert called.code == 2
    assert "expected checkpoints of one run, found test_resnet, test_vit" in called.err


def test_a_multi_head_model_is_augmented_like_a_label_model(grid: Path, call: Call) -> None:
    checkpoint = load_checkpoint(Path("checkpoints/test_resnet/fold0.pt"))
    heads = ("mask", "gender", "age")
    outputs = resolve_target("+".join(heads), checkpoint.classes, checkpoint.class_attributes).outputs
    weights = create_model(checkpoint.architecture, outputs).state_dict()
    save_checkpoint(Path("heads.pt"), replace(checkpoint, run="heads", heads=heads, weights=weights))
    assert "the table of heads is not known" in call("tta", "heads.pt").err
    called = call(
        "tta", "heads.pt", "--data", "people", "--views", "hflip,multiply:0.8", "--merge", "classwise", "--json"
    )
    assert called.code == 0, called.err
    weights_of = json.loads(called.out)["merge"]["weights"]
    assert {len(some) for some in weights_of.values()} == {18}
    assert np.load("runs/tta/heads/views/hflip.oof.npy").shape[1] == 18
    np.testing.assert_allclose(np.load("runs/tta/heads.oof.npy").sum(1), 1, atol=1e-5)


def test_several_devices_give_the_logits_of_one(grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here two names of the CPU stand for two GPUs."""
    call("tta", "checkpoints/test_resnet/fold1.pt", "--views", "hflip")
    one = merged_files()
    used: list[tuple[str, int]] = []
    real = view_predictions.predict_logits

    def recorded(model: object, pixels: object, rows: np.ndarray, *rest: object, device: str, **how: object) -> object:
        used.append((device, len(rows)))
        return real(model, pixels, rows, *rest, device=device, **how)

    monkeypatch.setattr(view_predictions, "resolve_devices", lambda devices: ["cpu", "cpu:0"])
    monkeypatch.setattr(view_predictions, "predict_logits", recorded)
    monkeypatch.setattr(view_predictions, "BATCH", 16)
    assert call("tta", "checkpoints/test_resnet/fold1.pt", "--views", "hflip", "--force").code == 0
    assert sorted({device for device, _ in used}) == ["cpu", "cpu:0"]
    assert all(n % 16 == 0 for device, n in used if device == "cpu")
    for path, before in one.items():
        np.testing.assert_allclose(np.load(path), np.load(io.BytesIO(before)), atol=1e-5)


def test_parts_of_rows_are_whole_batches_in_order() -> None:
    for n, batch, most in [(1, 64, 8), (64, 64, 8), (65, 64, 2), (1000, 64, 3), (1000, 1, 7)]:
        parts = view_predictions._whole_batches(np.arange(n), batch, most)
        assert np.concatenate(parts).tolist() == list(range(n))
        assert len(parts) <= most
        assert all(len(part) and len(part) % batch == 0 for part in parts[:-1])
