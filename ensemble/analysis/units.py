"""Name what a row of scored predictions is: an image or a person."""

from __future__ import annotations

from dataclasses import dataclass

from folds.utils.text import counted


@dataclass(frozen=True)
class Unit:
    """What a row of scored predictions is: the noun that tables, captions and axes count.

    Attributes
    ----------
    one, many : the noun in singular and plural.
    """

    one: str
    many: str

    @property
    def any(self) -> str:
        """Return ``an image`` or ``a person``."""
        return f"{'an' if self.one[0] in 'aeiou' else 'a'} {self.one}"

    @property
    def is_person(self) -> bool:
        """Return whether a row is a person, so that a table needs no second column of people."""
        return self.one == "person"

    def counted(self, number: int) -> str:
        """Return ``1 image`` or ``1,200 people``."""
        return counted(number, self.one, self.many)

    def columns(self, with_people: bool = True) -> list[str]:
        """Return the heads of the columns that count the rows of a group, and their people if rows are images."""
        return [self.many, *(["people"] if with_people and not self.is_person else [])]

    def cells(self, rows: int, people: int | None, with_people: bool = True) -> list[int | None]:
        """Return the cells below `columns`."""
        return [rows, *([people] if with_people and not self.is_person else [])]


IMAGE, PERSON = Unit("image", "images"), Unit("person", "people")
