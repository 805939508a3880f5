from __future__ import annotations

import dataclasses
import subprocess
import sys
from inspect import Parameter, signature
from typing import Any, get_args

import pytest

import ensemble
from ensemble.blending.request import BlendConfig
from ensemble.cli.commands.blend import blend as blend_command
from ensemble.cli.commands.folds import folds
from ensemble.cli.commands.kfold import kfold
from ensemble.cli.commands.prepare import prepare
from ensemble.cli.commands.tune import tune
from ensemble.cli.terminal.options import setting_flags, takes_settings
from tests.conftest import ROOT


def options_of(command: Any) -> dict[str, Any]:
    return {name: (get_args(one.annotation) or (None,))[-1] for name, one in signature(command).parameters.items()}


@pytest.mark.parametrize("name", ["data", "person", "person_regex", "split"])
def test_a_shared_setting_is_the_same_option_everywhere(name: str) -> None:
    commands = (kfold, folds, prepare) if name != "data" else (kfold, folds, prepare, tune)
    shown = [
        (one.default, one.param_decls, one.help, one.metavar)
        for one in (options_of(command)[name] for command in commands)
    ]
    assert all(one == shown[0] for one in shown)


def test_a_command_may_say_what_a_setting_means_for_it() -> None:
    @takes_settings("k", "seed", help={"seed": "of the draw"}, panels={"k": "Mine"})
    def command(jobs: int = 1, **given: Any) -> None:
        """Do nothing."""

    options = options_of(command)
    assert list(options) == ["k", "seed", "jobs"]
    assert (options["seed"].help, options["k"].rich_help_panel) == ("of the draw", "Mine")
    assert (options["k"].default, *options["k"].param_decls) == ("--k", "-k")
    assert [one.kind for one in signature(command).parameters.values()] == [Parameter.KEYWORD_ONLY] * 3


def test_a_command_that_takes_settings_has_a_place_for_them() -> None:
    with pytest.raises(TypeError, match="takes no"):
        takes_settings("k")(lambda k: None)


def test_tables_are_no_flags() -> None:
    assert {"model_args", "rebin", "schedule_args"}.isdisjoint(setting_flags())


@pytest.mark.parametrize(("command", "unwanted"), [("kfold", ["numpy"]), ("tta", ["numpy", "folds.config.recipe"])])
def test_the_help_of_a_command_imports_little(command: str, unwanted: list[str]) -> None:
    code = f"import sys, ensemble.cli.commands.{command}; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


# Field of BlendConfig → its name on the command line, in Python.
BLEND_NAMES = {"runs": ("run", "runs"), "per_person": ("score_by", "per_person"), "logits": ("from_", "logits")}
BLEND_NAMES |= {"detail": ("breakdown", "breakdown"), "columns": ("probabilities", "columns")}
BLEND_NAMES |= {"extra": ("with_", "extra")}


@pytest.mark.parametrize("field", dataclasses.fields(BlendConfig), ids=lambda field: field.name)
def test_blend_has_each_option_as_a_flag_and_in_python(field: dataclasses.Field[Any]) -> None:
    flag, parameter = BLEND_NAMES.get(field.name, (field.name, field.name))
    command, function = signature(blend_command).parameters, signature(ensemble.blend).parameters
    assert flag in command
    assert parameter in function
    # Texts and lists on the command line, where None is the default.
    converted = {"score_by", "from_", "ids", "probabilities", "with_"}
    assert flag in converted or command[flag].default == field.default
    # Python returns contributions and duplicates by what the input is, hence None.
    assert function[parameter].default in (field.default, None)
