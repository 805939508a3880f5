"""Fit the decision rules of a prediction to the out-of-fold predictions of what predicts, and describe them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ensemble.decisions.column_face import check_columns, fit_columns
from ensemble.decisions.column_rows import columns_of_predictions
from ensemble.decisions.decision import ABSTAIN_LABEL, Decision
from ensemble.decisions.face import fit_decision, request_of
from ensemble.decisions.label_bands import costs_without_fit, measured_bands, read_label_costs
from ensemble.decisions.label_columns import given_thresholds, measured_labels
from ensemble.decisions.label_decision import AnyDecided, AnyDecision, DecidedLabels, LabelDecision
from ensemble.decisions.labels import GIVEN, LabelRule, fit_labels
from ensemble.decisions.member_spread import spread_of_blend
from ensemble.decisions.number_decision import SPREAD, DecidedNumbers, NumberDecision
from ensemble.decisions.number_intervals import measured_numbers
from ensemble.decisions.oof import rows_of_predictions
from ensemble.decisions.record import STUDENT, DecisionSource, MeasuredValue
from ensemble.decisions.report import guarantee_lines, rule_lines, score_lines, shown_scores
from ensemble.decisions.rows import IMAGE, PERSON, LabeledRows
from ensemble.decisions.scores import measured_on
from ensemble.decisions.sets import ANY_IMAGE, LAC
from ensemble.prediction.optimism import optimism_basis
from ensemble.prediction.source import PredictionSource
from folds.errors import EnsembleError, UsageError
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, MULTILABEL, REGRESSION
from folds.predictions.files import oof_file
from folds.predictions.label_columns import encode_labels
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
    max_width: float | str | Sequence[str] | Mapping[str, float] | None = None
    confidence: float = 0.9
    abstain_label: str = ABSTAIN_LABEL

    @property
    def are_given(self) -> bool:
        """Return whether any rule is asked for."""
        return any(
            one is not None for one in (self.threshold, self.cost_matrix, self.abstain, self.sets, self.max_width)
        )


def decision_for(
    source: PredictionSource, root: Path, options: DecisionOptions, per_person: bool = False
) -> AnyDecision | None:
    """Return the decision rules for the predictions of a source; None if there are none.

    Rules that are asked for are fitted to the out-of-fold predictions; otherwise those of an exported model apply.

    Raises
    ------
    UsageError : options contradict each other, are out of range, or are not for the task.
    EnsembleError : there are no out-of-fold predictions, they are not those of these models, or no confidence keeps the
        stated error.
    """
    _check_options(source, options)
    if not options.are_given:
        decision = source.decision
        if not isinstance(decision, Decision) or options.abstain_label == ABSTAIN_LABEL:
            return decision
        return decision.with_label(options.abstain_label)
    oof = _oof_of(source, root)
    if oof is None:
        return _unscored(source, options, per_person)
    if source.refit:
        logger.warning("the rules are fitted to the predictions of the folds, not to those of the models of all people")
    return (_fitted_columns if source.task in COLUMN_TASKS else _fitted)(source, root, options, per_person, oof)


def _check_options(source: PredictionSource, options: DecisionOptions) -> None:
    """Raise UsageError if options contradict each other, are out of range, or are not for the task of a source."""
    if source.task not in COLUMN_TASKS:
        request_of(source.classes, **{name: getattr(options, name) for name in _RULES})
        if options.max_width is not None:
            raise UsageError("`max_width` is for intervals of numbers", hint="`abstain=0.05` is for classes")
        return
    if options != DecisionOptions():
        check_columns(source.task, source.classes, vars(options), options.confidence)


def _fitted(
    source: PredictionSource, root: Path, options: DecisionOptions, per_person: bool, oof: Predictions
) -> Decision:
    """Return the rules of classes, fitted to out-of-fold predictions; what limits them is logged as warnings."""
    rows, origin = rows_of_predictions(oof, source.name, source.kind, per_person, _fold_of(source))
    values = {name: getattr(options, name) for name in (*_RULES, "abstain_label")}
    report = fit_decision(rows, _with_basis(origin, source, root), per_person=per_person, **values)
    for text in report.warnings:
        logger.warning(text)
    if report.decision.answers_nothing:
        raise EnsembleError(
            f"no confidence is shown to keep the error of answers at {options.abstain:g}: nothing would be answered",
            hint="allow a larger error, or a lower `confidence`; ensemble decide shows the risk–coverage curve",
        )
    return report.decision


def _fitted_columns(
    source: PredictionSource, root: Path, options: DecisionOptions, per_person: bool, oof: Predictions
) -> LabelDecision | NumberDecision:
    """Return the rules of several labels, or the intervals of numbers, as `_fitted` does."""
    per_person = per_person or oof.metadata.unit == PERSON
    spread = None
    if options.set_score == SPREAD:
        spread = spread_of_blend(source, oof, source.kind, source.folder or Path(source.name), root)
    rows, origin = columns_of_predictions(oof, source.name, source.kind, per_person, _fold_of(source), spread)
    basis = _with_basis(origin, source, root)
    found = fit_columns(source.task, rows, basis, vars(options), options.confidence, per_person)
    for text in found.warnings:
        logger.warning(text)
    return found.decision


def _fold_of(source: PredictionSource) -> int | None:
    """Return the fold whose people one checkpoint has not seen; None for all out-of-fold predictions."""
    return source.runs[0].models[0].checkpoint.fold if source.kind == "checkpoint" else None


def _with_basis(origin: DecisionSource, source: PredictionSource, root: Path) -> DecisionSource:
    """Return what the rules are fitted to, marked if the predictions are optimistic."""
    if origin.basis != STUDENT and (found := optimism_basis(source, root)):
        return replace(origin, basis=found)
    return origin


def _texts(options: DecisionOptions) -> list[str]:
    texts = options.threshold
    return [texts] if isinstance(texts, str) else list(texts or ())


def check_unit(decision: AnyDecision | None, per_person: bool, name: str) -> None:
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


_GIVEN = {MULTILABEL: "; `threshold=LABEL=VALUE` needs no fit", REGRESSION: ""}
_RULES = ("threshold", "cost_matrix", "abstain", "sets", "sets_for", "set_score", "confidence")


def _unscored(source: PredictionSource, options: DecisionOptions, per_person: bool) -> AnyDecision:
    """Return given thresholds or costs, of which no score is known.

    Raises
    ------
    EnsembleError : a rule would have to be fitted.
    """
    found: AnyDecision | None = None
    if source.task == MULTILABEL:
        found = _given_labels(source.classes, options, per_person)
    elif source.task != REGRESSION:
        found = _given_rules(source.classes, options, per_person)
    if found is None:
        raise EnsembleError(
            f"{source.kind} {source.name} has no out-of-fold predictions here, to which these rules are fitted",
            hint="fit them where it was trained, and export it with them"
            + _GIVEN.get(source.task, "; `threshold=CLASS=VALUE` needs no fit"),
        )
    logger.warning("the rules cannot be scored: %s %s has no out-of-fold predictions", source.kind, source.name)
    return found


def _given_labels(names: tuple[str, ...], options: DecisionOptions, per_person: bool) -> LabelDecision | None:
    """Return given thresholds or costs of labels; None if a rule would have to be fitted."""
    if options.abstain is not None:
        return None
    if options.cost_matrix is not None:
        return costs_without_fit(names, read_label_costs(options.cost_matrix, names), per_person)
    return given_thresholds(names, _texts(options), per_person)


def _given_rules(classes: tuple[str, ...], options: DecisionOptions, per_person: bool) -> Decision | None:
    """Return given thresholds or costs of classes; None if a rule would have to be fitted."""
    request = request_of(classes, options.threshold, options.cost_matrix)
    if any(aim.kind != GIVEN for aim in request.aims) or options.abstain is not None or options.sets is not None:
        return None
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


def scores_here(decided: AnyDecided, predictions: Predictions) -> list[MeasuredValue]:
    """Return what decisions achieve on the predicted images, over people: those with a known label.

    [] if there are none, or others than the classes.
    """
    labels = predictions.labels
    persons = predictions.ids if predictions.persons is None else predictions.persons
    if labels is None:
        return []
    if isinstance(decided, DecidedLabels):
        matrix = encode_labels(labels, predictions.classes, MULTILABEL)
        if decided.unsure is not None:
            return measured_bands(decided, predictions.probabilities, matrix, persons)
        return measured_labels(decided.given, predictions.probabilities, matrix, persons, predictions.classes)
    if isinstance(decided, DecidedNumbers):
        return measured_numbers(decided, encode_labels(labels, predictions.classes, REGRESSION), persons)
    if not set(labels.tolist()) <= {*predictions.classes, ""}:
        return []
    return measured_on(decided, encode_labels(labels, predictions.classes, CLASSES), persons)


def decision_notes(decision: AnyDecision, here: list[MeasuredValue] | None) -> list[str]:
    """Return the rules, what they are worth on unseen people, and what is guaranteed, as lines below a table.

    Parameters
    ----------
    here : what the decisions achieve on the predicted images; None if the rules do not apply to these rows.
    """
    if here is None:
        plain = "the most probable class is counted"
        if not isinstance(decision, Decision):
            plain = "labels above 0.5 are counted" if isinstance(decision, LabelDecision) else "there are no intervals"
        return [f"the decision rules are for one row per {decision.unit}; here {plain}"]
    found = score_lines(shown_scores(decision))
    notes = rule_lines(decision)
    if found:
        notes += ["on people who were not used to fit the rules (nested, 95% CI over people):", *found]
    else:
        notes.append("nothing is known about these rules on other people")
    notes += guarantee_lines(decision)
    return notes + (["on the labels of these images:", *score_lines(here)] if here else [])
