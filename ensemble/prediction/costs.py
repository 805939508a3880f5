"""Compare what predicts: one fold, all folds, views, the full blend, its cascade, and smaller replacements.

For each: the score of people whom it has not seen, the difference to the full blend, and what it costs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ensemble.blending.recipe import read_recipe
from ensemble.cascade.combine import Combiner, used_runs
from ensemble.cascade.evidence import Loaded
from ensemble.cascade.fit import FittedCascade
from ensemble.cascade.predictions import CascadeEvidence, full_blend
from ensemble.prediction.cascade import fit_loaded, load_source_evidence, parse_tolerance, with_cascade
from ensemble.prediction.costs_table import ROWS, CostRow, CostTable
from ensemble.prediction.measure import job_of, part_of, peak_memory, reduced, seconds_per_image
from ensemble.prediction.optimism import optimism
from ensemble.prediction.source import PredictionSource, load_source, root_of_source
from folds.data.sources import load_checkpoint_data
from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError
from folds.metrics.classification import Metric
from folds.metrics.intervals import difference_over_people, interval_over_people
from folds.predictions.files import ALL, LABEL, fold_files, oof_file, read_sidecar
from folds.predictions.predictions import Predictions, mean_of_folds, read_predictions
from folds.utils.files import read_json
from folds.utils.progress import SILENT, Progress

logger = logging.getLogger(__name__)

IMAGES = 128  # images of the timing
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class _Part:
    """A way to predict that exists, with what is known before it is measured."""

    row: CostRow
    source: PredictionSource
    job: dict[str, Any] = field(default_factory=dict)


def passes_table(
    what: str,
    *,
    images: SampleTable | None = None,
    cascade: str | float = 0.001,
    student: str | None = None,
    soup: str | None = None,
    metric: str = "macro_f1",
    device: str | int = "auto",
    measure: bool = True,
    root: str | Path = ".",
    progress: Progress = SILENT,
) -> CostTable:
    """Return the score and the cost of a blend (or a run), of its parts, and of what can replace it.

    Parameters
    ----------
    what : name of a blend or a run.
    images : images for the measurement, which no model has seen; the test images of the training by default.
    cascade : loss of the score that the cascade may have, or ``exact``.
    student, soup : runs that replace the blend; by default, they are found by their records.
    metric : metric of the scores of a run; a blend has its own.
    measure : whether to measure time and memory.

    Raises
    ------
    UsageError, EnsembleError : as `ensemble.prediction.cascade.fit_source`.
    """
    root = Path(root)
    source = load_source(what, root)
    root = root_of_source(source, root)
    loaded = load_source_evidence(source, root, metric)
    fitted = fit_loaded(source, loaded, parse_tolerance(cascade))
    parts, missing = _parts(what, source, loaded, fitted, root, student, soup)
    notes = [
        "OOF: people not used for training or fitting, one model per run; more folds show only in the test score",
        *fitted.notes,
    ]
    doubt = optimism(source, root)
    notes += [f"warning: the scores of {source.name} and its parts are {doubt}"] if doubt else []
    images = images if images is not None or not measure else _unseen_images(source, root)
    if measure and images is None:
        notes.append("time and memory: not measured, there are no test images; name images that no model has seen")
    elif measure and images is not None:
        kept = images.take(np.arange(min(len(images), IMAGES)))
        if len(kept) < 2:
            raise UsageError("the measurement needs two or more images", hint="name a folder or a table")
        parts = _measured(parts, what, kept, str(device), root, progress)
        notes.append(f"time: {len(kept)} images, in turn, median of 3; memory: a process of its own")
    rows = {part.row.name: part.row for part in parts}
    rows |= {name: CostRow(name, missing=text) for name, text in missing.items()}
    return CostTable(source.name, loaded.metric.title, tuple(rows[name] for name in ROWS if name in rows), tuple(notes))


def _parts(
    what: str,
    source: PredictionSource,
    loaded: Loaded,
    fitted: FittedCascade,
    root: Path,
    student: str | None,
    soup: str | None,
) -> tuple[list[_Part], dict[str, str]]:
    """Return what exists, and name → how to get what does not."""
    scores = _Scores(source, loaded, fitted)
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


class _Scores:
    """The predictions that scores are made of, in the rows of the evidence."""

    def __init__(self, source: PredictionSource, loaded: Loaded, fitted: FittedCascade) -> None:
        self.source, self.evidence, self.metric = source, loaded.evidence, loaded.metric
        self.names = list(source.combination.runs)
        evidence, unseen = self.evidence, self.evidence.unseen
        everything = np.arange(len(evidence.labels))
        used = used_runs(source.combination)
        self.best = self.names[_best(evidence, self.metric, everything, [self.names.index(name) for name in used])]
        at = self.names.index(self.best)
        chosen = np.zeros(len(everything), np.int64)  # the best run of the people of the other parts
        for part in np.unique(evidence.parts):
            rest = np.flatnonzero(evidence.parts != part)
            chosen[evidence.parts == part] = _best(
                evidence, self.metric, rest, [self.names.index(name) for name in used]
            )
        self.plain = evidence.first[chosen, everything], None if unseen is None else unseen.first[at].mean(axis=0)
        self.views = evidence.full[chosen, everything], None if unseen is None else unseen.full[at].mean(axis=0)
        tests = fitted.score.unseen
        combiner = Combiner(source.combination, source.ranking)
        self.full = (
            fitted.score.out_of_sample[0],
            None if unseen is None else full_blend(unseen, combiner),
        )
        self.cascade = fitted.score.out_of_sample[1], None if tests is None else tests[1]
        self.at = at

    def best_fold(self) -> int:
        """Return the fold model of the best run with the best score of its own people, as is usually taken."""
        evidence, sign = self.evidence, 1 if self.metric.greater_is_better else -1
        run = next(one for one in self.source.runs if one.name == self.best)
        scores = []
        for model in run.models:
            rows = np.flatnonzero(evidence.parts == model.checkpoint.fold)
            found = self.metric(evidence.labels[rows], evidence.first[self.at, rows]) if len(rows) else -np.inf
            scores.append(sign * found)
        return int(np.argmax(scores))

    def part(
        self,
        name: str,
        what: str,
        predicted: tuple[Floats | None, Floats | None],
        source: PredictionSource,
        passes: float | None,
        job: Mapping[str, Any],
    ) -> _Part:
        """Return a row with its scores; of the best fold, the test score is that of its own predictions."""
        oof, test = predicted
        unseen, evidence = self.evidence.unseen, self.evidence
        if name == "best fold" and unseen is not None:
            test = unseen.first[self.at][self.best_fold()]
        score = difference = None
        if oof is not None:
            score = interval_over_people(self.metric, evidence.labels, oof, evidence.persons)
            if name != "full blend":
                difference = difference_over_people(self.metric, evidence.labels, self.full[0], oof, evidence.persons)
        on_test = None
        if test is not None and unseen is not None and unseen.labels is not None:
            known = unseen.labels >= 0
            if known.any():
                on_test = interval_over_people(self.metric, unseen.labels[known], test[known], unseen.persons[known])
        size = sum({model.path: model.path.stat().st_size for model in source.models}.values()) / 1e6
        return _Part(CostRow(name, what, score, difference, on_test, passes, None, size), source, dict(job))

    def aligned(self, found: Predictions | None, ids: Sequence[str]) -> Floats | None:
        """Return (n, classes) predictions in the rows and classes of the evidence; None if a row is missing."""
        if found is None or set(found.classes) != set(self.source.classes):
            return None
        at = {name: row for row, name in enumerate(found.ids.tolist())}
        if not ids or any(name not in at for name in ids):
            return None
        columns = [found.classes.index(name) for name in self.source.classes]
        values: Floats = found.probabilities[[at[name] for name in ids]][:, columns]
        return values

    def test_ids(self) -> Sequence[str]:
        """Return the ids of the unseen images."""
        return () if self.evidence.unseen is None else self.evidence.unseen.ids


def _best(evidence: CascadeEvidence, metric: Metric, rows: NDArray[np.int64], runs: Sequence[int]) -> int:
    """Return the run with the best score on the first view."""
    sign = 1 if metric.greater_is_better else -1
    return max(runs, key=lambda run: sign * metric(evidence.labels[rows], evidence.first[run, rows]))


def _refit(scores: _Scores, used: Sequence[str], root: Path) -> _Part | None:
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


def _replacement(scores: _Scores, kind: str, run: str | None, root: Path) -> _Part | None:
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
    if identity == read_recipe(replaced.folder / "blend.toml").identity:
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


def _unseen_images(source: PredictionSource, root: Path) -> SampleTable | None:
    """Return the test images of the training; None if it had none."""
    first = source.models[0].checkpoint
    data = load_checkpoint_data(
        first.data,
        classes=first.classes if first.target == LABEL else None,
        root=root,
        run=first.run,
        folds_sha=first.folds_sha,
    )
    return data.test


def _measured(
    parts: Sequence[_Part], what: str, table: SampleTable, device: str, root: Path, progress: Progress
) -> list[_Part]:
    """Return the parts with time and memory."""
    sources = {part.row.name: part.source for part in parts}
    with progress.step("measuring time") as advance:
        times = seconds_per_image(sources, table, device, advance)
    measured = []
    with progress.step("measuring memory") as advance:
        for done, part in enumerate(parts, start=1):
            job = job_of(**({"what": what} | part.job), root=root, device=device, images=table.paths or ())
            peak = peak_memory(job)
            seconds, passes = times[part.row.name]
            row = replace(
                part.row,
                seconds=seconds,
                passes=passes if part.row.passes is None else part.row.passes,
                memory=None if peak is None else peak / 1e6,
            )
            measured.append(replace(part, row=row))
            advance(done, len(parts))
    return measured
