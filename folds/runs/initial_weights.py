"""Initial weights of folds from files and other runs, checked for leakage."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from folds.errors import EnsembleError, UsageError
from folds.models.checkpoint import Checkpoint, hash_ids, load_checkpoint
from folds.predictions.files import ALL
from folds.runs.run import Run
from folds.utils.files import sha256_bytes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InitialWeights:
    """The initial weights of the folds of a run.

    Attributes
    ----------
    paths : fold → checkpoint of `init_run`; empty without `init_run`.
    sha : hash of the settings of `init_run`, the same for all folds; "" without `init_run`.
    selected_on_validation : whether something about these weights was chosen on the scored folds.
    warnings : possible problems with the weights.
    refit : the checkpoint of all people of `init_run`, from which that of this run starts; None if there is none.
    """

    paths: Mapping[int, Path] = field(default_factory=dict)
    sha: str = ""
    selected_on_validation: bool = False
    warnings: tuple[str, ...] = ()
    refit: Path | None = None


def find_initial_weights(runs: Sequence[Run], folds: Sequence[int], refit: bool = False) -> dict[str, InitialWeights]:
    """Return the initial weights of each run by name; log warnings.

    Parameters
    ----------
    refit : whether one model of each run is trained on all people.

    Raises
    ------
    EnsembleError : this command would remove or retrain the weights, a checkpoint is missing or of another model, or
        the weights were trained on people who are scored here.
    """
    found: dict[str, InitialWeights] = {}
    files: dict[Path, Checkpoint | None] = {}  # variants share one file
    for run in runs:
        _check_not_own(run, runs)
        found[run.name] = InitialWeights()
        if run.recipe.init_run is not None:
            found[run.name] = _of_run(run, run.recipe.init_run, folds)
            if refit:
                found[run.name] = replace(found[run.name], refit=_refit_of(run, run.recipe.init_run))
        elif run.recipe.init is not None:
            init = run.recipe.init
            if init not in files:
                files[init] = _checkpoint_or_none(init)
            checkpoint = files[init]
            if checkpoint is not None:
                warnings = tuple(_check_leakage(run, init, checkpoint, folds))
                found[run.name] = InitialWeights({}, "", checkpoint.selected_on_validation, warnings)
    return found


def _check_not_own(run: Run, runs: Sequence[Run]) -> None:
    """Raise UsageError if this command would overwrite its initial weights."""
    name, init = run.recipe.init_run, run.recipe.init
    if name in {other.name for other in runs}:
        raise UsageError(
            f"`init_run={name}`: this command trains {name} itself and would overwrite its initial weights",
            hint=f"use another name for the new run (`name=NEW`), and train {name} first, in another command",
        )
    folders = [other.checkpoints / other.name for other in runs]
    if init is not None and any(init.resolve().is_relative_to(folder.resolve()) for folder in folders):
        raise UsageError(
            f"`init_weights={init}`: this command writes there and would overwrite its initial weights",
            hint="use another name for the new run (`name=NEW`), or a copy of the file",
        )


def _of_run(run: Run, name: str, folds: Sequence[int]) -> InitialWeights:
    """Return the checkpoints of the same folds of another run.

    Raises
    ------
    EnsembleError : the run has another split (which would leak people into training), another architecture, or folds
        with different settings.
    """
    paths = {fold: run.checkpoints / name / f"fold{fold}.pt" for fold in folds}
    shas, selected_on_validation = set(), False
    for fold, path in paths.items():
        checkpoint = load_checkpoint(path)
        if checkpoint.folds_sha != run.assignment.sha or checkpoint.fold != fold:
            raise EnsembleError(
                f"`init_run={name}`: {path} was trained on other folds, so on people who are scored here",
                hint=f"use the same `data`, `k` and `seed`, or `folds=runs/{name}/folds.csv`",
            )
        theirs, ours = checkpoint.architecture.timm_name, run.architecture.timm_name
        if theirs.partition(".")[0] != ours.partition(".")[0]:
            raise EnsembleError(
                f"`init_run={name}`: expected a {ours}, the model of {run.name}, found a {theirs} in {path}",
                hint=f"`arch={checkpoint.architecture.name}`",
            )
        shas.add(_sha(checkpoint))
        selected_on_validation |= checkpoint.selected_on_validation
    if len(shas) > 1:
        raise EnsembleError(
            f"`init_run={name}`: its folds were trained with different settings",
            hint=f"train {name} again with `force=True`",
        )
    return InitialWeights(paths, "".join(shas), selected_on_validation)


def _refit_of(run: Run, name: str) -> Path:
    """Return the checkpoint of all people of another run, from which a model of all people starts."""
    path = run.checkpoints / name / f"{ALL}.pt"
    if not path.is_file():
        raise EnsembleError(
            f"`init_run={name}`: the model of all people of {run.name} starts from that of {name}, and {path} does not "
            "exist",
            hint=f"train it first: ensemble kfold -c runs/{name}/config.toml --fold {ALL}",
        )
    checkpoint = load_checkpoint(path)
    if checkpoint.refit is None or checkpoint.folds_sha != run.assignment.sha:
        raise EnsembleError(
            f"`init_run={name}`: {path} was trained on other people or folds",
            hint=f"use the same `data`, `k` and `seed`, or `folds=runs/{name}/folds.csv`",
        )
    return path


def _sha(checkpoint: Checkpoint) -> str:
    """Return the hash of the settings that all folds of a run share, without locations of files."""
    recipe = {key: value for key, value in checkpoint.recipe.items() if key != "init"}
    mean_std = ("mean", "std") if recipe.get("normalise") == "data" else ()
    architecture = {key: value for key, value in checkpoint.architecture.to_dict().items() if key not in mean_std}
    parts = [recipe, architecture, checkpoint.images, checkpoint.classes, checkpoint.target, checkpoint.folds_sha]
    return sha256_bytes(json.dumps(parts, sort_keys=True, default=str).encode())


def _checkpoint_or_none(path: Path) -> Checkpoint | None:
    """Return the checkpoint in `path`, or None for other weights, whose training people are unknown."""
    try:
        return load_checkpoint(path)
    except EnsembleError:
        return None


def known_people(run: Run, path: Path) -> int:
    """Return of how many people of a run the weights in a file have learned images; 0 for weights of others, whose
    training people are unknown.
    """
    checkpoint, assignment = _checkpoint_or_none(path), run.assignment
    if checkpoint is None:
        return 0
    learned = {*checkpoint.training_hashes, *checkpoint.pseudo_hashes}
    known = np.array([one in learned for one in hash_ids(assignment.ids.tolist())])
    return len(np.unique(assignment.persons[known]))


def _check_leakage(run: Run, path: Path, checkpoint: Checkpoint, folds: Sequence[int]) -> list[str]:
    """Raise EnsembleError if the initial weights were trained on people whom a fold scores.

    If the checkpoint has another split, its samples may be others with the same ids; then log and return warnings.
    """
    assignment, warnings = run.assignment, []
    trained = set(checkpoint.training_hashes)
    known = np.array([one in trained for one in hash_ids(assignment.ids.tolist())])
    seen = np.unique(assignment.persons[known])
    for fold in folds:
        people = np.unique(assignment.persons[assignment.validation_index(fold)])
        leaked = np.intersect1d(people, seen)
        if not len(leaked):
            continue
        text = (
            f"`init_weights={path}` was trained on {len(leaked):,} of the {len(people):,} people that fold {fold} of "
            f"{run.name} is scored on, e.g. '{leaked[0]}'"
        )
        if checkpoint.folds_sha == assignment.sha:
            hint = f"`init_run={checkpoint.run}` starts each fold from the same fold of that run"
            raise EnsembleError(f"{text}: its score would be invalid", hint=hint)
        warnings.append(f"{text}, if equal ids are the same samples: then its score is invalid")
        logger.warning(warnings[-1])
    return warnings
