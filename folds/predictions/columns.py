"""Find what the columns of a table hold: ids, paths, labels, predictions, persons, folds and splits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from folds.errors import EnsembleError, no_column

# Role → names by which people call such a column, the usual one first. Case, blanks, "_" and "-" are ignored.
SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "id": (
        "id", "image_id", "image_name", "filename", "file_name", "image", "file", "img", "img_id", "img_name", "name",
        "sample_id", "sample", "key", "row_id", "id_code", "isic_id",
    ),
    "path": ("path", "image_path", "file_path", "img_path", "filepath"),
    "label": (
        "label", "target", "class", "y", "y_true", "dx", "diagnosis", "truth", "true", "true_label", "ground_truth",
        "gt", "category", "class_name", "label_name", "class_id", "label_id",
    ),
    "prediction": ("prediction", "ans", "answer", "pred", "y_pred", "predicted", "predicted_label", "predicted_class",
                   "pred_label", "pred_class"),
    "person": (
        "person", "person_id", "patient", "patient_id", "subject", "subject_id", "group", "group_id", "lesion_id",
        "case_id", "participant_id", "individual_id", "writer", "writer_id", "camera_id",
    ),
    "fold": ("fold", "kfold", "folds", "fold_id", "cv_fold"),
    "split": ("split", "set", "subset", "partition", "phase"),
}  # fmt: skip


@dataclass(frozen=True)
class ColumnRoles:
    """What the columns of one table hold.

    Attributes
    ----------
    source : the table, for messages.
    names : role → column.
    guessed : roles whose column was found by its name and is not the usual one.
    ambiguous : role → columns of which each could be meant, so that none is taken.
    unused : the other columns.
    """

    source: str
    names: Mapping[str, str]
    guessed: frozenset[str]
    ambiguous: Mapping[str, tuple[str, ...]]
    unused: tuple[str, ...]

    def get(self, role: str) -> str | None:
        """Return the column of a role, or None if there is none."""
        return self.names.get(role)

    def require(self, role: str, advice: str = "") -> str:
        """Return the column of a role.

        Raises
        ------
        EnsembleError : no column, or more than one, has a name of this role.
        """
        if role in self.names:
            return self.names[role]
        columns = ", ".join([*self.names.values(), *(name for names in self.ambiguous.values() for name in names)])
        if role in self.ambiguous:
            options = self.ambiguous[role]
            raise EnsembleError(
                f"{self.source}: {' and '.join(repr(name) for name in options)} could both be the {role} column",
                hint=f"name one of them: {' or '.join(f'`{role}={name}`' for name in options)}",
            )
        everything = ", ".join(dict.fromkeys(filter(None, [columns, *self.unused])))
        raise EnsembleError(
            f"{self.source} has no column of the {role}s that is known by its name",
            hint="; ".join(filter(None, [f"name it with `{role}=COLUMN`", advice, f"its columns are {everything}"])),
        )

    def text(self) -> str:
        """Return one line that states the roles: ``meta.csv: id = image_id, label = dx; not used: age``."""
        parts = ", ".join(f"{role} = {name}" for role, name in self.names.items())
        line = f"{self.source}: {parts or 'no known columns'}"
        for role, names in self.ambiguous.items():
            line += f"; {role}: {' or '.join(names)}, none is used without `{role}`"
        if self.unused:
            more = f" and {len(self.unused) - 8} more" if len(self.unused) > 8 else ""
            line += f"; not used: {', '.join(self.unused[:8])}{more}"
        return line


def find_columns(
    columns: Sequence[str], source: str, roles: Sequence[str], given: Mapping[str, str | None] | None = None
) -> ColumnRoles:
    """Return which column holds what.

    A column that the user named is taken. Otherwise the column with the usual name of the role is taken (``label``),
    otherwise the only one with another known name (``dx``). If several have a known name, none is taken. A column has
    one role: the first in `roles` whose name it has.

    Parameters
    ----------
    columns : the header.
    roles : the roles that the caller reads, in order of precedence; keys of `SYNONYMS`.
    given : role → column named by the user; None or a missing key: to be found.

    Raises
    ------
    EnsembleError : a column that the user named does not exist.
    """
    named = {role: name for role, name in (given or {}).items() if name is not None}
    for role, name in named.items():
        if name not in columns:
            raise EnsembleError(
                no_column(source, name, columns),
                hint=f"name the column with `{role}`; its columns are {', '.join(columns)}",
            )
    names, guessed, ambiguous = dict(named), set[str](), dict[str, tuple[str, ...]]()
    taken = set(named.values())
    for role in roles:
        if role in names:
            continue
        usual, *others = SYNONYMS[role]
        free = [name for name in columns if name not in taken]
        exact = [name for name in free if name == usual] or [name for name in free if _plain(name) == _plain(usual)]
        found = exact or [name for name in free if _plain(name) in set(map(_plain, others))]
        if len(found) == 1:
            names[role] = found[0]
            taken.add(found[0])
            if found[0] != usual:
                guessed.add(role)
        elif found:
            ambiguous[role] = tuple(found)
    ordered = {role: names[role] for role in [*roles, *named] if role in names}
    doubtful = {name for found in ambiguous.values() for name in found}
    unused = tuple(name for name in columns if name not in taken and name not in doubtful)
    return ColumnRoles(source, ordered, frozenset(guessed), ambiguous, unused)


def _plain(name: str) -> str:
    """Return a column name in lower case, without blanks, "_", "-" and "."."""
    return re.sub(r"[\s_.-]+", "", name).lower()
