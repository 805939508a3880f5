"""Use further columns of the samples (age, sex, site) beside the runs' predictions; numpy only.

A column of numbers is standardized, a column of texts becomes one column of 0 and 1 for each text. Each has one more
column of 0 and 1 for cells that are missing. All numbers that this needs are those of the samples of the fit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from folds.errors import EnsembleError, UsageError, unknown_name
from folds.utils.cells import as_number, cleaned, number_text
from folds.utils.number_arrays import NumberFields
from folds.utils.schema import NUMBER, TEXT, list_of, optional, raise_problems, validate_fields

NUMBER_KIND, CATEGORY = "number", "category"
KINDS = (NUMBER_KIND, CATEGORY)
MAX_CATEGORIES = 50
_DIGITS, _MAX_NUMBER = 9, 1e6
_MAX_DEVIATIONS = 1e6  # of a cell from the mean: further ones count as this far, so that sums stay finite
_HINT = "blend again to write the file anew"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Column:
    """A column of the samples: its name, whether it holds numbers, and (n,) its texts."""

    name: str
    is_number: bool
    texts: NDArray[np.str_]

    def take(self, rows: NDArray[np.int64]) -> Column:
        """Return the column of the samples at `rows`."""
        return Column(self.name, self.is_number, self.texts[rows])


@dataclass(frozen=True)
class Encoding:
    """How a column becomes numbers.

    Attributes
    ----------
    mean, deviation : of a column of numbers; None for a column of texts.
    categories : the texts of a column of texts, sorted.
    """

    name: str
    mean: float | None = None
    deviation: float | None = None
    categories: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Return the number of columns that it becomes; the last one is for missing cells."""
        return len(self.categories) + 1 if self.mean is None else 2

    def unknown(self, texts: NDArray[np.str_]) -> list[str]:
        """Return the texts of cells that are not missing and not among the categories; [] for a column of numbers."""
        if self.mean is not None:
            return []
        known, read = self._spellings()
        return [text for text in map(cleaned, texts.tolist()) if text and read(text) not in known]

    def _spellings(self) -> tuple[dict[str, int], Callable[[str], str]]:
        """Return category → place, and how a text is read: of categories that are numbers, any spelling of a number."""
        spelled = [_one_spelling(text) for text in self.categories]
        if all(as_number(text) is not None for text in self.categories) and len(set(spelled)) == len(spelled):
            return {text: i for i, text in enumerate(spelled)}, _one_spelling
        return {text: i for i, text in enumerate(self.categories)}, str

    def encode(self, texts: NDArray[np.str_]) -> NDArray[np.float64]:
        """Return (n, width); texts that are not among the categories count as missing.

        Categories that are numbers are compared as numbers: 10 is 10.0.

        Raises
        ------
        EnsembleError : a text in a column of numbers.
        """
        out = np.zeros((len(texts), self.width))
        if self.mean is None:
            code, read = self._spellings()
            out[np.arange(len(texts)), [code.get(read(text), len(code)) for text in texts.tolist()]] = 1
            return out
        values = numbers_of(texts)
        if values is None:
            odd = next(text for text in texts.tolist() if numbers_of(np.array([text])) is None)
            raise EnsembleError(
                f"column '{self.name}' has the cell '{odd}', expected a number",
                hint="correct the cell, or leave it empty if the value is not known",
            )
        missing = np.isnan(values)
        assert self.deviation is not None  # noqa: S101 - set with the mean
        with np.errstate(over="ignore", divide="ignore"):
            scaled = np.clip((values - self.mean) / self.deviation, -_MAX_DEVIATIONS, _MAX_DEVIATIONS)
        out[:, 0] = np.where(missing, 0, scaled)
        out[:, 1] = missing
        return out


@dataclass(frozen=True)
class ColumnModel:
    """What columns of the samples add to the logits: the encodings, and (width, classes) coefficients."""

    encodings: tuple[Encoding, ...]
    coefficients: NDArray[np.float64]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return tuple(one.name for one in self.encodings)

    def logits(self, columns: Mapping[str, NDArray[np.str_]], n: int, samples: str = "new") -> NDArray[np.float64]:
        """Return (n, classes) what the columns of n samples add to their logits.

        Parameters
        ----------
        samples : name of the samples, for errors.

        Raises
        ------
        EnsembleError : a column is missing, or a cell is not a number.
        """
        check_columns(self.names, columns, samples)
        return encode(self.encodings, columns, n) @ self.coefficients

    def warn_of_unknown(self, columns: Mapping[str, NDArray[np.str_]], samples: str) -> None:
        """Log how many cells of each column are texts that the fit did not know, which count as missing."""
        for one in self.encodings:
            odd = one.unknown(columns[one.name])
            if odd:
                logger.warning(
                    "column '%s': %s of %s %s cells are texts unknown to the fit and count as missing, e.g. '%s'",
                    one.name,
                    f"{len(odd):,}",
                    f"{len(columns[one.name]):,}",
                    samples,
                    min(odd),
                )

    def as_record(self) -> dict[str, Any]:
        """Return plain values for a file; means and deviations without rounding, which large numbers need."""
        return {
            "names": list(self.names),
            "means": [0.0 if one.mean is None else one.mean for one in self.encodings],
            # 0: a column of texts
            "deviations": [0.0 if one.deviation is None else one.deviation for one in self.encodings],
            "categories": [list(one.categories) for one in self.encodings],
            "coefficients": [list(map(_rounded, row)) for row in self.coefficients.tolist()],
        }

    @staticmethod
    def from_record(record: Mapping[str, Any], classes: int, source: str) -> ColumnModel:
        """Return the model of a record of `as_record`; `source` is the name of the file in errors.

        Raises
        ------
        EnsembleError : a field is missing, has the wrong type or shape, or is out of range.
        """
        problems = validate_fields(record, _FIELDS)
        raise_problems(problems, f"{source}: columns", _HINT)
        names, deviations = record["names"], record["deviations"]
        lengths = {len(record[name]) for name in ("names", "means", "deviations", "categories")}
        if len(lengths) > 1 or not names or len(set(names)) < len(names):
            raise EnsembleError(f"{source}: columns: expected one entry for each column, none twice", hint=_HINT)
        encodings = []
        for name, mean, deviation, categories in zip(
            names, record["means"], deviations, record["categories"], strict=True
        ):
            if (deviation > 0) == bool(categories) or deviation < 0 or len(set(categories)) < len(categories):
                raise EnsembleError(
                    f"{source}: columns: '{name}' needs a deviation above 0 or different categories", hint=_HINT
                )
            number = {} if categories else {"mean": float(mean), "deviation": float(deviation)}
            encodings.append(Encoding(name, **number, categories=tuple(categories)))
        width = sum(one.width for one in encodings)
        numbers_of = NumberFields(record, f"{source}: columns", _MAX_NUMBER, _HINT).require
        return ColumnModel(tuple(encodings), numbers_of("coefficients", (width, classes)))


_FIELDS = {
    "names": list_of(TEXT),
    "means": list_of(NUMBER),
    "deviations": list_of(NUMBER),
    "categories": list_of(list_of(TEXT)),
    "coefficients": optional(list_of(list_of(NUMBER))),
}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}") if value else 0.0


def parse_columns(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return (name, kind) of each ``NAME``, ``NAME:number`` or ``NAME:category``; the kind is "" if it is not given.

    Raises
    ------
    UsageError : a name is empty or given twice.
    """
    found = []
    for text in texts:
        name, colon, kind = text.strip().rpartition(":")
        if not colon or kind.strip() not in KINDS:
            name, kind = text, ""
        found.append((name.strip(), kind.strip()))
    names = [name for name, _ in found]
    if not all(names) or len(set(names)) < len(names):
        raise UsageError(
            f"`extra={','.join(texts)}`: expected different names of columns", hint="`extra=age,sex,site:category`"
        )
    return tuple(found)


def check_columns(
    names: Sequence[str],
    columns: Mapping[str, NDArray[np.str_]],
    samples: str,
    error: type[EnsembleError] = EnsembleError,
) -> None:
    """Raise an error if the samples lack one of the columns."""
    absent = [name for name in names if name not in columns]
    if absent:
        known = f"found {', '.join(sorted(columns)[:10])}" if columns else "found none"
        raise error(
            f"the combination uses the column '{absent[0]}' of the table, and the {samples} samples have no such "
            f"column; {known}",
            hint="predict a table with this column, or blend without it",
        )


def read_columns(
    wanted: Sequence[tuple[str, str]], attributes: Mapping[str, NDArray[np.str_]], rows: NDArray[np.int64]
) -> tuple[Column, ...]:
    """Return the columns of the samples at `rows`; without a kind, a column of numbers alone is one of
    numbers, if it has more than two of them.

    Raises
    ------
    UsageError : a column does not exist (with close matches), has one value, or too many texts.
    """
    found = []
    for name, kind in wanted:
        if name not in attributes:
            raise unknown_name(
                "column of `extra`", name, sorted(attributes), "columns of the table that the members were trained on"
            )
        texts = np.array([cleaned(text) for text in attributes[name][rows].tolist()], dtype=str)
        values = numbers_of(texts)
        if values is not None:  # 10 and 10.0 are one value
            texts = np.array([_one_spelling(text) for text in texts.tolist()], dtype=str)
        distinct = sorted({*texts.tolist()} - {""})
        if kind == NUMBER_KIND and values is None:
            odd = next(text for text in distinct if numbers_of(np.array([text])) is None)
            raise UsageError(f"`extra={name}:number`: found '{odd}'", hint=f"`extra={name}:category`")
        if len(distinct) < 2:
            raise UsageError(
                f"`extra={name}`: the column has {'one value' if distinct else 'no value'} in all samples",
                hint="leave it out",
            )
        is_number = kind == NUMBER_KIND or (kind != CATEGORY and values is not None and len(distinct) > 2)
        if not is_number and len(distinct) > MAX_CATEGORIES:
            raise UsageError(
                f"`extra={name}`: {len(distinct):,} different texts, expected at most {MAX_CATEGORIES}",
                hint="a column that names samples or people says nothing about new ones",
            )
        found.append(Column(name, is_number, texts))
    return tuple(found)


def _one_spelling(text: str) -> str:
    """Return the one spelling of a number; another text as it is."""
    value = as_number(text)
    return text if value is None else number_text(value)


def numbers_of(texts: NDArray[np.str_]) -> NDArray[np.float64] | None:
    """Return (n,) the numbers, nan where a cell is missing; None if a cell is another text."""
    out = np.full(len(texts), np.nan)
    for i, text in enumerate(map(cleaned, texts.tolist())):
        if text:
            value = as_number(text)
            if value is None:
                return None
            out[i] = value
    return out


def fit_encodings(columns: Sequence[Column]) -> tuple[Encoding, ...]:
    """Return how the columns become numbers, by the samples that they are of."""
    found = []
    for column in columns:
        if column.is_number:
            values = numbers_of(column.texts)
            assert values is not None  # noqa: S101 - `read_columns` found numbers
            known = values[~np.isnan(values)]
            mean, deviation = (float(known.mean()), float(known.std())) if len(known) else (0.0, 1.0)
            found.append(Encoding(column.name, mean, deviation if deviation > 1e-9 * max(abs(mean), 1e-9) else 1.0))
        else:
            found.append(Encoding(column.name, categories=tuple(sorted({*column.texts.tolist()} - {""})) or ("",)))
    return tuple(found)


def encode(encodings: Sequence[Encoding], columns: Mapping[str, NDArray[np.str_]], n: int) -> NDArray[np.float64]:
    """Return (n, width of all) the columns as numbers."""
    parts = []
    for one in encodings:
        texts = np.array([cleaned(text) for text in columns[one.name].tolist()], dtype=str)
        parts.append(one.encode(texts))
    return np.concatenate(parts, axis=1) if parts else np.zeros((n, 0))


def columns_text(columns: Sequence[Column]) -> str:
    """Return what the columns are, for the reader: ``age (number), site (category: 3)``."""
    parts = []
    for column in columns:
        missing = int((column.texts == "").sum())
        kind = NUMBER_KIND if column.is_number else f"{CATEGORY}: {len({*column.texts.tolist()} - {''})}"
        parts.append(f"{column.name} ({kind}{f', {missing:,} missing' if missing else ''})")
    return ", ".join(parts)
