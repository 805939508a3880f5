"""`ensemble.export`: write a blend, a run or a checkpoint as one folder that predicts without anything else."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble.blending.output import write_blend
from ensemble.cascade.record import Cascade
from ensemble.decisions.decision import ABSTAIN_LABEL
from ensemble.decisions.face import RULE_KINDS
from ensemble.decisions.label_decision import read_decision
from ensemble.decisions.report import rule_lines
from ensemble.decisions.sets import ANY_IMAGE, LAC
from ensemble.export.rows import needs_record, needs_text
from ensemble.export.scores import Knowledge, collect
from ensemble.export.write import build_bundle, check_target, finished, write_bundle
from ensemble.model_files.record import CASCADE, DECISION, ModelRecord
from ensemble.prediction.cascade import cascaded, check_cascade_alone, check_cascade_options, loss_line
from ensemble.prediction.decisions import DecisionOptions, decision_for
from ensemble.prediction.people import check_without_cascade
from ensemble.prediction.source import PredictionSource, load_source
from folds.errors import EnsembleError, UsageError
from folds.predictions.file_names import BLEND_RECIPE
from folds.predictions.label_columns import COLUMN_NAMES
from folds.utils.arguments import FLAG, FOLDS, NAME, PATH, check_arguments, described
from folds.utils.display import Displayed, Table
from folds.utils.schema import NUMBER, either, named, optional

if TYPE_CHECKING:
    from ensemble.blending.blend import Blend

logger = logging.getLogger(__name__)

_KINDS = {
    "output": PATH,
    "root": PATH,
    "metric": optional(NAME),
    "fold": optional(named(either(NAME, FOLDS), f"{FOLDS.expected}, or 'all'")),
    "cascade": optional(named(either(NAME, NUMBER), "exact, off, or a loss of the score from 0 to 1")),
    "cost": optional(NAME),
    **dict.fromkeys(("half", "onnx", "force", "per_person", "refit"), FLAG),
    **RULE_KINDS,
}


@dataclass(frozen=True, eq=False, repr=False)
class ExportedModel(Displayed):
    """What `export` wrote.

    Attributes
    ----------
    path : the folder or the archive.
    record : the content of ``model.toml``.
    bytes : of all files.
    onnx : times of the ONNX graph and of torch, and their largest difference; None without a graph.
    """

    path: Path
    record: ModelRecord
    bytes: int
    onnx: dict[str, Any] | None = None

    def __fspath__(self) -> str:
        return str(self.path)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as ``ensemble export --json`` prints them."""
        record = self.record
        return {
            "path": str(self.path),
            "name": record.name,
            "kind": record.kind,
            "sha256": record.sha256,
            "classes": list(record.classes),
            **({"task": record.task} if record.has_columns else {}),
            **needs_record(record),
            "models": len(record.models),
            "bytes": self.bytes,
            "precision": record.precision,
            "half_difference": record.half_difference,
            "refit": record.refit,
            "score": dict(record.score) or None,
            "test_score": dict(record.test_score) or None,
            "decision": record.extras.get(DECISION),
            "cascade": record.extras.get(CASCADE),
            "trained": dict(record.trained),
            "onnx": self.onnx,
        }

    def display_table(self) -> Table:
        """Return the table to display: what is in the model."""
        record = self.record
        rows: list[list[object]] = [["models", len(record.models)]]
        rows += [[COLUMN_NAMES.get(record.task, "classes"), len(record.classes)]]
        rows += [["answers for", needs_text(record)]] if needs_record(record) else []
        rows += [["size", f"{self.bytes / 1e6:.1f} MB ({record.precision})"]]
        if record.score:
            score = record.score
            ends = f" [{score['low']:.3f}, {score['high']:.3f}]" if "low" in score and "high" in score else ""
            rows.append([score["metric"], f"{score['score']:.3f}{ends}"])
        notes = list(self._additions())
        notes += [f"score: {record.score['basis']}"] if record.score else ["score: not known"]
        notes += [f"warning: {record.score['warning']}"] if record.score.get("warning") else []
        if record.half_difference is not None:
            notes.append(
                f"fp16 weights change probabilities of the synthetic images by at most {record.half_difference:.1e}"
            )
        if self.onnx is not None:
            notes.append(
                f"model.onnx: {self.onnx['milliseconds']:.1f} ms for {self.onnx['images']} images, torch "
                f"{self.onnx['torch_milliseconds']:.1f} ms; largest difference {self.onnx['difference']:.1e}"
            )
        return Table(f"{record.kind} {record.name} exported to {self.path}", ["", ""], rows, tuple(notes), 1)

    def _additions(self) -> Iterator[str]:
        """Yield a line for each optional part of the model."""
        if CASCADE in self.record.extras:
            cascade = self.record.extras[CASCADE]
            if cascade.get("steps"):
                tolerance = cascade.get("tolerance")
                loss = "may lose some of the score" if tolerance is None else f"may lose {tolerance:g}"
            else:
                loss = "changes no decision"
            yield f"cascade: skips the models that an image does not need ({loss})"
            if cascade.get("steps"):
                yield loss_line(Cascade((), metric=cascade["metric"], score=cascade.get("score")))
        if DECISION in self.record.extras:
            decision = read_decision(self.record.extras[DECISION], self.record.classes)
            yield from rule_lines(decision)


def export(
    what: Blend | str | Path,
    output: str | Path,
    *,
    fold: int | Sequence[int] | str | None = None,
    refit: bool = False,
    half: bool = False,
    onnx: bool = False,
    metric: str | None = None,
    threshold: str | Sequence[str] | None = None,
    cost_matrix: str | Path | Mapping[str, Mapping[str, float]] | None = None,
    abstain: float | None = None,
    sets: float | None = None,
    sets_for: str = ANY_IMAGE,
    set_score: str = LAC,
    max_width: float | str | Sequence[str] | Mapping[str, float] | None = None,
    confidence: float = 0.9,
    abstain_label: str = ABSTAIN_LABEL,
    per_person: bool = False,
    cascade: str | float | None = None,
    cost: str | None = None,
    force: bool = False,
    root: str | Path = ".",
) -> ExportedModel:
    """Write a blend, a run or a checkpoint as one folder or ``.zip`` that needs no other file, and no network.

    Parameters
    ----------
    what : a blend, or what `ensemble.predict` takes: path of a checkpoint, name of a run, name, folder or
        ``blend.toml`` of a blend, or another exported model.
    output : the new folder, or a name that ends in ``.zip``.
    fold, refit : which models of a run or a blend are exported; see `ensemble.predict`.
    half : whether to store fp16 weights, half the size; the largest difference of probabilities is measured and stated.
    onnx : whether to add ``model.onnx``, one graph from pixels to probabilities (needs the extra ``onnx``).
    metric : metric of the stated score; default: that of the blend, or of the task (macro_f1 of classes).
    threshold, cost_matrix, abstain, sets, sets_for, set_score, max_width, confidence, abstain_label, per_person :
        decision rules that go with the model, fitted to its out-of-fold predictions as `ensemble.decide` does. A blend
        for people (`pool`) always has rules for people.
    cascade, cost : the model skips what an image does not need; see `ensemble.predict`. Not together with decision
        rules, which are fitted to the probabilities of all models.
    force : whether to replace an existing model.
    root : the folder that holds ``runs/`` and ``checkpoints/``.

    Raises
    ------
    EnsembleError : nothing of this name exists, `output` exists, or the combination cannot be exported.

    Examples
    --------
    >>> import ensemble as en
    >>> en.export("final", "model/", root="/nowhere")
    Traceback (most recent call last):
    ...
    folds.errors.EnsembleError: expected a checkpoint, a run, a blend or a model, found 'final'
    """
    check_arguments(locals(), _KINDS)
    root, path = Path(root), Path(output)
    check_target(path, force)
    check_cascade_options(cascade, cost)
    rules = DecisionOptions(
        threshold, cost_matrix, abstain, sets, sets_for, set_score, max_width, confidence, abstain_label
    )

    def add(source: PredictionSource) -> PredictionSource:
        check_without_cascade(source, cascade)
        check_cascade_alone(source, cascade, rules.are_given)
        decision = decision_for(source, root, rules, per_person or source.combination.pooling is not None)
        if cascade is not None:
            source, _ = cascaded(source, root, cascade, cost, metric or "macro_f1")
        return replace(source, decision=decision)

    folds: Any = [int(fold)] if isinstance(fold, Integral) else fold
    source, known = _loaded(what, root, metric, (folds, refit), add)
    if onnx:
        from ensemble.export.onnx_graph import build_graph, check_possible

        check_possible(source)  # before the expected images are predicted
    bundle = build_bundle(source, known, half)
    graph = timed = None
    note = ""
    if onnx:
        graph, timed, note = build_graph(bundle)
    bundle = finished(bundle, graph, note)
    write_bundle(bundle, path, force)
    return ExportedModel(path, bundle.record, sum(map(len, bundle.parts.values())), timed)


def _loaded(
    what: Any,
    root: Path,
    metric: str | None,
    models: tuple[Sequence[int] | str | None, bool],
    add: Callable[[PredictionSource], PredictionSource],
) -> tuple[PredictionSource, Knowledge]:
    """Return what is exported, and what is known about it.

    Parameters
    ----------
    models : the folds of a run, and whether to take the models of all people.
    add : adds decision rules and a cascade, for which the files of the blend are needed.

    Raises
    ------
    UsageError : it is neither a name, nor a path, nor a blend.
    """
    if isinstance(what, str | Path):
        source = load_source(what, root, *models, with_rows=True, with_heads=True)
        return add(source), collect(source, root, metric)
    if not (hasattr(what, "combination") and hasattr(what, "votes")):
        raise UsageError(f"`what` must be a name, a path or a blend, found {described(what)}")
    with tempfile.TemporaryDirectory() as folder:
        # The file of a blend is the one description of it; one that was not saved gets a file for the moment.
        write_blend(what, Path(folder) / what.name)
        if not (Path(folder) / what.name / BLEND_RECIPE).is_file():
            raise EnsembleError(
                "a vote by attribute cannot be applied to new images", hint="blend again with `by=class`"
            )
        source = load_source(Path(folder) / what.name / BLEND_RECIPE, root, *models, with_rows=True, with_heads=True)
        return replace(add(source), folder=None), collect(source, root, metric)
