"""`blend` of arrays: the numbers of the files' blend, honest scores, and what is refused."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ensemble.blending.blend import Blend
from ensemble.blending.face import blend
from ensemble.blending.request import ALL_METHODS
from folds.errors import EnsembleError, UsageError
from folds.metrics.arrays import compare, score
from folds.predictions.predictions import Predictions, read_predictions


def replace_run(predictions: Predictions, run: str) -> Predictions:
    return replace(predictions, metadata=replace(predictions.metadata, run=run))


NAMES = np.array(["worn", "wrong", "none"])  # not in alphabetical order
LEARNED = [name for name in ALL_METHODS if name not in ("soft", "weighted", "grades")]


def problem(seed: int = 0, people: int = 40) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), rng.integers(1, 6, people))
    codes = rng.integers(0, 3, people)[person]
    arrays = {}
    for name, noise in (("zeta", 0.7), ("alpha", 0.8), ("mid", 0.9)):
        guess = rng.dirichlet(np.ones(3), len(person))
        arrays[name] = ((1 - noise) * np.eye(3)[codes] + noise * guess).astype(np.float32)
    return {"arrays": arrays, "y": NAMES[codes], "person": np.array([f"p{i}" for i in person]), "fold": person % 4}


@cache
def blended(method: str) -> tuple[dict[str, Any], Blend]:
    """A problem and its blend, made once for the tests that do not change it; `auto` takes seconds."""
    case = problem(2)
    about = {"y": case["y"], "groups": case["person"], "fold": case["fold"], "classes": NAMES}
    return case, blend(case["arrays"], method=method, **about)


def as_files(case: dict[str, Any], folder: Path) -> list[Path]:
    ids = [f"{i:04d}" for i in range(len(case["y"]))]
    return [
        Predictions.from_array(
            values, ids=ids, classes=NAMES, labels=case["y"], persons=case["person"], fold=case["fold"], run=name
        ).save(folder / f"{name}.oof.npy")
        for name, values in case["arrays"].items()
    ]


@pytest.mark.parametrize("method", [name for name in ALL_METHODS if name not in ("weighted", "grades", "auto")])
def test_arrays_and_files_give_the_same_blend(method: str, tmp_path: Path) -> None:
    case, ours = blended(method)
    theirs = blend(as_files(case, tmp_path), method=method, contributions=False)
    assert ours.oof is not None
    assert theirs.oof is not None
    assert ours.classes == tuple(NAMES)
    columns = [theirs.classes.index(name) for name in NAMES]
    assert (ours.oof.probabilities == theirs.oof.probabilities[:, columns]).all()
    assert ours.weights == theirs.weights
    assert ours.nested == theirs.nested
    assert ours.methods().equals(theirs.methods())


@pytest.mark.parametrize(
    "options", [{"calibrate": "temperature"}, {"calibrate": "before:vector", "method": "geometric"}]
)
def test_calibrated_arrays_and_files_give_the_same_blend(options: dict[str, Any], tmp_path: Path) -> None:
    case = problem(1)
    files = as_files(case, tmp_path)
    ours = blend(case["arrays"], y=case["y"], groups=case["person"], fold=case["fold"], classes=NAMES, **options)
    theirs = blend(files, **options)
    assert ours.oof is not None
    assert theirs.oof is not None
    assert (ours.oof.frame()[list(NAMES)] == theirs.oof.frame()[list(NAMES)]).all().all()


def test_weights_may_be_named_listed_or_text() -> None:
    case = problem()
    about = {"y": case["y"], "groups": case["person"], "classes": NAMES}
    a = blend(case["arrays"], weights={"mid": 1, "zeta": 3, "alpha": 0}, **about)
    b = blend(case["arrays"], weights=[3, 0, 1], **about)
    c = blend(case["arrays"], weights="zeta=.75,alpha=0,mid=.25", **about)
    assert a.weights == b.weights == c.weights == {"zeta": 0.75, "alpha": 0.0, "mid": 0.25}
    mean = 0.75 * case["arrays"]["zeta"] + 0.25 * case["arrays"]["mid"]
    assert a.predict_proba({name: case["arrays"][name] for name in ("zeta", "mid")}) == pytest.approx(mean)
    assert blend(case["arrays"], weights=[1, 1, 2], runs=["zeta", "alpha", "mid"], **about).method == "weighted"


@pytest.mark.parametrize(
    "method", ["soft", "hard", "geometric", "rank", "greedy", "simplex", "per-class", "bias", "stacking", "auto"]
)
def test_new_arrays_are_combined_as_the_old_ones(method: str) -> None:
    case, made = blended(method)
    found = made.predict_proba(case["arrays"])
    assert found.dtype == np.float32
    assert found.shape == (len(case["y"]), 3)
    assert found.sum(axis=1) == pytest.approx(np.ones(len(found)), abs=1e-5)
    again = score(case["y"], found, groups=case["person"], classes=NAMES)
    assert again.value == pytest.approx(made.in_sample)
    turned = {name: pd.DataFrame(values, columns=NAMES)[sorted(NAMES)] for name, values in case["arrays"].items()}
    assert made.predict_proba(turned) == pytest.approx(found, abs=1e-6)


def test_order_of_names_and_of_classes_changes_nothing() -> None:
    case = problem()
    about = {"y": case["y"], "groups": case["person"], "method": "greedy"}
    one = blend(case["arrays"], classes=NAMES, **about)
    other = blend(
        {name: pd.DataFrame(values, columns=NAMES)[sorted(NAMES)] for name, values in reversed(case["arrays"].items())},
        **about,
    )
    assert {name: other.weights[name] for name in one.weights} == one.weights
    assert one.oof is not None
    assert other.oof is not None
    assert (one.oof.frame()[list(NAMES)] == other.oof.frame()[list(NAMES)]).all().all()


def test_predictions_are_put_in_line_by_id() -> None:
    case = problem()
    ids = np.array([f"{i:03d}" for i in range(len(case["y"]))])
    about = {"classes": NAMES, "labels": case["y"], "persons": case["person"], "fold": case["fold"]}
    plain = {name: Predictions.from_array(values, ids=ids, **about) for name, values in case["arrays"].items()}
    order = np.random.default_rng(0).permutation(len(ids))
    mixed = {name: values.take(order) if name == "alpha" else values for name, values in plain.items()}
    one, other = blend(plain, method="greedy"), blend(mixed, method="greedy")
    assert one.oof is not None
    assert other.oof is not None
    assert one.nested == other.nested
    assert (other.oof.probabilities == one.oof.probabilities).all()
    arrays = dict(case["arrays"]) | {"alpha": mixed["alpha"]}
    about = {"y": case["y"], "groups": case["person"], "fold": case["fold"], "ids": ids, "method": "greedy"}
    assert blend(arrays, classes=NAMES, **about).weights == one.weights
    with pytest.raises(UsageError, match="'zeta' does not name the class of each column"):
        blend(arrays, **about)
    with pytest.raises(UsageError, match="aligned by id"):
        blend(arrays, y=case["y"], classes=NAMES)
    listed = blend([replace_run(value, name) for name, value in plain.items()])
    assert set(listed.weights) == set(case["arrays"])


def test_the_score_is_of_people_who_were_not_learned_from() -> None:
    """Noise alone: what is learned looks good where it was fitted, and the nested score says that it is not."""
    rng = np.random.default_rng(0)
    y, person = rng.integers(0, 2, 200), np.arange(200) // 2
    arrays = {f"noise{i}": rng.dirichlet([1, 1], 200) for i in range(12)}
    made = blend(arrays, y=y, groups=person, method="stacking", metric="accuracy")
    assert made.in_sample is not None
    assert made.nested is not None
    assert made.optimism == pytest.approx(made.in_sample - made.nested.value)
    assert made.optimism > 0.03
    assert made.nested.low < 0.5 < made.nested.high


def test_test_arrays_are_blended_too_and_all_is_saved(tmp_path: Path) -> None:
    case = problem()
    test = {name: values[:7] for name, values in case["arrays"].items()}
    made = blend(case["arrays"], y=case["y"], groups=case["person"], classes=NAMES, test=test, method="simplex")
    assert made.test is not None
    assert (made.test.probabilities == made.predict_proba(test)).all()
    folder = made.save("mine", root=tmp_path)
    assert folder == tmp_path / "runs/blends/mine"
    assert made.save("mine", root=tmp_path) == folder
    oof = read_predictions(folder / "oof.npy")
    assert made.oof is not None
    assert (oof.frame()[list(NAMES)] == made.oof.frame()[list(NAMES)]).all().all()
    assert json.loads((folder / "blend.json").read_text())["weights"] == made.to_dict()["weights"]
    other = blend(case["arrays"], y=case["y"], groups=case["person"], classes=NAMES)
    with pytest.raises(EnsembleError, match="holds another blend"):
        other.save("mine", root=tmp_path)
    assert other.save(root=tmp_path).name == other.name


def test_without_labels_arrays_are_test_samples() -> None:
    case = problem()
    made = blend(case["arrays"], classes=NAMES)
    assert made.oof is None
    assert made.nested is None
    assert made.test is not None
    assert made.test.probabilities == pytest.approx(np.mean(list(case["arrays"].values()), axis=0), abs=1e-6)
    with pytest.raises(UsageError, match="found no y"):
        blend(case["arrays"], method="greedy")
    with pytest.raises(EnsembleError, match="known labels"):
        made.contributions()


def test_tables_say_what_the_record_says() -> None:
    case, made = blended("auto")
    record = made.to_dict()
    methods, runs, front = made.methods(), made.contributions(), made.pareto()
    assert methods["score"].to_dict() == {one["method"]: one["nested"]["score"] for one in record["fitted"]["methods"]}
    assert runs["weight"].to_dict() == {one["run"]: one["weight"] for one in record["worth"]["members"]}
    assert len(front) in (len(record["worth"]["pareto"]["rows"]), len(record["worth"]["pareto"]["rows"]) + 1)
    assert runs["shapley"].notna().all()
    plain = blend(case["arrays"], y=case["y"], groups=case["person"], classes=NAMES)
    assert plain.to_dict()["worth"] is None
    assert set(plain.contributions().index) == set(case["arrays"])
    assert plain.optimism == 0
    json.dumps(record)


def test_equal_arrays_under_two_names_both_vote() -> None:
    case = problem()
    twice = dict(case["arrays"]) | {"copy": case["arrays"]["zeta"]}
    about = {"y": case["y"], "groups": case["person"], "classes": NAMES}
    assert blend(twice, **about).weights["copy"] == 0.25
    assert "copy" not in blend(twice, allow_duplicates=False, **about).weights


def test_the_notebook_draws_the_paired_differences_to_the_runs() -> None:
    case, made = blended("greedy")
    shown = made._repr_html_()
    assert made.oof is not None
    for values in case["arrays"].values():
        found = compare(case["y"], values, made.oof.probabilities, groups=case["person"], classes=NAMES)
        assert found.difference.signed_text() in shown
    alone = blend({"one": case["arrays"]["mid"]}, y=case["y"], groups=case["person"], classes=NAMES)
    assert "<svg" not in alone._repr_html_()


def test_the_text_is_short_and_names_cannot_run_in_a_notebook() -> None:
    case = problem()
    evil = "<img src=x onerror=alert(1)>".replace("=", "")
    arrays = {f"{evil}{i}": case["arrays"]["zeta"] for i in range(60)}
    made = blend(arrays, y=case["y"], groups=case["person"], classes=NAMES)
    assert len(repr(made).splitlines()) <= 20
    assert "<img" not in made._repr_html_()
    assert isinstance(made, Blend)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"predictions": {}}, "expected one or more predictions, found none"),
        ({"predictions": np.zeros((3, 3))}, "found an array of shape 3 × 3"),
        ({"predictions": {"a,b": np.eye(3)}}, "not a valid name of a run"),
        ({"predictions": {"a": np.eye(3), "b": np.eye(4)}}, "'a' is 3 × 3, 'b' is 4 × 4"),
        ({"predictions": {"a": np.eye(3) * 2}}, "must hold probabilities"),
        ({"y": [0, 1]}, "`?y`? has 2 rows, 'a' has 3"),
        ({"groups": [0, 1]}, "one value for each of 3 rows"),
        ({"fold": [0, 1, -1]}, "whole numbers from 0"),
        ({"ids": ["x", "x", "y"]}, "names a sample twice"),
        ({"classes": ["a", "b"]}, "2 names for 3 columns"),
        ({"method": "softt"}, "did you mean soft"),
        ({"method": "greedy", "weights": {"a": 1}}, "fits its weights"),
        ({"weights": {"b": 1}}, "unknown run"),
        ({"runs": "z"}, "unknown run 'z'"),
        ({"labels": "labels.csv"}, "apply to files"),
        ({"test": {"c": np.eye(3)}}, "no out-of-fold predictions"),
        ({"predictions": ["a.npy"]}, "applies to arrays"),
    ],
)
def test_what_cannot_be_blended_is_refused(change: dict[str, Any], said: str) -> None:
    given = {"predictions": {"a": np.eye(3)}, "y": [0, 1, 2], "groups": ["x", "y", "z"]} | change
    with pytest.raises(UsageError, match=said):
        blend(given.pop("predictions"), **given)


def test_new_predictions_that_do_not_fit_are_refused() -> None:
    case = problem()
    made = blend(case["arrays"], y=case["y"], groups=case["person"], classes=NAMES)
    for change, said in (
        ({"other": np.eye(3)}, "unknown run 'other'"),
        ({"zeta": np.eye(3)}, "predictions of alpha, mid are missing"),
        ({name: np.full((2, 2), 0.5) for name in case["arrays"]}, "3 names for 2 columns"),
        (
            {name: pd.DataFrame(np.eye(3), columns=list("abc")) for name in case["arrays"]},
            "'zeta' has the columns a, b, c, expected the classes worn, wrong, none",
        ),
    ):
        with pytest.raises(UsageError, match=said):
            made.predict_proba(change)


def test_dataframes_in_different_orders_are_refused() -> None:
    frame = pd.DataFrame(np.eye(3), columns=list("abc"), index=["x", "y", "z"])
    with pytest.raises(UsageError, match="different indexes"):
        blend({"one": frame, "two": frame[::-1]}, y=list("abc"))
    with pytest.raises(UsageError, match="different indexes"):
        blend({"one": frame}, y=pd.Series(list("cba"), index=["z", "y", "x"]))


def shuffled(values: Any) -> pd.DataFrame:
    """The same predictions with named columns in another order."""
    return pd.DataFrame(values, columns=NAMES)[["wrong", "none", "worn"]]


def test_arrays_beside_named_columns_keep_their_own_order() -> None:
    case = problem()
    about = {"y": case["y"], "groups": case["person"]}
    expected = blend(case["arrays"], classes=NAMES, **about).oof
    mixed = {name: shuffled(values) if name == "alpha" else values for name, values in case["arrays"].items()}
    found = blend(mixed, classes=NAMES, **about).oof
    assert expected is not None
    assert found is not None
    assert found.classes == tuple(NAMES)
    assert (found.probabilities == expected.probabilities).all()
    with pytest.raises(UsageError, match="'zeta' does not name the class of each column, and the columns of 'alpha'"):
        blend(mixed, **about)
    reverse = pd.DataFrame(case["arrays"]["zeta"], columns=NAMES)
    with pytest.raises(UsageError, match="'alpha' does not name"):
        blend({"zeta": reverse, "alpha": case["arrays"]["alpha"]})
    # Columns in the order that arrays have by default leave no doubt.
    by_name = [list(NAMES).index(name) for name in sorted(NAMES)]
    ordered: dict[str, Any] = {name: values[:, by_name] for name, values in case["arrays"].items()}
    ordered["alpha"] = pd.DataFrame(ordered["alpha"], columns=sorted(NAMES))
    found = blend(ordered, **about).oof
    assert found is not None
    assert (found.frame()[list(NAMES)] == expected.frame()[list(NAMES)]).all().all()


def test_new_and_test_arrays_beside_frames_have_the_blends_order() -> None:
    case = problem()
    about = {"y": case["y"], "groups": case["person"], "classes": NAMES}
    mixed = {name: shuffled(values) if name == "alpha" else values for name, values in case["arrays"].items()}
    made = blend(case["arrays"], test=mixed, **about)
    assert made.test is not None
    assert made.predict_proba(mixed) == pytest.approx(made.predict_proba(case["arrays"]))
    assert made.test.probabilities == pytest.approx(made.predict_proba(case["arrays"]))


def test_a_run_with_weight_must_have_test_predictions() -> None:
    case = problem()
    about = {"y": case["y"], "groups": case["person"], "classes": NAMES}
    test = {name: case["arrays"][name] for name in ("zeta", "mid")}
    with pytest.raises(UsageError, match=r"test.* has no predictions of alpha, found those of zeta, mid"):
        blend(case["arrays"], test=test, **about)
    made = blend(case["arrays"], test=test, weights={"zeta": 1, "alpha": 0, "mid": 1}, **about)
    assert made.test is not None
    assert made.test.probabilities == pytest.approx((test["zeta"] + test["mid"]) / 2, abs=1e-6)


def test_indexes_of_all_arguments_are_compared() -> None:
    case = problem()
    n = len(case["y"])
    frame = {name: pd.DataFrame(values, columns=NAMES) for name, values in case["arrays"].items()}
    y, person = pd.Series(case["y"]), pd.Series(case["person"])
    assert blend(frame, y=y, groups=person).nested == blend(frame, y=case["y"], groups=case["person"]).nested
    for change in ({"y": y[::-1]}, {"groups": person[::-1]}, {"fold": pd.Series(case["fold"])[::-1]}):
        with pytest.raises(UsageError, match="different indexes"):
            blend(frame, **({"y": y, "groups": person} | change))
    with pytest.raises(UsageError, match="different indexes"):
        blend(case["arrays"], y=y, groups=person[::-1], ids=np.arange(n), classes=NAMES)


def test_a_function_can_be_the_metric_of_a_blend(tmp_path: Path) -> None:
    case = problem()
    about = {"y": case["y"], "groups": case["person"], "classes": NAMES, "method": "best", "contributions": False}
    made = blend(case["arrays"], metric=error_rate, **about)
    expected = blend(case["arrays"], metric="accuracy", **about)
    assert made.nested is not None
    assert expected.nested is not None
    assert made.nested.value == pytest.approx(1 - expected.nested.value)
    assert made.to_dict()["metric"] == "error_rate"
    assert pickle.loads(pickle.dumps(made)).nested == made.nested
    folder = made.save("mine", root=tmp_path)
    assert blend(case["arrays"], metric=error_rate, **about).save("mine", root=tmp_path) == folder
    # Two functions of one name are not mixed up, neither by the cache of fits nor by the saved blend.
    for method in ("best", "stacking"):
        about["method"] = method
        same = blend(case["arrays"], metric=lambda labels, p: -error_rate(labels, p), **about)
        other = blend(case["arrays"], metric=lambda labels, p: error_rate(labels, p), **about)
        assert same.identity != other.identity
        assert same.nested is not None
        assert other.nested is not None
        assert (same.nested.value < 0, other.nested.value < 0) == (True, False)


def error_rate(labels: Any, probabilities: Any) -> float:
    return float((labels != probabilities.argmax(1)).mean())


error_rate.greater_is_better = False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options",
    [*({"method": name} for name in (*LEARNED, "soft")), {"calibrate": "after:vector"}, {"max_members": 2}],
    ids=str,
)
def test_a_blend_comes_back_from_pickle(options: dict[str, Any]) -> None:
    case, made = blended("auto")
    if options != {"method": "auto"}:
        case = problem(people=20)
        made = blend(case["arrays"], y=case["y"], groups=case["person"], classes=NAMES, **options)
    again = pickle.loads(pickle.dumps(made))
    assert (again.identity, again.nested, dict(again.weights)) == (made.identity, made.nested, dict(made.weights))
    assert (again.predict_proba(case["arrays"]) == made.predict_proba(case["arrays"])).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": 3}, "method must be text, found 3"),
        ({"power": "x"}, "power must be a number, found 'x'"),
        ({"max_members": "2"}, "max_members must be a whole number, found '2'"),
        ({"max_members": 1.5}, "max_members must be a whole number, found 1.5"),
        ({"budget": "x"}, "budget must be a number"),
        ({"weights": 0.5}, "weights must be text or a mapping run → number or a list of numbers, found 0.5"),
        ({"weights": ["x", 1]}, r"weights must be text or .*, found \['x', 1\]"),
        ({"cost": [1, 2]}, r"cost must be text or a mapping run → number, found \[1, 2\]"),
        ({"cost": {"a": "x"}}, "cost must be text or a mapping"),
        ({"y": "a"}, "y must be one value per row, found 'a'"),
        ({"groups": "a"}, "groups must be one value for each of 3 rows, found 'a'"),
        ({"fold": 0}, "fold must be whole numbers from 0, one for each of 3 rows, found 0"),
        ({"test": np.eye(3)}, "test must be a mapping run → predictions, found an array of shape 3 × 3"),
        ({"progress": "x"}, "progress must be True or False, found 'x'"),
        ({"per_person": "no"}, "per_person must be True or False, found 'no'"),
        ({"logits": 1}, "logits must be True or False, found 1"),
        ({"runs": 3}, "runs must be a name or a list of names"),
        ({"runs": ["a", "zz"]}, "unknown run 'zz'"),
        ({"metric": 3}, "metric must be a name or a function"),
        ({"predictions": {3: np.eye(3)}}, "3 is not a valid name of a run"),
        ({"predictions": [np.eye(3)]}, "found a list with an array of shape 3 × 3"),
        ({"predictions": {"a": object()}}, r"a must be \(samples, classes\), found an object"),
        ({"predictions": {"a": [[1, 2], [3]]}}, "must have rows of one length, found lengths 1, 2"),
        ({"predictions": {"a": np.ma.masked_array(np.eye(3), [[1, 0, 0]] * 3)}}, "no masked values, found 3"),
    ],
)
def test_arguments_of_a_wrong_type_are_named(change: dict[str, Any], said: str) -> None:
    given = {"predictions": {"a": np.eye(3), "b": np.eye(3)}, "y": [0, 1, 2], "groups": ["x", "y", "z"]} | change
    with pytest.raises(UsageError, match=said):
        blend(given.pop("predictions"), **given)


def test_an_unknown_run_is_told_all_names() -> None:
    with pytest.raises(UsageError) as raised:
        blend({"a": np.eye(3), "b": np.eye(3)}, y=[0, 1, 2], runs=["a", "zz"])
    assert raised.value.hint == "known: a, b"


def test_results_refuse_arguments_of_a_wrong_type(tmp_path: Path) -> None:
    case = problem()
    made = blend(case["arrays"], y=case["y"], groups=case["person"], classes=NAMES)
    for wrong in ([case["arrays"]["zeta"]], case["arrays"]["zeta"]):
        with pytest.raises(UsageError, match="predictions must be a mapping run → predictions"):
            made.predict_proba(wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="name must be text, found 3"):
        made.save(3, root=tmp_path)  # type: ignore[arg-type]


def run_of(name: str, oof: Predictions, root: Path, folder: str = "runs") -> SimpleNamespace:
    """What `blend` uses of a trained run or of a result of `tta`."""
    file = replace_run(oof, name).save(root / folder / f"{name}.oof.npy")
    return SimpleNamespace(run=name, files=(file,), oof=replace_run(oof, name), test=None)


def test_runs_vote_under_the_names_they_are_given(tmp_path: Path) -> None:
    case = problem()
    ids = [f"{i:04d}" for i in range(len(case["y"]))]
    about = {"ids": ids, "classes": NAMES, "labels": case["y"], "persons": case["person"], "fold": case["fold"]}
    plain = {name: Predictions.from_array(values, **about) for name, values in case["arrays"].items()}
    run, views = run_of("swin", plain["zeta"], tmp_path), run_of("swin", plain["alpha"], tmp_path, "runs/tta")
    expected = blend({"a": plain["zeta"], "b": plain["alpha"]}).oof
    named = blend({"mine": run, "tta": views})
    assert dict(named.weights) == {"mine": 0.5, "tta": 0.5}
    assert named.oof is not None
    assert expected is not None
    columns = list(NAMES)
    assert (named.oof.frame()[columns] == expected.frame()[columns]).all().all()
    assert dict(blend([run]).weights) == dict(blend(run).weights) == {"swin": 1.0}
    with pytest.raises(UsageError, match="found 'swin' twice"):
        blend([run, views])
    with pytest.raises(UsageError, match="found one without a value"):
        blend([plain["mid"]])
    mixed = blend({"mine": run, "b": plain["alpha"]})
    assert mixed.oof is not None
    assert (mixed.oof.probabilities == expected.probabilities).all()
    with pytest.raises(UsageError, match="y applies to arrays, found runs"):
        blend({"mine": run}, y=case["y"])
