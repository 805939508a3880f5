"""Tests of blend.toml: joined attributes can be reproduced, invalid files are rejected in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble.blending.blend import make_blend
from ensemble.blending.recipe import BlendRecipe, RunRecipe, read_recipe, recipe_of, to_text
from ensemble.blending.request import BlendConfig
from ensemble.learning.combination import Calibration, Combination
from folds.errors import EnsembleError
from folds.predictions.files import PredictionMetadata, SampleRows, write_prediction

CLASSES = ("ant", "bee")
SHA = "0a" * 32
PLAIN = BlendRecipe(
    "1a2b",
    CLASSES,
    Combination(
        ("run0", "run1"), weights=np.array([0.25, 0.75]), after=Calibration(np.array(1.5), np.array([0.5, -0.5]))
    ),
    (
        RunRecipe("run0", folds=(0, 1), checkpoints={"0": SHA, "1": SHA}),
        RunRecipe("run1", arch="swin", views=("none", "hflip")),
    ),
)
JOINED = BlendRecipe(
    "1a2b",
    CLASSES,
    Combination(("mask+age",)),
    (
        RunRecipe("mask+age", joined=("m", "m.age")),
        RunRecipe("m", "mask", checkpoints={"0": SHA}, classes=("no", "yes")),
        RunRecipe("m.age", "age", checkpoints={"0": SHA}, classes=("old", "young"), run="m"),
    ),
    class_attributes={"ant": {"mask": "yes", "age": "old"}, "bee": {"mask": "no", "age": "young"}},
)


def same(one: BlendRecipe, other: BlendRecipe) -> bool:
    return to_text(one, "x") == to_text(other, "x")


@pytest.mark.parametrize("recipe", [PLAIN, JOINED])
def test_a_recipe_is_read_as_written(tmp_path: Path, recipe: BlendRecipe) -> None:
    path = tmp_path / "blend.toml"
    path.write_text(to_text(recipe, "x"))
    read = read_recipe(path)
    assert same(read, recipe)
    assert (read.classes, read.class_attributes, [run.joined for run in read.runs]) == (
        recipe.classes,
        recipe.class_attributes,
        [run.joined for run in recipe.runs],
    )


@pytest.mark.parametrize(
    ("recipe", "before", "after", "message"),
    [
        (PLAIN, "schema = 1", "schema = 1\nx = " + "[" * 5000 + "]" * 5000, "cannot be read"),
        (PLAIN, "schema = 1", "schema = " + "1" * 5000, "cannot be read"),
        (PLAIN, "schema = 1", 'schema = "a\\nb"', "has schema 'a"),
        (PLAIN, "weights = [0.25, 0.75]", f"weights = [1{'0' * 400}, 1]", "'weights'"),
        (PLAIN, 'runs = ["run0", "run1"]', "runs = []", "'runs' must be one or more names"),
        (PLAIN, 'runs = ["run0", "run1"]', 'runs = ["run0", "run0"]', "none repeated"),
        (PLAIN, 'runs = ["run0", "run1"]', 'runs = ["run0", "run2"]', "run 'run2' is combined"),
        (PLAIN, 'classes = ["ant", "bee"]', "classes = []", "numbers|'classes'"),
        (PLAIN, 'classes = ["ant", "bee"]', 'classes = ["ant", "ant"]', "'classes' must be one or more distinct"),
        (PLAIN, 'classes = ["ant", "bee"]', 'classes = ["ant", ""]', "'classes' must be one or more distinct"),
        (PLAIN, 'classes = ["ant", "bee"]', 'classes = ["ant", "b\\u001b[2J"]', "'classes' is"),
        (PLAIN, "temperature_after = 1.5", "temperature_after = 1e-320", "temperatures must be"),
        (PLAIN, "temperature_after = 1.5\n", "", "'offset_after' needs"),
        (PLAIN, 'name = "run1"', 'name = "run1"\njoined = ["run1"]', "joins 'run1', which is a joined run itself"),
        (PLAIN, 'name = "run1"', 'name = "run1"\nfolds=[]\nviews=[]\n[[run]]\nname = "run1"', "two tables"),
        (PLAIN, f'"0" = "{SHA}"', '"0" = "../../../x"', "a SHA-256 in hex"),
        (PLAIN, f'"0" = "{SHA}"', f'"../0" = "{SHA}"', "the number of a fold"),
        (PLAIN, "run0", "../../etc", "expected a name of letters"),
        (PLAIN, "run1", "../../etc", "expected a name of letters"),
        (PLAIN, "run1", "/etc/passwd", "expected a name of letters"),
        (PLAIN, "run0", "a b", "expected a name of letters"),
        (PLAIN, '"hflip"', '"h\\nflip"', "'views'"),
        (
            PLAIN,
            'name = "run0"',
            'name = "run0"\nhand_over = [1.0]',
            "run 'run0': 'hand_over' must be a slope and 1 asc",
        ),
        (PLAIN, 'name = "run0"', 'name = "run0"\nhand_over = [1.0, "2"]', "'hand_over'"),
        (PLAIN, 'name = "run0"', 'name = "run0"\nclasses = ["ant", "x"]', "'classes' are not those of the blend"),
        (JOINED, 'name = "mask+age"', 'name = "mask+age"\nhand_over = [1.0, 2.0]', "'hand_over' is for a run of one"),
        (JOINED, 'name = "m"', 'name = "m"\nhand_over = [1.0, 2.0]', "'hand_over' is for a run of one number"),
        (JOINED, 'run = "m"', 'run = "../m"', "expected a name of letters"),
        (JOINED, 'joined = ["m", "m.age"]', 'joined = ["m", "m"]', "names a run twice"),
        (JOINED, 'joined = ["m", "m.age"]', 'joined = ["m", "n"]', "run 'n' is joined"),
        (JOINED, '"age" = "young"', '"age" = "new"', "must give the column of each class's age"),
        (JOINED, 'classes = ["no", "yes"]\n', "", "must give the column of each class's mask"),
        (JOINED, 'classes = ["no", "yes"]', 'classes = ["no", "no", "yes"]', "must be distinct"),
    ],
)
def test_invalid_recipes_are_rejected_in_one_line(
    tmp_path: Path, recipe: BlendRecipe, before: str, after: str, message: str
) -> None:
    text = to_text(recipe, "x")
    assert before in text
    path = tmp_path / "blend.toml"
    path.write_text(text.replace(before, after))
    with pytest.raises(EnsembleError, match=message) as caught:
        read_recipe(path)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["mask+gender+age", "run0#2", "a.b-c_d"])
def test_names_with_plus_and_hash_can_be_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "blend.toml"
    path.write_text(to_text(PLAIN, "x").replace("run0", name))
    assert read_recipe(path).runs[0].name == name


def test_joined_attributes_can_be_reproduced_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `m` predicts two attributes, not in alphabetical order; `g` predicts one of them again."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    classes = ("a", "b", "c", "d")
    meaning = {name: {"mask": ("yes", "no")[i // 2], "age": ("young", "old")[i % 2]} for i, name in enumerate(classes)}
    rows = SampleRows(np.arange(9).astype(str))
    values: dict[tuple[str, str], np.ndarray] = {}
    for run, target, names in (
        ("m", "mask", ("yes", "no")),
        ("m", "age", ("young", "old")),
        ("g", "age", ("old", "young")),
        ("full", "label", classes),
    ):
        values[run, target] = random.dirichlet(np.ones(len(names)), 9).astype(np.float32)
        sidecar = PredictionMetadata(
            "probability",
            "test",
            names,
            rows,
            target=target,
            class_attributes=meaning,
            fold=0,
            run=run,
            checkpoint_sha=SHA,
        )
        write_prediction(tmp_path / f"{run}.{target}.test.npy", values[run, target], sidecar)
    blend = make_blend(sorted(tmp_path.glob("*.npy")), BlendConfig())
    made = recipe_of(blend)
    assert made is not None
    (tmp_path / "blend.toml").write_text(to_text(made, "x"))
    read = read_recipe(tmp_path / "blend.toml")
    assert same(read, made)
    by_name = {run.name: run for run in read.runs}
    joint = next(run for run in read.runs if run.joined)
    product = np.ones((9, 4))
    for target in ("mask", "age"):
        parts = [by_name[name] for name in joint.joined if by_name[name].target == target]
        columns = [[part.classes.index(read.class_attributes[name][target]) for name in read.classes] for part in parts]
        product *= np.mean(
            [values[part.run or part.name, target][:, column] for part, column in zip(parts, columns, strict=True)],
            axis=0,
        )
    mean = (values["full", "label"] + product / product.sum(1, keepdims=True)) / 2
    np.testing.assert_allclose(blend.votes["test"].probabilities, mean, atol=1e-6)
    assert all(part.checkpoints == {"0": SHA} for part in read.runs if not part.joined)
