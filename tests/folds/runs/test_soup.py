"""Models are averaged within a fold, kept if the out-of-fold score agrees, and never across folds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ensemble as en
from folds.errors import EnsembleError, UsageError
from folds.images.cache import load_images
from folds.metrics.classification import METRICS
from folds.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from folds.models.inference import PixelSource
from folds.models.soup import average_weights, with_statistics
from folds.runs.soup import _result, soup
from folds.runs.soup_models import SoupModels
from tests.conftest import Called


def copy_run(name: str, change: Callable[[Checkpoint, int], Checkpoint], source: str = "test_resnet") -> None:
    """Write a run whose models are those of another run, changed; its records are those of the other run."""
    shutil.copytree(f"runs/{source}", f"runs/{name}")
    for path in Path("runs").glob(f"{source}.*"):
        shutil.copyfile(path, path.with_name(path.name.replace(source, name, 1)))
    for path in sorted(Path(f"checkpoints/{source}").glob("*.pt")):
        fold = int(path.stem.removeprefix("fold"))
        Path(f"checkpoints/{name}").mkdir(exist_ok=True)
        save_checkpoint(Path(f"checkpoints/{name}/{path.name}"), change(load_checkpoint(path), fold))


def moved(sign: float) -> Callable[[Checkpoint, int], Checkpoint]:
    """Return a change by the same large noise, added or subtracted."""

    def change(checkpoint: Checkpoint, fold: int) -> Checkpoint:
        made = torch.Generator().manual_seed(fold)
        weights = {
            name: value + sign * 1.5 * value.abs().mean() * torch.randn(value.shape, generator=made)
            if value.is_floating_point() and "running" not in name
            else value
            for name, value in checkpoint.weights.items()
        }
        return replace(checkpoint, weights=weights)

    return change


@pytest.fixture
def around(grid: Path) -> Path:
    """Two runs on opposite sides of a trained one."""
    copy_run("plus", moved(+1))
    copy_run("minus", moved(-1))
    return grid


def test_a_soup_is_the_average_of_the_models_of_each_fold(around: Path) -> None:
    runs = [en.load_run(name) for name in ("plus", "minus")]
    found = en.soup(runs, metric="log_loss", batch_norm="average", name="both", progress=False)
    assert found.kept
    assert "soup of 2 runs" in repr(found)
    assert "<table" in found._repr_html_()
    assert found.ingredients == {fold: found.ingredients[fold] for fold in range(3)}
    assert all(set(runs) == {"plus", "minus"} for runs in found.ingredients.values())
    before, after = en.read_predictions("runs/test_resnet.oof.npy"), en.read_predictions("runs/both.oof.npy")
    assert after.ids.tolist() == before.ids.tolist()
    np.testing.assert_allclose(after.probabilities, before.probabilities, atol=1e-4)
    assert found.difference.difference.value < 0  # a lower log loss
    assert found.score.value == pytest.approx(after.score("log_loss").value, abs=1e-6)


def test_a_soup_is_a_run_like_others(around: Path, call: Callable[..., Called]) -> None:
    done = call("soup", "plus", "minus", "--metric", "log_loss", "--name", "both", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["name"] == "both"
    assert json.loads(Path("runs/both/soup.json").read_text())["runs"] == ["plus", "minus"]
    found = en.predict("both", "people/eval", verify=True, progress=False)
    assert found.difference is not None
    assert found.difference <= 1e-5
    assert found.passes == 3
    assert en.load_run("both").trained == (0, 1, 2)
    assert en.load_run("both").config["name"] == "both"
    assert call("blend", *sorted(Path("runs").glob("both.*npy")), "runs/test_vit.oof.npy", "-o", "mix").code == 0
    assert call("tta", "both", "--views", "hflip").code == 0
    listed = call("runs", "--json")
    assert "both" in listed.out
    again = call("soup", "plus", "minus", "--metric", "log_loss", "--name", "both")
    assert again.code == 1
    assert "exists" in again.err
    assert call("soup", "plus", "minus", "--metric", "log_loss", "--name", "both", "--force").code == 0


def test_a_soup_that_is_worse_is_not_written(grid: Path, call: Callable[..., Called]) -> None:
    copy_run("noise", moved(30))
    done = call("soup", "test_resnet", "noise", "--metric", "log_loss", "--name", "bad")
    assert done.code == 3
    assert "nothing was written" in done.out
    assert not list(Path("runs").glob("bad*"))
    assert not Path("checkpoints/bad").exists()


def test_the_runs_of_a_fold_are_chosen_without_its_people(around: Path) -> None:
    def chosen(change: bool) -> dict[int, tuple[str, ...]]:
        models = SoupModels(["plus", "minus", "test_resnet"], Path(), METRICS["log_loss"], "average", None, "cpu")
        if change:
            models.labels[models.rows[1]] = (models.labels[models.rows[1]] + 1) % len(models.first.classes)
        return models.choose(lambda done, of: None)[0]

    assert chosen(True)[1] == chosen(False)[1]


def test_the_metric_of_a_soup_is_that_of_the_positive_class_as_in_other_scores() -> None:
    labels, values = np.array([0, 1, 1, 0]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
    models = object.__new__(SoupModels)
    models.metric = METRICS["average_precision"]
    for exclusive, positive in ((False, 0), (True, 1)):
        about = {"task": "classes", "exclusive": exclusive, "target": "label", "classes": ("cancer", "healthy")}
        models.first = SimpleNamespace(**about)  # type: ignore[assignment]
        codes, (found,) = models.in_order(labels, values)
        assert codes.tolist() == (labels == positive).astype(int).tolist()
        assert np.array_equal(found[:, 1], values[:, positive])


def test_a_soup_of_labeled_persons_is_chosen_and_scored_by_person() -> None:
    """Run a is right about the images of most people, run b about each person on average."""
    persons, truth = np.repeat(np.arange(6), 3), np.array([0, 1, 0, 1, 0, 1])
    labels = truth[persons]
    right = {"a": np.tile([0.95, 0.95, 0.1], 6), "b": np.tile([0.6, 0.7, 0.65], 6)}
    right["a"][:6] = 0.05
    values = {
        run: np.eye(2)[labels] * p[:, None] + np.eye(2)[1 - labels] * (1 - p[:, None]) for run, p in right.items()
    }
    models = object.__new__(SoupModels)
    models.runs, models.folds, models.metric, models.batch_norm = ("a", "b"), [0, 1], METRICS["log_loss"], "none"
    models.labels, models.persons = labels, persons
    models.rows = {fold: np.flatnonzero(persons % 2 == fold) for fold in (0, 1)}
    values["a", "b"] = (values["a"] + values["b"]) / 2  # type: ignore[index]
    models.known = {
        (fold, some if isinstance(some, tuple) else (some,)): found[models.rows[fold]].astype(np.float32)
        for fold in (0, 1)
        for some, found in values.items()
    }
    about = {
        "task": "binary",
        "recipe": {},
        "target": "label",
        "classes": ("no", "yes"),
        "label_of": "person",
        "exclusive": False,
    }
    models.first = SimpleNamespace(**about)  # type: ignore[assignment]

    def loss(some: str, people: list[int]) -> float:
        means = np.array([values[some][persons == person].mean(axis=0) for person in people])
        return float(-np.log(means[np.arange(len(people)), truth[people]]).mean())

    for fold, people in ((0, [0, 2, 4]), (1, [1, 3, 5])):
        assert models.score(("a",), [fold]) == pytest.approx(-loss("a", people), rel=1e-5)
    chosen, best = models.choose(lambda done, of: None)
    assert (chosen, best) == ({0: ("b",), 1: ("b",)}, {0: "b", 1: "b"})
    found = _result(models, chosen, best)
    everyone = [0, 2, 4, 1, 3, 5]
    assert found.singles["a"].value == pytest.approx(loss("a", everyone), rel=1e-5)
    assert found.score.value == pytest.approx(loss("b", everyone), rel=1e-5)
    assert found.score.people == 6
    assert found.difference.difference.value == 0
    models.first = SimpleNamespace(**about | {"label_of": None})  # type: ignore[assignment]
    own = -np.log(right["a"]).mean()  # of images
    assert _result(models, chosen, best).singles["a"].value == pytest.approx(own, rel=1e-5)


def test_models_of_different_folds_are_never_averaged(grid: Path) -> None:
    with pytest.raises(UsageError, match="found the checkpoint of a fold") as caught:
        soup(["checkpoints/test_resnet/fold0.pt", "checkpoints/test_resnet/fold1.pt"])
    assert "has seen the people" in str(caught.value.hint)
    copy_run("other", lambda checkpoint, fold: replace(checkpoint, folds_sha="0" * 64))
    with pytest.raises(EnsembleError, match="differ in folds_sha"):
        soup(["test_resnet", "other"], progress=False)


def test_runs_that_do_not_fit_are_refused(grid: Path) -> None:
    with pytest.raises(EnsembleError, match="different architectures"):
        soup(["test_resnet", "test_vit"], progress=False)
    with pytest.raises(UsageError, match="expected two or more runs"):
        soup(["test_resnet"])
    with pytest.raises(UsageError, match="expected two or more runs, found 1"):
        en.soup({"test_resnet": en.load_run("test_resnet")})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="runs must be a list of runs"):
        en.soup("test_resnet")
    with pytest.raises(UsageError, match=r"expected names of runs, found '\.\./x'"):
        soup(["../x", "test_resnet"])
    with pytest.raises(UsageError, match="named twice"):
        soup(["test_resnet", "test_resnet"])
    with pytest.raises(UsageError, match="is one of the runs"):
        soup(["test_resnet", "test_vit"], name="test_vit")
    with pytest.raises(EnsembleError, match="has no checkpoints"):
        soup(["test_resnet", "nothing"])
    copy_run("part", lambda checkpoint, fold: checkpoint)
    Path("checkpoints/part/fold2.pt").unlink()
    with pytest.raises(EnsembleError, match=r"has the folds \[0, 1, 2\], part has \[0, 1\]"):
        soup(["test_resnet", "part"], progress=False)


def test_statistics_are_those_of_the_images(grid: Path) -> None:
    checkpoint = load_checkpoint(Path("checkpoints/test_resnet/fold0.pt"))
    table = en.read_table("people").train
    pixels = load_images(table.paths or (), checkpoint.image_settings, cache_dir=Path("cache")).pixels
    rows = np.arange(128)
    found = with_statistics(checkpoint, PixelSource(pixels, "cpu"), rows, "cpu")
    model = checkpoint.build()
    center, deviation = (
        torch.tensor(values)[:, None, None] for values in (checkpoint.architecture.mean, checkpoint.architecture.std)
    )
    images = (torch.from_numpy(pixels[rows]).permute(0, 3, 1, 2).float() / 255 - center) / deviation
    first = next(name for name, module in model.named_modules() if isinstance(module, torch.nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    model.get_submodule(first).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model(images)
    expected = seen[0].mean(dim=(0, 2, 3))
    torch.testing.assert_close(found[f"{first}.running_mean"], expected, atol=1e-4, rtol=1e-4)
    changed = {name for name, value in found.items() if not torch.equal(value, checkpoint.weights[name])}
    assert changed
    assert all(name.endswith(("running_mean", "running_var")) for name in changed)


def test_weights_are_averaged_and_counters_kept() -> None:
    first = {"a": torch.tensor([1.0, 2.0]), "n": torch.tensor(7)}
    second = {"a": torch.tensor([3.0, 6.0]), "n": torch.tensor(9)}
    found = average_weights([first, second])
    assert found["a"].tolist() == [2.0, 4.0]
    assert found["n"].item() == 7
    assert found["a"].dtype == torch.float32
    with pytest.raises(UsageError, match="one architecture"):
        average_weights([first, {"a": torch.zeros(3), "n": torch.tensor(1)}])
