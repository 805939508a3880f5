"""kfold's --sweep, --baseline, --hypothesis and --track."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.config.sweep import RequestedRecipe
from folds.execution import local as manager
from folds.experiments.ledger import read_ledger
from folds.runs.plan import build_plan
from tests.conftest import Called
from tests.folds.experiments.loggers.stores import opened
from tests.folds.runs.test_execute import InProcess

Call = Callable[..., Called]
LEDGER = Path("runs/ledger.jsonl")
QUICK = [
    "kfold",
    "--data",
    "people",
    "--arch",
    "test_resnet",
    "--k",
    "3",
    "--epochs",
    "1",
    "--img-size",
    "32",
    "--no-pretrained",
]


@pytest.fixture
def trainer(grid: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`ensemble kfold` in the folder of the grid, without processes."""
    monkeypatch.setattr(manager, "Worker", InProcess)
    return call


def test_a_sweep_trains_its_variants_and_tests_each_difference(trainer: Call) -> None:
    words = [*QUICK, "--name", "s", "--sweep", "augment=standard,none", "--hypothesis", "less is more"]
    called = trainer(*words)
    assert called.code == 0, called.err
    results, compared = called.out.split("\n\n")
    assert [row.split()[0] for row in results.splitlines()[2:]] == ["s-standard", "s-none"]
    header, _, first, second = compared.splitlines()
    assert header.split("  ")[0] == "run"
    assert header.endswith("significant")
    assert "baseline" not in header
    assert first.endswith("the baseline")
    assert "augment: standard → none" in second
    assert second.split("  ")[-1].strip().startswith(("yes", "no"))
    assert "not between training seeds" in called.err
    assert called.err.rstrip().endswith("next: ensemble runs")
    latest = read_ledger(LEDGER).latest()
    assert latest["s-none"]["baseline"]["run"] == "s-standard"
    assert latest["s-standard"]["baseline"] is None
    assert {latest[name]["hypothesis"] for name in ("s-standard", "s-none")} == {"less is more"}
    assert {latest[name]["folds_sha"] for name in ("s-standard", "s-none", "test_vit")} == {
        latest["test_vit"]["folds_sha"]
    }

    again = trainer(*words, "--resume", "--json")
    assert "all folds are trained already" in again.err
    (found,) = json.loads(again.out)["comparisons"]
    assert (found["run"], found["baseline"], found["varied"]) == (
        "s-none",
        "s-standard",
        {"augment": ["standard", "none"]},
    )
    assert (
        found["differences"]["macro_f1"]["difference"]
        == latest["s-none"]["baseline"]["differences"]["macro_f1"]["difference"]
    )
    assert trainer(*words).code == 1  # they exist
    assert len(read_ledger(LEDGER).entries) == 4


def test_a_sweep_with_a_baseline_names_it_and_counts_comparisons(trainer: Call) -> None:
    called = trainer(
        *QUICK, "--name", "s", "--fold", "0", "--sweep", "augment=none,light", "--baseline", "test_resnet", "--wide"
    )
    assert called.code == 0, called.err
    compared = called.out.split("\n\n")[1].splitlines()
    assert "baseline" in compared[0]
    assert [row.split()[0] for row in compared[2:]] == ["s-none", "s-light"]
    assert all("test_resnet" in row for row in compared[2:])
    assert "s-none vs test_resnet: compared on the" in called.err
    assert {read_ledger(LEDGER).latest()[name]["baseline"]["run"] for name in ("s-none", "s-light")} == {"test_resnet"}


def test_the_dry_run_lists_all_combinations_of_all_architectures(trainer: Call) -> None:
    words = [
        "--fold",
        "0",
        "--sweep",
        "loss=ce,focal",
        "--sweep",
        "lr=1e-3,3e-3",
        "--arch",
        "test_resnet,test_vit",
        "--dry-run",
    ]
    out = trainer(*QUICK[:3], *QUICK[5:], *words).out.split("\n")
    suffixes = ["ce-lr-1e-3", "ce-lr-3e-3", "focal-lr-1e-3", "focal-lr-3e-3"]
    assert out[:-1] == [f"{arch}-{suffix}: fold 0" for arch in ("test_resnet", "test_vit") for suffix in suffixes]


def test_variants_are_compared_within_model_repeat_and_seed(grid: Path) -> None:
    recipe = Recipe(img_size="32", pretrained=False, epochs=1)
    settings = Settings(data=Path("people"), arch=("test_resnet", "test_vit"), k=3, repeats=2, seeds=2)
    plan = build_plan(settings, recipe, variants=[RequestedRecipe("a", recipe), RequestedRecipe("b", recipe)])
    for run in plan.runs:
        expected = None if "-a" in run.name else run.name.replace("-b", "-a")
        assert run.baseline == expected, run.name
        assert (run.assignment, run.recipe.seed) == next(
            (one.assignment, one.recipe.seed) for one in plan.runs if one.name == (expected or run.name)
        )
    assert len({run.name for run in plan.runs}) == 16
    alone = build_plan(settings, recipe)
    assert {run.baseline for run in alone.runs} == {None}


def test_names_of_variants_are_file_safe_and_unique(grid: Path) -> None:
    recipe = Recipe(img_size="32", pretrained=False, epochs=1)
    settings = Settings(data=Path("people"), arch=("test_resnet",), k=3, name="n")
    plan = build_plan(
        settings,
        recipe,
        variants=[
            RequestedRecipe("crop:28", recipe),
            RequestedRecipe("crop-28", recipe),
            RequestedRecipe("x/../y", recipe),
        ],
    )
    assert [run.name for run in plan.runs] == ["n-crop-28", "n-crop-28-2", "n-x-..-y"]


def test_a_run_of_the_command_may_be_the_baseline_of_the_others(grid: Path) -> None:
    recipe = Recipe(img_size="32", pretrained=False, epochs=1)
    settings = Settings(data=Path("people"), arch=("test_resnet", "test_vit"), k=3, name="new")
    plan = build_plan(settings, recipe, baseline="new-test_vit")
    assert {run.name: run.baseline for run in plan.runs} == {"new-test_resnet": "new-test_vit", "new-test_vit": None}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--sweep", "los=ce,focal"], 2, "--sweep los: unknown setting; did you mean loss"),
        (["--sweep", "loss=ce,focl"], 2, "unknown --loss 'focl'; did you mean focal"),
        (["--sweep", "lr=1e-3,fast"], 2, "lr = 'fast': expected a number"),
        (["--sweep", "lr=1e-3,-1"], 2, "--lr must be above 0"),
        (["--sweep", "augment=none,strnog"], 2, "unknown --augment 'strnog'; did you mean strong"),
        (["--sweep", "epochs=1,2"], 2, "--epochs and --sweep epochs contradict each other"),
        (["--sweep", "arch=swin,resnet18"], 2, "--arch A,B trains several architectures"),
        (["--sweep", "loss=ce"], 2, "expected two values or more"),
        (["--track", "tensorbord"], 2, "unknown --logger 'tensorbord'; did you mean tensorboard?"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    from folds.runs import plan

    def read(*arguments: object, **named: object) -> None:
        raise AssertionError("the data were read")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "open_data", read)
    called = call(*QUICK, *words)
    assert (called.code, said in called.err) == (code, True), called.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--baseline", "test_resnt"], 2, "unknown --baseline 'test_resnt'; did you mean test_resnet"),
        (["--baseline", "test_vit", "--data", "others.csv"], 1, "have no sample in common"),
        (["--baseline", "test_vit", "--target", "age"], 1, "test_vit predicts the label, this run the age"),
    ],
)
def test_an_invalid_baseline_is_refused_before_training(trainer: Call, words: list[str], code: int, said: str) -> None:
    paths = sorted(Path("people/eval/images").iterdir())
    Path("others.csv").write_text(
        "\n".join(["path,label,person", *(f"{path},{i % 18},p{i % 14}" for i, path in enumerate(paths))])
    )
    called = trainer(*QUICK, "--name", "new", *words)
    assert (called.code, said in called.err) == (code, True), called.err
    assert not Path("runs/new").exists()


def test_a_baseline_that_became_incomparable_keeps_the_results(trainer: Call) -> None:
    words = [*QUICK, "--name", "new", "--fold", "0", "--augment", "none", "--baseline", "test_resnet"]
    assert trainer(*words).code == 0
    Path("runs/test_resnet.oof.json").unlink()
    called = trainer(*words[:-2], "--resume")
    assert called.code == 0, called.err


def test_what_is_tracked_changes_no_byte_of_the_result(trainer: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    trackio = opened("fake trackio", Path.cwd(), monkeypatch)
    for name, more in (("plain", []), ("seen", ["--track", "tensorboard", "--track", "trackio"])):
        assert trainer(*QUICK, "--name", name, "--fold", "0", *more).code == 0
        Path(f"runs/{name}.config").write_text(
            "\n".join(row for row in Path(f"runs/{name}/config.toml").read_text().splitlines() if "name" not in row)
        )
    assert list(Path("runs/seen/fold0").glob("events.out.tfevents.*"))
    assert not list(Path("runs/plain/fold0").glob("events.*"))
    tracked = trackio.seen()
    assert sorted(tracked) == ["seen", "seen/fold0"]
    assert {one.group for one in tracked.values()} == {"seen"}
    assert sorted(tracked["seen/fold0"].steps) == list(range(1, tracked["seen/fold0"].config["epochs"] + 1))
    assert "oof/macro_f1_low" in tracked["seen"].summary
    assert Path("runs/plain.config").read_text() == Path("runs/seen.config").read_text()
    before = Path("runs/seen.oof.npy").read_bytes()
    assert trainer(*QUICK, "--name", "seen", "--fold", "0", "--force").code == 0
    assert Path("runs/seen.oof.npy").read_bytes() == before
    assert not list(Path("runs/seen/fold0").glob("events.*"))
