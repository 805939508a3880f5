"""Score each class, and each attribute of the classes; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from folds.metrics.classification import METRICS, Metric
from folds.metrics.confusion import (
    Labels,
    Probabilities,
    argmax_classes,
    confusion_counts,
    f1_of,
    precision_of,
    recall_of,
)
from folds.metrics.grouping import people_with_class, people_with_label
from folds.metrics.intervals import Interval, interval_over_people, jackknife_standard_error, t_interval
from folds.metrics.label_scores import is_predicted
from folds.metrics.resampling import jackknife_groups, leave_one_group_out_counts
from folds.metrics.row_scores import roc_auc_per_class


@dataclass(frozen=True)
class ClassScore:
    """The scores of one class.

    Attributes
    ----------
    rows, people : number of rows and of people with this class; people who also have other classes count.
    f1 : with its interval over people; the interval is from 0 to 1 if fewer than two people have the class.
    roc_auc : against all other classes; None if no row or every row has the class.
    """

    name: str
    rows: int
    people: int
    precision: float
    recall: float
    f1: Interval
    roc_auc: float | None


@dataclass(frozen=True)
class AttributeScore:
    """The scores of one attribute of the classes, e.g. the age.

    Attributes
    ----------
    macro_f1, accuracy : of the value with the highest marginal probability, the sum over its classes.
    of_class : accuracy of the value of the predicted class, which can be another value.
    values : the scores of each value, as of a class.
    """

    name: str
    macro_f1: Interval
    accuracy: Interval
    of_class: Interval
    values: tuple[ClassScore, ...]


def class_scores(
    labels: Labels, probabilities: Probabilities, persons: NDArray, classes: Sequence[str], *, level: float = 0.95
) -> tuple[ClassScore, ...]:
    """Return precision, recall, F1 and ROC-AUC of each class; 0 for a class that neither occurs nor is predicted.

    Parameters
    ----------
    labels : (n,) class indices.
    probabilities : (n, classes).
    persons : (n,) any values; equal values are one person.
    classes : class names in the order of the columns.
    """
    predicted = argmax_classes(probabilities)
    codes, units, _ = jackknife_groups(persons)
    counts = confusion_counts(labels, predicted, len(classes))
    precision, recall, f1 = (of(counts) for of in (precision_of, recall_of, f1_of))
    error = jackknife_standard_error(
        f1_of(leave_one_group_out_counts(labels, predicted, len(classes), codes, units)), f1
    )
    with_class = people_with_class(labels, persons, len(classes))
    low, high = t_interval(f1, error, max(units - 1, 1), with_class, level, 0.0, 1.0)
    # One person has no variation.
    low, high = np.where(with_class > 1, low, 0.0), np.where(with_class > 1, high, 1.0)
    areas = roc_auc_per_class(labels, probabilities)
    return tuple(
        ClassScore(
            name,
            int(counts[1, i]),
            int(with_class[i]),
            float(precision[i]),
            float(recall[i]),
            Interval(float(f1[i]), float(low[i]), float(high[i]), level, int(with_class[i])),
            None if np.isnan(areas[i]) else float(areas[i]),
        )
        for i, name in enumerate(classes)
    )


def label_scores(
    labels: NDArray[np.floating],
    probabilities: Probabilities,
    persons: NDArray,
    names: Sequence[str],
    *,
    level: float = 0.95,
) -> tuple[ClassScore, ...]:
    """Return precision, recall, F1 and ROC-AUC of each of several labels, on the rows where it is known.

    Parameters
    ----------
    labels : (n, columns) of 0, 1, and nan where a label is not known.
    probabilities : (n, columns), the probability of each label, which is predicted above 0.5.
    names : the labels in the order of the columns.
    """
    people = people_with_label(labels, persons)
    f1 = column_intervals(METRICS["macro_f1"], labels, probabilities, persons, level=level)
    areas = column_intervals(METRICS["roc_auc"], labels, probabilities, persons, level=level)
    has, says = labels == 1, is_predicted(probabilities) & ~np.isnan(labels)
    counts = np.stack([(has & says).sum(axis=0), has.sum(axis=0), says.sum(axis=0)])
    precision, recall = precision_of(counts), recall_of(counts)
    return tuple(
        ClassScore(
            name,
            int(counts[1, i]),
            int(people[i]),
            float(precision[i]),
            float(recall[i]),
            f1[i],
            None if np.isnan(areas[i].value) else areas[i].value,
        )
        for i, name in enumerate(names)
    )


def column_intervals(
    metric: Metric,
    labels: NDArray[np.floating],
    values: Probabilities,
    persons: NDArray,
    *,
    level: float = 0.95,
) -> tuple[Interval, ...]:
    """Return the score of each of several labels or numbers alone, with its interval over people.

    Parameters
    ----------
    labels, values : (n, columns); labels are nan where one is not known.
    """
    predictions = np.asarray(values)
    columns = [slice(i, i + 1) for i in range(labels.shape[1])]
    return tuple(
        interval_over_people(metric, labels[:, one], predictions[:, one], persons, level=level) for one in columns
    )


def attribute_scores(
    labels: Labels,
    probabilities: Probabilities,
    persons: NDArray,
    classes: Sequence[str],
    class_attributes: Mapping[str, Mapping[str, str]],
    *,
    level: float = 0.95,
) -> tuple[AttributeScore, ...]:
    """Return the scores of the attributes that every class has, in the order of the first class.

    Parameters
    ----------
    class_attributes : class → attribute → value, as in a sidecar.
    """
    first = class_attributes.get(classes[0], {})
    names = [name for name in first if all(name in class_attributes.get(one, {}) for one in classes)]
    return tuple(
        _attribute(name, labels, probabilities, persons, [class_attributes[one][name] for one in classes], level)
        for name in names
    )


def _attribute(
    name: str, labels: Labels, probabilities: Probabilities, persons: NDArray, value_of: Sequence[str], level: float
) -> AttributeScore:
    values = list(dict.fromkeys(value_of))
    column = np.array([values.index(value) for value in value_of])
    projection = np.eye(len(values))[column]
    marginal, value_labels = np.asarray(probabilities, np.float64) @ projection, column[labels]
    of_predicted_class = projection[argmax_classes(probabilities)]
    macro_f1, accuracy, of_class = (
        interval_over_people(METRICS[metric], value_labels, pooled, persons, level=level)
        for metric, pooled in (("macro_f1", marginal), ("accuracy", marginal), ("accuracy", of_predicted_class))
    )
    return AttributeScore(
        name, macro_f1, accuracy, of_class, class_scores(value_labels, marginal, persons, values, level=level)
    )
