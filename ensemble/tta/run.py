"""Test-time augmentation of trained folds: every view's logits kept, merged as asked or as the out-of-fold labels say, applied to test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.tta.files import load_common_rows, write
from ensemble.tta.merge import Merge, MergeConfig
from ensemble.tta.predict import FoldPredictor, Note
from ensemble.tta.views import View
from ensemble.tta.weights import OOFViews, apply, fit, nested_view_scores
from folds.data.table import Dataset
from folds.errors import EnsembleError, UsageError
from folds.models.checkpoint import Checkpoint, available_checkpoints
from folds.predictions.files import PredictionMetadata, fold_files, oof_file, read_sidecar, sidecar_path
from folds.predictions.reading import labels_and_groups
from folds.utils.files import remove
from folds.utils.locks import exclusive_lock
from folds.utils.numeric import softmax


@dataclass(frozen=True)
class TTAResult:
    """What a run's views were merged to.

    Attributes
    ----------
    merge : fitted on all of its out-of-fold rows; what test is merged by.
    evidence : what it was fitted on; None where labels are not known.
    merged : (n, classes) the out-of-fold rows of `evidence`, each as the other folds say where anything was fitted.
    full : (n, classes) the same with all views of the merge for all images, where it is adaptive.
    oof_views, test_views : forward passes an image, on average; the latter None where there is no test.
    predicted : forward passes that this command made.
    """

    run: str
    request: MergeConfig
    merge: Merge
    evidence: OOFViews | None
    merged: NDArray[np.float64]
    full: NDArray[np.float64] | None
    oof_views: float
    test_views: float | None = None
    predicted: int = 0


def find_checkpoints(target: str, checkpoints: Path = Path("checkpoints")) -> list[Path]:
    """A checkpoint file, or all checkpoints of a run of that name.

    Raises
    ------
    EnsembleError : there is neither; the checkpoints there are get listed.
    """
    path = Path(target)
    if path.is_file():
        return [path]
    run = path if path.is_dir() else checkpoints / target
    found = sorted(run.glob("fold*.pt"), key=lambda p: (len(p.name), p.name)) if run.is_dir() else []
    if not found:
        raise EnsembleError(f"there is no checkpoint or run {target}", hint=available_checkpoints(checkpoints))
    return found


def augment(
    checkpoints: Mapping[Path, Checkpoint],
    views: Sequence[View],
    open_data: Callable[[Checkpoint], Dataset],
    request: MergeConfig,
    *,
    runs: Path = Path("runs"),
    device: str = "auto",
    force: bool = False,
    progress: Callable[[str], Callable[[int, int], None]] | None = None,
    note: Note = lambda text: None,
) -> TTAResult:
    """Predict folds of a run in every view, out of fold and on test; write each view's logits and the merged probabilities.

    A view that an earlier command has predicted, with this checkpoint, of this table and these images, is kept. Merged files
    are made anew from what is kept, whatever merge they were of: all of a run's are of one merge, over the folds that have its views.
    On test only the views that the budget leaves are predicted, and, if adaptive, only for the images that need them.

    Files, under ``runs/tta``: ``<run>/views/<view>.oof.npy`` and ``<view>.fold<i>.test.npy`` (logits), ``<run>.oof.npy``
    (stitched over the folds done so far) and ``<run>.fold<i>.test.npy`` (probabilities; the sidecar's `merge` is `Merge.to_dict`).

    Parameters
    ----------
    checkpoints : by file, of one run.
    views : the plain image first.
    open_data : gives the table a checkpoint was trained on.
    force : predict all views of these checkpoints again, also where those there are of another training.
    progress : called with a checkpoint, gives what is told the rows done and the rows in all.

    Raises
    ------
    EnsembleError : the table lacks a fold's rows or has other labels; predictions of another training of a fold are there already;
        something is to be fitted, and labels are not known.
    """
    request.check()
    if len(views) == 1:  # there is nothing to merge, to choose or to save
        request = MergeConfig()
    names = {checkpoint.run for checkpoint in checkpoints.values()}
    if len(names) != 1:
        raise UsageError(
            f"expected checkpoints of one run, found {', '.join(sorted(names))}",
            hint="one command a run: ensemble tta RUN",
        )
    run = names.pop()
    folder, tables = runs / "tta" / run, dict[str, Any]()
    with exclusive_lock(runs / "tta" / f".{run}.lock", f"the TTA of {run}"):
        folds = []
        for path in checkpoints:
            told = None if progress is None else progress(str(path))
            fold = FoldPredictor(
                path, open_data, folder, images=tables, device=device, again=force, progress=told, note=note
            )
            _check_same_training(oof_file(runs / "tta", run), fold, force)
            fold.out_of_fold(views)
            if request.all_on_test(len(views)):
                fold.test(views)
            fold.release()
            folds.append(fold)
        files = [folder / "views" / f"{view.file_name}.oof.npy" for view in views]
        found = load_common_rows(files, {fold.fold: fold.sha for fold in folds})
        if found is None:
            raise EnsembleError(
                f"{files[0]}: the views of {run} have no row in common",
                hint=f"ensemble tta {run} --force predicts them again",
            )
        logits, sidecar = found
        made = _decide(run, [view.name for view in views], logits, sidecar, request)
        chosen = [next(view for view in views if view.name == name) for name in made.merge.views]
        for fold in folds:
            if not request.all_on_test(len(views)):
                _test_where_needed(fold, chosen, made.merge)
            fold.release()
            if not fold.passes:
                note(f"{run} fold {fold.fold}: all views are there already; --force predicts them again")
        test_views = _write_merged(folds, chosen, made, sidecar, note)
    return replace(made, test_views=test_views, predicted=sum(fold.passes for fold in folds))


def _decide(
    run: str, names: Sequence[str], logits: NDArray[np.float32], sidecar: PredictionMetadata, request: MergeConfig
) -> TTAResult:
    """What the out-of-fold rows say of the merge, before anything of it is written."""
    try:
        labels, persons = labels_and_groups(sidecar)
    except ValueError:
        if request.fitted(len(names)):
            raise EnsembleError(
                f"views are chosen and weighed by labels, and those of {run}'s out-of-fold rows are not known",
                hint="--merge mean or geometric, of all views, needs none",
            ) from None
        merge = Merge(request.how, dict.fromkeys(names, (1 / len(names),)))
        return TTAResult(run, request, merge, None, merge.merged(logits), None, len(names))
    evidence = OOFViews(tuple(names), logits, labels, persons, np.broadcast_to(np.asarray(sidecar.fold), len(labels)))
    merge = fit(evidence, request)
    merged, views = nested_view_scores(evidence, request) if request.fitted(len(names)) else apply(merge, evidence)
    full = nested_view_scores(evidence, replace(request, adaptive=False, plain=True))[0] if request.adaptive else None
    return TTAResult(run, request, merge, evidence, merged, full, float(views.mean()))


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
    folds: Sequence[FoldPredictor], chosen: Sequence[View], made: TTAResult, sidecar: PredictionMetadata, note: Note
) -> float | None:
    """The merged files of all folds that have the views, and none of any other merge; how many views a test image needed on average.

    Out of fold the rows are merged by what the other folds say where anything was fitted (`nested` in the sidecar's `merge`): what
    blends these files is not flattered.
    """
    first, merge, request = folds[0], made.merge, made.request
    tta, run = first.folder.parent, first.checkpoint.run
    labelled = merge.views if merge.how == "mean" else (*merge.views, f"merge={merge.how}")
    record: dict[str, Any] = merge.to_dict() | {
        "asked": request.how,
        "budget": request.budget,
        "adaptive": request.adaptive,
    }
    record["nested"] = made.evidence is not None and request.fitted(len(made.evidence.views))
    out = oof_file(tta, run)
    _say_what_changes(out, sidecar, labelled, record, note)
    there = sorted(set(np.asarray(sidecar.fold).ravel().tolist()))
    used, written = [], set()
    # On test the same checkpoints must have predicted the views as out of fold.
    shas = (
        {int(i): sha for i, sha in sidecar.checkpoint_sha.items()}
        if isinstance(sidecar.checkpoint_sha, Mapping)
        else {}
    )
    for i in there:
        if first.data.test is None:
            break
        found = _merged_test(first, i, chosen, merge, shas)
        if found is not None:
            path = tta / f"{run}.fold{i}.test.npy"
            values, of_fold, views = found
            sidecar_of_fold = replace(of_fold, kind="probability", views=labelled, merge=record)
            write(path, values, sidecar_of_fold, first.data.test.rows())
            written.add(i)
            used.append(views)
    for i, path in fold_files(tta, run).items():
        if i not in written:
            # The array first: without its sidecar it would be taken on trust.
            remove(path)
            remove(sidecar_path(path))
            note(
                f"{path} is removed: fold {i} lacks some of these views; ensemble tta {run} with the same options predicts them"
            )
    write(out, made.merged, replace(sidecar, kind="probability", views=labelled, merge=record), first.data.train.rows())
    return float(np.mean(used)) if used else None


def _merged_test(
    first: FoldPredictor, fold: int, chosen: Sequence[View], merge: Merge, shas: Mapping[int, str]
) -> tuple[NDArray[np.float64], PredictionMetadata, float] | None:
    """Probabilities of a fold's test rows, what they are, and views an image; None where views are missing."""
    files = [first.folder / "views" / f"{view.file_name}.fold{fold}.test.npy" for view in chosen]
    base = load_common_rows(files[:1], shas)
    if base is None or first.data.test is None or len(base[1].rows) != len(first.data.test):
        return None
    further = merge.needs_more_views(base[0][0])
    if not further.any():
        return softmax(base[0][0]) if merge.threshold is not None else merge.merged(base[0]), base[1], 1.0
    found = load_common_rows(files, shas)
    place = {} if found is None else {name: i for i, name in enumerate(found[1].rows.ids.tolist())}
    at = np.array([place.get(name, -1) for name in base[1].rows.ids[further].tolist()])
    if found is None or (at < 0).any():
        return None
    values = softmax(base[0][0])
    values[further] = merge.merged(found[0][:, at])
    return values, base[1], 1 + float(further.mean()) * (len(chosen) - 1)


def _say_what_changes(
    path: Path, sidecar: PredictionMetadata, views: tuple[str, ...], record: Mapping[str, Any], note: Note
) -> None:
    before = read_sidecar(path) if path.exists() else None
    if before is None:
        return
    was = before.merge or {}
    if before.views != views or was.get("threshold") != record["threshold"]:
        note(f"{path} was of {', '.join(before.views)}; it is made anew from the views, which are all kept")
    gone = sorted(set(np.asarray(before.fold).ravel().tolist()) - set(np.asarray(sidecar.fold).ravel().tolist()))
    if gone:
        listed = ", ".join(map(str, gone))
        note(
            f"{path} is without fold {listed}: some of these views are missing there; ensemble tta {sidecar.run} with the same options predicts them"
        )


def _check_same_training(path: Path, fold: FoldPredictor, force: bool) -> None:
    there = read_sidecar(path) if path.exists() else None
    if there is None or force:
        return
    before = there.checkpoint_sha if isinstance(there.checkpoint_sha, Mapping) else {}
    if before.get(str(fold.fold), fold.sha) != fold.sha or there.folds_sha != fold.checkpoint.folds_sha:
        raise EnsembleError(f"{path} was made with another training of this fold", hint="--force replaces it")


__all__ = ["TTAResult", "augment", "find_checkpoints"]
