"""Load what predicts: a checkpoint, the folds of a run, a blend with its views and weights, or an exported model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ensemble.blending.recipe import BlendRecipe, RunRecipe, read_recipe
from ensemble.learning.combination import Combination
from ensemble.model_files.reading import StoredModel, is_model, read_model
from ensemble.tta.merge import Merge
from folds.errors import EnsembleError, close_matches
from folds.metrics.classification import METRICS
from folds.models.checkpoint import Checkpoint, available_checkpoints, load_checkpoint
from folds.predictions.files import LABEL, oof_file, read_sidecar
from folds.utils.files import read_json, sha256_bytes, sha256_file

PLAIN = Merge("mean", {"none": (1.0,)})


@dataclass(frozen=True)
class FoldModel:
    """A checkpoint of one fold, with the hash of its file."""

    path: Path
    sha: str
    checkpoint: Checkpoint


@dataclass(frozen=True)
class RunModels:
    """The fold models of one run, and how their views are merged.

    Attributes
    ----------
    name : name in the combination.
    models : one per fold, in the order of the folds.
    classes : columns of the predictions.
    joined : names of the attribute runs that this run combines; it has no models of its own then.
    """

    name: str
    models: tuple[FoldModel, ...]
    classes: tuple[str, ...]
    target: str = LABEL
    merge: Merge = PLAIN
    joined: tuple[str, ...] = ()

    @property
    def folds(self) -> tuple[int, ...]:
        """Return the folds of the models."""
        return tuple(model.checkpoint.fold for model in self.models)


@dataclass(frozen=True)
class PredictionSource:
    """Everything needed to predict new images.

    Attributes
    ----------
    name : the checkpoint, run or blend, as it is called in messages and file names.
    kind : ``checkpoint``, ``run``, ``blend`` or ``model`` (an exported one).
    classes, target : of the result.
    combination : how the runs are combined.
    runs : the runs of the combination, then the attribute runs that are joined.
    ranking : run names, best out-of-fold score first, for ties of hard votes.
    class_attributes : class → attribute → value.
    folder : folder of the blend, or folder or archive of the model; None for a checkpoint or a run.
    extras : optional parts by name, as tables of ``model.toml`` (`ensemble.model_files.record.EXTRAS`).
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    target: str
    combination: Combination
    runs: tuple[RunModels, ...]
    ranking: tuple[str, ...] = ()
    class_attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    folder: Path | None = None
    extras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def models(self) -> list[FoldModel]:
        """Return the models of all runs."""
        return [model for run in self.runs for model in run.models]

    @property
    def sha(self) -> str:
        """Return a hash of the checkpoints, the merges of views and the combination."""
        runs = [(run.name, run.joined, [model.sha for model in run.models], run.merge.to_dict()) for run in self.runs]
        parts: list[Any] = [self.classes, self.target, self.combination.as_record(), runs, self.ranking]
        parts += [dict(self.extras)] if self.extras else []
        return sha256_bytes(repr(parts).encode())


def load_source(what: str | Path, root: Path = Path()) -> PredictionSource:
    """Return the models and the combination of a checkpoint, a run, a blend or an exported model.

    Parameters
    ----------
    what : path of a checkpoint (``.pt``); name of a run; name, folder or ``blend.toml`` of a blend; folder,
        ``model.toml`` or ``.zip`` of an exported model.
    root : the folder that holds ``runs/`` and ``checkpoints/``.

    Raises
    ------
    EnsembleError : it does not exist, a checkpoint is missing or was replaced, or the combination cannot be applied to
        new images.
    """
    text, path = str(what), Path(what)
    if path.suffix == ".pt":
        return _of_run([_load(path)], "checkpoint")
    if path.name == "model.toml" or is_model(path):
        check_one_meaning(text, root)
        return source_of(read_model(path.parent if path.name == "model.toml" else path))
    if path.suffix == ".toml" or (path / "blend.toml").is_file():
        file = path if path.suffix == ".toml" else path / "blend.toml"
        return _of_blend(file, _root_of(file) or root)
    blend, folder = root / "runs" / "blends" / text / "blend.toml", root / "checkpoints" / text
    plain = re.fullmatch(r"[\w.+#-]+", text, re.ASCII) is not None and text not in (".", "..")
    if plain and blend.is_file() and folder.is_dir():
        raise EnsembleError(
            f"'{text}' is the name of a run and of a blend", hint=f"name the file: {blend}, or a checkpoint of {folder}"
        )
    if plain and blend.is_file():
        return _of_blend(blend, root)
    if plain and blend.parent.is_dir():
        raise EnsembleError(
            f"{blend.parent} has no blend.toml: a vote by attribute cannot be applied to new images",
            hint="blend again with `by=class`",
        )
    files = sorted(folder.glob("fold*.pt"), key=lambda file: (len(file.name), file.name)) if plain else []
    if files:
        return _of_run([_load(file) for file in files], "run")
    raise _unknown(text, root)


def check_one_meaning(text: str, root: Path) -> None:
    """Raise EnsembleError if the name of an exported model here is that of a blend or a run as well."""
    others = [root / "runs" / "blends" / text / "blend.toml", root / "checkpoints" / text]
    found = [place for place in others if "/" not in text and place.exists()]
    if found:
        raise EnsembleError(
            f"'{text}' is an exported model here, and the name of a {'blend' if found[0] == others[0] else 'run'}",
            hint=f"./{text} is the model, {found[0]} the other",
        )


def source_of(model: StoredModel) -> PredictionSource:
    """Return what an exported model predicts with."""
    record = model.record
    loaded = [
        FoldModel(model.path / file, record.files[file].sha256, checkpoint)
        for file, checkpoint in model.checkpoints.items()
    ]
    runs = tuple(
        RunModels(run.name, tuple(loaded[at] for at in run.models), run.classes, run.target, run.merge, run.joined)
        for run in record.runs
    )
    return PredictionSource(
        record.name,
        "model",
        record.classes,
        record.target,
        record.combination,
        runs,
        record.ranking,
        record.class_attributes,
        model.path,
        record.extras,
    )


def _unknown(text: str, root: Path) -> EnsembleError:
    runs = sorted(path.name for path in (root / "checkpoints").glob("*") if path.is_dir())
    blends = sorted(path.parent.name for path in (root / "runs" / "blends").glob("*/blend.toml"))
    close = close_matches(text, [*runs, *blends])
    meant = f"; did you mean {' or '.join(close)}?" if close else ""
    known = [f"runs: {', '.join(runs[:10])}"] if runs else []
    known += [f"blends: {', '.join(blends[:10])}"] if blends else []
    return EnsembleError(
        f"expected a checkpoint, a run, a blend or a model, found '{text}'{meant}",
        hint="; ".join(known) or available_checkpoints(root / "checkpoints"),
    )


def _load(path: Path) -> FoldModel:
    checkpoint = load_checkpoint(path)
    return FoldModel(path, sha256_file(path), checkpoint)


def _of_run(models: Sequence[FoldModel], kind: str) -> PredictionSource:
    """Return the mean of the fold models of one run."""
    first = models[0].checkpoint
    for model in models[1:]:
        other = model.checkpoint
        if (other.classes, other.target, other.folds_sha) != (first.classes, first.target, first.folds_sha):
            raise EnsembleError(
                f"{model.path} and {models[0].path} are from different trainings",
                hint=f"train the missing folds again: ensemble kfold -c runs/{first.run}/config.toml --resume",
            )
    run = RunModels(first.run, tuple(models), first.classes, first.target)
    name = first.run if kind == "run" else f"{first.run}.fold{first.fold}"
    return PredictionSource(
        name,
        kind,
        first.classes,
        first.target,
        Combination((first.run,)),
        (run,),
        class_attributes=first.class_attributes,
    )


def _root_of(file: Path) -> Path | None:
    """Return the folder that holds ``runs/`` of a ``runs/blends/NAME/blend.toml``; None for another place."""
    blends = file.absolute().parent.parent
    return blends.parent.parent if (blends.name, blends.parent.name) == ("blends", "runs") else None


def _of_blend(path: Path, root: Path) -> PredictionSource:
    recipe = read_recipe(path)
    runs = tuple(_run_of(run, recipe, path, root) for run in recipe.runs)
    attributes = recipe.class_attributes or next(
        (model.checkpoint.class_attributes for run in runs for model in run.models), {}
    )
    return PredictionSource(
        path.resolve().parent.name,
        "blend",
        recipe.classes,
        recipe.target,
        recipe.combination,
        runs,
        _ranking(path.parent / "blend.json", recipe),
        attributes,
        path.parent,
    )


def _run_of(run: RunRecipe, recipe: BlendRecipe, path: Path, root: Path) -> RunModels:
    """Return the models of one run of a blend; every file must be the one that the blend was made of."""
    if run.joined:
        return RunModels(run.name, (), recipe.classes, recipe.target, joined=run.joined)
    folder = root / "checkpoints" / re.sub(r"#\d+$", "", run.run or run.name)
    expected = run.checkpoints or {}
    if not run.folds or not expected:
        raise EnsembleError(
            f"{path}: the checkpoints of run '{run.name}' are not known (its predictions came from a file alone)",
            hint="only runs that were trained here can predict new images; blend again without it",
        )
    missing = [fold for fold in run.folds if str(fold) not in expected]
    if missing:
        raise EnsembleError(
            f"{path}: the checkpoint of run '{run.name}' fold {missing[0]} is not known",
            hint="run ensemble blend again to rewrite it",
        )
    models = []
    for fold in run.folds:
        file = folder / f"fold{fold}.pt"
        if not file.is_file():
            raise EnsembleError(f"{path} needs {file}, which does not exist", hint=available_checkpoints(folder.parent))
        model = _load(file)
        if model.sha != expected[str(fold)]:
            raise EnsembleError(
                f"{file} is not the checkpoint that the blend was made of: this fold was trained again",
                hint="run ensemble blend again with the new predictions, and predict with that blend",
            )
        models.append(model)
    first = models[0].checkpoint
    columns = run.classes or recipe.classes
    if set(columns) != set(first.classes):
        raise EnsembleError(
            f"{models[0].path} predicts {', '.join(first.classes[:10])}, expected {', '.join(columns[:10])}",
            hint="run ensemble blend again to rewrite it",
        )
    return RunModels(run.name, tuple(models), columns, first.target, _merge_of(run, first, root))


def _merge_of(run: RunRecipe, checkpoint: Checkpoint, root: Path) -> Merge:
    """Return how the views of a run were merged; it is recorded in the sidecar of its merged predictions."""
    views = tuple(view for view in run.views if not view.startswith("merge="))
    if views in ((), ("none",)):
        return PLAIN
    file = oof_file(root / "runs" / "tta", checkpoint.run)
    sidecar = read_sidecar(file) if file.exists() else None
    if sidecar is None or sidecar.views != run.views or not isinstance(sidecar.merge, Mapping):
        raise EnsembleError(
            f"{file} does not state how the views {', '.join(views)} of run '{run.name}' are merged",
            hint=f"ensemble tta {checkpoint.run} with these views, then ensemble blend again",
        )
    record = {key: sidecar.merge.get(key) for key in ("how", "weights", "threshold")}
    return Merge.from_json(record, len(checkpoint.classes))


def _ranking(path: Path, recipe: BlendRecipe) -> tuple[str, ...]:
    """Return the runs, best out-of-fold score first, as the blend ranked them; in its order if scores are unknown."""
    record = read_json(path) if path.is_file() else None
    listed = record.get("runs") if isinstance(record, dict) else None
    metric = record.get("metric") if isinstance(record, dict) else None
    scores: dict[str, float] = {}
    for one in listed if isinstance(listed, list) else []:
        try:
            scores[one["run"]] = float(one["oof"]["score"][metric]["score"])
        except (KeyError, TypeError, ValueError):
            continue
    smaller = metric in METRICS and not METRICS[metric].greater_is_better
    sign = 1 if smaller else -1
    return tuple(sorted(recipe.combination.runs, key=lambda name: (name not in scores, sign * scores.get(name, 0.0))))
