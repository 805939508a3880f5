"""Describe an exported model, and write its ``model.toml``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ensemble.decisions.rows import IMAGE, PERSON
from ensemble.learning.combination import Combination
from ensemble.tta.merge import Merge
from folds.metrics.task_names import COLUMN_TASKS
from folds.models.head_spec import is_of_person
from folds.utils.files import sha256_bytes
from folds.utils.toml import toml_value

SCHEMA = 1
DECISION, CASCADE = "decision", "cascade"  # optional tables of a model


@dataclass(frozen=True)
class RunEntry:
    """A run of the combination: how its models are averaged and their views merged; `models` are places in the list.

    `hand_over` is the record of the fit that turns its number into the grades of the model, () for an ordinary run. An
    earlier version refuses a run that has it.
    """

    name: str
    target: str
    classes: tuple[str, ...]
    models: tuple[int, ...]
    merge: Merge
    joined: tuple[str, ...] = ()
    hand_over: tuple[float, ...] = ()


@dataclass(frozen=True)
class FileEntry:
    """The size and the hash of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class ModelRecord:
    """The content of ``model.toml``.

    Attributes
    ----------
    kind : what was exported: ``checkpoint``, ``run`` or ``blend``.
    program : the version that wrote it.
    refit : whether the models were trained on all people, so that the score is that of the procedure.
    task : what the columns are, if the recipes of the models do not say it, or if they are labels or numbers, whose
        probabilities an earlier version would normalize; "" else.
    models : the fields of each fold model, without its weights; ``file`` names them.
    score, test_score : out-of-fold or nested, and on test images: metric, score, low, high, people, …; {} if unknown.
    trained : counts of what the models were trained on.
    expected : how many images, their seed, and the tolerance for each number format.
    files : name → size and hash of every part but ``model.toml``.
    extras : optional tables by name (`ensemble.model_files.record_reading.EXTRAS`).
    sha256 : hash of the record itself; "" before it is written.
    """

    name: str
    kind: str
    program: str
    classes: tuple[str, ...]
    target: str
    combination: Combination
    runs: tuple[RunEntry, ...]
    models: tuple[Mapping[str, Any], ...]
    class_attributes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ranking: tuple[str, ...] = ()
    precision: str = "fp32"
    half_difference: float | None = None
    refit: bool = False
    score: Mapping[str, Any] = field(default_factory=dict)
    test_score: Mapping[str, Any] = field(default_factory=dict)
    trained: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    extras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sha256: str = ""
    task: str = ""

    @property
    def has_columns(self) -> bool:
        """Return whether the columns are labels or numbers of their own (`COLUMN_TASKS`)."""
        return self.task in COLUMN_TASKS

    @property
    def unit(self) -> str:
        """Return what a row of the answer is: ``image``, or ``person`` if the images of a person are pooled."""
        return IMAGE if self.combination.pooling is None else PERSON

    @property
    def person_head(self) -> str | None:
        """Return the head of the first model that predicts an image from all images of its person; None if none does.

        An earlier version refuses a record that states it, as `persons`.
        """
        heads = (str(model["architecture"].get("head") or "") for model in self.models)
        return next((head.partition(":")[0] for head in heads if is_of_person(head)), None)

    @property
    def extra_columns(self) -> tuple[str, ...]:
        """Return the names of the columns that are needed beside the images."""
        return () if self.combination.extra is None else self.combination.extra.names


def to_text(record: ModelRecord) -> str:
    """Return the content of ``model.toml``; its last lines hold the hash of the lines before."""
    top: dict[str, Any] = {
        **{"schema": SCHEMA, "program": record.program, "name": record.name, "kind": record.kind},
        **{"target": record.target, "classes": list(record.classes), "class_attributes": record.class_attributes},
        **{"ranking": list(record.ranking), "precision": record.precision, "half_difference": record.half_difference},
        "refit": record.refit or None,
        "task": record.task or None,
        # [combination] has both as well, where an earlier version would read past them; at the top it refuses them.
        "unit": None if record.unit == IMAGE else record.unit,
        "persons": True if record.person_head else None,
        "extra_columns": list(record.extra_columns),
    }
    lines = ["# A model exported by ensemble: how weights/*.safetensors become probabilities of classes.", *_lines(top)]
    parts: list[tuple[str, Mapping[str, Any]]] = [("combination", record.combination.as_record(inline=False))]
    parts += [("score", record.score), ("test_score", record.test_score), ("trained", record.trained)]
    lines += [line for name, table in parts if table for line in ("", f"[{name}]", *_lines(table))]
    for run in record.runs:
        table: dict[str, Any] = {
            "name": run.name,
            "target": run.target,
            "classes": list(run.classes),
            "joined": list(run.joined),
        }
        table |= {"models": list(run.models), "merge": {} if run.joined else run.merge.to_dict()}
        table |= {"hand_over": list(run.hand_over)}
        lines += ["", "[[run]]", *_lines(table, keep=("models",))]
    for model in record.models:
        lines += ["", "[[model]]", *_lines(model)]
    lines += ["", "[expected]", *_lines(record.expected)]
    for name, extra in record.extras.items():
        lines += ["", f"[{name}]", *_lines(plain(extra), keep=tuple(extra))]
    lines += ["", "[files]"]
    lines += [f"{toml_value(name)} = {toml_value(vars(entry))}" for name, entry in record.files.items()]
    text = "\n".join([*lines, ""])
    return f'{text}\n[integrity]\nsha256 = "{sha256_bytes(text.encode())}"\n'


def _lines(table: Mapping[str, Any], keep: Sequence[str] = ("classes", "ranking")) -> list[str]:
    """Return one line per value; values that are absent or empty are left out, except those to keep."""
    values = {key: plain(value) for key, value in table.items()}
    return [f"{key} = {toml_value(v)}" for key, v in values.items() if v not in (None, "", {}, []) or key in keep]


def plain(value: Any) -> Any:
    """Return a value without what TOML lacks: absent entries (None), tuples and numbers of numpy."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value.item() if hasattr(value, "item") else value
