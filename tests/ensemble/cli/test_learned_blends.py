"""`ensemble blend` with fitted methods: nested scores in the table and the file, a recipe, and nothing fitted on test."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.blending.recipe import read_recipe
from ensemble.learning.combination import combine
from ensemble.learning.registry import FITTERS
from ensemble.voting.vote import GRADES
from folds.errors import EnsembleError
from folds.metrics.classification import METRICS
from folds.predictions.files import PredictionMetadata, SampleRows, read_sidecar, write_prediction
from tests.conftest import Called, call_process
from tests.ensemble.worlds import world

Call = Callable[..., Any]
CLASSES = ("ant", "bee", "cat", "dog")
RUNS = ("run0", "run1", "run2")


def rows_of(stack: Any, prefix: str) -> SampleRows:
    names = np.array(CLASSES)[stack.labels]
    return SampleRows(
        np.array([f"{prefix}{i}" for i in range(len(stack))]), names, np.array([f"{prefix}{p}" for p in stack.persons])
    )


def write_runs(folder: Path) -> None:
    """Write three runs of falling skill, the last near guessing: 300 images of 60 people in five folds, 100 test
    images.
    """
    oof, test = world(0, skill=2.0), world(1, people=20, skill=2.0)
    blurred = oof.probabilities.copy()
    blurred[2] = np.random.default_rng(2).dirichlet(np.ones(4), len(oof))
    for i, run in enumerate(RUNS):
        rows = rows_of(oof, "a")
        write_prediction(
            folder / f"runs/{run}.oof.npy",
            blurred[i],
            PredictionMetadata("probability", "oof", CLASSES, rows, fold=oof.outer_folds, run=run),
            rows,
        )
        rows = rows_of(test, "t")
        for fold in range(5):
            sidecar = PredictionMetadata(
                "probability",
                "test",
                CLASSES,
                rows,
                fold=fold,
                run=run,
                arch=f"arch{i}",
                checkpoint_sha=f"{i}{fold}" * 32,
            )
            write_prediction(folder / f"runs/{run}.fold{fold}.test.npy", test.probabilities[i], sidecar, rows)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs of `write_runs`, in the current folder."""
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def auto_done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Called]:
    folder = tmp_path_factory.mktemp("auto")
    write_runs(folder)
    return folder, call_process(("blend", "runs/*.npy", "--method", "auto", "-o", "auto"), folder)


@pytest.fixture
def auto(auto_done: tuple[Path, Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The record of ``blend runs/*.npy --method auto``, in a copy of the folder that it left."""
    assert auto_done[1].code == 0, auto_done[1].err
    shutil.copytree(auto_done[0], tmp_path / "auto")
    monkeypatch.chdir(tmp_path / "auto")
    return json.loads(Path("runs/blends/auto/blend.json").read_text())


@pytest.mark.parametrize(
    "method", [name for name, fitter in FITTERS.items() if fitter.is_fitted and "bagged" not in name]
)
def test_every_method_reports_and_records_its_nested_score(folder: Path, call: Call, method: str) -> None:
    done = call("blend", "runs/*.npy", "--method", method, "-o", "it", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    nested = next(line for line in record["fitted"]["methods"] if line["method"] == method)
    sidecar = read_sidecar(folder / "runs/blends/it/oof.npy")
    assert sidecar is not None
    assert sidecar.rows.labels is not None
    values = np.load(folder / "runs/blends/it/oof.npy")
    truth = np.array([CLASSES.index(name) for name in sidecar.rows.labels])
    # What is written, what the table says and what is believed are one score.
    assert METRICS["macro_f1"](truth, values) == pytest.approx(nested["nested"]["score"])
    assert record["blend"]["oof"]["score"]["macro_f1"]["score"] == pytest.approx(nested["nested"]["score"])
    assert nested["optimism"] == pytest.approx(nested["in_sample"] - nested["nested"]["score"])
    assert sum(record["weights"].values()) == pytest.approx(1)


def test_the_words_say_what_to_believe(folder: Path, call: Call) -> None:
    done = call("blend", "runs/*.npy", "--method", "greedy")
    assert done.code == 0, done.err
    assert "greedy, nested" in done.out
    assert "nested macro F1 0." in done.out
    assert "compared with soft voting:" in done.out
    assert "compared with the best single run" in done.out


def test_labels_of_test_samples_teach_nothing(folder: Path, call: Call) -> None:
    weights = json.loads(call("blend", "runs/*.npy", "--method", "greedy", "--json").out)["weights"]
    assert json.loads(call("blend", "runs/*.oof.npy", "--method", "greedy", "--json").out)["weights"] == weights
    assert weights["run2"] < 0.15 < weights["run0"]


def test_auto_tries_everything_and_the_choice_is_nested(auto: Any, auto_done: tuple[Path, Called]) -> None:
    record = auto
    tried = {line["method"] for line in record["fitted"]["methods"]}
    assert set(FITTERS) - {GRADES} <= tried  # the classes are no grades
    assert record["fitted"]["chosen"] in tried
    assert len(record["fitted"]["chosen_without_each_part"]) == 5
    assert record["worth"]["pareto"]["rows"]
    assert {member["run"] for member in record["worth"]["members"]} == set(RUNS)
    assert "chosen: " in auto_done[1].out
    assert "largest contribution: run" in auto_done[1].out


def test_the_recipe_can_be_read_and_names_every_checkpoint(folder: Path, call: Call) -> None:
    assert call("blend", "runs/*.npy", "--method", "greedy", "--calibrate", "before:vector", "-o", "it").code == 0
    recipe = read_recipe(folder / "runs/blends/it/blend.toml")
    assert recipe.classes == CLASSES
    assert [run.name for run in recipe.runs] == list(RUNS)
    assert recipe.runs[1].arch == "arch1"
    assert recipe.runs[1].folds == (0, 1, 2, 3, 4)
    assert recipe.runs[1].checkpoints == {str(fold): f"1{fold}" * 32 for fold in range(5)}
    test = read_sidecar(folder / "runs/blends/it/test.npy")
    assert test is not None
    from ensemble.learning.apply import apply_combination
    from tests.ensemble.small_runs import probability_run, split_of

    files = [
        probability_run(run, *(np.load(folder / f"runs/{run}.fold{fold}.test.npy") for fold in range(5)))
        for run in RUNS
    ]
    again = apply_combination(split_of(*files, n=len(test.rows)), recipe.combination)
    np.testing.assert_allclose(again.probabilities, np.load(folder / "runs/blends/it/test.npy"), atol=1e-6)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("schema = 1", "schema = 2", "has schema 2"),
        ("[combination]", "[combinations]", "expected a table"),
        ('pool = "soft"', 'pool = "swift"', "'pool'"),
        ('name = "run1"', 'name = "run9"', "no table"),
        ("folds = [0, 1, 2, 3, 4]", 'folds = ["../x"]', "run 0"),
        ("schema = 1", "schema = ", "cannot be read"),
    ],
)
def test_a_recipe_that_was_tampered_with_is_refused(
    folder: Path, call: Call, before: str, after: str, message: str
) -> None:
    assert call("blend", "runs/*.npy", "--method", "greedy", "-o", "it").code == 0
    path = folder / "runs/blends/it/blend.toml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(EnsembleError, match=message):
        read_recipe(path)


def test_every_vote_has_a_recipe(folder: Path, call: Call) -> None:
    for method in ("soft", "hard", "median"):
        assert call("blend", "runs/*.npy", "--method", method, "-o", method).code == 0
        assert read_recipe(folder / f"runs/blends/{method}/blend.toml").combination.pool == method


def test_a_recipe_says_what_the_method_was_told(folder: Path, call: Call) -> None:
    for method, option, value in (("power", "--power", "-1"), ("trimmed", "--trim", ".1")):
        assert call("blend", "runs/*.npy", "--method", method, option, value, "-o", method).code == 0
        found = read_recipe(folder / f"runs/blends/{method}/blend.toml").combination
        assert (found.power, found.trim) == ((-1.0, None) if method == "power" else (None, 0.1))


def test_limits_are_kept_and_their_choice_is_nested(folder: Path, call: Call) -> None:
    record = json.loads(call("blend", "runs/*.npy", "--max-members", "1", "--json").out)
    assert sorted(record["weights"].values()) == [0, 0, 1]
    record = json.loads(call("blend", "runs/*.npy", "--budget", "10", "--json").out)
    assert sum(weight > 0 for weight in record["weights"].values()) <= 2  # each takes five passes
    record = json.loads(call("blend", "runs/*.npy", "--budget", "11", "--cost", "run0=3,run1=1,run2=1", "--json").out)
    assert record["weights"]["run0"] == 0
    assert {line["method"] for line in record["fitted"]["methods"]} == {"soft, limited", "soft", "best"}
    done = call("blend", "runs/*.npy", "--budget", "11", "--cost", "run0=3,run1=1,run2=1", "--worth")
    assert done.code == 0, done.err
    assert "compared with soft voting:" in done.out
    assert next(line for line in done.out.splitlines() if line.endswith("  all")).split()[:2] == ["3", "25"]


def test_calibration_keeps_decisions_and_fits_probabilities(folder: Path, call: Call) -> None:
    plain = json.loads(call("blend", "runs/*.npy", "--metric", "log_loss", "--json").out)
    cooled = json.loads(
        call("blend", "runs/*.npy", "--metric", "log_loss", "--calibrate", "after:temperature", "--json").out
    )
    score = [record["blend"]["oof"]["score"] for record in (plain, cooled)]
    assert score[1]["log_loss"]["score"] < score[0]["log_loss"]["score"]
    assert score[1]["accuracy"] == score[0]["accuracy"]


@pytest.mark.parametrize("flag", ["--contributions", "--worth"])
def test_contributions_of_a_plain_vote_in_both_spellings(folder: Path, call: Call, flag: str) -> None:
    done = call("blend", "runs/*.npy", flag)
    assert done.code == 0, done.err
    assert "most similar" in done.out
    assert "run2" in next(line for line in done.out.splitlines() if line.startswith("smallest contribution"))
    assert "most similar" not in call("blend", "runs/*.npy", "--method", "simplex").out


def test_a_report_of_contributions_is_kept_until_the_next_one(folder: Path, call: Call) -> None:
    def told(*words: str) -> dict[str, Any]:
        assert call("blend", "runs/*.npy", "-o", "it", *words).code == 0
        return json.loads((folder / "runs/blends/it/blend.json").read_text())

    first = told("--worth", "--cost", "run0=3,run1=1,run2=1")
    assert first["worth"]
    assert first["runs"][0]["cost"]["cost"] == 15
    again = told("--breakdown")
    assert told("--detail") == again
    assert again["details"]
    assert (again["worth"], again["runs"]) == (first["worth"], first["runs"])
    assert told() == again
    passes = told("--worth")
    assert passes["details"] == again["details"]
    assert passes["runs"][0]["cost"]["cost"] == 5
    assert passes["worth"] != first["worth"]
    bare = told("--force")
    assert (bare["worth"], bare["details"]) == (None, {})


def test_methods_without_calibration_refuse_it_before_reading(folder: Path, call: Call) -> None:
    for method, why in (("rank", "compares all samples with each other"), ("hard", "counts decisions")):
        refused = call("blend", "nothing/*.npy", "--method", method, "--calibrate", "after:temperature")
        assert refused.code == 2
        assert why in refused.err
        assert "hint: --method soft" in refused.err


def test_a_run_without_oof_predictions_is_not_fitted(folder: Path, call: Call) -> None:
    (folder / "runs/run1.oof.npy").unlink()
    done = call("blend", "runs/*.npy", "--method", "greedy", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert set(record["weights"]) == {"run0", "run2"}
    assert any("run1 skipped: no out-of-fold predictions" in note for note in record["notes"])


def test_people_are_dealt_out_where_members_have_no_folds(folder: Path, call: Call) -> None:
    for run in RUNS:
        (folder / f"runs/{run}.oof.json").unlink()
    rows = rows_of(world(0), "a")
    with (folder / "truth.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "label", "person"), *zip(rows.ids, rows.labels, rows.persons, strict=True)])
    done = call("blend", "runs/*.oof.npy", "--labels", "truth.csv", "--method", "greedy", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["fitted"]["parts"] == 5


def test_a_metric_of_the_user_s_own_is_what_is_learnt_for(folder: Path, call: Call) -> None:
    Path("my_scores.py").write_text(
        "import numpy as np\ndef second(labels, p):\n    return float(np.mean(np.argsort(-p, 1)[:, :2] == labels[:, None]))\n"
    )
    done = call("blend", "runs/*.npy", "--method", "greedy", "--metric", "my_scores:second", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["metric"] == "my_scores:second"
    assert 0 < record["blend"]["oof"]["score"]["my_scores:second"]["score"] < 1


def inline(path: Path, **changes: Any) -> None:
    """A sidecar with its samples written into it, and changed."""
    record = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in record.items() if not key.startswith("samples")}))


def write_truth(folder: Path, *columns: Any, names: tuple[str, ...] = ("id", "label", "person")) -> None:
    with (folder / "truth.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *zip(*columns, strict=True)])


def test_people_from_the_labels_must_not_be_in_two_folds(folder: Path, call: Call) -> None:
    rows = rows_of(world(0), "a")
    for run in RUNS:
        inline(folder / f"runs/{run}.oof.json", ids=rows.ids.tolist(), fold=[i % 5 for i in range(len(rows))])
    write_truth(folder, rows.ids, rows.labels, rows.persons)
    done = call("blend", "runs/*.npy", "--labels", "truth.csv", "--method", "greedy")
    assert done.code == 1
    assert "run0: 60 people appear in more than one fold, e.g. 'a0'" in done.err


def test_unlabeled_images_are_predicted_without_their_person(folder: Path, call: Call) -> None:
    stack = world(0, skill=2.0)
    rows, kept = rows_of(stack, "a"), np.arange(len(stack)) % 2 == 0
    for run in RUNS:
        labels = np.where(kept, rows.labels, "").tolist()
        inline(folder / f"runs/{run}.oof.json", ids=rows.ids.tolist(), labels=labels, persons=rows.persons.tolist())  # type: ignore[union-attr]
    assert call("blend", "runs/*.npy", "--method", "stacking", "-o", "it").code == 0
    found = np.load(folder / "runs/blends/it/oof.npy")
    blurred = stack.probabilities.copy()
    blurred[2] = np.random.default_rng(2).dirichlet(np.ones(4), len(stack))
    whole = replace(stack, names=RUNS, probabilities=blurred)
    learnt = whole.take(np.flatnonzero(kept))
    for part in range(5):
        fitted = FITTERS["stacking"].fit(
            learnt.take(np.flatnonzero(learnt.outer_folds != part)), METRICS["macro_f1"], 0
        )
        inside = np.flatnonzero(~kept & (whole.outer_folds == part))
        np.testing.assert_allclose(found[inside], combine(whole.take(inside), fitted), atol=1e-5)


def test_what_is_calibrated_is_compared_with_what_is_not(folder: Path, call: Call) -> None:
    record = json.loads(
        call("blend", "runs/*.npy", "--calibrate", "after:vector", "--metric", "log_loss", "--json").out
    )
    lines = {line["method"]: line for line in record["fitted"]["methods"]}
    assert set(lines) == {"soft+after:vector", "soft", "best"}
    assert lines["soft"]["over_soft"] is None
    plain = json.loads(call("blend", "runs/*.npy", "--metric", "log_loss", "--json").out)
    assert lines["soft"]["nested"]["score"] == pytest.approx(plain["blend"]["oof"]["score"]["log_loss"]["score"])
    assert any(
        note.startswith("compared with soft voting:") and "log loss (lower is better)" in note
        for note in record["notes"]
    )


def test_the_pareto_front_of_auto_is_nested(auto: Any) -> None:
    record = auto
    everyone = record["worth"]["pareto"]["everyone"]["score"]["score"]
    assert everyone == pytest.approx(
        next(line for line in record["fitted"]["methods"] if line["method"] == "auto")["nested"]["score"]
    )


def test_scores_per_person_are_of_persons_throughout(folder: Path, call: Call) -> None:
    record = json.loads(call("blend", "runs/*.npy", "--method", "greedy", "--per", "person", "--json").out)
    line = next(line for line in record["fitted"]["methods"] if line["method"] == "greedy")
    assert line["nested"]["score"] == pytest.approx(record["blend"]["oof"]["score"]["macro_f1"]["score"])
    assert record["blend"]["oof"]["score"]["rows"] == 60


def test_a_run_without_a_labelled_sample_is_no_crash(folder: Path, call: Call) -> None:
    rows = rows_of(world(0), "a")
    kept = np.arange(len(rows)) >= 50
    inline(
        folder / "runs/run2.oof.json",
        ids=rows.ids[:50].tolist(),
        persons=rows.persons[:50].tolist(),
        fold=world(0).outer_folds[:50].tolist(),
    )  # type: ignore[index]
    np.save(folder / "runs/run2.oof.npy", np.load(folder / "runs/run2.oof.npy")[:50])
    for run in RUNS[:2]:
        inline(
            folder / f"runs/{run}.oof.json",
            ids=rows.ids.tolist(),
            labels=np.where(kept, rows.labels, "").tolist(),
            persons=rows.persons.tolist(),
        )  # type: ignore[union-attr]
    for words in (["--worth"], ["--method", "greedy", "--worth"]):
        done = call("blend", "runs/*.oof.npy", *words)
        assert "fault of the program" not in done.err
        assert "no labelled sample: run2" in done.out or done.code == 1


def test_a_vote_by_attribute_says_why_it_tells_no_worth(folder: Path, call: Call) -> None:
    meaning = {
        name: {"legs": "six" if name in ("ant", "bee") else "four", "wings": "yes" if name in ("bee", "dog") else "no"}
        for name in CLASSES
    }
    for path in (folder / "runs").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"class_attributes": meaning}))
    done = call("blend", "runs/*.npy", "--by", "attribute", "--worth")
    assert done.code == 0, done.err
    assert "contributions are not available with --by attribute" in done.out
