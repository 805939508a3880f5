"""What is fitted is written with the bounds with which it is read, or is refused in one line before it is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ensemble as en
from ensemble.blending.recipe import check_written, read_recipe, recipe_of
from ensemble.decisions.decision import Decision
from ensemble.decisions.labels import LabelRule
from ensemble.decisions.record import RuleRecord
from ensemble.learning.apply import apply_combination
from ensemble.learning.columns.combination import ColumnCombination
from ensemble.members.columns import ColumnNames
from ensemble.members.label_tables import read_true_columns
from ensemble.pooling.bags import Bags
from ensemble.pooling.columns import ColumnPooling
from folds.errors import EnsembleError, UsageError

PERSON = np.repeat(np.arange(15), 2)


def blended(unit: float, **given: object) -> en.Blend:
    """Return a blend of two runs that are wrong by a factor and a shift, so that the fit has an intercept."""
    random = np.random.default_rng(0)
    truth = random.uniform(20, 70, 15)[PERSON]
    runs = {name: unit * (0.4 * truth + 30 + random.normal(0, 2, 30)) for name in "ab"}
    named = {"y": unit * truth, "groups": PERSON, "task": "regression", "progress": False}
    return en.blend(runs, **named, **given)


@pytest.mark.parametrize(("unit", "pool"), [(1e9, None), (3e11, "learned"), (1e36, None), (1e-20, "learned")])
def test_a_blend_of_any_unit_is_read_as_it_was_written(unit: float, pool: str | None, tmp_path: Path) -> None:
    made = blended(unit, method="stacking", pool=pool)
    recipe = read_recipe(made.save("x", root=tmp_path) / "blend.toml")
    fitted = made.combination
    assert isinstance(fitted, ColumnCombination)
    assert isinstance(recipe.combination, ColumnCombination)
    assert fitted.intercept is not None
    assert recipe.combination.intercept == pytest.approx(fitted.intercept, rel=1e-8)
    if pool is None:
        assert abs(fitted.intercept[0]) > unit
        split = made.splits["oof"]
        values = [apply_combination(split, one).probabilities for one in (fitted, recipe.combination)]
    else:
        assert fitted.pooling is not None
        assert recipe.combination.pooling is not None
        assert isinstance(fitted.pooling, ColumnPooling)
        assert np.abs(fitted.pooling.linear).max() > unit
        random, bags = np.random.default_rng(1), Bags(np.repeat(np.arange(5), 3), 5)
        images = unit * random.uniform(40, 60, (15, 1))
        values = [one.apply("a", images, bags) for one in (fitted.pooling, recipe.combination.pooling)]
    np.testing.assert_allclose(values[1], values[0], rtol=1e-5)


def test_a_fit_that_would_be_refused_is_not_written(tmp_path: Path) -> None:
    made = blended(1.0, method="nnls")
    recipe = recipe_of(made)
    assert recipe is not None
    check_written(recipe, "blend.toml")
    huge = replace(recipe.combination, linear=np.full((2, 1), 1e39))
    with pytest.raises(EnsembleError, match=r"'linear' must be numbers from -1e\+38 to 1e\+38"):
        check_written(replace(recipe, combination=huge), "blend.toml")
    broken = replace(made, combination=huge)
    with pytest.raises(EnsembleError, match="cannot be written to a file that can be read again"):
        broken.save("x", root=tmp_path)
    assert not list(tmp_path.rglob("*.npy"))


def test_numbers_beyond_the_bound_are_refused_where_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,age\na,1e37\nb,1e39\n")
    with pytest.raises(EnsembleError, match=r"row 3: column age holds '1e39', expected a number of at most 1e\+38"):
        read_true_columns(tmp_path / "t.csv", ColumnNames(), "regression", ("age",))
    with pytest.raises(UsageError, match=r"y must hold numbers of at most 1e\+38, or nan, found 1e\+39 in row 1"):
        en.score([1.0, 1e39], [1.0, 2.0], task="regression")
    with pytest.raises(UsageError, match=r"proba must hold numbers of at most 1e\+38, found 1e\+39"):
        en.score([1.0, 2.0], [1.0, -1e39], task="regression")


def test_rules_with_an_aim_for_each_of_many_classes_are_read() -> None:
    classes = tuple(f"class {i}" for i in range(40))
    text = "; ".join(f"{name}:sensitivity>=.9: not guaranteed. It needs 29 people, there are 12" for name in classes)
    rule = LabelRule("thresholds", classes, np.full(40, 0.3))
    made = Decision(classes, labels=rule, records={"labels": RuleRecord(guarantee=text)})
    assert Decision.from_json(made.to_dict(), classes).records["labels"].guarantee == text
