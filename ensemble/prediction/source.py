"""Load what predicts: a checkpoint, the folds of a run, a blend with its views and weights, or an exported model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ensemble.blending.recipe import BlendRecipe, RunRecipe, read_recipe
from ensemble.cascade.record import Cascade
from ensemble.decisions.label_decision import AnyDecision, read_decision
from ensemble.decisions.rows import PERSON
from ensemble.learning.columns.combination import ColumnCombination
from ensemble.learning.combination import Combination
from ensemble.learning.cumulative import NumberToGrades
from ensemble.model_files.reading import StoredModel, is_model, read_model
from ensemble.model_files.record import CASCADE, DECISION, ModelRecord
from ensemble.prediction.models import PLAIN as PLAIN
from ensemble.prediction.models import FoldModel as FoldModel
from ensemble.prediction.models import PredictionSource as PredictionSource
from ensemble.prediction.models import RunModels as RunModels
from ensemble.prediction.models import check_one_task
from ensemble.tta.merge import Merge
from folds.errors import EnsembleError, UsageError, close_matches
from folds.metrics.classification import recorded_metric
from folds.metrics.task_names import BINARY, COLUMN_TASKS
from folds.models.checkpoint import Checkpoint, available_checkpoints, load_checkpoint
from folds.models.head_spec import is_of_person, require_image_head
from folds.models.stored_weights import StoredWeights
from folds.predictions.file_names import BLEND_RECIPE, BLEND_RECORD
from folds.predictions.files import ALL, oof_file, read_sidecar
from folds.utils.files import read_json, sha256_file


def load_source(
    what: str | Path,
    root: Path = Path(),
    fold: Sequence[int] | str | None = None,
    refit: bool = False,
    *,
    with_rows: bool = False,
    with_heads: bool = False,
) -> PredictionSource:
    """Return the models and the combination of a checkpoint, a run, a blend or an exported model.

    Parameters
    ----------
    with_rows : whether the caller knows the persons and the columns of the images, which blends for people, and blends
        with columns beside the predictions, need.
    with_heads : whether the caller applies heads that predict an image from all images of its person.

    what : path of a checkpoint (``.pt``); name of a run; name, folder or ``blend.toml`` of a blend; ``NAME.all`` for
        the models of all people of a run or a blend; folder, ``model.toml`` or ``.zip`` of an exported model.
    root : the folder that holds ``runs/`` and ``checkpoints/``.
    fold : of a run, the folds whose models predict, or ``all`` for its model of all people; None for all folds.
    refit : whether each run of a blend predicts with its model of all people instead of the models of its folds.

    Raises
    ------
    EnsembleError : it does not exist, a checkpoint is missing or was replaced, or the combination cannot be applied to
        new images.
    UsageError : it needs more than images, and the caller has only images.
    """
    source = _find_source(what, root, fold, refit)
    head = head_of_people(source)
    if head is not None and not with_heads:
        require_image_head(head, "this command", source.name)
    return source if with_rows else check_images_only(source)


def check_images_only(source: PredictionSource) -> PredictionSource:
    """Return the source; raise UsageError if it needs the persons or other columns of the images."""
    pooling, columns = source.combination.pooling, source.combination.extra
    if pooling is None and columns is None and head_of_people(source) is None:
        return source
    needs = f"the columns {', '.join(columns.names)}" if columns is not None else "the persons"
    raise UsageError(
        f"{source.name} needs {needs} of the images, which are not known here",
        hint="ensemble predict, an exported model and ensemble serve take them; or blend without `pool` and `extra`",
    )


def head_of_people(source: PredictionSource) -> str | None:
    """Return the head of the first model that predicts an image from all images of its person; None if none does."""
    heads = (model.checkpoint.architecture.head for model in source.models)
    return next((head.partition(":")[0] for head in heads if is_of_person(head)), None)


def _find_source(
    what: str | Path, root: Path, fold: Sequence[int] | str | None = None, refit: bool = False
) -> PredictionSource:
    """Return what `load_source` returns, whatever it needs."""
    text, path = str(what), Path(what)
    is_exported = path.name == "model.toml" or is_model(path)
    is_toml = not is_exported and (path.suffix == ".toml" or (path / BLEND_RECIPE).is_file())
    _check_selection(text, path.suffix == ".pt", is_toml, fold, refit)
    if path.suffix == ".pt":
        return _of_run([_load(path)], "checkpoint")
    if is_exported:
        if fold is not None or refit:
            raise UsageError(f"{text} is an exported model: `fold` and `refit` select what is exported")
        check_one_meaning(text, root)
        return source_of(read_model(path.parent if path.name == "model.toml" else path))
    if is_toml:
        file = path if path.suffix == ".toml" else path / BLEND_RECIPE
        return _of_blend(file, root_of(file) or root, refit)
    blend, folder = root / "runs" / "blends" / text / BLEND_RECIPE, root / "checkpoints" / text
    plain = re.fullmatch(r"[\w.+#-]+", text, re.ASCII) is not None and text not in (".", "..")
    if plain and blend.is_file() and folder.is_dir():
        raise EnsembleError(
            f"'{text}' is the name of a run and of a blend", hint=f"name the file: {blend}, or a checkpoint of {folder}"
        )
    if plain and blend.is_file():
        _check_selection(text, False, True, fold, refit)
        return _of_blend(blend, root, refit)
    if plain and blend.parent.is_dir():
        raise EnsembleError(
            f"{blend.parent} has no blend.toml: a vote by attribute cannot be applied to new images",
            hint="blend again with `by=class`",
        )
    files = sorted(folder.glob("fold*.pt"), key=lambda file: (len(file.name), file.name)) if plain else []
    if files or (plain and (folder / f"{ALL}.pt").is_file()):
        if refit or fold == ALL:
            return _of_run([_load_refit(folder)], "refit")
        if files:
            return _of_run([_load(file) for file in _of_folds(files, fold)], "run")
    stem = text.removesuffix(f".{ALL}")
    if plain and stem != text and fold is None:  # the name that such a source has itself
        if (root / "checkpoints" / stem / f"{ALL}.pt").is_file():
            return _find_source(stem, root, fold=ALL)
        if (root / "runs" / "blends" / stem / BLEND_RECIPE).is_file():
            return _find_source(stem, root, refit=True)
    raise _unknown(text, root)


def check_one_meaning(text: str, root: Path) -> None:
    """Raise EnsembleError if the name of an exported model here is that of a blend or a run as well."""
    others = [root / "runs" / "blends" / text / BLEND_RECIPE, root / "checkpoints" / text]
    found = [place for place in others if "/" not in text and place.exists()]
    if found:
        raise EnsembleError(
            f"'{text}' is an exported model here, and the name of a {'blend' if found[0] == others[0] else 'run'}",
            hint=f"./{text} is the model, {found[0]} the other",
        )


def source_of(model: StoredModel) -> PredictionSource:
    """Return what an exported model predicts with.

    Raises
    ------
    EnsembleError : it has decision rules that were fitted to other probabilities than those of its cascade, or a
        combination for people with rules for images or a cascade.
    """
    record = model.record
    if DECISION in record.extras and CASCADE in record.extras:
        raise EnsembleError(
            f"{model.path} has decision rules and a cascade: the rules were fitted to the probabilities of all models, "
            "which a cascade does not use",
            hint="export it again, with the rules or with the cascade",
        )
    loaded = [
        FoldModel(model.path / file, record.files[file].sha256, checkpoint)
        for file, checkpoint in model.checkpoints.items()
    ]
    runs = tuple(
        RunModels(
            run.name,
            tuple(loaded[at] for at in run.models),
            run.classes,
            run.target,
            run.merge,
            run.joined,
            NumberToGrades.from_record(run.hand_over),
        )
        for run in record.runs
    )
    source = PredictionSource(
        record.name,
        "model",
        record.classes,
        record.target,
        record.combination,
        runs,
        record.ranking,
        record.class_attributes,
        model.path,
        _decision_of(record),
        _cascade_of(record, model.path, runs),
        record.refit,
        record.classes[-1] if record.task == BINARY else None,
    )
    _check_needs(source)
    return check_one_task(source)


def _check_needs(source: PredictionSource) -> None:
    """Raise EnsembleError if a model that needs more than images has rules or a cascade for images alone."""
    made, decision = source.combination, source.decision
    needs_more = made.pooling is not None or made.extra is not None or head_of_people(source) is not None
    if made.pooling is not None and decision is not None and decision.unit != PERSON:
        raise EnsembleError(
            f"{source.folder} answers for people, and its decision rules are for rows of one {decision.unit}",
            hint="export it again",
        )
    if needs_more and source.cascade is not None:
        raise EnsembleError(
            f"{source.folder} needs the persons or columns of the images, which a cascade does not know",
            hint="export it without `cascade`",
        )


def _decision_of(record: ModelRecord) -> AnyDecision | None:
    table = record.extras.get(DECISION)
    return None if table is None else read_decision(table, record.classes, f"[{DECISION}]")


def _cascade_of(record: ModelRecord, path: Path, runs: Sequence[RunModels]) -> Cascade | None:
    table = record.extras.get(CASCADE)
    if table is None:
        return None
    views, folds = {run.name: len(run.merge.views) for run in runs}, {run.name: len(run.models) for run in runs}
    return Cascade.from_json(table, views, folds, f"{path}: [{CASCADE}]")


def _check_selection(
    text: str, is_checkpoint: bool, is_blend: bool, fold: Sequence[int] | str | None, refit: bool
) -> None:
    """Raise UsageError if the models of a checkpoint, or the folds of a blend, are to be selected."""
    if isinstance(fold, str) and fold != ALL:
        raise UsageError(f"`fold={fold}`: expected numbers of folds, or {ALL}", hint="`fold=0,2` or `fold=all`")
    if is_checkpoint and (fold is not None or refit):
        raise UsageError(f"{text} is one model: `fold` and `refit` select the models of a run or a blend")
    if is_blend and fold is not None:
        hint = "`refit` predicts with the models of all people" if fold == ALL else "name a run to select its folds"
        raise UsageError(f"{text} is a blend, which predicts with the folds it was made of", hint=hint)
    if fold is not None and fold != ALL and refit:
        raise UsageError("`fold` and `refit` contradict each other", hint="give one of them")


def _of_folds(files: Sequence[Path], fold: Sequence[int] | str | None) -> list[Path]:
    """Return the checkpoints of these folds, in the order of the folds."""
    if fold is None:
        return list(files)
    named = {file.stem: file for file in files}
    missing = next((one for one in fold if f"fold{one}" not in named), None)
    if missing is not None:
        raise UsageError(
            f"`fold={missing}`: {files[0].parent} has no fold{missing}.pt", hint=f"it has {', '.join(sorted(named))}"
        )
    return [named[f"fold{one}"] for one in sorted(set(map(int, fold)))]


def _load_refit(folder: Path, folds: Mapping[str, str] | None = None) -> FoldModel:
    """Return the model of all people of a run.

    Parameters
    ----------
    folder : ``checkpoints/<run>``.
    folds : fold → hash of the checkpoints that it must follow from.

    Raises
    ------
    EnsembleError : there is none, or it follows from other folds.
    """
    path = folder / f"{ALL}.pt"
    train = f"ensemble kfold -c runs/{folder.name}/config.toml --fold {ALL} --resume"
    if not path.is_file():
        raise EnsembleError(f"{folder.name} has no model of all people: {path} does not exist", hint=train)
    model = _load(path)
    made_of = None if model.checkpoint.refit is None else model.checkpoint.refit["folds"]
    if made_of is None or any(made_of.get(fold) != sha for fold, sha in (folds or {}).items()):
        raise EnsembleError(
            f"{path} does not follow from the folds that the blend was made of, so the score of the blend is not that "
            "of its procedure",
            hint=f"{train}, then blend again",
        )
    return model


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
    checkpoint, sha = load_checkpoint(path), sha256_file(path)
    return FoldModel(path, sha, replace(checkpoint, weights=StoredWeights(path.absolute(), sha, checkpoint.weights)))


def combination_of_run(run: str, task: str, classes: tuple[str, ...]) -> Combination:
    """Return the combination that is one run alone."""
    return ColumnCombination((run,), task=task, columns=classes) if task in COLUMN_TASKS else Combination((run,))


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
    name = first.run if kind == "run" else f"{first.run}.{first.part}"
    return PredictionSource(
        name,
        kind,
        first.classes,
        first.target,
        combination_of_run(first.run, first.task, first.classes),
        (run,),
        class_attributes=first.class_attributes,
        refit=first.refit is not None,
    )


def root_of(file: Path) -> Path | None:
    """Return the folder that holds ``runs/`` of a ``runs/blends/NAME/blend.toml``; None for another place."""
    blends = file.absolute().parent.parent
    return blends.parent.parent if (blends.name, blends.parent.name) == ("blends", "runs") else None


def root_of_source(source: PredictionSource, root: Path) -> Path:
    """Return the folder that holds the ``runs/`` of a blend, which may be another one than that of the command."""
    found = None if source.folder is None else root_of(source.folder / BLEND_RECIPE)
    return root if found is None or found.resolve() == root.resolve() else found


def _of_blend(path: Path, root: Path, refit: bool) -> PredictionSource:
    recipe = read_recipe(path)
    runs = tuple(_run_of(run, recipe, path, root, refit) for run in recipe.runs)
    attributes = recipe.class_attributes or next(
        (model.checkpoint.class_attributes for run in runs if run.hand_over is None for model in run.models), {}
    )
    name = path.resolve().parent.name
    source = PredictionSource(
        f"{name}.{ALL}" if refit else name,
        "blend",
        recipe.classes,
        recipe.target,
        recipe.combination,
        runs,
        _ranking(path.parent / BLEND_RECORD, recipe),
        attributes,
        path.parent,
        refit=refit,
        positive=_named_positive(path.parent / BLEND_RECORD),
    )
    return check_one_task(source)


def _named_positive(path: Path) -> str | None:
    """Return the positive class in the options of a blend's record; None if there is none."""
    record = read_json(path) if path.is_file() else None
    options = record.get("options") if isinstance(record, dict) else None
    found = options.get("positive") if isinstance(options, dict) else None
    return found if isinstance(found, str) else None


def _run_of(run: RunRecipe, recipe: BlendRecipe, path: Path, root: Path, refit: bool) -> RunModels:
    """Return the models of one run of a blend; every file must be the one that the blend was made of.

    Parameters
    ----------
    refit : whether to return the model of all people, which must follow from the folds that the blend was made of.
    """
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
    models = [_load_refit(folder, {str(fold): expected[str(fold)] for fold in run.folds})] if refit else []
    for fold in () if refit else run.folds:
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
    # A run whose number is handed over has the column of its models, which are those that the blend was made of.
    columns = run.classes or (first.classes if run.hand_over else recipe.classes)
    if set(columns) != set(first.classes):
        raise EnsembleError(
            f"{models[0].path} predicts {', '.join(first.classes[:10])}, expected {', '.join(columns[:10])}",
            hint="run ensemble blend again to rewrite it",
        )
    merge, hand_over = _merge_of(run, first, root), NumberToGrades.from_record(run.hand_over)
    return RunModels(run.name, tuple(models), columns, first.target, merge, hand_over=hand_over)


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
    merge = Merge.from_json(record, len(checkpoint.classes))
    merge.check_task(checkpoint.task)
    return merge


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
    known = recorded_metric(metric)
    sign = -1 if known is None or known.greater_is_better else 1
    return tuple(sorted(recipe.combination.runs, key=lambda name: (name not in scores, sign * scores.get(name, 0.0))))
