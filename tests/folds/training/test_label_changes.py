"""Changed training labels: learned, not scored; recorded, compared on a resume, and left out of comparisons."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import folds
from folds.config.checks import check
from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.errors import EnsembleError, UsageError
from folds.experiments.comparison import compare_runs
from folds.models.checkpoint import hash_ids, load_checkpoint
from folds.predictions.changed_labels import changed_ids
from folds.training.label_changes import LabelChanges, label_changes_of, relabeled_labels
from tests.folds.training.test_soft_labels import target_of

SMALL: dict[str, Any] = {
    "arch": "test_resnet",
    "k": 2,
    "epochs": 1,
    "img_size": 32,
    "pretrained": False,
    "batch_size": 8,
    "progress": False,
}
PEOPLE, PER_PERSON = 20, 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of 20 people of two classes and four test images; one label in ten is wrong; the run `base` on it."""
    root = tmp_path_factory.mktemp("labels")
    random = np.random.default_rng(0)
    lines = ["path,label,person,split"]
    for at in range(PEOPLE * PER_PERSON + 4):
        person = at // PER_PERSON
        pixels = random.integers(0, 60, (32, 32, 3), dtype=np.uint8)
        pixels[..., person % 2] += 150
        Image.fromarray(pixels).save(root / f"{at}.png")
        wrong = person in (0, 1)
        test = "test" if at >= PEOPLE * PER_PERSON else ""
        lines.append(f"{at}.png,{'ab'[person % 2 ^ wrong]},p{person:02d}{'t' if test else ''},{test}")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    folds.kfold(folds.read_table(root / "table.csv", split="split"), name="base", root=root, **SMALL)
    return root


@pytest.fixture
def copy(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(world, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path / "w"


def data() -> folds.Dataset:
    return folds.read_table("table.csv", split="split")


def write(name: str, *lines: str) -> Path:
    Path(name).write_text("\n".join(lines) + "\n")
    return Path(name)


CORRECT = ("id,person,label,suggested,confidence,new_label,decision", *(f"{at}.png,p00,b,a,.9,a," for at in range(3)))


def changes(**recipe: Any) -> LabelChanges:
    table = data()
    found = label_changes_of(Recipe(**recipe), table.train, target_of(table.train), table.test)
    assert found is not None
    return found


def test_corrected_labels_are_learned_and_those_of_the_table_scored(copy: Path) -> None:
    file = write("labels.csv", *CORRECT, "3.png,p01,a,b,.9,,drop", "6.png,p02,a,b,.6,,soften", "9.png,p03,b,a,.5,,keep")
    folds.kfold(data(), name="clean", relabel=file, **SMALL)
    table = data().train
    lines = Path("runs/clean/trained.csv").read_text().splitlines()[1:]
    learned = dict(line.split(",") for line in lines)
    expected = dict(zip(table.ids.tolist(), table.labels.tolist(), strict=True)) | {f"{at}.png": "a" for at in range(3)}
    assert learned == expected
    run = folds.load_run("clean")
    assert run.oof.labels is not None
    assert dict(zip(run.oof.ids.tolist(), run.oof.labels.tolist(), strict=True))["0.png"] == "b"
    assert run.config["relabel"] == "labels.csv"
    assert {"relabel_sha", "trained_sha"} <= run.config["resolved"].keys()
    assert "relabel" not in load_checkpoint(run.checkpoints[0]).recipe  # a place
    assert changed_ids("clean", Path("runs")) == {"0.png", "1.png", "2.png"}
    assert not run.summary().selected_on_validation


def test_the_gain_is_scored_on_people_whose_labels_were_not_changed(copy: Path) -> None:
    folds.kfold(data(), name="clean", relabel=write("labels.csv", *CORRECT), **SMALL)
    found = compare_runs("base", "clean")
    assert (found.people, found.rows) == (PEOPLE - 1, (PEOPLE - 1) * PER_PERSON)
    assert found.notes[0].startswith("compared on the 19 people whose labels were not changed: clean changed")
    assert found.changed["relabel"][0] is None
    untouched = [run.oof.take(run.oof.persons != "p00") for run in (folds.load_run("base"), folds.load_run("clean"))]
    scores = [one.score().value for one in untouched]
    difference = found.differences["macro_f1"]
    assert (difference.first, difference.second) == pytest.approx(scores)


def test_dropped_images_are_predicted_and_not_learned(copy: Path) -> None:
    folds.kfold(data(), name="less", drop=write("drop.csv", "id", "4.png", "7.png"), **SMALL)
    run = folds.load_run("less")
    assert len(run.oof) == PEOPLE * PER_PERSON
    dropped = set(hash_ids(["4.png", "7.png"]))
    for path in run.checkpoints.values():
        assert not dropped & set(load_checkpoint(path).training_hashes)
    learned = sum(len(load_checkpoint(path).training_hashes) for path in run.checkpoints.values())
    assert learned == PEOPLE * PER_PERSON - 2


def test_softened_labels_are_mixtures_and_mark_the_score_as_optimistic(copy: Path) -> None:
    file = write("soft.csv", "id,vote_b,vote_a,decision", "0.png,.25,.75,soften", "5.png,.5,.5,keep")
    folds.kfold(data(), name="soft", soften=file, soften_weight=0.4, **SMALL)
    run = folds.load_run("soft")
    ids = [line.split(",")[0] for line in Path("runs/soft/folds.csv").read_text().splitlines()[1:]]
    targets = dict(zip(ids, np.load("runs/soft/softened.npy").tolist(), strict=True))
    assert targets["0.png"] == pytest.approx([0.4 * 0.75, 0.6 + 0.4 * 0.25])  # given: b
    assert targets["5.png"] == [1.0, 0.0]
    assert run.summary().selected_on_validation
    assert run.config["soften_weight"] == 0.4
    notes = compare_runs("base", "soft").notes
    assert any("have seen the scored people" in line for line in notes)


def test_out_of_fold_predictions_soften_all_images_of_the_file(copy: Path) -> None:
    found = changes(soften=Path("runs/base.oof.npy"))
    votes = folds.read_predictions("runs/base.oof.npy")
    assert found.softened.all()
    assert found.targets is not None
    table = data().train
    order = [votes.ids.tolist().index(name) for name in table.ids.tolist()]
    given = np.array([[name == one for one in table.classes] for name in table.labels.tolist()], float)
    np.testing.assert_allclose(found.targets, 0.5 * given + 0.5 * votes.probabilities[order], atol=1e-6)
    with pytest.raises(EnsembleError, match="expected out-of-fold predictions"):
        changes(soften=Path("runs/base.fold0.test.npy"))


@pytest.mark.parametrize("row", [[1.5, -0.5], [0.6, 0.6], [0.0, 0.0], [np.nan, 1.0]])
def test_votes_that_are_no_probabilities_are_refused(copy: Path, row: list[float]) -> None:
    values = np.load("runs/base.oof.npy")
    values[5] = row
    np.save("runs/base.oof.npy", values)
    name = folds.read_predictions("runs/base.oof.npy").ids[5]
    with pytest.raises(EnsembleError, match=f"expected probabilities that sum to 1, found .* for '{name}'"):
        changes(soften=Path("runs/base.oof.npy"))


def test_a_resume_compares_the_changes(copy: Path) -> None:
    made = {"relabel": write("labels.csv", *CORRECT), "drop": write("drop.csv", "id", "9.png")}
    folds.kfold(data(), name="clean", **made, **SMALL)
    before = Path("runs/clean.oof.npy").read_bytes()
    shutil.rmtree("runs/clean/fold1")
    Path("checkpoints/clean/fold1.pt").unlink()
    moved = {name: file.rename(f"moved-{name}.csv") for name, file in made.items()}  # equal content
    folds.kfold(data(), name="clean", **moved, **SMALL)
    assert Path("runs/clean.oof.npy").read_bytes() == before
    with pytest.raises(EnsembleError) as without:
        folds.kfold(data(), name="clean", relabel=moved["relabel"], **SMALL)
    assert any(line.startswith("drop: a file") for line in without.value.details)
    write("moved-drop.csv", "id", "10.png")
    with pytest.raises(EnsembleError) as other:
        folds.kfold(data(), name="clean", **moved, **SMALL)
    assert any("drop_sha" in line for line in other.value.details)
    with pytest.raises(EnsembleError) as added:
        folds.kfold(data(), name="base", drop=moved["drop"], **SMALL)
    assert any(line.startswith("drop: not set") for line in added.value.details)


def test_a_run_without_changes_records_nothing_new(world: Path) -> None:
    config = (world / "runs/base/config.toml").read_text()
    assert not any(word in config for word in ("relabel", "drop =", "drop_sha", "soften"))
    assert not (world / "runs/base/changed_labels.csv").exists()
    assert changed_ids("base", world / "runs") == frozenset()


@pytest.mark.parametrize(
    ("option", "lines", "said"),
    [
        ("relabel", ("id,new_label", "60.png,a"), "is a test image, and test labels are never changed"),
        ("drop", ("id", "61.png"), "is a test image"),
        ("soften", ("id,vote_a,vote_b", "62.png,.5,.5"), "is a test image"),
        ("relabel", ("id,new_label", "0.pn,a"), "did you mean 0.png"),
        ("drop", ("id", "x", "y"), "2 images of .* are not in table.csv"),
        ("relabel", ("id,new_label", "0.png,c"), "unknown class in labels.csv row 2 'c'"),
        ("relabel", ("id,new_label", "0.png,b"), "changes no label"),
        ("relabel", ("id,new_label", "0.png,a", "0.png,a"), "is in labels.csv row 2 as well"),
        ("relabel", ("id,new_label,decision", "0.png,,relabel"), "without a new label"),
        ("relabel", ("id,new_label,decision", "0.png,a,drop"), "expected one of them"),
        ("relabel", ("id,label,new_label", "0.png,a,b"), "label of '0.png' is a there and b in table.csv"),
        ("relabel", ("id,new", "0.png,b"), "has no column|no column"),
        ("drop", ("id,decision", "0.png,keep"), "no row has the decision drop"),
        ("drop", ("id,decision", "0.png,remove"), "unknown decision in labels.csv row 2"),
        ("soften", ("id,vote_a", "0.png,1"), "vote_b"),
        ("soften", ("id,vote_a,vote_b", "0.png,.5,.6"), "votes from 0 that sum to 1"),
        ("soften", ("id,vote_a,vote_b", "0.png,x,.6"), "votes from 0 that sum to 1"),
    ],
)
def test_a_wrong_file_is_refused_with_one_line(copy: Path, option: str, lines: tuple[str, ...], said: str) -> None:
    with pytest.raises(EnsembleError, match=said):
        changes(**{option: write("labels.csv", *lines)})


def test_an_image_cannot_be_dropped_and_relabeled(copy: Path) -> None:
    with pytest.raises(EnsembleError, match=r"is in drop=drop\.csv and in relabel=labels\.csv"):
        changes(relabel=write("labels.csv", *CORRECT), drop=write("drop.csv", "id", "1.png"))


def test_one_file_is_given_to_several_options_of_which_one_may_use_no_row(copy: Path) -> None:
    file = write("labels.csv", *CORRECT)
    found = changes(relabel=file, drop=file, soften=file)
    assert (int(found.relabeled.sum()), int(found.dropped.sum()), found.targets) == (3, 0, None)
    file = write("labels.csv", CORRECT[0], "3.png,p01,a,b,.9,,drop")
    assert int(changes(relabel=file, drop=file).dropped.sum()) == 1
    table = data().train
    assert relabeled_labels(Recipe(relabel=file, drop=file), table) == table.labels.tolist()
    file = write("labels.csv", CORRECT[0], "3.png,p01,a,b,.9,,keep")
    with pytest.raises(EnsembleError, match="change nothing: no row"):
        changes(relabel=file, drop=file)


def test_a_class_that_no_fold_could_learn_is_refused(copy: Path) -> None:
    table = data().train
    ids = table.ids[table.labels == "a"].tolist()
    with pytest.raises(EnsembleError, match="has no training image of the class 'a' after"):
        folds.kfold(data(), name="none", drop=write("drop.csv", "id", *ids), **SMALL)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"soften_weight": 0.5}, "soften_weight needs soften"),
        ({"relabel": Path("x"), "rebin": {"age": {"column": "y", "cuts": [1]}}}, "contradict"),
        ({"soften": Path("x"), "soft_labels": Path("y")}, "contradict"),
        ({"soften": Path("x"), "features": True}, "contradict"),
    ],
)
def test_settings_that_do_not_fit_are_refused(recipe: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check(Settings(), Recipe(**recipe))


def test_heads_on_frozen_features_learn_the_changes_too(copy: Path) -> None:
    made: dict[str, Any] = {**SMALL, "features": True, "head": "linear"}
    folds.kfold(data(), name="plain", **made)
    changed = {"relabel": write("labels.csv", *CORRECT), "drop": write("drop.csv", "id", "4.png")}
    folds.kfold(data(), name="less", **made, **changed)
    plain, less = (folds.load_run(name) for name in ("plain", "less"))
    learned = [
        sum(len(load_checkpoint(path).training_hashes) for path in run.checkpoints.values()) for run in (plain, less)
    ]
    assert learned[0] - learned[1] == 1
    assert not np.allclose(plain.oof.probabilities, less.oof.probabilities)
