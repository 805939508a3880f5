"""Name the columns of members that do not name them: bare arrays, one column of a binary task, prefixed columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ensemble.members.columns import listed
from ensemble.members.reading import Member
from ensemble.members.true_labels import TrueLabels
from folds.errors import EnsembleError
from folds.metrics.positive import guess_positive
from folds.predictions.rows import SampleRows
from folds.utils.spelling import spelling_key
from folds.utils.text import sort_by_number, sort_classes


@dataclass(frozen=True)
class NamedMembers:
    """Members whose columns all have classes.

    Attributes
    ----------
    members, labels : as given, with classes, and labels spelled as these.
    notes : what was assumed.
    assumed : sources of arrays whose order of columns is assumed.
    """

    members: list[Member]
    labels: TrueLabels | None
    notes: list[str]
    assumed: frozenset[str] = frozenset()


def name_columns(
    members: Sequence[Member], labels: TrueLabels | None = None, classes: Sequence[str] | None = None
) -> NamedMembers:
    """Return the members with the class of each column.

    Parameters
    ----------
    labels : true labels, whose classes name the columns of arrays without names.
    classes : the class of each column of arrays without names, in order; for one column the negative and the positive
        class.

    Raises
    ------
    EnsembleError : it is unknown what the columns are; the hint says what to write.
    """
    naming = _Naming(members, labels, None if classes is None else tuple(classes))
    named = [naming.prefixed(member) for member in members]
    named = [naming.numbered(member) for member in named]
    naming.learn(named)
    named = [naming.one_column(member, named) for member in named]
    naming.learn(named)
    named = [naming.bare(member) for member in named]
    known = naming.stated[0].classes if naming.stated else next((m.classes for m in named if m.classes), ())
    respelled = _Respelling(known)
    named = [respelled.member(member) for member in named]
    new_labels = respelled.labels(labels)
    return NamedMembers(named, new_labels, naming.notes() + respelled.notes, frozenset(naming.assumed))


class _Naming:
    def __init__(self, members: Sequence[Member], labels: TrueLabels | None, classes: tuple[str, ...] | None) -> None:
        self.given = classes
        self.source = "" if labels is None else str(labels.path)
        names = set() if labels is None else set(labels.labels.tolist())
        if labels is None:
            for member in members:
                if member.sidecar is None and member.rows is not None and member.rows.labels is not None:
                    names |= set(member.rows.labels.tolist()) - {""}
                    self.source = self.source or str(member.path)
        self.truth = names
        self.answered = {name for one in members if one.answers is not None for name in set(one.answers.tolist())}
        self.stated: list[Member] = []
        self.assumed: dict[str, tuple[str, ...]] = {}
        self._pairs: dict[str, list[str]] = {}
        self.learn(members)

    def learn(self, members: Sequence[Member]) -> None:
        """Remember the members whose columns are named."""
        self.stated = [one for one in members if one.classes and one.target == "label" and one.values is not None]

    def prefixed(self, member: Member) -> Member:
        """Return the member with the prefix of its columns as a part of the classes, if the classes have it."""
        if not member.prefix or member.sidecar is not None:
            return member
        whole = tuple(member.prefix + name for name in member.classes)
        sidecar = next((set(one.classes) for one in self.stated if one.sidecar is not None), None)
        known = set(self.given) if self.given is not None else sidecar if sidecar is not None else self.truth
        fits = bool(known) and known <= set(whole) and not known <= set(member.classes)
        return replace(member, classes=whole) if fits else member

    def numbered(self, member: Member) -> Member:
        """Return a table whose columns are numbered from 0 with the given classes."""
        given = self.given
        if given is None or member.sidecar is not None or not member.classes or set(member.classes) == set(given):
            return member
        numbers = tuple(map(str, range(len(given))))
        if sort_classes(member.classes) != numbers:
            return member
        return replace(member, classes=tuple(given[int(name)] for name in member.classes))

    def one_column(self, member: Member, members: Sequence[Member]) -> Member:
        """Return a member of one column with its negative and its positive class."""
        if not member.one_column:
            return member
        if member.sidecar is not None:
            self._say(member, member.classes)
            return member
        pair = self._pair(member, members)
        self._say(member, pair)
        return replace(member, classes=pair)

    def _say(self, member: Member, pair: Sequence[str]) -> None:
        how = "logit (sigmoid)" if member.logit else "probability"
        self._pairs.setdefault(f"one column read as the {how} of class {pair[1]} against {pair[0]}", []).append(
            member.source
        )

    def _pair(self, member: Member, members: Sequence[Member]) -> tuple[str, str]:
        if self.given is not None:
            if len(self.given) != 2:
                raise self._not_binary(member, self.given, "`classes`")
            return self.given[0], self.given[1]
        others = [one for one in self.stated if one is not member]
        if others:
            names, source = set(others[0].classes), str(others[0].path)
        elif self.truth:
            names, source = self.truth, self.source
        elif self.answered:
            names, source = self.answered, "the answers"
        elif any(one.positive for one in members):
            return "0", "1"
        else:
            raise EnsembleError(
                f"{member.path}: expected a 2-D array (samples, classes), found one column, and nothing says that "
                "there are two classes",
                hint="`classes=NEGATIVE,POSITIVE` if it is the output of one unit of a binary model; or save two "
                "columns: np.column_stack([1 - p, p])",
            )
        if len(names) == 1 and spelling_key(next(iter(names))) in ("0", "1"):
            only = next(iter(names))
            other = only.replace(spelling_key(only), "1" if spelling_key(only) == "0" else "0", 1)
            names = {only, other}
        if len(names) != 2:
            raise self._not_binary(member, sort_by_number(list(names)), source)
        return positive_last(str(member.path), sort_by_number(list(names)), member.positive)

    def _not_binary(self, member: Member, names: Sequence[str], source: str) -> EnsembleError:
        return EnsembleError(
            f"{member.path}: expected a 2-D array (samples, classes), found one column, but {source} has "
            f"{len(names)} classes: {listed(names)}",
            hint="save one column of probabilities per class; one column is enough only for two classes",
        )

    def bare(self, member: Member) -> Member:
        """Return an array without names with the classes of its columns."""
        if member.classes or member.values is None:
            return member
        classes = self._classes(member, member.values.shape[1])
        if self.given is None:
            self.assumed[member.source] = classes
        return replace(member, classes=classes)

    def _classes(self, member: Member, count: int) -> tuple[str, ...]:
        if self.given is not None:
            return self._fitting(member, count, self.given)
        if self.stated:
            first = self.stated[0]
            other = next((one for one in self.stated if one.classes != first.classes), None)
            if other is not None and set(other.classes) == set(first.classes) and len(first.classes) == count:
                raise EnsembleError(
                    f"{member.path} does not name its columns, and {first.path} and {other.path} have their columns in "
                    f"different orders: {listed(first.classes)}; {listed(other.classes)}",
                    hint=f"name its columns in order: `classes={','.join(first.classes[:20])}`",
                )
            return self._fitting(member, count, first.classes)
        if self.assumed:
            return self._fitting(member, count, next(iter(self.assumed.values())))
        if self.truth:
            return _from_labels(member, count, self.truth, self.source)
        return tuple(map(str, range(count)))

    def _fitting(self, member: Member, count: int, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(classes) != count:
            raise EnsembleError(
                f"{member.path} has {count} columns, "
                f"expected one for each of the {len(classes)} classes: {', '.join(classes[:20])}"
            )
        return classes

    def notes(self) -> list[str]:
        """Return what was assumed."""
        return [f"{listed(paths)}: {text}" for text, paths in self._pairs.items()]


def positive_last(source: str, names: Sequence[str], positive: str = "") -> tuple[str, str]:
    """Return two classes, the positive one last: that of a column's name, or the one that the names tell
    (`folds.metrics.positive`).

    Parameters
    ----------
    source : the file or array, for messages.
    positive : the name of the column, if it has one.

    Raises
    ------
    EnsembleError : there are not two classes, or it is unknown which one is positive.
    """
    if len(names) != 2:
        raise EnsembleError(
            f"{source}: expected a 2-D array (samples, classes), found one column and {len(names)} classes"
            + (f": {listed(names)}" if names else ""),
            hint="one column is enough only for two classes: `classes=NEGATIVE,POSITIVE`, or save one column per "
            "class: np.column_stack([1 - p, p])",
        )
    first, second = sort_by_number(list(names))
    if positive:
        matching = [name for name in names if spelling_key(name) == spelling_key(positive)]
        if len(matching) == 1:
            return (second, first) if matching[0] == first else (first, second)
    guess = guess_positive((first, second))
    if guess is not None:
        return (first, second) if guess.name == second else (second, first)
    raise EnsembleError(
        f"{source} has one column, and it is unknown which of {first} and {second} it is the probability of",
        hint=f"`classes={first},{second}` if it is that of {second}, otherwise `classes={second},{first}`",
    )


def _from_labels(member: Member, count: int, truth: set[str], source: str) -> tuple[str, ...]:
    """Return the classes of `count` columns in the order of the labels: numbers as numbers, otherwise sorted text."""
    names = sort_by_number(list(truth))
    same = {spelling_key(name) for name in names}
    if len(same) < len(names) and len(same) == count:
        raise EnsembleError(
            f"{source} writes classes in several ways ({listed(names)}), and {member.path} has {count} columns",
            hint="write each class in one way",
        )
    numbers = _whole_numbers(names)
    if numbers is not None and min(numbers) >= 0 and max(numbers) < count:
        if len(names) == count or 0 in numbers:
            return _numbered(names, count)
        raise _counted_from(member, count, names, source)
    if len(names) == count:
        return names
    if numbers is not None and min(numbers) > 0 and max(numbers) == count:
        raise _counted_from(member, count, names, source)
    raise EnsembleError(
        f"{member.path} has {count} columns, but {source} has {len(names)} classes: {', '.join(names[:20])}",
        hint="name the columns in order: `classes=A,B,C`, or add a sidecar with the classes",
    )


def _whole_numbers(names: Sequence[str]) -> list[int] | None:
    try:
        values = [float(name) for name in names]
        return [int(value) for value in values] if all(value == int(value) for value in values) else None
    except (ValueError, OverflowError):
        return None


def _numbered(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Return the numbers from 0, in the spelling of `names`."""
    known = {int(float(name)): name for name in names}
    ending = ".0" if any("." in name for name in names) else ""
    return tuple(known.get(number, f"{number}{ending}") for number in range(count))


def _counted_from(member: Member, count: int, names: Sequence[str], source: str) -> EnsembleError:
    ending = ".0" if any("." in name for name in names) else ""

    def numbered(start: int) -> str:
        return ",".join(f"{number}{ending}" for number in range(start, start + count))

    possible = [start for start in (0, 1) if max(_whole_numbers(names) or [0]) < start + count]
    meant = " or ".join(f"{start} … {start + count - 1}" for start in possible)
    return EnsembleError(
        f"{member.path} has {count} columns without names, and {source} has the classes {listed(names)}: 0 never "
        f"occurs, so the columns may be {meant}",
        hint="; or ".join(f"`classes={numbered(start)}` if classes are counted from {start}" for start in possible),
    )


class _Respelling:
    """Numbers spelled as the classes of the columns are: ``1.0`` as ``1``."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = set(classes)
        self.notes: list[str] = []
        self._by_number: dict[str, str] = {}
        for name in classes:
            if _whole_numbers([name]) is not None:
                key = spelling_key(name)
                self._by_number[key] = "" if key in self._by_number else name

    def member(self, member: Member) -> Member:
        """Return the member with its classes, answers and labels in the spelling of the classes."""
        if not self._by_number or member.target != "label" or member.sidecar is not None:
            return member
        changed = replace(member, classes=tuple(self._names(member.classes)))
        if member.answers is not None:
            changed = replace(changed, answers=self._column(member.answers, f"{member.path}: answers"))
        if member.rows is not None and member.rows.labels is not None:
            rows = member.rows
            labels = self._column(rows.labels, f"{member.path}: labels")  # type: ignore[arg-type]
            changed = replace(changed, rows=SampleRows(rows.ids, labels, rows.persons, rows.attributes))
        return changed

    def labels(self, labels: TrueLabels | None) -> TrueLabels | None:
        """Return the true labels in the spelling of the classes."""
        if labels is None or not self._by_number:
            return labels
        return replace(labels, labels=self._column(labels.labels, f"{labels.path}: labels"))

    def _names(self, names: Iterable[str]) -> list[str]:
        names = list(names)
        new = [name if name in self.classes else self._by_number.get(spelling_key(name)) or name for name in names]
        return new if len(set(new)) == len(set(names)) else names

    def _column(self, values: NDArray[np.str_], what: str) -> NDArray[np.str_]:
        distinct = list(dict.fromkeys(values.tolist()))
        if self.classes.issuperset(distinct):
            return values
        changed = dict(zip(distinct, self._names(distinct), strict=True))
        differing = [(old, new) for old, new in changed.items() if old != new]
        if not differing:
            return values
        self.notes.append(f"{what} {', '.join(f'{old} read as {new}' for old, new in differing[:3])}")
        return np.array([changed[name] for name in values.tolist()], dtype=str)
