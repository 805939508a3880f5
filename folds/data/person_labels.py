"""Give every image the label of its person, for tables in which only the person is labeled."""

from __future__ import annotations

from folds.data.table import MISSING, RawColumns
from folds.errors import EnsembleError, UsageError, combine_errors
from folds.utils.spelling import is_placeholder, spelling_key
from folds.utils.text import counted

PERSON = "person"  # the value of the setting `label_of`


def label_by_person(columns: RawColumns, merge: bool, training: bool) -> None:
    """Fill in the labels of all images by those of their persons, in place; what is done is added to the notes.

    Parameters
    ----------
    merge : whether labels that are spellings of one name are the same.
    training : whether a person without a label is an error; the labels of test images are unknown then.

    Raises
    ------
    UsageError : the table names no persons.
    EnsembleError : the rows of a person have different labels, or a person of the training has none.
    """
    if columns.labels is None:
        return
    if columns.persons is None:
        if not training:  # those of images are not known
            columns.labels = None if not MISSING.isdisjoint(columns.labels) else columns.labels
            return
        raise UsageError(
            f"`label_of={PERSON}` needs the persons of {columns.source}, which are unknown",
            hint="name their column with `person`, or find them in the paths with `person_regex`",
        )
    # An image whose person is not known has a label of its own.
    owners = [f"\0{at}" if is_placeholder(one) else one for at, one in enumerate(columns.persons)]
    labels: dict[str, str] = {}
    lines = []
    for at, (person, label) in enumerate(zip(owners, columns.labels, strict=True)):
        if label in MISSING:
            continue
        known = labels.setdefault(person, label)
        if known != label and not (merge and spelling_key(known) == spelling_key(label)):
            lines.append(f"{columns.locations[at]}: '{label}', and '{known}' in another row of person '{person}'")
    if lines:
        raise combine_errors(
            lines,
            f"rows of {columns.source} give another label than other rows of the same person, with `label_of={PERSON}`",
            "write one label per person, or leave out `label_of` if images have labels of their own",
        )
    without = sorted(columns.persons[at] for at, one in enumerate(owners) if one not in labels)
    if without and not training:
        columns.labels = None
        return
    if without:
        people = len({one for one in owners if one not in labels})
        raise EnsembleError(
            f"{columns.source}: {counted(people, 'person has', 'people have')} no label in any row, e.g. "
            f"'{without[0]}'",
            hint="label one row of each person, or remove these people",
        )
    filled = sum(label in MISSING for label in columns.labels)
    columns.labels = [labels[person] for person in owners]
    columns.notes.append(
        f"{columns.source}: labels are those of {counted(len(labels), 'person', 'people')}, not of images"
        + (f"; {filled:,} images without a label of their own take that of their person" if filled else "")
        + "; scores are by person"
    )
