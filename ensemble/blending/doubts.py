"""Doubt inputs whose results are implausible: warnings that name the likely cause; nothing is changed.

Only members from other programs are tested: rows and columns of files of this program are named in their sidecars. The
tests take a sample of the rows, and a permutation that is found on one half of it must hold on the other half.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.align import Alignment
from ensemble.alignment.attributes import JointRun
from ensemble.alignment.split import AlignedSplit, RunPredictions
from ensemble.alignment.truth import GroundTruth
from ensemble.blending.agreement import Agreement, agreement
from ensemble.members.columns import listed
from ensemble.members.reading import Member
from ensemble.members.true_labels import TrueLabels
from folds.utils.spelling import spelling_text, spellings

_SAMPLED = 4096  # rows
_LEAST = 20  # rows with which anything is doubted
_GAIN = 0.15  # least gain in accuracy (agreement) of a permutation that is reported
_DEVIATIONS = 3.2  # by which more rows must be right than by chance
_FAR_BELOW = 0.25  # of what the best member has over chance
_GOOD = 0.95  # others below this accuracy make a perfect member suspicious
_CLASSES = 512  # largest number of classes whose columns are tested for a permutation


def find_doubts(
    splits: Mapping[str, AlignedSplit],
    truths: Mapping[str, GroundTruth],
    alignment: Alignment,
    labels: TrueLabels | None = None,
) -> list[str]:
    """Return warnings about members and labels that are implausible.

    Parameters
    ----------
    splits, truths : aligned predictions, and labels where they are known.
    labels : the table of labels that the user gave.
    """
    found = _student_doubts(splits["oof"]) if "oof" in splits else []
    for name, split in splits.items():
        if split.has_columns:
            continue
        own = all(_is_own(part.member) for run in split.runs for part in run.parts)
        truth = truths.get(name)
        if truth is not None and (not own or labels is not None):
            found += _label_doubts(name, split, truth)
        if own:
            continue
        found += [
            f"the classes {spelling_text(names)} are probably one class written in several ways"
            for names in spellings(split.classes)
        ]
        sample = _Sample.of(split, truth)
        if len(sample.index) >= _LEAST and len(split.classes) > 1:
            found += _member_doubts(sample, alignment, labels)
    return found


def _student_doubts(split: AlignedSplit) -> list[str]:
    """Return a warning about each run that learned predictions of models that have seen the people it is scored on."""
    teachers = {
        run.name: part.member.sidecar.teacher
        for run in split.runs
        for part in run.parts
        if part.member.sidecar is not None and part.member.sidecar.teacher
    }
    return [
        f"{run} learned the predictions of {teacher}, whose models have seen the people it is scored on: its "
        "out-of-fold score, and weights and scores of a blend with it, are optimistic (docs/distill.md)"
        for run, teacher in teachers.items()
    ]


def _is_own(member: Member) -> bool:
    """Return whether this program wrote the file: then its sidecar names the folds that it belongs to."""
    return member.sidecar is not None and (
        member.sidecar.folds_sha is not None or member.sidecar.checkpoint_sha is not None
    )


def _label_doubts(name: str, split: AlignedSplit, truth: GroundTruth) -> list[str]:
    known = truth.labels[truth.labels >= 0]
    counts = np.bincount(known, minlength=len(split.classes))
    absent = [split.classes[i] for i in np.flatnonzero(counts == 0)]
    if len(known) > 1 and counts.max() == len(known):
        return [
            f"all {len(known):,} {name} labels are '{split.classes[int(counts.argmax())]}', as in a sample submission: "
            "scores against them mean nothing"
        ]
    if absent and len(known) >= _LEAST:
        verb = "never occurs" if len(absent) == 1 else "never occur"
        return [f"{listed(absent)} {verb} among the {len(known):,} {name} labels: check that the classes are right"]
    return []


@dataclass(frozen=True)
class _Sample:
    """A sample of the rows of a split.

    Attributes
    ----------
    index : (m,) rows of the split.
    truth : (m,) true classes, −1 if unknown; None without labels.
    """

    split: AlignedSplit
    index: NDArray[np.int64]
    truth: NDArray[np.int64] | None

    @property
    def persons(self) -> NDArray[np.str_] | None:
        """Return the person of each row of the sample; None if persons are unknown."""
        persons = self.split.rows.persons
        return None if persons is None else persons[self.index]

    @classmethod
    def of(cls, split: AlignedSplit, truth: GroundTruth | None) -> _Sample:
        """Return a sample, of rows with labels if there are labels."""
        rows = np.arange(len(split)) if truth is None else np.flatnonzero(truth.labels >= 0)
        if len(rows) > _SAMPLED:
            rows = np.sort(np.random.default_rng(0).choice(rows, _SAMPLED, replace=False))
        return cls(split, rows, None if truth is None else truth.labels[rows])


def _member_doubts(sample: _Sample, alignment: Alignment, labels: TrueLabels | None) -> list[str]:
    """Return warnings about single members."""
    taken = sample.split.take(sample.index)
    runs = [run for run in taken.runs if not isinstance(run, JointRun)]
    votes = [_votes(run, len(sample.index)) for run in runs]
    codes = [np.where(vote.any(axis=1), vote.argmax(axis=1), -1) for vote in votes]
    judged = []
    for i, run in enumerate(runs):
        if sample.truth is not None:
            reference = sample.truth
        elif len(runs) > 1:
            total = sum((vote for j, vote in enumerate(votes) if j != i), np.zeros(votes[i].shape))
            reference = np.where(total.any(axis=1), total.argmax(axis=1), -1)
        else:
            return []
        judged.append(agreement(run, codes[i], reference, len(sample.split.classes), sample.persons))
    found = [text for one, vote in zip(judged, votes, strict=True) if (text := _constant(one.run, vote))]
    worst = None if sample.truth is not None or len(runs) < 3 else _most_permuted(judged, sample.split.classes)
    if worst is not None:
        return _without_permuted(sample, judged, worst, alignment, labels)
    for i, one in enumerate(judged):
        if one.rows < _LEAST or _constant(one.run, votes[i]):
            continue
        if i and sample.truth is None and len(judged) == 2 and found:
            break  # two members that contradict each other are doubted once
        original = next(run for run in sample.split.runs if run.name == one.run.name)
        found += _doubts_of(
            sample, original, one, [other for j, other in enumerate(judged) if j != i], alignment, labels
        )
    if not found and sample.truth is None and len(judged) > 2 and not any(one.above_chance for one in judged):
        best = max(judged, key=lambda one: one.accuracy - one.chance)
        found.append(
            f"no member ({sample.split.name}) agrees with the others better than chance (at best on "
            f"{_percent(best.accuracy)} of rows, chance is {_percent(best.chance)}): most of them probably have rows "
            "or classes in different orders"
        )
    return found


def _most_permuted(judged: Sequence[Agreement], classes: Sequence[str]) -> int | None:
    """Return the member that fits the others best after a permutation of its classes; None if none is permuted."""
    fits = [
        (found[1], i)
        for i, one in enumerate(judged)
        if one.rows >= _LEAST
        if (found := _permuted_columns(one, classes))
    ]
    return max(fits)[1] if fits else None


def _without_permuted(
    sample: _Sample, judged: Sequence[Agreement], worst: int, alignment: Alignment, labels: TrueLabels | None
) -> list[str]:
    """Return the doubt about a member whose classes are permuted, and those about the others, judged without it: it
    takes part in what each of them is compared with.
    """
    one = judged[worst]
    original = next(run for run in sample.split.runs if run.name == one.run.name)
    others = [other for i, other in enumerate(judged) if i != worst]
    found = _doubts_of(sample, original, one, others, alignment, labels)
    rest = tuple(run for run in sample.split.runs if run.name != one.run.name)
    return found + _member_doubts(replace(sample, split=replace(sample.split, runs=rest)), alignment, labels)


def _constant(run: RunPredictions, votes: NDArray[np.float64]) -> str:
    """Return a doubt about an array whose rows are all equal; tables are doubted when they are read."""
    member = run.parts[0].member
    if member.columns or _is_own(member) or not (votes == votes[:1]).all():
        return ""
    return f"{member.path}: all rows are equal, as in a sample submission, not in predictions"


def _votes(run: RunPredictions, length: int) -> NDArray[np.float64]:
    return run.votes(0, length) if run.hard else run.probabilities(0, length)


def _doubts_of(
    sample: _Sample,
    run: RunPredictions,
    one: Agreement,
    others: Sequence[Agreement],
    alignment: Alignment,
    labels: TrueLabels | None,
) -> list[str]:
    """Return the doubts about one run."""
    members = [part.member for part in run.parts]
    source = ", ".join(dict.fromkeys(str(member.path) for member in members[:2]))
    other = f"the other {len(others)} members" if len(others) != 1 else str(others[0].run.parts[0].member.path)
    against = "the labels" if sample.truth is not None else other
    share = f"{source} ({sample.split.name}) agrees with {against} on {_percent(one.accuracy)} of rows"
    columns = _permuted_columns(one, sample.split.classes)
    if columns is not None:
        mapping, value = columns
        cause = "; name its columns in order with `classes`" if not any(m.sidecar for m in members) else ""
        return [f"{share}, but on {_percent(value)} if its classes were in another order: {mapping}{cause}"]
    if all(map(_is_own, members)):
        return []
    others_fit = any(other.above_chance for other in others)
    best = max((other.accuracy for other in others), default=one.chance)
    far_below = one.accuracy - one.chance <= _FAR_BELOW * (best - one.chance)
    doubted = not one.above_chance or far_below
    if doubted and (others_fit or sample.truth is not None or len(others) == 1):
        order = _other_order(sample, run, one, alignment, labels)
        if order is not None:
            name, value = order
            way = "; name a file with its ids with `ids=FILE`, or add them" if members[0].sidecar is None else ""
            return [f"{share}, but on {_percent(value)} if its rows were in the order of {name}{way}"]
        if not (one.at_chance or far_below):
            return []
        which = "one of them" if sample.truth is None and len(others) == 1 else "it"
        named = _named_test(sample, members)
        if one.may_be_weak:
            return [
                f"{share}, chance is {_percent(one.chance)}, the best other one has {_percent(best)}: {which} is weak, "
                f"or has its rows or classes in another order, or predicts other samples{named}"
            ]
        return [
            f"{share}, chance is {_percent(one.chance)}: {which} probably has its rows or classes in another order, or "
            f"predicts other samples{named}"
        ]
    if sample.truth is not None and one.accuracy == 1 and _is_suspicious(run, others):
        return [
            f"{source} ({sample.split.name}) is right in all {one.rows:,} rows: are its predictions the true labels?"
        ]
    return []


def _percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def _named_test(sample: _Sample, members: Sequence[Member]) -> str:
    named = any(re.search(r"(?<![a-z])test(?![a-z])", member.path.name.lower()) for member in members)
    return " (its name says test)" if named and sample.split.name == "oof" else ""


def _is_suspicious(run: RunPredictions, others: Sequence[Agreement]) -> bool:
    """Return whether a perfect run is implausible: it holds answers only, or all others are clearly worse."""
    return run.hard or (bool(others) and max(other.accuracy for other in others) < _GOOD)


def _permuted_columns(one: Agreement, classes: Sequence[str]) -> tuple[str, float] | None:
    """Return a permutation of the classes under which the run fits far better, as text, and its accuracy then."""
    count = len(classes)
    both = np.flatnonzero((one.codes >= 0) & (one.reference >= 0))
    if count > _CLASSES or len(both) < 2 * _LEAST:
        return None
    first, second = both[::2], both[1::2]
    cells = np.bincount(one.codes[first] * count + one.reference[first], minlength=count * count)
    table = cells.reshape(count, count)
    to = np.full(count, -1)
    used = np.zeros(count, bool)
    for cell in np.argsort(-table, axis=None, kind="stable"):
        column, target = divmod(int(cell), count)
        if table[column, target] == 0:
            break
        if to[column] < 0 and not used[target]:
            to[column], used[target] = target, True
    to[to < 0] = np.flatnonzero(~used)
    frequent = np.bincount(one.codes[first], minlength=count) >= 0.03 * len(first)
    changed = np.flatnonzero((to != np.arange(count)) & frequent)
    before, after = one.codes[second] == one.reference[second], to[one.codes[second]] == one.reference[second]
    if len(changed) < 2 or not _is_far_better(before, after):
        return None
    pairs = listed([f"'{classes[column]}' is '{classes[int(to[column])]}'" for column in changed.tolist()])
    return pairs, float(after.mean())


def _is_far_better(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> bool:
    """Return whether far more rows (m,) are right after a permutation than before, tested by McNemar's statistic."""
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return gained - lost >= max(_GAIN * len(before), _DEVIATIONS * np.sqrt(gained + lost), 1)


def _other_order(
    sample: _Sample, run: RunPredictions, one: Agreement, alignment: Alignment, labels: TrueLabels | None
) -> tuple[str, float] | None:
    """Return another order of the rows in which the run fits far better: of sorted ids, or of another file."""
    if len(run.parts) != 1:
        return None
    part, ids = run.parts[0], sample.split.rows.ids
    if part.rows is not None and (np.sort(part.rows) != np.arange(len(ids))).any():
        return None
    inverse = np.arange(len(ids)) if part.rows is None else np.argsort(part.rows)
    best: tuple[str, float] | None = None
    for name, order in _orders(ids, ids[inverse], alignment, labels).items():
        position = np.empty(len(ids), np.int64)
        position[order] = np.arange(len(ids))  # row of the file of each row of the split
        other = run.take(sample.index, len(ids))
        moved = type(part)(part.member, position[sample.index], part.columns, part.answers)
        other = type(run)(run.name, (moved,), run.classes, other.folds, other.rows)
        vote = _votes(other, len(sample.index))
        fit = agreement(other, vote.argmax(axis=1), one.reference, len(sample.split.classes))
        before, after = one.codes == one.reference, fit.codes == one.reference
        if _is_far_better(before, after) and (best is None or fit.accuracy > best[1]):
            best = name, fit.accuracy
    return best


def _orders(
    ids: NDArray[np.str_],
    current: NDArray[np.str_],
    alignment: Alignment,
    labels: TrueLabels | None,
) -> dict[str, NDArray[np.int64]]:
    """Return name → (n,) the row of the split at each place of an order, for orders other than the current one."""
    text = ids.tolist()
    position = {name: i for i, name in enumerate(text)}
    natural: Callable[[int], list[tuple[bool, int, str]]] = lambda i: [  # noqa: E731
        (part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", text[i])
    ]
    found = {
        "sorted ids": sorted(range(len(text)), key=text.__getitem__),
        "ids sorted by their numbers": sorted(range(len(text)), key=natural),
    }
    sources = {str(one.path): one.rows.ids for one in alignment.members if one.rows is not None}
    if labels is not None:
        sources[str(labels.path)] = labels.ids
    sources = {name: values for name, values in sources.items() if len(values) == len(text)}
    for name, values in sources.items():
        if set(values.tolist()) == position.keys():
            found[name] = [position[one] for one in values.tolist()]
    found["the reversed ids"] = list(range(len(text)))[::-1]
    arrays = {name: np.array(order, np.int64) for name, order in found.items()}
    return {name: order for name, order in arrays.items() if not np.array_equal(ids[order], current)}
