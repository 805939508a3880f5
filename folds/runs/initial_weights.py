"""Initial weights of folds from files and other runs, checked for leakage."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from folds.errors import EnsembleError, UsageError
from folds.models.checkpoint import Checkpoint, load_checkpoint
from folds.runs.run import Run
from folds.utils.files import sha256_bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InitialWeights:
    """The initial weights of the folds of a run.

    Attributes
    ----------
    paths : fold → the checkpoint of `init_run`; empty without it.
    sha : of what `init_run` was trained with, the same whichever folds are asked for; "" without it.
    selected_on_validation : something about these weights was chosen on the folds that are scored.
    warnings : what may be wrong with them.
    """

    paths: Mapping[int, Path] = field(default_factory=dict)
    sha: str = ""
    selected_on_validation: bool = False
    warnings: tuple[str, ...] = ()


def beginnings(runs: Sequence[Run], folds: Sequence[int]) -> dict[str, InitialWeights]:
    """Return the initial weights of each run by name; log warnings.

    Raises
    ------
    EnsembleError : weights that this command would remove or train anew, a checkpoint that is missing or of another
        model,
        weights that have seen people who are scored here.
    """
    found: dict[str, InitialWeights] = {}
    files: dict[Path, Checkpoint | None] = {}  # variants share one file
    for run in runs:
        _check_not_own(run, runs)
        found[run.name] = InitialWeights()
        if run.recipe.init_run is not None:
            found[run.name] = _of_run(run, run.recipe.init_run, folds)
        elif run.recipe.init is not None:
            init = run.recipe.init
            if init not in files:
                files[init] = _own(init)
            checkpoint = files[init]
            if checkpoint is not None:
                warnings = _check_leakage(run, init, checkpoint, folds)
                found[run.name] = InitialWeights(selected_on_validation=checkpoint.selected_on_validation, warnings=tuple(warnings))
    return found


def _check_not_own(run: Run, runs: Sequence[Run]) -> None:
    name, init = run.recipe.init_run, run.recipe.init
    if name in {other.name for other in runs}:
        raise UsageError(
            f"--init-run {name}: this command trains {name} itself and would overwrite its initial weights",
            hint=f"--name NEW for the new run; train {name} first, in another command",
        )
    folders = [other.checkpoints / other.name for other in runs]
    if init is not None and any(init.resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise UsageError(
            f"--init {init}: this command writes there and would overwrite its initial weights",
            hint="--name NEW, or a copy of the file",
        )


def _of_run(run: Run, name: str, folds: Sequence[int]) -> InitialWeights:
    """Return the checkpoints of the same folds of another run, which must use the same split (no leakage)."""
    paths = {fold: run.checkpoints / name / f"fold{fold}.pt" for fold in folds}
    shas, optimistic = set(), False
    for fold, path in paths.items():
        checkpoint = load_checkpoint(path)
        if checkpoint.folds_sha != run.assignment.sha or checkpoint.fold != fold:
            raise EnsembleError(
                f"--init-run {name}: {path} was trained on other folds: it has seen people who are scored here",
                hint=f"the same --data, --k and --seed, or --folds runs/{name}/folds.csv",
            )
        theirs, ours = checkpoint.architecture.timm_name, run.architecture.timm_name
        if theirs.partition(".")[0] != ours.partition(".")[0]:
            raise EnsembleError(
                f"--init-run {name}: {path} is a {theirs}, {run.name} a {ours}",
                hint=f"--arch {checkpoint.architecture.name}",
            )
        shas.add(_sha(checkpoint))
        optimistic |= checkpoint.selected_on_validation
    if len(shas) > 1:
        raise EnsembleError(
            f"--init-run {name}: its folds were trained with different settings",
            hint=f"train {name} again, with --force",
        )
    return InitialWeights(paths, "".join(shas), optimistic)


def _sha(checkpoint: Checkpoint) -> str:
    """Return the settings that all folds of a run share, without locations of files."""
    recipe = {key: value for key, value in checkpoint.recipe.items() if key != "init"}
    mean_std = ("mean", "std") if recipe.get("normalise") == "data" else ()
    architecture = {key: value for key, value in asdict(checkpoint.architecture).items() if key not in mean_std}
    parts = [recipe, architecture, checkpoint.images, checkpoint.classes, checkpoint.target, checkpoint.folds_sha]
    return sha256_bytes(json.dumps(parts, sort_keys=True, default=str).encode())


def _own(path: Path) -> Checkpoint | None:
    """Return the checkpoint in `path`; None for weights from elsewhere, whose training people are unknown."""
    try:
        return load_checkpoint(path)
    except EnsembleError:
        return None


def _check_leakage(run: Run, path: Path, checkpoint: Checkpoint, folds: Sequence[int]) -> list[str]:
    """Raise if the initial weights were trained on people whom a fold scores; warn if that cannot be known."""
    assignment, warnings = run.assignment, []
    known = np.isin(assignment.ids, np.array(checkpoint.training_ids, dtype=str))
    seen = np.unique(assignment.persons[known])
    for fold in folds:
        people = np.unique(assignment.persons[assignment.validation_index(fold)])
        leaked = np.intersect1d(people, seen)
        if not len(leaked):
            continue
        share = f"{len(leaked):,} of the {len(people):,} people"
        text = f"--init {path} was trained on {share} that fold {fold} of {run.name} is scored on, e.g. '{leaked[0]}'"
        if checkpoint.folds_sha == assignment.sha:
            hint = f"--init-run {checkpoint.run} starts each fold from the same fold of that run"
            raise EnsembleError(f"{text}: its score would be invalid", hint=hint)
        warnings.append(f"{text}, if its samples are these: the score would be invalid")
        logger.warning(warnings[-1])
    return warnings
