"""`ensemble.decide`: fit thresholds, abstention and prediction sets, and say what they are worth on unseen people."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ensemble.blending.column_arrays import members_of_columns
from ensemble.decisions.abstention import NEVER, curve
from ensemble.decisions.column_face import fit_columns
from ensemble.decisions.column_rows import LabeledColumns, columns_of_predictions
from ensemble.decisions.costs import calibration_warning, read_costs
from ensemble.decisions.decision import ABSTAIN_LABEL, Decision
from ensemble.decisions.fit import FittedRules, RuleRequest, fit_rules, nested_decisions
from ensemble.decisions.label_columns import check_column_rules
from ensemble.decisions.label_report import LabelThresholds
from ensemble.decisions.labels import OBSERVED, UNREACHABLE, missing_evidence, parse_aims
from ensemble.decisions.member_spread import spread_of_blend
from ensemble.decisions.number_decision import SPREAD, spread_matrix
from ensemble.decisions.number_report import NumberIntervals
from ensemble.decisions.oof import (
    blend_folder,
    oof_of_name,
    rows_of_arrays,
    rows_of_predictions,
    runs_of,
    with_selection,
)
from ensemble.decisions.record import STUDENT, DecisionSource
from ensemble.decisions.report import DecisionReport, optimism_warning
from ensemble.decisions.rows import IMAGE, PERSON, LabeledRows
from ensemble.decisions.scores import records_of
from ensemble.decisions.sets import (
    ANY_IMAGE,
    EACH_CLASS,
    EVERYTHING,
    LAC,
    SCORES,
    TARGETS,
    people_for_sets,
)
from folds.errors import EnsembleError, UsageError, unknown_name
from folds.metrics.arrays import check_same_index
from folds.metrics.task_names import CLASSES as CLASSES_TASK
from folds.metrics.task_names import COLUMN_TASKS, MULTILABEL, REGRESSION, check_task
from folds.predictions.predictions import Predictions
from folds.utils.arguments import CLASSES, FLAG, NAME, NUMBER, PATH, check_arguments, list_of, mapping_to
from folds.utils.bars import log_in_notebook
from folds.utils.schema import ANYTHING, either, named, optional

logger = logging.getLogger(__name__)
_NAMES = named(either(NAME, list_of(NAME, "names")), "a text like sick:sensitivity>=.95, or a list of such texts")
_WIDTH = named(either(NUMBER, NAME, list_of(NAME, "names"), mapping_to(NUMBER, "")), "a width, age=10, or a mapping")
_COST = named(either(PATH, mapping_to(ANYTHING, "")), "a file, or a mapping true class → decision → cost")
RULE_KINDS = {
    "threshold": optional(_NAMES),
    "cost_matrix": optional(_COST),
    "abstain": optional(NUMBER),
    "sets": optional(NUMBER),
    "sets_for": NAME,
    "set_score": NAME,
    "max_width": optional(_WIDTH),
    "confidence": NUMBER,
    "abstain_label": NAME,
}
_KINDS = RULE_KINDS | {"classes": optional(CLASSES), "per_person": FLAG, "root": PATH, "task": optional(NAME)}


def decide(
    predictions: Any,
    *,
    y: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    fold: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    classes: Sequence[Any] | None = None,
    threshold: str | Sequence[str] | None = None,
    cost_matrix: str | Path | Mapping[str, Mapping[str, float]] | None = None,
    abstain: float | None = None,
    sets: float | None = None,
    sets_for: str = ANY_IMAGE,
    set_score: str = LAC,
    max_width: float | str | Sequence[str] | Mapping[str, float] | None = None,
    confidence: float = 0.9,
    per_person: bool = False,
    abstain_label: str = ABSTAIN_LABEL,
    task: str | None = None,
    spread: ArrayLike | None = None,
    root: str | Path = ".",
) -> DecisionReport | LabelThresholds | NumberIntervals:
    """Fit decision rules to out-of-fold predictions: thresholds, abstention, prediction sets, intervals of numbers.

    All scores are nested over people: a rule is scored on people who were not used to fit it. People count equally.

    Parameters
    ----------
    predictions : a blend, a run, `Predictions`, or the name of a blend or a run; or (n, classes) probabilities of
        models that were not trained on these people, with `y`. Of labels or numbers a column for each, (n,) of one.
    y, groups, fold, ids, classes : for arrays: (n,) true class, or (n, labels) of 0, 1 and nan, or numbers; (n,)
        person; (n,) fold, if each fold has its own model; (n,) id; the class of each column.
    threshold : ``CLASS=0.3``; or an aim to fit it to: ``CLASS:sensitivity>=.95`` (with the highest specificity),
        ``CLASS:specificity>=…``, ``CLASS:precision>=…``, ``CLASS:youden``, ``CLASS:f1``, ``macro_f1``; or a list of
        these. Of several labels each has a threshold: the same for one label, ``macro_f1`` or ``youden`` for all. For
        grades, ``rounder`` cuts the expected grade where quadratic kappa is largest, ``rounder:METRIC`` another metric.
    cost_matrix : a CSV or TOML file, or a mapping, true class → decision → cost. The decision with the smallest
        expected cost is taken; a decision ``abstain`` may have a cost, too. Of several labels the cost of a false no,
        of a false yes, and of leaving it open: ``hat:fn=5,fp=1,ask=0.5``, or label → ``fn``, ``fp``, ``ask`` → cost.
    abstain : the largest share of wrong answers; images with a lower confidence get no answer. Of several labels the
        largest share of the yes, and of the no, of each that is wrong; between two cuts it is unsure.
    sets : probability with which the set of an image is to contain its true class, for new people: 0.9. Of numbers it
        is that of an interval around each predicted number, which is to contain the true one.
    sets_for : what has this probability: ``image`` (a random image of a new person), ``person`` (all images of a new
        person at once), ``class`` (a random image of each class).
    set_score : ``lac`` (the smallest sets), ``aps`` or ``raps`` (more even coverage of easy and difficult images). Of
        numbers ``absolute`` (intervals of one width) or ``spread``: they are wider where the members of a blend differ.
    max_width : of numbers with ``set_score="spread"``, the width above which a number is not answered: ``age=10``, a
        mapping, or a list of texts.
    confidence : with which a guaranteed aim holds, over the people in the data; 0 fits to observed values, without a
        guarantee.
    per_person : whether the rules are for people: for the mean probabilities of each person's images.
    abstain_label : the label of images without an answer.
    task : of arrays, ``regression`` for a single column of numbers, ``multilabel`` for a single label; several columns
        are labels if all are 0, 1 or nan.
    spread : of arrays of numbers, (n, columns) or (n,) how uncertain each prediction is, from 0 on, in any unit.
    root : the folder that holds ``runs/``.

    Raises
    ------
    UsageError : no rule is asked for, a class is unknown, or rules contradict each other.
    EnsembleError : there are no out-of-fold predictions with labels, or a file of costs is wrong.

    Examples
    --------
    >>> import numpy as np, ensemble as en
    >>> random = np.random.default_rng(0)
    >>> person = np.repeat(np.arange(200), 3)
    >>> sick = np.repeat(random.random(200) < 0.5, 3)
    >>> p = 1 / (1 + np.exp(-(4 * sick - 2 + random.normal(size=600))))
    >>> y = np.where(sick, "sick", "well")
    >>> report = en.decide(
    ...     np.stack([p, 1 - p], axis=1), y=y, groups=person, classes=["sick", "well"],
    ...     threshold="sick:sensitivity>=.9", abstain=0.05, sets=0.9,
    ... )
    >>> sorted(report.thresholds), report.scores["sensitivity of sick"].interval.value > 0.9
    (['sick'], True)
    >>> decided = report.decision.apply([[0.9, 0.1], [0.45, 0.55]])
    >>> decided.labels[0], decided.sets.shape
    (np.str_('sick'), (2, 2))
    """
    log_in_notebook()
    check_arguments(locals(), _KINDS)
    of_columns = _column_task(y, task)
    found = None if of_columns else _named(predictions, Path(root))
    if found is not None and (task is not None or spread is not None):
        given = "task" if task is not None else "spread"
        raise UsageError(f"`{given}` is for arrays; predictions of a run or a blend have it", hint="leave it out")
    task = found[0].metadata.task if found is not None else of_columns or CLASSES_TASK
    per_person = per_person or (found is not None and found[0].metadata.unit == PERSON)  # each row is a person
    if task in COLUMN_TASKS:
        rules = {
            "threshold": threshold,
            "cost_matrix": cost_matrix,
            "abstain": abstain,
            "sets": sets,
            "sets_for": sets_for,
            "set_score": set_score,
            "max_width": max_width,
            "abstain_label": abstain_label,
        }
        check_column_rules(task, confidence, **rules)
        if spread is not None and set_score != SPREAD:
            raise UsageError("`spread` is of `set_score=spread`", hint="add it, or leave out `spread`")
        if found is None:
            columns = _columns_of_arrays(predictions, y, groups, fold, ids, classes, per_person, task, spread)
        else:
            columns = _columns_of_named(predictions, found, per_person, set_score == SPREAD, Path(root))
        return fit_columns(task, *columns, rules, confidence, per_person)
    if max_width is not None or spread is not None:
        name = "spread" if max_width is None else "max_width"
        raise UsageError(
            f"`{name}` is for intervals of numbers", hint="`task='regression'` says that these are numbers"
        )
    if threshold is None and cost_matrix is None and abstain is None and sets is None:
        raise UsageError(
            "expected a rule: `threshold`, `cost_matrix`, `abstain` or `sets`", hint="`abstain=0.05` or `sets=0.9`"
        )
    rows, source = _rows(predictions, y, groups, fold, ids, classes, per_person, Path(root))
    return fit_decision(
        rows,
        source,
        threshold=threshold,
        cost_matrix=cost_matrix,
        abstain=abstain,
        sets=sets,
        sets_for=sets_for,
        set_score=set_score,
        confidence=confidence,
        abstain_label=abstain_label,
        per_person=per_person,
    )


def _named(predictions: Any, root: Path) -> tuple[Predictions, str, str] | None:
    """Return the predictions of a run, a blend or a file, with its name and kind; None for arrays."""
    if isinstance(predictions, str | Path):
        return oof_of_name(predictions, root)
    if isinstance(predictions, Predictions):
        return predictions, predictions.run, "predictions"
    if not hasattr(predictions, "oof"):
        return None
    found, name = predictions.oof, str(getattr(predictions, "name", "") or "")  # a run or a blend
    if not isinstance(found, Predictions):
        raise EnsembleError(f"{name or 'it'} has no out-of-fold predictions, to which decision rules are fitted")
    return found, name or found.run, type(predictions).__name__.lower()


def _column_task(y: ArrayLike | None, task: str | None) -> str | None:
    """Return the task of arrays with a column for each label or number; None for classes, and without arrays.

    Raises
    ------
    UsageError : the task is unknown.
    """
    if task is not None:
        check_task(task)
    if y is None:
        return None
    if task is not None:
        return task if task in COLUMN_TASKS else None
    if np.ndim(y) != 2:
        return None
    values = np.asarray(y)
    is_number = values.dtype.kind in "fiu" and bool((np.isfinite(values) & ~np.isin(values, (0, 1))).any())
    return REGRESSION if is_number else MULTILABEL


def _columns_of_named(
    predictions: Any, found: tuple[Predictions, str, str], per_person: bool, with_spread: bool, root: Path
) -> tuple[LabeledColumns, DecisionSource]:
    """Return the rows of a run, a blend or a file of labels or numbers, and their source.

    Parameters
    ----------
    found : what `_named` returns for `predictions`.
    with_spread : whether how much the runs of a blend differ is needed.
    """
    spread = None
    if with_spread:
        folder = blend_folder(predictions, found[1], root)
        spread = spread_of_blend(predictions, found[0], found[2], folder, root)
    rows, source = columns_of_predictions(*found, per_person, spread=spread)
    return rows, _with_basis(source, predictions, found, root)


def _columns_of_arrays(
    predictions: Any,
    y: Any,
    groups: Any,
    fold: Any,
    ids: Any,
    classes: Any,
    per_person: bool,
    task: str,
    spread: ArrayLike | None,
) -> tuple[LabeledColumns, DecisionSource]:
    """Return the rows of arrays of several labels or numbers, and their source."""
    given = {"a": predictions}
    made = members_of_columns(given, "oof", task, y=y, groups=groups, fold=fold, ids=ids, classes=classes).members[0]
    sidecar = made.sidecar
    assert sidecar is not None  # noqa: S101 - members of arrays have one
    found = Predictions(np.asarray(made.values, np.float32), replace(sidecar, run=""))
    spreads = None
    if spread is not None:
        if task != REGRESSION:
            raise UsageError(f"`spread` is for numbers, and the task is {task}", hint="leave it out")
        check_same_index({"`predictions`": predictions, "`y`": y, "`spread`": spread})
        spreads = spread_matrix(spread, found.classes, len(found))
    return columns_of_predictions(found, "", "arrays", per_person, None, spreads)


def _rows(
    predictions: Any,
    y: ArrayLike | None,
    groups: ArrayLike | None,
    fold: ArrayLike | None,
    ids: ArrayLike | None,
    classes: Sequence[Any] | None,
    per_person: bool,
    root: Path,
) -> tuple[LabeledRows, DecisionSource]:
    of_arrays = {"y": y, "groups": groups, "fold": fold, "ids": ids, "classes": classes}
    named_source = _named(predictions, root)
    if named_source is not None:
        given = next((name for name, value in of_arrays.items() if value is not None), None)
        if given is not None:
            raise UsageError(f"`{given}` is for arrays; predictions of a run or a blend have it", hint="leave it out")
        rows, source = rows_of_predictions(*named_source, per_person)
        return rows, _with_basis(source, predictions, named_source, root)
    if y is None:
        raise UsageError("rules are fitted to probabilities with their true classes", hint="decide(proba, y=y)")
    return rows_of_arrays(predictions, y, groups, fold, ids, classes, per_person)


def _with_basis(
    source: DecisionSource, predictions: Any, named_source: tuple[Predictions, str, str], root: Path
) -> DecisionSource:
    """Return the source, marked if a run or a member of a blend is a student, or was selected on the people."""
    if isinstance(predictions, Predictions) or named_source[2] == "file":
        return source
    runs = root / "runs"
    sidecars = [one.sidecar for one in getattr(predictions, "members", ()) if one.sidecar is not None]
    if any(sidecar.teacher for sidecar in sidecars):  # a blend in memory
        source = replace(source, basis=STUDENT)
    names = [sidecar.run for sidecar in sidecars if sidecar.run] or runs_of(*named_source[1:], runs)
    return with_selection(source, runs, names)


def fit_decision(
    rows: LabeledRows,
    source: DecisionSource,
    *,
    threshold: str | Sequence[str] | None = None,
    cost_matrix: str | Path | Mapping[str, Mapping[str, float]] | None = None,
    abstain: float | None = None,
    sets: float | None = None,
    sets_for: str = ANY_IMAGE,
    set_score: str = LAC,
    confidence: float = 0.9,
    abstain_label: str = ABSTAIN_LABEL,
    per_person: bool = False,
) -> DecisionReport:
    """Return the rules fitted to labeled rows, with their nested scores; the parameters are those of `decide`."""
    request = request_of(rows.classes, threshold, cost_matrix, abstain, sets, sets_for, set_score, confidence)
    unseen, parts = nested_decisions(rows, request)
    rules = fit_rules(rows, request)
    decision = Decision(
        rows.classes,
        PERSON if per_person else IMAGE,
        rules.labels,
        rules.threshold,
        abstain,
        rules.sets,
        confidence,
        source,
        records_of(rows, request, rules, unseen),
    ).with_label(abstain_label)
    asked = unseen.decided >= 0
    points = (
        curve(
            unseen.confidence[asked],
            (unseen.decided != rows.labels)[asked],
            np.unique(rows.persons[asked], return_inverse=True)[1],
        )
        if asked.any()
        else ()
    )
    return DecisionReport(decision, points, tuple(_warnings(rows, request, rules, decision, parts)))


def request_of(
    classes: tuple[str, ...],
    threshold: str | Sequence[str] | None = None,
    cost_matrix: str | Path | Mapping[str, Mapping[str, float]] | None = None,
    abstain: float | None = None,
    sets: float | None = None,
    sets_for: str = ANY_IMAGE,
    set_score: str = LAC,
    confidence: float = 0.9,
) -> RuleRequest:
    """Return the checked request; the parameters are those of `decide`.

    Raises
    ------
    UsageError : a value is out of range or unknown, or rules contradict each other.
    EnsembleError : a file of costs is wrong.
    """
    for name, value in (("abstain", abstain), ("sets", sets)):
        if value is not None and not 0 < value < 1:
            raise UsageError(f"`{name}` must be above 0 and below 1, found {value!r}", hint=f"`{name}=0.1`")
    if not 0 <= confidence < 1:
        raise UsageError(f"`confidence` must be from 0 to below 1, found {confidence!r}", hint="`confidence=0.9`")
    if sets_for not in TARGETS:
        raise unknown_name("`sets_for`", sets_for, TARGETS)
    if set_score not in SCORES:
        raise unknown_name("`set_score`", set_score, SCORES)
    if sets is None and (sets_for, set_score) != (ANY_IMAGE, LAC):
        raise UsageError("`sets_for` and `set_score` describe prediction sets", hint="`sets=0.9`")
    if threshold is not None and cost_matrix is not None:
        raise UsageError("`threshold` and `cost_matrix` both decide the labels", hint="give one of them")
    texts = [] if threshold is None else [threshold] if isinstance(threshold, str) else list(threshold)
    costs = None if cost_matrix is None else read_costs(cost_matrix, classes)
    if costs is not None and costs.shape[1] > len(classes) and abstain is not None:
        raise UsageError("`abstain` and a cost of 'abstain' both leave images unanswered", hint="give one of them")
    return RuleRequest(parse_aims(texts, classes), costs, abstain, sets, sets_for, set_score, float(confidence))


def _warnings(
    rows: LabeledRows, request: RuleRequest, rules: FittedRules, decision: Decision, parts: Sequence[FittedRules]
) -> list[str]:
    """Return what limits the rules, in words; logged as warnings by the commands that do not print the report."""
    found = [optimism_warning(decision.source.basis)]
    if not decision.source.persons_known:
        found.append(
            "persons are unknown: every image counts as its own person; if people have several images, nothing is "
            "guaranteed, and the 95% CIs are too narrow"
        )
    for aim, status in zip(request.aims, rules.statuses, strict=bool(rules.statuses)):
        if status == UNREACHABLE:
            found.append(f"{aim} is not reachable with any threshold; the nearest one was taken")
        elif status == OBSERVED and request.error > 0:
            found.append(f"{aim} is not guaranteed: {missing_evidence(rows, aim, request.error)}")
    if request.costs is not None:
        found.append(calibration_warning(rows))
    if decision.answers_nothing:
        found.append("no confidence keeps the stated error of the answers: every image stays unanswered")
    silent = sum(part.threshold == NEVER for part in parts)
    if silent and not decision.answers_nothing:
        found.append(
            f"{silent} of {len(parts)} nested fits, each with fewer people, found no confidence to answer from: the "
            "nested share of answers is too low"
        )
    if rules.sets is not None and max(rules.sets.limits) >= EVERYTHING:
        limits = zip(rows.classes, rules.sets.limits, strict=False)
        names = [name for name, limit in limits if limit >= EVERYTHING] if rules.sets.target == EACH_CLASS else []
        whose = f" with the class {', '.join(names[:10])}" if names else ""
        found.append(
            f"sets of {rules.sets.level:.3g} need {people_for_sets(rules.sets.level):,} people{whose}: with fewer they "
            "hold every class"
        )
    return [text for text in found if text]
