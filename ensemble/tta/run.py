"""Test-time augmentation of trained folds: predict all views, fit a merge out of fold, and apply it to test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.tta.files import load_common_rows, write
from ensemble.tta.merge import Merge, MergeConfig
from ensemble.tta.predict import FoldPredictor
from ensemble.tta.result import MergedViews
from ensemble.tta.scores import ViewScores, score_views
from ensemble.tta.views import View, deduplicate_views
from ensemble.tta.weights import OOFViews, apply, fit, nested_view_scores
from folds.data.sources import load_checkpoint_data
from folds.data.table import Dataset
from folds.errors import EnsembleError, UsageError
from folds.images.settings import CACHE
from folds.models.checkpoint import Checkpoint, available_checkpoints, load_checkpoint
from folds.predictions.files import LABEL, PredictionMetadata, fold_files, oof_file, read_sidecar, sidecar_path
from folds.predictions.links import kind_of, predictions_of
from folds.predictions.reading import is_by_person, labels_and_groups
from folds.utils.files import remove
from folds.utils.locks import exclusive_lock
from folds.utils.progress import SILENT, Progress

logger = logging.getLogger(__name__)


def find_checkpoints(target: str, checkpoints: Path = Path("checkpoints")) -> list[Path]:
    """Return a checkpoint file, or all checkpoints of the run with that name.

    Raises
    ------
    EnsembleError : there is no such file or run; the hint lists the existing checkpoints.
    """
    path = Path(target)
    if path.is_file():
        return [path]
    run = path if path.is_dir() else checkpoints / target
    found = sorted(run.glob("fold*.pt"), key=lambda p: (len(p.name), p.name)) if run.is_dir() else []
    if not found:
        raise EnsembleError(f"checkpoint or run not found: {target}", hint=available_checkpoints(checkpoints))
    return found


def augment_folds(
    target: str,
    views: Sequence[View],
    request: MergeConfig | None = None,
    *,
    data: Path | None = None,
    test: Path | None = None,
    images: Sequence[str] | None = None,
    test_images: Sequence[str] | None = None,
    per_person: bool = False,
    device: str = "auto",
    force: bool = False,
    root: Path = Path(),
    progress: Progress = SILENT,
) -> tuple[MergedViews, list[ViewScores]]:
    """Augment a checkpoint or all folds of a run; return the merged result and the scores of its distinct views.

    Parameters
    ----------
    target : path of a checkpoint, or name of a run.
    views : the views; duplicates are removed.
    data, test : the table it was trained on and its test images, if they have moved.
    images, test_images : the folders of the images that these tables name, if they have moved.
    per_person : whether to average the probabilities of a person's images before scoring.
    device, force : as in `augment`.
    root : the folder that holds ``runs``, ``checkpoints`` and ``.ensemble``.

    Raises
    ------
    UsageError, EnsembleError : there is no such checkpoint or run; as `augment`.
    """
    request = request or MergeConfig()
    request.check()
    tables: dict[str, Dataset] = {}

    def open_data(checkpoint: Checkpoint) -> Dataset:
        # The classes of an attribute model are values of the attribute, not classes of the table.
        classes = checkpoint.classes if checkpoint.target == LABEL else None
        key = repr((sorted(checkpoint.data.items()), classes, checkpoint.folds_sha))
        if key not in tables:
            tables[key] = load_checkpoint_data(
                checkpoint.data,
                data,
                test=test,
                images=images,
                test_images=test_images,
                classes=classes,
                root=root,
                run=checkpoint.run,
                folds_sha=checkpoint.folds_sha,
            )
        return tables[key]

    checkpoints = {path: load_checkpoint(path) for path in find_checkpoints(target, root / "checkpoints")}
    for path, checkpoint in checkpoints.items():
        if checkpoint.refit is not None:
            raise EnsembleError(
                f"{path} was trained on all people, so its views cannot be scored out of fold",
                hint=f"ensemble tta {checkpoint.run} uses the models of the folds",
            )
        request.check_task(checkpoint.task)
    first = next(iter(checkpoints.values())).architecture
    views = deduplicate_views(views, (first.height, first.width))
    logger.info("%d view%s: %s", len(views), "s" if len(views) > 1 else "", ", ".join(view.name for view in views))
    runs, cache = root / "runs", root / CACHE / "images"
    made = augment(
        checkpoints,
        views,
        open_data,
        request,
        runs=runs,
        image_cache=cache,
        device=device,
        force=force,
        progress=progress,
    )
    if made.predicted:
        logger.info("%s forward passes made", f"{made.predicted:,}")
    return made, score_views(made.run, views, runs, per_person)


def augment(
    checkpoints: Mapping[Path, Checkpoint],
    views: Sequence[View],
    open_data: Callable[[Checkpoint], Dataset],
    request: MergeConfig,
    *,
    runs: Path = Path("runs"),
    image_cache: Path = CACHE / "images",
    device: str = "auto",
    force: bool = False,
    progress: Progress = SILENT,
) -> MergedViews:
    """Predict folds of a run in every view, out-of-fold and test; write the views' logits and merged probabilities.

    Views that an earlier command predicted with the same checkpoint, table and images are reused. Merged files are
    always written again from the views, so all merged files of a run have the same merge and cover the folds that have
    its views. On test, only the views within the budget are predicted and, if adaptive, only for the images that need
    them.

    Files, under ``runs/tta``: ``<run>/views/<view>.oof.npy`` and ``<view>.fold<i>.test.npy`` (logits),
    ``<run>.oof.npy`` (all folds predicted so far) and ``<run>.fold<i>.test.npy`` (probabilities; the sidecar's `merge`
    is `Merge.to_dict`).

    Parameters
    ----------
    checkpoints : path → checkpoint, all of one run.
    views : the views, the plain image first.
    open_data : returns the table a checkpoint was trained on.
    image_cache : the folder of decoded images.
    force : whether to predict all views of these checkpoints again, also if existing files are from another training.

    Raises
    ------
    EnsembleError : the table lacks a fold's rows or has other labels; files from another training of a fold exist;
        labels are needed for fitting and are not known.
    """
    request.check()
    for checkpoint in checkpoints.values():
        request.check_task(checkpoint.task)
    if len(views) == 1:  # nothing to merge or choose
        request = MergeConfig()
    run = _one_run(checkpoints.values())
    folder, images = runs / "tta" / run, dict[str, Any]()
    with exclusive_lock(runs / "tta" / f".{run}.lock", f"the TTA of {run}"):
        folds = []
        for path in checkpoints:
            fold = FoldPredictor(
                path,
                open_data,
                folder,
                images=images,
                image_cache=image_cache,
                device=device,
                again=force,
                progress=progress,
            )
            _check_same_training(oof_file(runs / "tta", run), fold, force)
            fold.out_of_fold(views)
            if request.all_on_test(len(views)):
                fold.test(views)
            fold.release()
            folds.append(fold)
        logits, sidecar = _common_logits(folds, views)
        made = _decide(run, [view.name for view in views], logits, sidecar, request)
        chosen = [next(view for view in views if view.name == name) for name in made.merge.views]
        for fold in folds:
            if not request.all_on_test(len(views)):
                _test_where_needed(fold, chosen, made.merge)
            fold.release()
            if not fold.passes:
                logger.info("%s fold %d: all views exist already; `force` predicts them again", run, fold.fold)
        test_views = _write_merged(folds, chosen, made, sidecar)
    return replace(made, test_views=test_views, predicted=sum(fold.passes for fold in folds))


def _one_run(checkpoints: Iterable[Checkpoint]) -> str:
    names = sorted({checkpoint.run for checkpoint in checkpoints})
    if len(names) != 1:
        raise UsageError(
            f"expected checkpoints of one run, found {', '.join(names)}", hint="one command per run: ensemble tta RUN"
        )
    return names[0]


def _common_logits(
    folds: Sequence[FoldPredictor], views: Sequence[View]
) -> tuple[NDArray[np.float32], PredictionMetadata]:
    """Return the logits (views, n, classes) and metadata of the out-of-fold rows that all views have."""
    first = folds[0]
    files = [first.folder / "views" / f"{view.file_name}.oof.npy" for view in views]
    found = load_common_rows(files, {fold.fold: fold.sha for fold in folds})
    if found is None:
        run = first.checkpoint.run
        raise EnsembleError(
            f"{files[0]}: the views of {run} have no row in common",
            hint=f"ensemble tta {run} --force predicts them again",
        )
    # The files of views may be older than what the checkpoint says about its classes.
    return found[0], replace(found[1], task=first.checkpoint.task, exclusive=first.checkpoint.exclusive)


def _decide(
    run: str, names: Sequence[str], logits: NDArray[np.float32], sidecar: PredictionMetadata, request: MergeConfig
) -> MergedViews:
    """Fit the merge to the out-of-fold rows and return the result, before anything is written."""
    try:
        labels, persons = labels_and_groups(sidecar)
    except ValueError:
        if request.fitted(len(names)):
            raise EnsembleError(
                f"fitting the merge needs labels, and those of the out-of-fold rows of {run} are not known",
                hint="`merge=mean` or `merge=geometric` of all views needs no labels",
            ) from None
        merge = Merge(request.how, dict.fromkeys(names, (1 / len(names),)))
        return MergedViews(
            run, request, merge, None, merge.merged(logits, sidecar.task), None, len(names), sidecar.task
        )
    fold = np.broadcast_to(np.asarray(sidecar.fold), len(labels))
    evidence = OOFViews(tuple(names), logits, labels, persons, fold, sidecar.task, is_by_person(sidecar))
    merge = fit(evidence, request)
    merged, views = nested_view_scores(evidence, request) if request.fitted(len(names)) else apply(merge, evidence)
    full = nested_view_scores(evidence, replace(request, adaptive=False, plain=True))[0] if request.adaptive else None
    return MergedViews(run, request, merge, evidence, merged, full, float(views.mean()), sidecar.task)


def _test_where_needed(fold: FoldPredictor, chosen: Sequence[View], merge: Merge) -> None:
    if fold.data.test is None:
        return
    if merge.threshold is None:
        fold.test(chosen)
        return
    fold.test(chosen[:1])
    plain = load_common_rows([fold.file(chosen[0], "test")], {fold.fold: fold.sha})
    if plain is not None and len(chosen) > 1:
        fold.test(chosen[1:], only=merge.needs_more_views(plain[0][0]))


def _write_merged(
    folds: Sequence[FoldPredictor], chosen: Sequence[View], made: MergedViews, sidecar: PredictionMetadata
) -> float | None:
    """Write the merged files of all folds that have the views, and remove those of others.

    If anything was fitted, the rows of each fold are merged by a merge fitted to the other folds (`nested` in the
    sidecar's `merge`), so blends of these files are not optimistic.

    Returns
    -------
    The mean number of views per test image; None without test files.
    """
    first, merge, request = folds[0], made.merge, made.request
    tta, run = first.folder.parent, first.checkpoint.run
    labelled = merge.views if merge.how == "mean" else (*merge.views, f"merge={merge.how}")
    nested = made.evidence is not None and request.fitted(len(made.evidence.views))
    record: dict[str, Any] = merge.to_dict() | {
        "asked": request.how,
        "budget": request.budget,
        "adaptive": request.adaptive,
        "nested": nested,
    }
    out = oof_file(tta, run)
    _log_changes(out, sidecar, labelled, record)
    used = _write_test(first, chosen, merge, sidecar, labelled, record)
    for fold, path in fold_files(tta, run).items():
        if fold not in used:
            # The array first: an array without a sidecar would be accepted without checks.
            remove(path)
            remove(sidecar_path(path))
            logger.info(
                "%s removed: fold %d lacks some of these views; ensemble tta %s with the same options predicts them",
                path,
                fold,
                run,
            )
    kind = kind_of(sidecar.task)
    write(out, made.merged, replace(sidecar, kind=kind, views=labelled, merge=record), first.data.train.rows())
    return float(np.mean(list(used.values()))) if used else None


def _write_test(
    first: FoldPredictor,
    chosen: Sequence[View],
    merge: Merge,
    sidecar: PredictionMetadata,
    labelled: tuple[str, ...],
    record: Mapping[str, Any],
) -> dict[int, float]:
    """Write the merged test rows of the folds that have the views; return fold → mean number of views per image."""
    used: dict[int, float] = {}
    if first.data.test is None:
        return used
    tta, run = first.folder.parent, first.checkpoint.run
    # The test views must come from the same checkpoints as the out-of-fold views.
    known = sidecar.checkpoint_sha
    shas = {int(fold): sha for fold, sha in known.items()} if isinstance(known, Mapping) else {}
    for fold in sorted(set(np.asarray(sidecar.fold).ravel().tolist())):
        found = _merged_test(first, fold, chosen, merge, shas)
        if found is not None:
            values, of_fold, used[fold] = found
            of_fold = replace(of_fold, kind=kind_of(sidecar.task), views=labelled, merge=record)
            of_fold = replace(of_fold, task=sidecar.task, exclusive=sidecar.exclusive)
            write(tta / f"{run}.fold{fold}.test.npy", values, of_fold, first.data.test.rows())
    return used


def _merged_test(
    first: FoldPredictor, fold: int, chosen: Sequence[View], merge: Merge, shas: Mapping[int, str]
) -> tuple[NDArray[np.float64], PredictionMetadata, float] | None:
    """Return probabilities and metadata of a fold's test rows, and views per image; None if views are missing."""
    files = [first.folder / "views" / f"{view.file_name}.fold{fold}.test.npy" for view in chosen]
    base = load_common_rows(files[:1], shas)
    if base is None or first.data.test is None or len(base[1].rows) != len(first.data.test):
        return None
    further, task = merge.needs_more_views(base[0][0]), first.checkpoint.task
    if not further.any():
        values = predictions_of(task, base[0][0]) if merge.threshold is not None else merge.merged(base[0], task)
        return values, base[1], 1.0
    found = load_common_rows(files, shas)
    place = {} if found is None else {name: i for i, name in enumerate(found[1].rows.ids.tolist())}
    at = np.array([place.get(name, -1) for name in base[1].rows.ids[further].tolist()])
    if found is None or (at < 0).any():
        return None
    values = np.array(predictions_of(task, base[0][0]))
    values[further] = merge.merged(found[0][:, at], task)
    return values, base[1], 1 + float(further.mean()) * (len(chosen) - 1)


def _log_changes(path: Path, sidecar: PredictionMetadata, views: tuple[str, ...], record: Mapping[str, Any]) -> None:
    before = read_sidecar(path) if path.exists() else None
    if before is None:
        return
    merge = before.merge or {}
    if before.views != views or merge.get("threshold") != record["threshold"]:
        logger.info("%s is rewritten: it merged %s; the files of all views are kept", path, ", ".join(before.views))
    missing = sorted(set(np.asarray(before.fold).ravel().tolist()) - set(np.asarray(sidecar.fold).ravel().tolist()))
    if missing:
        listed = ", ".join(map(str, missing))
        logger.info(
            "%s is rewritten without fold %s, which lacks some of these views; ensemble tta %s with the same options "
            "predicts them",
            path,
            listed,
            sidecar.run,
        )


def _check_same_training(path: Path, fold: FoldPredictor, force: bool) -> None:
    stored = read_sidecar(path) if path.exists() else None
    if stored is None or force:
        return
    before = stored.checkpoint_sha if isinstance(stored.checkpoint_sha, Mapping) else {}
    if before.get(str(fold.fold), fold.sha) != fold.sha or stored.folds_sha != fold.checkpoint.folds_sha:
        raise EnsembleError(f"{path} is from another training of this fold", hint="`force` replaces it")
