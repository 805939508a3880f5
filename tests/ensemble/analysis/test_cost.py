"""What a run costs: its models times its views, whichever files there are, or as the user says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedFile, AlignedSplit, RunPredictions
from ensemble.analysis.cost import Cost, Costs, costs_of, parse_costs
from ensemble.members.reading import Member
from folds.errors import UsageError
from folds.predictions.files import PredictionMetadata, SampleRows
from tests.ensemble.small_runs import split_of

ROWS = SampleRows(np.arange(6).astype(str))


def part(
    views: tuple[str, ...] = (), fold: NDArray[np.int64] | int | None = None, rows: NDArray[np.int64] | None = None
) -> AlignedFile:
    values = np.full((6, 2), 0.5, np.float32)
    sidecar = PredictionMetadata("probability", "oof", ("0", "1"), ROWS, views=views)
    return AlignedFile(Member(Path("x.npy"), "x", values, None, False, sidecar, ROWS, ROWS, ""), rows, fold=fold)


def split(name: str, **runs: tuple[AlignedFile, ...]) -> AlignedSplit:
    return replace(split_of(*(RunPredictions(run, parts, 2) for run, parts in runs.items()), n=6), name=name)


def test_cost_is_test_files_times_views() -> None:
    found = costs_of({"test": split("test", plain=(part(),) * 5, views=(part(("none", "hflip")),) * 3)})
    assert found.of == {"plain": Cost(5, 5), "views": Cost(3, 6)}
    assert found.unit == "passes"


def test_the_plain_view_is_one_pass() -> None:
    assert costs_of({"test": split("test", a=(part(("none",)),))}).of["a"].passes == 1


def test_without_test_files_the_out_of_fold_folds_are_counted() -> None:
    folds = np.array([0, 0, 1, 1, 2, -1])
    found = costs_of({"oof": split("oof", a=(part(fold=folds),), b=(part(("none", "hflip"), folds),), bare=(part(),))})
    assert found.of == {"a": Cost(3, 3), "b": Cost(3, 6), "bare": Cost(1, 1)}
    # Files of a fold each; and one whose rows of folds 1 and 2 another file replaces.
    assert costs_of({"oof": split("oof", a=(part(fold=0), part(fold=1)))}).of["a"] == Cost(2, 2)
    assert costs_of({"oof": split("oof", a=(part(fold=folds, rows=np.array([0, 1, -1, -1, -1, -1])),))}).of[
        "a"
    ] == Cost(1, 1)


def test_test_files_take_precedence_over_out_of_fold() -> None:
    oof = split("oof", a=(part(fold=np.array([0, 1, 2, 3, 4, 4])),))
    assert costs_of({"oof": oof, "test": split("test", a=(part(),) * 2)}).of["a"] == Cost(2, 2)


def test_costs_per_pass_from_the_user_multiply_passes() -> None:
    found = costs_of(
        {"test": split("test", swin=(part(),) * 5, resnet18=(part(),) * 5)},
        parse_costs("swin=3, resnet18=.5", ["swin", "resnet18"]),
    )
    assert found.of["swin"].total == 15
    assert found.total(["swin", "resnet18"]) == 17.5
    assert found.saved(["resnet18"]) == pytest.approx(15 / 17.5)
    assert found.unit == "cost"
    assert found.to_dict()["runs"]["swin"] == {"models": 5, "passes": 5, "cost": 15.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("swin=3", "no value for resnet18"),
        ("swni=3,resnet18=1", "did you mean swin"),
        ("swin=3,swin=1,resnet18=1", "twice"),
        ("swin,resnet18=1", "RUN=NUMBER"),
        ("swin=0,resnet18=1", "above 0"),
        ("swin=nan,resnet18=1", "above 0"),
        ("swin=inf,resnet18=1", "above 0"),
        ("swin=much,resnet18=1", "'much'"),
        ("swin=1e308,resnet18=1e308", "from 1e-06 to 1e+12, found 1e308"),
        ("swin=1,resnet18=1e-320", "the cost per pass of resnet18"),
        ("", "no value for swin, resnet18"),
    ],
)
def test_invalid_costs_are_rejected(text: str, message: str) -> None:
    with pytest.raises(UsageError, match="cost") as caught:
        parse_costs(text, ["swin", "resnet18"])
    assert message in str(caught.value)
    assert caught.value.hint


def test_total_cost_does_not_depend_on_the_order() -> None:
    costs = Costs({name: Cost(1, 1, each) for name, each in (("a", 0.1), ("b", 0.2), ("c", 0.3))})
    assert costs.total(["a", "b", "c"]) == costs.total(["c", "b", "a"])
    assert costs.saved(["a", "b", "c"]) == 0
