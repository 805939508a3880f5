"""Make members of the arrays, predictions and runs that `ensemble.blend` is given by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ensemble.blending.arrays import ArrayMembers, members_of_arrays
from ensemble.blending.column_arrays import members_of_columns
from ensemble.blending.face_arguments import has_files
from ensemble.blending.request import BlendConfig
from folds.errors import UsageError, unknown_name
from folds.metrics.task_names import CLASSES as CLASSES_TASK
from folds.metrics.task_names import COLUMN_TASKS
from folds.predictions.predictions import Predictions


def selected(given: Mapping[str, Any], runs: Sequence[str] | None) -> Mapping[str, Any]:
    """Return the predictions of these runs; raise UsageError if one is unknown."""
    for name in runs or ():
        if name not in given:
            raise unknown_name("run", name, list(map(str, given)))
    return given if runs is None else {name: value for name, value in given.items() if name in runs}


def named_members(
    named: Mapping[str, Any], test: Mapping[str, Any] | None, config: BlendConfig, **about: Any
) -> tuple[ArrayMembers, BlendConfig]:
    """Return the members of both splits, and the options.

    Parameters
    ----------
    named, test : name → array, `Predictions` or run, out of fold and of test samples.
    about : ``y``, ``groups``, ``fold``, ``ids`` and ``classes`` of the arrays, and ``extra`` if it is given.

    Raises
    ------
    UsageError : options of files, test predictions of a run that has no others, or labels that are missing.
    """
    if config.labels is not None or config.logits:
        raise UsageError("`labels` and `logits` apply to files, found arrays", hint="pass the labels of arrays as `y`")
    if test is not None:
        test = _test_of(named, test)
    named = {name: value.oof if has_files(value) else value for name, value in named.items()}
    own = [value for value in named.values() if isinstance(value, Predictions)]
    labeled = about["y"] is not None or any(value.split == "oof" for value in own)
    if not labeled:
        _check_unlabeled(test, config)
    task = config.task or next((value.metadata.task for value in own), CLASSES_TASK)
    if task in COLUMN_TASKS:
        return _column_members(named, test, "oof" if labeled else "test", task, about), config
    made = members_of_arrays(named, "oof" if labeled else "test", **about)
    two = about["classes"] is not None and len(made.classes) == 2
    if two and config.positive is None and config.scored.of_positive:
        config = replace(config, positive=made.classes[1])  # as in the command: NEGATIVE,POSITIVE
    if test is None:
        return made, config
    others = members_of_arrays(test, "test", classes=made.classes)
    return ArrayMembers((*made.members, *others.members), made.classes), config


def _test_of(named: Mapping[str, Any], test: Mapping[str, Any]) -> dict[str, Any]:
    """Return name → test predictions; those of runs that `test` does not name are their own."""
    unmatched = sorted(set(test) - set(named), key=str)
    if unmatched:
        raise UsageError(f"`test` has '{unmatched[0]}', which has no out-of-fold predictions")
    of_runs = {name: value.test for name, value in named.items() if has_files(value) and name not in test}
    found = {name: value.test if has_files(value) else value for name, value in test.items()}
    return found | {name: value for name, value in of_runs.items() if value is not None}


def _check_unlabeled(test: Mapping[str, Any] | None, config: BlendConfig) -> None:
    """Raise UsageError if predictions without labels are to be fitted, or come with test predictions."""
    if test is not None:
        raise UsageError(
            "`test` needs out-of-fold predictions and their `y`",
            hint="remove `test` to blend test samples alone",
        )
    if config.is_fitted:
        raise UsageError(
            f"`method={config.name}` is fitted on labels, found no `y`", hint="`method='soft'` needs no labels"
        )


def _column_members(
    named: Mapping[str, Any], test: Mapping[str, Any] | None, split: str, task: str, about: Mapping[str, Any]
) -> ArrayMembers:
    """Return the members of both splits of a task with a column for each label or number."""
    made = members_of_columns(named, split, task, **about)
    if test is None:
        return made
    others = members_of_columns(test, "test", task, classes=made.classes)
    return ArrayMembers((*made.members, *others.members), made.classes)
