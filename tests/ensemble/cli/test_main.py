from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble import __version__
from ensemble.cli.app import COMMANDS
from folds.config.lookup import all_settings
from folds.config.setting import PANELS
from tests.conftest import Called, call_process

Call = Callable[..., Called]


def test_help_lists_every_command_and_ends_well(call: Call) -> None:
    called = call("--help")
    assert called.code == 0
    assert all(f"  {name} " in called.out for name in COMMANDS)
    assert called.err == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_names_its_options(call: Call, name: str) -> None:
    called = call(name, "--help")
    assert called.code == 0
    assert "Usage: ensemble " + name in called.out
    assert "--help" in called.out


def test_the_version_is_the_package_s(call: Call) -> None:
    assert call("--version").out == f"ensemble {__version__}\n"


def test_an_unknown_command_offers_the_nearest_and_exits_2(call: Call) -> None:
    called = call("blned")
    assert called.code == 2
    assert called.err.splitlines()[0] == "error: unknown command 'blned'; did you mean blend?"
    assert called.err.splitlines()[1].startswith("hint: ")


@pytest.mark.parametrize("words", [["kfold", "--epohcs", "3"], ["kfold", "--epochs", "many"], ["blend"], ["tta"]])
def test_wrong_usage_is_one_error_one_hint_and_exit_2(call: Call, words: list[str]) -> None:
    called = call(*words)
    assert called.code == 2
    lines = called.err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]
    assert called.out == ""


def test_a_traceback_comes_with_debug_only(call: Call, tmp_path: Path) -> None:
    assert "Traceback" not in call("kfold", "--data", tmp_path / "nowhere").err
    called = call_process(["kfold", "--data", tmp_path / "nowhere", "--debug"], tmp_path)
    assert "Traceback" in called.err
    assert called.code == 1


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    import subprocess
    import sys

    command = f"{sys.executable} -m ensemble.cli --help | head -c 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("words", [["kfold", "--dry-run"], ["blend", "x.npy"], ["folds"], ["tta", "x.pt"]])
def test_an_unknown_variable_is_refused_with_the_nearest(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENSEMBLE_EPOCS", "3")
    called = call(*words)
    assert (called.code, list(tmp_path.iterdir())) == (2, [])
    assert (
        called.err.splitlines()[0]
        == "error: unknown environment variable ENSEMBLE_EPOCS; did you mean ENSEMBLE_EPOCHS?"
    )
    assert call(words[0], "--help").code == 0


@pytest.mark.parametrize("name", ["METRIC", "WEIGHT_DECAY", "FROM", "DEVICES", "MODEL_ARGS"])
def test_a_variable_of_another_command_or_a_file_is_valid(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(f"ENSEMBLE_{name}", "1")
    assert "checkpoint or run not found" in call("tta", "x.pt").err


def test_force_is_not_taken_from_the_environment(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENSEMBLE_FORCE", "1")
    (tmp_path / "a.csv").write_text("path,label,person\n" + "\n".join(f"{i}.jpg,{i % 2},p{i}" for i in range(8)))
    (tmp_path / "folds.csv").write_text("mine")
    called = call("folds", "--data", "a.csv", "--k", "2")
    assert called.code == 2
    assert "ENSEMBLE_FORCE is set, but --force cannot be set by an environment variable" in called.err
    assert (tmp_path / "folds.csv").read_text() == "mine"


def test_tta_hears_the_variable_that_kfold_hears(call: Call, grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENSEMBLE_DEVICES", "7")
    for words in (["tta", "test_vit"], ["kfold", "--data", "people", "--arch", "test_resnet", "--no-pretrained"]):
        assert "--devices 7: device cuda:7 not found" in call(*words).err


def test_settings_from_the_environment_are_heard(
    call: Call, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENSEMBLE_K", "2")
    monkeypatch.setenv("ENSEMBLE_ARCH", "test_resnet")
    monkeypatch.setenv("ENSEMBLE_PRETRAINED", "false")
    called = call("kfold", "--data", drawn, "--dry-run")
    assert called.code == 0, called.err
    assert called.out.splitlines() == ["test_resnet: fold 0", "test_resnet: fold 1"]
    assert list(tmp_path.iterdir()) == []


def test_every_option_of_kfold_stands_in_one_group(call: Call) -> None:
    from inspect import signature

    from ensemble.cli.commands.kfold import kfold

    printed = call("kfold", "--help").out
    panels = [line[:-1] for line in printed.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert panels == ["Arguments", *PANELS[:-1], "Experiment", "Execution", "Report", "This run", "This command"]
    options = printed.split("\nData:\n")[1].splitlines()
    shown = [word.rstrip(",") for line in options for word in line.split()[:3] if line.startswith("  -")]
    for name in set(signature(kfold).parameters) - {"run"}:
        assert shown.count(f"--{name.replace('_', '-')}") == 1, name
    assert not {"--fit", "--keep", "--erase", "--init", "--per", "--track", "--normalise"} & set(shown)


def test_the_signature_of_kfold_has_every_setting_but_tables() -> None:
    from inspect import signature

    from ensemble.cli.commands.kfold import kfold

    settings = {one.spelling for one in all_settings().values() if not one.is_table}
    assert settings < set(signature(kfold).parameters)
    assert {"weight_decay", "warmup", "clip", "patience", "grad_accum", "layer_decay"} < settings


BOTH = [("--resize", "--fit", "crop"), ("--select", "--keep", "best"), ("--normalize", "--normalise", "data")]
BOTH += [
    ("--random-erasing", "--erase", ".5"),
    ("--freeze-epochs", "--freeze", "1"),
    ("--grad-accum", "--accumulate", "2"),
]
BOTH += [("--init-weights", "--init", "w.pt"), ("--person", "--group", "p"), ("--score-by", "--per", "person")]
BOTH += [("--logger", "--track", "mlflow")]


@pytest.mark.parametrize(("new", "old", "value"), BOTH)
def test_two_spellings_of_one_option_are_refused(call: Call, new: str, old: str, value: str) -> None:
    for first, second in ((new, f"{old}={value}"), (f"{new}={value}", old)):
        words = [word for part in (first, second) for word in ((part,) if "=" in part else (part, value))]
        called = call("kfold", *words)
        assert called.code == 2
        assert called.err.splitlines()[0] == f"error: {new} and {old} are two spellings of one option"


def test_two_spellings_of_a_yes_or_no_are_refused(call: Call) -> None:
    called = call("blend", "x.npy", "--no-contributions", "--worth")
    assert "--contributions and --worth are two spellings of one option" in called.err
    assert "two spellings" not in call("blend", "x.npy", "--no-worth").err


def test_two_variables_for_one_option_are_refused(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENSEMBLE_RESIZE", "crop")
    monkeypatch.setenv("ENSEMBLE_FIT", "squash")
    called = call("kfold", "--dry-run")
    assert called.code == 2
    assert "ENSEMBLE_RESIZE and ENSEMBLE_FIT are two spellings of one option" in called.err


@pytest.mark.parametrize("variable", ["ENSEMBLE_SCORE_BY", "ENSEMBLE_PER"])
def test_a_variable_is_heard_in_both_spellings(call: Call, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "image")
    assert call("kfold", "--dry-run").err.splitlines()[0] == "error: --score-by image: expected person"


def test_a_message_names_the_flag_of_the_running_command(call: Call) -> None:
    assert call("kfold", "--grad-accum", "0").err.startswith("error: --grad-accum must be 1 (off) or more, found 0")
    called = call("kfold", "--k", "1")
    assert called.err.splitlines() == [
        "error: --k must be 2 or more, found 1",
        "hint: one fold leaves no validation data; --holdout .2 trains one model",
    ]


def test_a_message_names_the_key_if_the_command_has_no_flag(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ensemble.toml").write_text("epochs = 0\n")
    assert call("prepare").err.startswith("error: epochs must be 1 or more, found 0")
    assert call("kfold").err.startswith("error: --epochs must be 1 or more, found 0")
