"""Show a blend: scores, tables as DataFrames, text, and predictions of new samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ensemble.alignment.align import align
from ensemble.alignment.split import AlignedSplit
from ensemble.alignment.truth import labels_and_groups
from ensemble.analysis.cost import Costs
from ensemble.analysis.pareto import Subset
from ensemble.blending.arrays import members_of_arrays
from ensemble.blending.column_arrays import members_of_columns
from ensemble.blending.contributions import ContributionReport, analyze_contributions
from ensemble.blending.fit import FittedBlend
from ensemble.blending.hand_over import metadata_of_grades
from ensemble.blending.request import BlendConfig
from ensemble.blending.scores import RunScore, ranking_of
from ensemble.learning.apply import apply_combination
from ensemble.learning.combination import Combination
from ensemble.learning.cumulative import NumberToGrades
from ensemble.members.reading import Member
from ensemble.pooling.people import split_by_person
from ensemble.voting.base import Vote
from ensemble.voting.vote import vote
from folds.errors import EnsembleError, UsageError, unknown_name, without_marks
from folds.metrics.classification import Metric
from folds.metrics.intervals import Difference, Interval
from folds.metrics.task_names import BINARY, CLASSES
from folds.predictions.files import LABEL, PredictionMetadata
from folds.predictions.links import kind_of
from folds.predictions.predictions import Predictions
from folds.utils.arguments import check_arguments, mapping_to
from folds.utils.display import Displayed, Table
from folds.utils.progress import SILENT
from folds.utils.schema import ANYTHING, optional

if TYPE_CHECKING:
    import pandas as pd

    from ensemble.blending.arrays import Predicted


class BlendResult(Displayed):
    """The public interface of `ensemble.blending.blend.Blend`, which sets these attributes."""

    identity: str
    request: BlendConfig
    method: str
    weights: Mapping[str, float]
    splits: Mapping[str, AlignedSplit]
    votes: Mapping[str, Vote]
    runs: Mapping[str, Mapping[str, RunScore]]
    total: Mapping[str, RunScore]
    members: Sequence[Member]
    costs: Costs
    combination: Combination | None
    fitted: FittedBlend | None
    contribution_report: ContributionReport | None
    notes: Sequence[str]
    stated_classes: tuple[str, ...]
    hand_overs: Mapping[str, NumberToGrades]

    @property
    def name(self) -> str:
        """Return the default name, method and short hash: ``soft-1a2b3c4d``."""
        return f"{self.method}-{self.identity[:8]}"

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the classes, in the order of the columns of all results."""
        return self.stated_classes or next(iter(self.splits.values())).classes

    @property
    def oof(self) -> Predictions | None:
        """Return the out-of-fold blend, each person predicted by a fit without them; None if only test was blended."""
        return self._predictions("oof")

    @property
    def test(self) -> Predictions | None:
        """Return the blend of the test samples; None without test samples."""
        return self._predictions("test")

    @property
    def nested(self) -> Interval | None:
        """Return the score on people not used for fitting (all people for plain voting), with its 95% CI.

        None without labels.
        """
        if self.fitted is not None:
            return self.fitted.lines[self.fitted.method].score
        entry = self.total.get("oof")
        return None if entry is None or entry.score is None else entry.score.interval

    @property
    def in_sample(self) -> float | None:
        """Return the score on the people used for fitting (`nested` for plain voting); None without labels."""
        if self.fitted is not None:
            return self.fitted.lines[self.fitted.method].in_sample
        return None if self.nested is None else self.nested.value

    @property
    def optimism(self) -> float | None:
        """Return the optimism, `in_sample` minus `nested` with the sign of the metric; 0 for plain voting.

        None without labels.
        """
        if self.fitted is not None:
            return self.fitted.lines[self.fitted.method].optimism
        return None if self.nested is None else 0.0

    def methods(self) -> pd.DataFrame:
        """Return one row per method that was fitted or compared: nested score, optimism, and gain over soft voting."""
        import pandas as pd

        if self.fitted is None:
            lines = [
                {
                    "method": self.method,
                    **_interval(self.nested),
                    "in_sample": self.in_sample,
                    "optimism": self.optimism,
                }
            ]
        else:
            lines = [
                {
                    "method": one.method,
                    "title": one.title,
                    **_interval(one.score),
                    "in_sample": one.in_sample,
                    "optimism": one.optimism,
                    **_difference("gain", one.over_soft),
                }
                for one in self.fitted.lines.values()
            ]
        return pd.DataFrame(lines).set_index("method")

    def contributions(self) -> pd.DataFrame:
        """Return one row per run: score of the run alone, weight, leave-one-out difference, Shapley value.

        Raises
        ------
        UsageError : the blend uses columns of the samples, or a pooling rule that was fitted.
        EnsembleError : contributions are not available: unknown labels, a single run, or a vote by attribute.
        """
        import pandas as pd

        rows = [
            {
                "run": one.name,
                **_interval(one.score),
                "weight": one.weight,
                **_difference("gain", one.leave_one_out),
                "shapley": None if one.share is None else one.share.value,
                "shapley_low": None if one.share is None else one.share.low,
                "shapley_high": None if one.share is None else one.share.high,
                "most_similar": None if one.most_similar is None else one.most_similar[0],
                "error_correlation": None if one.most_similar is None else one.most_similar[1],
            }
            for one in self._report.contributions.members
        ]
        return pd.DataFrame(rows).set_index("run")

    def pareto(self) -> pd.DataFrame:
        """Return one row per Pareto-optimal subset of the runs (score against cost), cheapest first, and all runs.

        Raises
        ------
        UsageError : the blend is of several labels or of numbers.
        EnsembleError : contributions are not available (see `contributions`).
        """
        import pandas as pd

        found = self._report.pareto
        if found is None:
            task = next(iter(self.splits.values())).task
            if self.request.extra:
                raise UsageError("the best subsets of the runs for each cost are not available with `extra`")
            raise UsageError(f"the best subsets of the runs for each cost do not support the task {task}")
        rows = [*found.rows, *([] if found.everyone in found.rows else [found.everyone])]
        return pd.DataFrame([_subset(row) for row in rows])

    @cached_property
    def _report(self) -> ContributionReport:
        if self.contribution_report is not None:
            return self.contribution_report
        self.request.check_contributions()
        truths = {
            name: truth
            for name, split in self.splits.items()
            if (truth := labels_and_groups(split, self.request.per_person)) is not None
        }
        found, notes = analyze_contributions(
            self.splits, truths, self.request, self.combination, self.fitted, self.costs, SILENT
        )
        if found is None:
            raise EnsembleError(notes[-1] if notes else "contributions are not available")
        return found

    def predict_proba(
        self,
        predictions: Mapping[str, Predicted],
        *,
        groups: ArrayLike | None = None,
        extra: Mapping[str, ArrayLike] | None = None,
    ) -> NDArray[np.float32]:
        """Return (n, classes) the blend of the predictions of new samples, in their row order.

        A blend for people returns (people, classes), in the order of their sorted names.

        Parameters
        ----------
        predictions : run → (n, classes) probabilities with the columns in the order of `classes`, DataFrame whose
            columns name their classes, or `Predictions`; all with the same order of rows. Runs of weight 0 can be
            absent. Of a run whose number was handed over to grades, (n,) its numbers.
        groups : (n,) the person of each row of arrays, which a blend for people needs.
        extra : name → (n,) the columns that the blend was fitted with, for arrays.

        Raises
        ------
        UsageError : a run is missing or unknown, lengths or classes differ, or persons are not known.
        EnsembleError : the samples lack a column that the blend uses.
        """
        checks = {
            "predictions": mapping_to(ANYTHING, "run → predictions"),
            "extra": optional(mapping_to(ANYTHING, "name → values of the rows")),
        }
        check_arguments(locals(), checks)
        needed = [name for name, weight in self.weights.items() if weight > 0]
        for name in predictions:
            if name not in self.weights:
                raise unknown_name("run", str(name), list(self.weights))
        missing = [name for name in needed if name not in predictions]
        if missing:
            raise UsageError(
                f"predictions of {', '.join(missing)} are missing", hint=f"the blend needs {', '.join(needed)}"
            )
        given = {name: predictions[name] for name in predictions if name in needed}
        given |= {name: self._handed_over(name, given[name]) for name in self.hand_overs if name in given}
        own = next((value.classes for value in given.values() if isinstance(value, Predictions)), self.classes)
        if set(own) != set(self.classes):
            raise UsageError(f"expected the classes of the blend, {', '.join(self.classes)}, found {', '.join(own)}")
        first = next(iter(self.splits.values()))
        if first.has_columns:
            made = members_of_columns(given, "test", first.task, classes=self.classes, groups=groups)
        else:
            made = members_of_arrays(given, "test", classes=self.classes, groups=groups, extra=extra)
        # Arrays say nothing about grades: the blend knows the order that its combination is fitted to, and its task.
        positive = first.classes[1] if len(first.classes) == 2 and not first.has_columns else None
        split = align(made.members, positive=positive, order=first.classes, task=first.task).splits["test"]
        if split.classes != first.classes:
            raise UsageError(
                f"expected the classes of the blend, {', '.join(first.classes)}, found {', '.join(split.classes)}"
            )
        ranking = ranking_of(self.runs, self.request.scored.greater_is_better)
        if self.combination is None:
            found = vote(split, self.request.name, self.weights, ranking, self.request.options())
        else:
            if self.combination.pooling is not None:
                split = split_by_person(split, self.combination.pooling)
            found = apply_combination(split, self.combination, ranking)
        return _reorder(found.probabilities, split.classes, self.classes)

    def _handed_over(self, name: str, values: Any) -> Any:
        """Return the grades of a run's number: `Predictions` of the same rows, or (n, classes) as `classes`."""
        grades = next(iter(self.splits.values())).classes
        found = self.hand_overs[name].probabilities(_one_number(name, values)).astype(np.float32)
        if not isinstance(values, Predictions):
            return _reorder(found, grades, self.classes)
        return Predictions(found, metadata_of_grades(values.metadata, grades, values.metadata.rows))

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values that ``ensemble blend --json`` prints."""
        return self.record()

    def record(self) -> dict[str, Any]:
        """Return the content of blend.json."""
        raise NotImplementedError

    def display_table(self) -> Table:
        """Return the table that a notebook shows: weights, scores of the runs and of the blend, nested score."""
        metric = self.request.scored
        with_test = any("test" in entries for entries in self.runs.values())
        header = ["run", "weight", f"OOF {metric.title}", "95% CI", *(["test"] if with_test else [])]
        rows: list[list[object]] = []
        for name, entries in self.runs.items():
            rows.append([name, f"{self.weights.get(name, 0):.3f}", *_cells(entries, with_test)])
        rows.append([self.method, "", *_cells(self.total, with_test)])
        notes = []
        if self.fitted is not None and self.nested is not None:
            notes.append(
                f"nested {metric.title} {self.nested.text()} (people not used for fitting); "
                f"in-sample {self.in_sample:.3f}; optimism {self.optimism:+.3f}"
            )
        summary = () if self.fitted is None else self.fitted.summary_lines()
        notes += [note for note in map(without_marks, self.notes) if note not in summary]
        return Table(_title(self.method, self.fitted, metric), header, rows, notes)

    def display_parts(self) -> Sequence[str]:
        """Return the forest plot of the paired differences to the runs; () without labels or with one run."""
        from ensemble.blending.forest import blend_forest  # here, because only notebooks need it

        drawn = blend_forest(self.method, self.splits, self.votes, self.runs, self.request)
        return (drawn,) if drawn else ()

    @property
    def label_of(self) -> str | None:
        """Return ``person`` if rows are images, of which only the persons are labeled; else None."""
        found = (one.sidecar.label_of for one in self.members if one.sidecar is not None)
        return None if self.request.pool is not None else next(filter(None, found), None)

    @property
    def unit(self) -> str | None:
        """Return ``person`` if each row is a person; None if rows are images."""
        stated = any(one.sidecar is not None and one.sidecar.unit for one in self.members)
        return "person" if stated or self.request.pool is not None else None

    def task_of(self, split: str) -> str:
        """Return the task of the predictions: the one that members state; binary if the user named a positive class."""
        rows = self.splits[split]
        named = self.request.positive is not None and rows.target == LABEL and rows.task == CLASSES
        return BINARY if named else rows.task

    def is_exclusive(self, split: str) -> bool:
        """Return whether a member states exclusive classes, so that no name of a class makes it the positive one."""
        found = [part.member.sidecar for run in self.splits[split].runs for part in run.parts]
        return self.task_of(split) == CLASSES and any(one is not None and one.exclusive for one in found)

    def _predictions(self, split: str) -> Predictions | None:
        if split not in self.votes:
            return None
        rows = self.splits[split]
        fold = rows.fold if rows.fold is not None and (rows.fold >= 0).all() else None
        meaning = PredictionMetadata(
            kind=kind_of(rows.task),
            split=split,
            classes=self.classes,
            rows=rows.rows,
            target=rows.target,
            class_attributes=rows.class_attributes,
            fold=fold,
            run=self.method,
            arch="blend",
            folds_sha=rows.folds_sha,
            task=self.task_of(split) if self.classes == rows.classes or rows.has_columns else CLASSES,
            exclusive=self.classes == rows.classes and self.is_exclusive(split),
            label_of=self.label_of,
            unit=self.unit,
        )
        return Predictions(_reorder(self.votes[split].probabilities, rows.classes, self.classes), meaning)


def _one_number(name: str, values: Any) -> NDArray[np.float64]:
    """Return (n,) the number of a run that was handed over to grades."""
    array = np.asarray(values.probabilities if isinstance(values, Predictions) else values, np.float64)
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != 1) or not np.isfinite(array).all():
        raise UsageError(f"'{name}' is handed over to grades: expected one finite number for each row")
    return array.reshape(len(array))


def _reorder(values: NDArray[np.float32], present: Sequence[str], wanted: Sequence[str]) -> NDArray[np.float32]:
    """Return the columns of `values`, which are the classes `present`, in the order `wanted`."""
    return (
        values
        if tuple(present) == tuple(wanted)
        else np.ascontiguousarray(values[:, [list(present).index(name) for name in wanted]])
    )


def _title(method: str, fitted: FittedBlend | None, metric: Metric) -> str:
    selected = "" if fitted is None or fitted.chosen == method else f", selected: {fitted.chosen}"
    return f"blend by {method}{selected}" + ("" if metric.greater_is_better else f" (lower {metric.title} is better)")


def _cells(entries: Mapping[str, RunScore], with_test: bool) -> list[str]:
    found = {name: None if entry.score is None else entry.score.interval for name, entry in entries.items()}
    oof, test = found.get("oof"), found.get("test")
    cells = ["–", "–"] if oof is None else [f"{oof.value:.3f}", oof.ci_text()]
    return [*cells, *(["–" if test is None else f"{test.value:.3f}"] if with_test else [])]


def _interval(found: Interval | None) -> dict[str, float | None]:
    if found is None:
        return {"score": None, "low": None, "high": None}
    return {"score": found.value, "low": found.low, "high": found.high}


def _difference(name: str, found: Difference | None) -> dict[str, float | None]:
    ends = dict.fromkeys((name, f"{name}_low", f"{name}_high", "p_value"))
    if found is None:
        return ends
    change = found.difference
    return {name: change.value, f"{name}_low": change.low, f"{name}_high": change.high, "p_value": found.p_value}


def _subset(row: Subset) -> dict[str, Any]:
    return {
        "members": row.members,
        "runs": len(row.members),
        "cost": row.cost,
        "saved": row.saved,
        **_interval(row.score),
        **_difference("gain_over_all", row.difference),
        "times_chosen": row.times_chosen,
        "parts": row.parts,
    }
