from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folds.config.command_settings import Settings
from folds.config.files import to_toml
from folds.config.recipe import Recipe
from folds.errors import EnsembleError, UsageError
from folds.experiments.compared_settings import changes_text, settings_of
from folds.experiments.comparison import compare_runs
from folds.experiments.paired_rows import check_comparable, known_runs, require_run
from folds.metrics.classification import METRICS
from folds.metrics.grouping import average_by_person
from folds.metrics.intervals import difference_over_people
from folds.predictions.changed_labels import write_changed_labels
from folds.predictions.files import PredictionMetadata, SampleRows, oof_file, write_prediction
from folds.utils.files import write_atomic
from folds.utils.numeric import factorize
from folds.utils.text import value_text

CLASSES = ("cat", "dog", "owl")
Writer = Callable[..., Path]


def table(n: int = 120) -> SampleRows:
    rng = np.random.default_rng(0)
    labels = np.array(CLASSES)[rng.integers(0, 3, n)]
    return SampleRows(
        np.array([f"i{i * 7 % n:03}" for i in range(n)]), labels, np.array([f"p{i // 4}" for i in range(n)])
    )


def predictions(rows: SampleRows, right: float, seed: int) -> np.ndarray:
    assert rows.labels is not None
    rng = np.random.default_rng(seed)
    truth = np.array([CLASSES.index(label) for label in rows.labels])
    chosen = np.where(rng.random(len(rows)) < right, truth, rng.integers(0, 3, len(rows)))
    return (np.eye(3)[chosen] * 0.7 + 0.1).astype(np.float32)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """Writes what a run publishes, and its config."""
    monkeypatch.chdir(tmp_path)

    def one(
        name: str,
        values: np.ndarray | None = None,
        rows: SampleRows | None = None,
        recipe: Recipe | None = None,
        arch: str = "resnet18",
        resolved: dict[str, Any] | None = None,
        config: bool = True,
        **sidecar: Any,
    ) -> Path:
        rows = table() if rows is None else rows
        path = oof_file(Path("runs"), name)
        given = {
            "kind": "probability",
            "split": "oof",
            "classes": CLASSES,
            "rows": rows,
            "run": name,
            "folds_sha": "f",
        } | sidecar
        write_prediction(path, predictions(rows, 0.6, 1) if values is None else values, PredictionMetadata(**given))
        if config:
            decided = {"table_sha": "t" * 64, "folds_sha": "f" * 64, "amp": "off", "threads": 1} | (resolved or {})
            write_atomic(
                Path("runs", name, "config.toml"),
                to_toml(Settings(arch=(arch,), data=Path("/home/jane/data")), recipe or Recipe(), decided),
            )
        return path

    return one


def test_the_settings_that_differ_and_the_paired_difference(write: Writer) -> None:
    rows = table()
    first, second = predictions(rows, 0.4, 1), predictions(rows, 0.8, 2)
    write("base", first)
    write("focal", second, recipe=Recipe(loss="focal", lr=1e-3))
    found = compare_runs("base", "focal")
    assert found.changed == {"lr": (None, 0.001), "loss": ("ce", "focal")}
    assert {"epochs", "arch", "seed", "data", "folds", "amp"} <= set(found.unchanged)
    assert not {"name", "path", "threads", "data_path", "test"} & {*found.unchanged, *found.changed}
    truth = np.array([CLASSES.index(label) for label in rows.labels])  # type: ignore[union-attr]
    for name in ("macro_f1", "accuracy", "log_loss"):
        expected = difference_over_people(METRICS[name], truth, first, second, factorize(rows.persons)[1])  # type: ignore[arg-type]
        assert found.differences[name] == expected
    assert (found.rows, found.people, found.notes) == (120, 30, ())
    assert found.verdict() == "yes"


def test_rows_and_classes_are_lined_up_by_name(write: Writer) -> None:
    rows = table()
    first, second = predictions(rows, 0.4, 1), predictions(rows, 0.8, 2)
    write("a", first)
    write("b", second)
    expected = compare_runs("a", "b")
    order, columns = np.random.default_rng(3).permutation(len(rows)), [2, 0, 1]
    write("b", second[order][:, columns], rows.take(order), classes=tuple(CLASSES[i] for i in columns))
    assert compare_runs("a", "b").differences == expected.differences
    back = compare_runs("b", "a").differences["accuracy"].difference
    assert back.value == pytest.approx(-expected.differences["accuracy"].difference.value)


def test_per_person_a_person_s_images_are_averaged_first(write: Writer) -> None:
    rows = table()
    first, second = predictions(rows, 0.4, 1), predictions(rows, 0.8, 2)
    write("a", first)
    write("b", second)
    found = compare_runs("a", "b", per_person=True)
    assert (found.rows, found.people) == (30, 30)
    truth = np.array([CLASSES.index(label) for label in rows.labels])  # type: ignore[union-attr]
    labels, values, _, _ = average_by_person(truth, second, factorize(rows.persons)[1], 3, "classes")  # type: ignore[arg-type]
    assert found.differences["accuracy"].second == pytest.approx(METRICS["accuracy"](labels, values))


def test_what_a_reader_must_know_is_noted(write: Writer) -> None:
    rows = table()
    write("a", recipe=Recipe(keep="best"))
    part = rows.take(np.arange(100))
    strangers = replace(part, persons=np.array([f"q{i}" for i in range(100)]))
    write(
        "b",
        predictions(part, 0.8, 2),
        strangers,
        folds_sha="other",
        recipe=Recipe(patience=3),
        resolved={"folds_sha": "g" * 64},
    )
    found = compare_runs("a", "b")
    assert found.rows == 100
    assert found.people == 25
    said = "\n".join(found.notes)
    assert "compared on the 100 samples that both runs predict (a has 120, b has 100)" in said
    assert "100 samples have different persons in the two runs; using those of a" in said
    assert "the folds differ: random variation of the split is part of the difference" in said
    assert "a is optimistic" in said
    assert "b is optimistic" in said
    assert found.changed["folds"] == ("f" * 12, "g" * 12)


def test_unknown_persons_and_missing_settings_are_noted(write: Writer) -> None:
    rows = replace(table(), persons=None)
    write("a", None, rows)
    write("b", predictions(rows, 0.8, 2), rows, config=False)
    found = compare_runs("a", "b")
    assert found.people == 120
    assert (found.changed, found.unchanged) == ({}, ())
    said = "\n".join(found.notes)
    assert "persons are unknown" in said
    assert "b: no config.toml" in said
    write("b", predictions(rows, 0.8, 2), table())
    assert compare_runs("a", "b").people == 30


def other_label(rows: SampleRows) -> SampleRows:
    assert rows.labels is not None
    labels = rows.labels.copy()
    labels[[7, 9]] = [CLASSES[(CLASSES.index(labels[i]) + 1) % 3] for i in (7, 9)]
    return replace(rows, labels=labels)


@pytest.mark.parametrize(
    ("rows", "sidecar", "said"),
    [
        (other_label(table()), {}, "a and b have different labels for 2 samples, e.g. 'i049'"),
        (
            replace(table(), ids=np.array([f"x{i}" for i in range(120)])),
            {},
            "have no sample in common, e.g. 'i000' and 'x0'",
        ),
        (table(), {"classes": ("cat", "dog", "emu")}, "a and b have different classes: 'emu' is in only one of them"),
        (table(), {"target": "age"}, "a predicts the label, b the age"),
        (replace(table(), labels=None), {}, "has no labels, so it cannot be scored"),
    ],
)
def test_incomparable_runs_are_refused_before_and_after_training(
    write: Writer, rows: SampleRows, sidecar: dict[str, Any], said: str
) -> None:
    write("a")
    write("b", np.full((120, 3), 1 / 3), rows, **sidecar)
    with pytest.raises(EnsembleError) as raised:
        compare_runs("a", "b")
    assert said in raised.value.message
    assert raised.value.hint
    if rows.labels is not None:
        with pytest.raises(EnsembleError):
            check_comparable("a", rows, sidecar.get("classes", CLASSES), sidecar.get("target", "label"))
    check_comparable("a", table(), CLASSES, "label")


def test_labels_outside_the_classes_are_one_clear_error(write: Writer) -> None:
    rows = table()
    assert rows.labels is not None
    odd = replace(rows, labels=np.where(rows.labels == "owl", "oWl", rows.labels))
    write("a", None, rows, config=True)
    write("b", predictions(rows, 0.6, 1), odd)
    write("a", predictions(rows, 0.6, 1), odd)
    with pytest.raises(EnsembleError, match="the label 'oWl' is not one of its 3 classes"):
        compare_runs("a", "b")


def test_an_unknown_run_is_refused_with_the_nearest(write: Writer) -> None:
    with pytest.raises(UsageError, match="unknown run 'x'") as raised:
        require_run("x")
    assert "ensemble kfold" in str(raised.value.hint)
    write("resnet18")
    write("swin")
    Path("runs/begun").mkdir()
    Path("runs/begun/config.toml").touch()
    assert known_runs() == ["resnet18", "swin"]
    with pytest.raises(UsageError, match=r"unknown --baseline 'resnet81'; did you mean resnet18\?"):
        require_run("resnet81", option="--baseline")
    with pytest.raises(EnsembleError, match="begun: no fold is trained yet"):
        require_run("begun")
    require_run("swin")


def test_a_bare_or_misshapen_array_is_refused(write: Writer) -> None:
    write("a")
    np.save("runs/bare.oof.npy", np.full((3, 3), 0.3, np.float32))
    with pytest.raises(EnsembleError, match="has no sidecar, so the ids of its rows are unknown"):
        compare_runs("a", "bare")
    path = write("b")
    np.save(path, np.full((5, 3), 0.3, np.float32))
    with pytest.raises(EnsembleError, match="is 5 × 3, its sidecar says 120 × 3"):
        compare_runs("a", "b")


@pytest.mark.parametrize(
    ("varied", "said"),
    [
        ({}, ""),
        ({"loss": ("ce", "focal")}, "loss: ce → focal"),
        ({"lr": (0.001, None), "compile": (False, True)}, "lr: 0.001 → –, compile: false → true"),
        ({f"setting{i}": (i, i + 1) for i in range(9)}, "setting0, setting1, setting2, setting3, setting4 and 4 more"),
        ({"x" * 80: (1, 2), "b": (1, 2)}, "x" * 80 + " and 1 more"),
    ],
)
def test_settings_that_differ_are_shown_shortly(varied: dict[str, Sequence[Any]], said: str) -> None:
    assert changes_text(varied) == said


def test_a_long_value_is_cut() -> None:
    assert value_text("a\nb") == "a b"
    assert len(value_text("x" * 100)) == 40


def test_settings_of_a_damaged_record_are_those_that_are_there() -> None:
    assert settings_of({"epochs": 3, "resolved": 7, "arch": ["swin"], "data": "/home/jane"}) == {
        "epochs": 3,
        "arch": "swin",
    }


def changes_label(run: str, *ids: str) -> None:
    columns = {"id": ids, "label": ["cat"] * len(ids), "change": ["drop"] * len(ids), "new_label": [""] * len(ids)}
    write_changed_labels(Path("runs", run), columns)


@pytest.mark.parametrize("missing", ["base", "clean"])
def test_a_changed_image_of_one_run_only_leaves_its_person_out(write: Writer, missing: str) -> None:
    rows = table()
    changed = str(rows.ids[0])
    for name in ("base", "clean"):
        write(name, rows=rows.take(np.arange(1, len(rows))) if name == missing else rows)
    changes_label("clean", changed)
    found = compare_runs("base", "clean")
    assert (found.rows, found.people) == (116, 29)  # four images a person
    assert any(line.endswith("clean changed training labels of 1") for line in found.notes)


def test_a_person_in_one_run_s_table_is_left_out_by_its_names(write: Writer) -> None:
    """The second run knows two people as one; the changed image belongs to both of its names."""
    rows = table()
    assert rows.persons is not None
    joined = np.where(np.isin(rows.persons, ["p0", "p1"]), "p0", rows.persons)
    write("base")
    write("clean", rows=SampleRows(rows.ids, rows.labels, joined))
    changes_label("clean", str(rows.ids[0]))
    assert compare_runs("base", "clean").people == 28


def test_a_run_that_starts_from_changed_labels_is_compared_on_other_people(write: Writer) -> None:
    write("base")
    write("clean")
    changes_label("clean", str(table().ids[0]))
    write("further", recipe=Recipe(init_run="clean"))
    write("student", resolved={"teacher": "further"})
    for name in ("further", "student"):
        found = compare_runs("base", name)
        assert (found.rows, found.people) == (116, 29)
        assert any(f"{name}, or runs that they learned from, changed" in line for line in found.notes)
