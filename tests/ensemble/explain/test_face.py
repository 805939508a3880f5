"""Heat maps of trained runs: which model explains which image, on which input, and what comes out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ensemble as en
from folds.models.checkpoint import hash_ids, load_checkpoint
from folds.predictions.files import read_sidecar
from tests.conftest import Called, Logged

pytest.importorskip("pytorch_grad_cam", reason="needs the extra explain")
Call = Callable[..., Called]


def oof_rows(run: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    sidecar = read_sidecar(Path(f"runs/{run}.oof.npy"))
    assert sidecar is not None
    return sidecar.rows.ids.tolist(), np.asarray(sidecar.fold), np.load(f"runs/{run}.oof.npy")


@pytest.mark.parametrize("run", ["test_resnet", "test_vit"])
def test_each_image_is_explained_by_the_model_that_has_not_seen_its_person(grid: Path, run: str) -> None:
    ids, folds, predicted = oof_rows(run)
    chosen = [0, 50, 100, 150, 209]
    found = en.explain(run, [ids[row] for row in chosen], progress=False)
    assert found.ids == tuple(ids[row] for row in chosen)
    assert found.folds == tuple((int(folds[row]),) for row in chosen)
    assert set(found.parts) == {"out of fold"}
    # The input is that of the training: the probabilities are those of the prediction file.
    np.testing.assert_allclose(found.probabilities, predicted[chosen], atol=1e-5)
    assert (found.maps.shape, found.maps.dtype) == ((5, 32, 32), np.float32)
    assert found.maps.min() >= 0
    assert found.maps.max() <= 1
    assert np.isnan(found.disagreement).all()


def test_test_images_get_the_mean_over_folds_and_where_they_disagree(grid: Path) -> None:
    sidecar = read_sidecar(Path("runs/test_resnet.fold0.test.npy"))
    assert sidecar is not None
    ids = sidecar.rows.ids.tolist()[:4]
    both = en.explain("test_resnet", ids, progress=False)
    assert set(both.folds) == {(0, 1, 2)}
    alone = [
        en.explain("test_resnet", ids, fold=fold, target_class=both.classes[int(both.explained[0])], progress=False)
        for fold in range(3)
    ]
    maps = np.stack([one.maps[0] for one in alone])
    np.testing.assert_allclose(both.maps[0], maps.mean(0), atol=1e-5)
    np.testing.assert_allclose(both.disagreement[0], maps.std(0), atol=1e-5)
    files = [np.load(f"runs/test_resnet.fold{fold}.test.npy")[:4] for fold in range(3)]
    np.testing.assert_allclose(both.probabilities, np.mean(files, 0), atol=1e-5)


def test_a_file_of_the_training_is_known_by_its_path_and_a_copy_is_new(grid: Path) -> None:
    ids, folds, _ = oof_rows("test_resnet")
    table = en.read_table("people")
    path = Path((table.train.paths or ())[3])
    shutil.copy(path, "other" + path.suffix)
    found = en.explain("test_resnet", [path, "other" + path.suffix], progress=False)
    at = ids.index(found.ids[0])
    assert found.folds == ((int(folds[at]),), (0, 1, 2))
    assert found.parts == ("out of fold", "in no fold")
    assert (found.true[0] >= 0, found.true[1]) == (True, -1)


def test_a_chosen_model_that_has_seen_the_image_is_told(grid: Path, logged: Logged) -> None:
    ids, folds, _ = oof_rows("test_resnet")
    other = (int(folds[0]) + 1) % 3
    found = en.explain("test_resnet", ids[0], fold=other, progress=False)
    assert found.parts == ("seen in training",)
    assert "1 of 1 images were in the training of these models" in logged.warnings[0]
    Path(f"checkpoints/test_resnet/fold{folds[0]}.pt").unlink()
    with pytest.raises(en.EnsembleError, match="all models of test_resnet that are there were trained on"):
        en.explain("test_resnet", ids[0], progress=False)


def test_the_class_can_be_named(grid: Path) -> None:
    ids, _, _ = oof_rows("test_resnet")
    name = en.explain("test_resnet", ids[0], progress=False).classes[5]
    found = en.explain("test_resnet", ids[:2], target_class=name, progress=False)
    assert found.explained.tolist() == [5, 5]
    assert f"heat for {name}" in " ".join(found.caption(0)) or found.predicted[0] == 5
    true = en.explain("test_resnet", ids[:2], target_class="true", progress=False)
    assert true.explained.tolist() == true.true.tolist()
    with pytest.raises(en.UsageError, match="unknown target_class 'nobody'"):
        en.explain("test_resnet", ids[0], target_class="nobody", progress=False)
    with pytest.raises(en.EnsembleError, match=r"no image of the training has the id 'nothing\.jpg'"):
        en.explain("test_resnet", "nothing.jpg", progress=False)


def test_the_command_writes_a_picture_per_image(grid: Path, call: Call) -> None:
    ids, _, _ = oof_rows("test_vit")
    test = read_sidecar(Path("runs/test_vit.fold0.test.npy"))
    assert test is not None
    called = call("explain", "test_vit", ids[0], test.rows.ids[0], "-o", "heat", "--json")
    assert called.code == 0, called.err
    record = json.loads(called.out)
    assert [one["part"] for one in record["images"]] == ["out of fold", "in no fold"]
    widths = [Image.open(path).width for path in sorted(Path("heat").glob("*.png"))]
    assert widths[1] > widths[0]  # the disagreement of the models is shown beside
    again = call("explain", "test_vit", ids[0], test.rows.ids[0], "-o", "heat")
    assert again.code == 1
    assert "exists" in again.err
    assert "--force" in again.err
    assert call("explain", "test_vit", ids[0], test.rows.ids[0], "-o", "heat", "--force").code == 0


def test_the_notebook_runs_nothing_that_an_id_contains(grid: Path) -> None:
    path = (en.read_table("people").train.paths or ())[0]
    hostile = Path("<script>alert(1)<") / f"script>{Path(path).suffix}"
    hostile.parent.mkdir()
    shutil.copy(path, hostile)
    found = en.explain("test_resnet", str(hostile), progress=False)
    assert "<script" not in found._repr_html_()
    assert "&lt;script" in found._repr_html_()
    (file,) = found.save("out")
    assert "<" not in file.name
    assert file.parent == Path("out")


def test_hashes_name_the_fold_without_the_table(grid: Path, logged: Logged) -> None:
    ids, folds, _ = oof_rows("test_resnet")
    checkpoint = load_checkpoint(Path("checkpoints/test_resnet/fold0.pt"))
    row = next(row for row, name in enumerate(hash_ids(ids)) if name in checkpoint.validation_hashes)
    path = Path(str((en.read_table("people").train.paths or ())[row]))
    Path(ids[row]).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, ids[row])
    shutil.rmtree("runs")
    found = en.explain("test_resnet", ids[row], progress=False)
    assert found.folds == ((0,),) == ((int(folds[row]),),)
    assert any("compared with those of the training by their names alone" in line for line in logged.warnings)
