"""Find what can predict in place of a blend: its folds, its views, its cascade, a refit, a student, a soup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ensemble.blending.recipe import read_recipe
from ensemble.cascade.combine import used_runs
from ensemble.cascade.evidence import Loaded
from ensemble.cascade.fit import FittedCascade
from ensemble.prediction.cascade import with_cascade
from ensemble.prediction.costs_scores import CostPart, PartScores
from ensemble.prediction.measure import part_of, reduced
from ensemble.prediction.optimism import optimism
from ensemble.prediction.source import PredictionSource, load_source
from folds.errors import EnsembleError
from folds.predictions.file_names import BLEND_RECIPE
from folds.predictions.files import ALL, fold_files, oof_file, read_sidecar
from folds.predictions.predictions import Predictions, mean_of_folds, read_predictions
from folds.utils.files import read_json


def find_parts(
    what: str,
    source: PredictionSource,
    loaded: Loaded,
    fitted: FittedCascade,
    root: Path,
    student: str | None,
    soup: str | None,
) -> tuple[list[CostPart], dict[str, str]]:
    """Return what exists, and name → how to get what does not."""
    scores = PartScores(source, loaded, fitted)
    used = used_runs(source.combination)
    run = next(one for one in source.runs if one.name == scores.best)
    fold = run.models[scores.best_fold()].checkpoint.fold
    views = len(run.merge.weights)
    base = {"run": run.name, "plain": True}
    one = reduced(source, base | {"fold": fold})
    folds = len(run.models)
    parts = [
        scores.part("best fold", f"{run.name} fold {fold}", scores.plain, one, 1, base | {"fold": fold}),
        scores.part("k folds", f"{run.name}, {folds} folds", scores.plain, reduced(source, base), folds, base),
    ]
    missing = {}
    if views > 1:
        parts.append(
            scores.part(
                "+ TTA",
                f"{run.name}, {views} views",
                scores.views,
                part_of(source, run),
                None if run.merge.threshold is not None else folds * views,
                {"run": run.name},
            )
        )
    else:
        missing["+ TTA"] = f"ensemble tta {run.name} --views hflip, then blend again"
    if len(source.combination.runs) > 1 or source.kind == "blend":
        parts.append(scores.part("full blend", f"{len(used)} runs", scores.full, source, fitted.score.all_passes, {}))
    tolerance = fitted.cascade.tolerance
    label = "exact" if tolerance is None or not fitted.cascade.steps else f"at most {tolerance:g} lost"
    cascade = with_cascade(source, fitted.cascade)
    passes = fitted.score.passes
    parts.append(scores.part("cascade", label, scores.cascade, cascade, passes, {"cascade": fitted.cascade.to_dict()}))
    for found, name, text in (
        (_refit(scores, used, root), "refit", f"ensemble kfold -c runs/{run.name}/config.toml --fold all --resume"),
        (
            _replacement(scores, "student", student or _find_student(root, source), root),
            "student",
            f"ensemble distill {what}",
        ),
        (
            _replacement(scores, "soup", soup or _find_soup(root, used), root),
            "soup",
            f"ensemble soup {run.name} OTHER-SEED …",
        ),
    ):
        if found is None:
            missing[name] = text
        else:
            parts.append(found)
    return parts, missing


def _refit(scores: PartScores, used: Sequence[str], root: Path) -> CostPart | None:
    """Return the model of all people of the best run that has one; its score is that of the procedure."""
    for name in sorted(used, key=lambda one: one != scores.best):
        path = root / "checkpoints" / name / "all.pt"
        if not path.is_file():
            continue
        file = root / "runs" / name / "all" / "test.npy"
        test = scores.aligned(read_predictions(file) if file.is_file() else None, scores.test_ids())
        oof = scores.evidence.first[scores.names.index(name)]
        return scores.part(
            "refit", f"{name} (score of the procedure)", (oof, test), load_source(path, root), 1, {"what": str(path)}
        )
    return None


def _replacement(scores: PartScores, kind: str, run: str | None, root: Path) -> CostPart | None:
    """Return a run that replaces the blend."""
    if run is None:
        return None
    source, runs = load_source(run, root), root / "runs"
    file = oof_file(runs, run)
    found = read_predictions(file) if file.is_file() else None
    oof = scores.aligned(found, scores.evidence.ids)
    if oof is None:
        raise EnsembleError(
            f"run '{run}' has no out-of-fold predictions of the images of {scores.source.name}",
            hint="name a run with the same table and classes",
        )
    tests = fold_files(runs, run)
    test = scores.aligned(mean_of_folds(list(tests.values())) if tests else None, scores.test_ids())
    part = scores.part(kind, run, (oof, test), source, len(source.models), {"what": run})
    return replace(part, row=replace(part.row, warning=_doubt(scores.source, source, found, root)))


def _doubt(replaced: PredictionSource, replacement: PredictionSource, found: Predictions | None, root: Path) -> str:
    """Return why the score of a replacement is optimistic, and whether its teacher is an earlier blend of the name."""
    text = optimism(replacement, root, None if found is None else found.metadata.teacher)
    identity = replacement.models[0].checkpoint.recipe.get("teacher_identity")
    if not identity or replaced.folder is None or replaced.kind != "blend":
        return text
    if identity == read_recipe(replaced.folder / BLEND_RECIPE).identity:
        return text
    return f"{text}; its teacher is not this blend as it is now (made with other runs or settings)"


def _find_soup(root: Path, used: Sequence[str]) -> str | None:
    """Return a soup with a run of the blend among its runs; None if there is none."""
    for path in sorted((root / "runs").glob("*/soup.json")):
        record = read_json(path)
        runs = record.get("runs") if isinstance(record, dict) else None
        if isinstance(runs, list) and set(map(str, runs)) & set(used):
            return path.parent.name
    return None


def _find_student(root: Path, source: PredictionSource) -> str | None:
    """Return a run that was trained on the out-of-fold predictions of the blend or run; None if there is none."""
    name = source.name.removesuffix(f".{ALL}") if source.refit else source.name
    teacher = f"blends/{name}" if source.kind == "blend" else source.runs[0].models[0].checkpoint.run
    for path in sorted((root / "runs").glob("*.oof.npy")):
        sidecar = read_sidecar(path)
        if sidecar is not None and sidecar.teacher == teacher and sidecar.run:
            return sidecar.run
    return None
