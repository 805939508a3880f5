"""Evidence from files: names of runs and blends, files of other programs, tables, and what is missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble as en
from ensemble.report.evidence import groups
from ensemble.report.evidence.evidence import SOFT_VOTE
from ensemble.report.evidence.load import load_evidence
from ensemble.report.verdict.verdict_sentences import sentences
from folds.errors import EnsembleError
from folds.metrics.classification import METRICS
from folds.predictions.changed_labels import write_changed_labels
from folds.utils.files import write_json
from tests.ensemble.report.column_worlds import draw_numbers, write_runs
from tests.ensemble.report.evidence_worlds import draw_evidence
from tests.ensemble.report.report_worlds import by_image, write_run, write_world


def runs_of(root: Path) -> list[str]:
    return [str(path) for path in sorted((root / "runs").glob("*.npy"))]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_world(tmp_path_factory.mktemp("world"))
    en.blend(runs_of(root), method="soft").save("soft", root=root)
    en.blend(runs_of(root), method="greedy").save("fitted", root=root)
    return root


def names(root: Path, *what: str) -> list[tuple[str, str]]:
    found = load_evidence(what, root)
    assert found.oof is not None
    return [(one.name, one.kind) for one in found.oof.members]


def test_without_names_all_runs_and_the_newest_blend_are_read(world: Path) -> None:
    runs = [("run0", "run"), ("run1", "run"), ("run2", "run"), ("run0 (hflip)", "tta")]
    assert names(world) == [*runs, ("blend fitted", "blend"), (SOFT_VOTE, "blend")]


def test_without_names_the_page_is_about_one_task(tmp_path: Path) -> None:
    numbers = draw_numbers(people=6, per_person=2)
    for at in range(2):
        write_run(tmp_path / "runs", f"cats{at}", *_first(draw_evidence(people=6, per_person=2), at))
    assert numbers.oof is not None
    renamed = tuple(replace(one, name=f"a_{one.name}") for one in numbers.oof.members[:1])
    part = replace(numbers.oof, members=renamed)
    write_runs(tmp_path / "runs", replace(numbers, oof=part, test=replace(part, name="test", fold=None)))
    evidence = load_evidence(root=tmp_path)
    assert evidence.oof is not None
    assert [one.name for one in evidence.oof.members if one.kind == "run"] == ["cats0", "cats1"]
    assert (evidence.task, evidence.metric) == ("classes", "macro_f1")
    assert any("a_run0" in line for line in evidence.warnings)
    assert load_evidence(["a_run0"], tmp_path).task == "regression"


def _first(evidence: Any, at: int) -> tuple[Any, Any, Any]:
    return evidence.oof, evidence.oof.members[at], evidence.classes


def test_a_named_run_comes_with_its_views_and_a_named_blend_with_its_runs(world: Path) -> None:
    assert names(world, "run0") == [("run0", "run"), ("run0 (hflip)", "tta")]
    assert names(world, "run1", "soft") == [("run1", "run"), ("blend soft", "blend")]
    assert names(world, "blends/soft") == [("run0", "run"), ("run1", "run"), ("run2", "run"), ("blend soft", "blend")]
    assert names(world, str(world / "runs" / "blends" / "soft" / "blend.toml")) == names(world, "soft")
    assert names(world, str(world / "runs" / "run2")) == [("run2", "run")]


def test_everything_that_is_on_disk_is_read(world: Path) -> None:
    found = load_evidence((), world)
    assert found.oof is not None
    assert found.test is not None
    drawn = draw_evidence(people=24, per_person=4)
    assert drawn.oof is not None
    assert found.oof.ids.tolist() == drawn.oof.ids.tolist()
    assert found.oof.labels.tolist() == drawn.oof.labels.tolist()
    assert found.oof.fold is not None
    assert found.oof.fold.tolist() == (np.repeat(np.arange(24), 4) % 5).tolist()
    for at in range(3):
        np.testing.assert_allclose(found.oof.members[at].probabilities, drawn.oof.members[at].probabilities, atol=1e-6)
    assert [one.passes for one in found.oof.members] == [
        1,
        1,
        1,
        10,
        3,
        3,
    ]  # the views have no test predictions: all folds count
    run = found.runs["run0"]
    assert (run.k, sorted(run.history), len(run.history[0]), run.done[2]["epochs"]) == (5, [0, 1, 2, 3, 4], 10, 10)
    assert (run.folds, run.tested, found.blend_name) == ({}, (0,), "blend fitted")
    assert run.history[0][0] == {"epoch": 1, "loss": 2, "lr": 0.001, "seconds": 1.5, "validation_macro_f1": 0.2}
    assert found.table is not None
    assert (len(found.table.ids), int(found.table.test.sum()), set(found.table.attributes)) == (144, 48, {"site"})
    assert found.table.width is not None
    assert set(found.table.width.tolist()) == {32}
    assert found.table.height is not None
    assert set(found.table.height.tolist()) == {24}
    assert found.table.brightness is not None
    assert np.isfinite(found.table.brightness).all()
    assert found.table.left_out == 0
    assert len(found.paths) == 144
    assert found.thumbnail(str(found.oof.ids[0])) == f"thumbnail:{found.oof.ids[0]}"


def test_the_stored_predictions_of_a_fitted_blend_are_nested_and_the_fit_on_all_is_beside_them(world: Path) -> None:
    found = load_evidence(["fitted"], world)
    assert found.oof is not None
    member = found.oof.member("blend fitted")
    assert member is not None
    assert member.in_sample is not None
    blend = en.blend(runs_of(world), method="greedy")
    assert blend.nested is not None
    metric = METRICS["macro_f1"]
    assert metric(found.oof.labels, member.probabilities) == pytest.approx(blend.nested.value)
    assert metric(found.oof.labels, member.in_sample) == pytest.approx(blend.in_sample)
    assert found.blend is not None
    assert found.blend["method"] == "greedy"


def test_a_blend_that_is_not_worse_is_suggested_and_the_best_single_run_is_the_simple_choice(world: Path) -> None:
    found = load_evidence((), world)
    assert (found.recommended, found.simple) == ("blend fitted", "run0")
    assert load_evidence(["run0"], world).recommended == "run0"
    assert load_evidence(["run0", "run1", "run2"], world).recommended in (SOFT_VOTE, "run0")


def test_files_of_another_program_need_no_run(tmp_path: Path) -> None:
    drawn = draw_evidence(people=12, per_person=3)
    assert drawn.oof is not None
    for at in range(2):
        lines = [
            ",".join([sample, drawn.classes[label], person, *(f"{value:.6f}" for value in row)])
            for sample, label, person, row in zip(
                drawn.oof.ids.tolist(), drawn.oof.labels.tolist(), drawn.oof.persons.tolist(),
                drawn.oof.members[at].probabilities.tolist(), strict=True,
            )
        ]  # fmt: skip
        (tmp_path / f"model{at}.csv").write_text("\n".join(["id,label,person,cat,dog,eel", *lines]) + "\n")
    found = load_evidence([str(tmp_path / "model*.csv")], tmp_path)
    assert found.oof is not None
    assert [one.name for one in found.oof.members] == ["model0", "model1", SOFT_VOTE]
    assert found.oof.persons_known
    assert found.table is not None
    assert (found.table.labels == np.array(drawn.classes)[drawn.oof.labels]).all()
    assert not found.paths


def test_a_table_alone_is_evidence_of_the_data(world: Path) -> None:
    found = load_evidence([str(world / "table.csv")], world)
    assert (found.oof, found.recommended) == (None, None)
    assert found.table is not None
    assert len(found.table.ids) == 144


def test_missing_images_and_a_missing_table_are_no_errors(tmp_path: Path) -> None:
    root = write_world(tmp_path, images=False, views=False, people=12)
    found = load_evidence((), root)
    assert found.paths == {}
    assert found.table is not None
    assert found.table.width is None
    (root / "table.csv").unlink()
    found = load_evidence((), root)
    assert any("the table of the images is not shown" in line for line in found.warnings)
    assert found.table is not None
    assert set(found.table.labels.tolist()) == {"cat", "dog", "eel"}


def test_damaged_records_are_left_out(tmp_path: Path) -> None:
    root = write_world(tmp_path, images=False, views=False, people=12)
    (root / "runs" / "run0" / "config.toml").write_text("k = = 3")
    (root / "runs" / "run1" / "fold0" / "history.csv").write_bytes(b"\xff\x00,loss\nx,y\n1,2\n")
    (root / "runs" / "run1" / "folds.json").write_text("{")
    (root / "runs" / "run1" / "environment.json").write_text("[]")
    write_json(root / "runs" / "run2" / "folds.json", {"k": 5, "seed": 3, "stratify": ["site"]})
    found = load_evidence((), root)
    assert sorted(found.runs) == ["run1", "run2"]
    assert (found.runs["run1"].folds, found.runs["run1"].environment) == ({}, {})
    assert found.runs["run2"].folds["stratify"] == ["site"]
    assert len(found.runs["run1"].history[0]) == 2


def test_a_split_by_image_is_set_apart_and_alone_it_fails(tmp_path: Path) -> None:
    root = write_world(tmp_path, images=False, views=False, people=12)
    drawn = draw_evidence(people=12, per_person=4)
    assert drawn.oof is not None
    write_run(root / "runs", "leaky", by_image(drawn.oof), drawn.oof.members[0], drawn.classes)
    found = load_evidence((), root)
    assert found.oof is not None
    assert "leaky" not in [one.name for one in found.oof.members]
    assert found.by_image["leaky"].value == pytest.approx(
        METRICS["macro_f1"](drawn.oof.labels, drawn.oof.members[0].probabilities)
    )
    alone = load_evidence(["leaky"], root)
    assert alone.oof is not None
    assert alone.oof.persons_known
    assert alone.oof.persons.tolist() == drawn.oof.persons.tolist()
    assert alone.oof.fold is not None
    assert (alone.recommended, alone.simple) == (None, None)
    (said,) = sentences(alone)
    assert said.startswith("Submit nothing yet: 12 people are in more than one fold")


def test_a_recorded_table_of_the_system_is_not_read(tmp_path: Path) -> None:
    root = write_world(tmp_path, images=False, views=False, people=12)
    for name in ("run0", "run1", "run2"):
        config = root / "runs" / name / "config.toml"
        config.write_text(config.read_text().replace('"table.csv"', '"/proc/self/environ"'))
    found = load_evidence((), root)
    assert any("is not shown" in line for line in found.warnings)


def test_a_blend_whose_record_names_other_places_does_not_lead_out(world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "blends" / "mine"
    folder.mkdir(parents=True)
    for path in (world / "runs" / "blends" / "soft").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for path in (world / "runs").glob("samples-*.csv"):
        (folder / path.name).write_bytes(path.read_bytes())
    record = json.loads((folder / "blend.json").read_text())
    record["inputs"] = [{"path": "runs/../../../etc/passwd", "run": "../x", "sha": ""}]
    record["runs"] = [{"run": "../../x", "weight": 1}, 3, {"run": None, "weight": 1}]
    (folder / "blend.json").write_text(json.dumps(record))
    assert names(tmp_path, "mine") == [("blend mine", "blend")]


def test_unknown_names_are_one_clear_line(world: Path, tmp_path: Path) -> None:
    with pytest.raises(EnsembleError, match="did you mean run1"):
        load_evidence(["run11"], world)
    with pytest.raises(EnsembleError, match="no predictions"):
        load_evidence((), tmp_path)
    with pytest.raises(EnsembleError, match="no file matches"):
        load_evidence([str(tmp_path / "*.npy")], tmp_path)


def test_results_of_python_are_named_as_themselves(world: Path) -> None:
    found = load_evidence([en.load_run("run1", root=world)], world)
    assert found.oof is not None
    assert [one.name for one in found.oof.members] == ["run1"]
    assert list(found.runs) == ["run1"]


def test_an_unlabeled_test_part_is_kept(tmp_path: Path) -> None:
    root = write_world(tmp_path, images=False, views=False, people=12)
    for path in (root / "runs").glob("*.test.json"):
        record = json.loads(path.read_text())
        record.pop("labels", None)
        path.write_text(json.dumps(record))
    (root / "table.csv").unlink()
    found = load_evidence((), root)
    assert found.test is not None
    assert set(found.test.labels.tolist()) == {-1}


def test_changed_labels_of_runs_are_those_of_their_views_and_blends(tmp_path: Path) -> None:
    root = write_world(tmp_path, images=False, people=12)
    changed = {"run0": "oof/p000_0.jpg", "run2": "oof/p003_1.jpg"}
    for name, sample in changed.items():
        columns = {"id": [sample], "label": ["cat"], "change": ["relabel"], "new_label": ["dog"]}
        write_changed_labels(root / "runs" / name, columns)
    en.blend([one for one in runs_of(root) if "run1" not in one], method="soft").save("two", root=root)
    found = load_evidence(("run0", "run1", "run2", "two"), root)
    assert found.oof is not None
    assert {one.name: sorted(one.changed) for one in found.oof.members} == {
        "run0": [changed["run0"]],
        "run0 (hflip)": [changed["run0"]],
        "run1": [],
        "run2": [changed["run2"]],
        "blend two": sorted(changed.values()),
        SOFT_VOTE: sorted(changed.values()),
    }
    (root / "runs" / "run0" / "changed_labels.csv").write_text("sample,label\nx,cat\n")
    assert any("the changed labels of run0 are not left out" in line for line in load_evidence(["run0"], root).warnings)


def test_models_that_were_selected_are_optimistic_out_of_fold_only(tmp_path: Path) -> None:
    root = write_world(tmp_path, images=False, views=False, people=12)
    write_json(root / "runs" / "run0" / "fold1" / "done.json", {"fold": 1, "optimistic": True})
    found = load_evidence(["run0", "run1"], root)
    assert found.oof is not None
    assert found.test is not None
    members = ["run0", "run1", SOFT_VOTE]
    assert [[part.member(name).selected_on_validation for name in members] for part in (found.oof, found.test)] == [  # type: ignore[union-attr]
        [True, False, True],
        [False, False, False],
    ]


def test_the_limit_of_pixels_does_not_need_a_window(tmp_path: Path) -> None:
    root = write_world(tmp_path, images=False, views=False, people=12)
    config = root / "runs" / "run1" / "config.toml"
    config.write_text(config.read_text() + "max_pixels = 5000\n")
    found = load_evidence((), root)
    assert (found.window, found.max_pixels) == (None, 5000)
    other = root / "runs" / "run2" / "config.toml"
    other.write_text(other.read_text() + 'window = "10,90"\n')
    found = load_evidence((), root)
    assert (found.window, found.max_pixels) == ((10, 90), 5000)


def test_the_fit_on_all_people_is_matched_by_the_names_of_the_classes(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def turned(*given: Any) -> Any:
        found = original(*given)
        assert found is not None
        return replace(found, values=found.values[:, ::-1], classes=found.classes[::-1])

    original, expected = groups.fitted_on_all, load_evidence(["fitted"], world)
    monkeypatch.setattr(groups, "fitted_on_all", turned)
    found = load_evidence(["fitted"], world)
    values = []
    for one in (expected, found):
        assert one.oof is not None
        member = one.oof.member("blend fitted")
        assert member is not None
        assert member.in_sample is not None
        values.append(member.in_sample)
    np.testing.assert_array_equal(values[0], values[1])
