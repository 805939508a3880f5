"""Fit the decision rules of a prediction to the out-of-fold predictions of what predicts, and describe them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ensemble.decisions.decision import ABSTAIN_LABEL, Decided, Decision
from ensemble.decisions.face import fit_decision, request_of
from ensemble.decisions.labels import GIVEN, LabelRule, fit_labels
from ensemble.decisions.oof import rows_of_predictions
from ensemble.decisions.record import STUDENT, MeasuredValue
from ensemble.decisions.report import guarantee_lines, rule_lines, score_lines
from ensemble.decisions.rows import IMAGE, PERSON, LabeledRows
from ensemble.decisions.scores import measured_on
from ensemble.decisions.sets import ANY_IMAGE, LAC
from ensemble.prediction.optimism import optimism_basis
from ensemble.prediction.source import PredictionSource
from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import require_classes
from folds.predictions.files import oof_file
from folds.predictions.predictions import Predictions, read_predictions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecisionOptions:
    """The decision rules that are asked for; the fields are the parameters of `ensemble.decide`."""

    threshold: str | Sequence[str] | None = None
    cost_matrix: str | Path | Mapping[str, Mapping[str, float]] | None = None
    abstain: float | None = None
    sets: float | None = None
    sets_for: str = ANY_IMAGE
    set_score: str = LAC
    confidence: float = 0.9
    abstain_label: str = ABSTAIN_LABEL

    @property
    def are_given(self) -> bool:
        """Return whether any rule is asked for."""
        return any(one is not None for one in (self.threshold, self.cost_matrix, self.abstain, self.sets))


def decision_for(
    source: PredictionSource, root: Path, options: DecisionOptions, per_person: bool = False
) -> Decision | None:
    """Return the decision rules for the predictions of a source; None if there are none.

    Rules that are asked for are fitted to the out-of-fold predictions; otherwise those of an exported model apply.

    Raises
    ------
    UsageError : options contradict each other, or are out of range.
    EnsembleError : there are no out-of-fold predictions, they are not those of these models, or no confidence keeps the
        stated error.
    """
    classes = source.classes
    if options.are_given:
        rules = "a decision rule (`threshold`, `cost_matrix`, `abstain`, `sets`)"
        require_classes(
            source.task, rules, "labels with a probability above .5 are there; ensemble decide fits thresholds"
        )
    request = request_of(classes, **{name: getattr(options, name) for name in _RULES})  # checks the options
    if not options.are_given:
        decision = source.decision
        if decision is None or options.abstain_label == ABSTAIN_LABEL:
            return decision
        return decision.with_label(options.abstain_label)
    oof = _oof_of(source, root)
    if oof is not None and source.refit:
        logger.warning("the rules are fitted to the predictions of the folds, not to those of the models of all people")
    if oof is None:
        fits = [aim for aim in request.aims if aim.kind != GIVEN]
        if fits or request.abstain is not None or request.sets is not None:
            raise EnsembleError(
                f"{source.kind} {source.name} has no out-of-fold predictions here, to which these rules are fitted",
                hint="fit them where it was trained, and export it with them; `threshold=CLASS=VALUE` needs no fit",
            )
        logger.warning("the rules cannot be scored: %s %s has no out-of-fold predictions", source.kind, source.name)
        return _unscored(classes, options, per_person)
    fold = source.runs[0].models[0].checkpoint.fold if source.kind == "checkpoint" else None
    rows, origin = rows_of_predictions(oof, source.name, source.kind, per_person, fold)
    if origin.basis != STUDENT and (found := optimism_basis(source, root)):
        origin = replace(origin, basis=found)
    values = {name: getattr(options, name) for name in (*_RULES, "abstain_label")}
    report = fit_decision(rows, origin, per_person=per_person, **values)
    for text in report.warnings:
        logger.warning(text)
    if report.decision.answers_nothing:
        raise EnsembleError(
            f"no confidence is shown to keep the error of answers at {options.abstain:g}: nothing would be answered",
            hint="allow a larger error, or a lower `confidence`; ensemble decide shows the risk–coverage curve",
        )
    return report.decision


def check_unit(decision: Decision | None, per_person: bool, name: str) -> None:
    """Raise UsageError if rules for people would meet rows of images, or the other way round.

    Parameters
    ----------
    name : of the models, for the message.
    """
    if decision is None or (decision.unit == PERSON) == per_person:
        return
    if per_person:
        raise UsageError(
            f"the decision rules of {name} are for images, and `per_person` gives one row per person",
            hint="leave out `per_person`, or export it with rules that were fitted with `per_person`",
        )
    raise UsageError(
        f"the decision rules of {name} are for people: they apply to the mean probabilities of a person's images",
        hint="add `per_person` and name the persons of the images, or export it with rules for images",
    )


_RULES = ("threshold", "cost_matrix", "abstain", "sets", "sets_for", "set_score", "confidence")


def _unscored(classes: tuple[str, ...], options: DecisionOptions, per_person: bool) -> Decision:
    """Return given thresholds or costs, of which no score is known."""
    request = request_of(classes, options.threshold, options.cost_matrix)
    nothing = np.zeros(0, np.int64)
    empty = LabeledRows(np.zeros((0, len(classes))), nothing, nothing, nothing, np.zeros(0, str), classes)
    rule = (
        fit_labels(empty, request.aims, 0)[0]
        if request.costs is None
        else LabelRule("costs", classes, np.full(len(classes), np.nan), request.costs)
    )
    decision = Decision(classes, PERSON if per_person else IMAGE, rule, confidence=0.0)
    return decision.with_label(options.abstain_label)


def _oof_of(source: PredictionSource, root: Path) -> Predictions | None:
    """Return the out-of-fold predictions of a source, in the order of its classes; None if there are none."""
    if source.kind == "blend":
        path = source.folder / "oof.npy" if source.folder is not None else None
    elif source.kind in ("run", "checkpoint", "refit"):
        path = oof_file(root / "runs", source.runs[0].name)
    else:
        return None
    if path is None or not path.is_file():
        return None
    found = read_predictions(path)
    if set(found.classes) != set(source.classes) or found.metadata.target != source.target:
        raise EnsembleError(
            f"{path} predicts {', '.join(found.classes[:10])}, the models predict {', '.join(source.classes[:10])}",
            hint="the predictions are from another training: train or blend again",
        )
    if source.kind not in ("blend", "refit"):
        _check_checkpoints(found, source, path)
    columns = [found.classes.index(name) for name in source.classes]
    return Predictions(found.probabilities[:, columns], replace(found.metadata, classes=source.classes))


def _check_checkpoints(found: Predictions, source: PredictionSource, path: Path) -> None:
    """Raise EnsembleError if a model is not the one that made the out-of-fold predictions of its fold."""
    known = found.metadata.checkpoint_sha
    for model in source.runs[0].models:
        sha = known.get(str(model.checkpoint.fold)) if isinstance(known, Mapping) else None
        if sha is not None and sha != model.sha:
            raise EnsembleError(
                f"{model.path} is not the checkpoint that made {path}: this fold was trained again",
                hint="rules are fitted to the predictions of the same models: finish the training of the run",
            )


def scores_here(decided: Decided, predictions: Predictions) -> list[MeasuredValue]:
    """Return what decisions achieve on the predicted images, over people; [] if not all labels are known."""
    labels = predictions.labels
    require_classes(predictions.metadata.task, "a decision rule")
    if labels is None or not set(labels.tolist()) <= set(predictions.classes):
        return []
    code = {name: i for i, name in enumerate(predictions.classes)}
    persons = predictions.ids if predictions.persons is None else predictions.persons
    return measured_on(decided, np.array([code[name] for name in labels.tolist()]), persons)


def decision_notes(decision: Decision, here: list[MeasuredValue] | None) -> list[str]:
    """Return the rules, what they are worth on unseen people, and what is guaranteed, as lines below a table.

    Parameters
    ----------
    here : what the decisions achieve on the predicted images; None if the rules do not apply to these rows.
    """
    if here is None:
        return [f"the decision rules are for one row per {decision.unit}; here the most probable class is counted"]
    found = score_lines([score for record in decision.records.values() for score in record.scores])
    notes = rule_lines(decision)
    if found:
        notes += ["on people who were not used to fit the rules (nested, 95% CI over people):", *found]
    else:
        notes.append("nothing is known about these rules on other people")
    notes += guarantee_lines(decision)
    return notes + (["on the labels of these images:", *score_lines(here)] if here else [])
