"""The report of blends for people: a row is a person, and what each pooling rule would have scored."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ensemble as en
from ensemble.report.compare.pooling_rules import _fitter, pooling_section, score_rules
from ensemble.report.contents import modules_of
from ensemble.report.evidence.evidence import Evidence
from ensemble.report.evidence.load import load_evidence, thumbnails_of
from ensemble.report.evidence.mistakes_data import labeled_rows
from ensemble.report.evidence.scoring import main_predictions
from ensemble.report.face import html_of
from ensemble.report.header import summary_of
from ensemble.report.mistakes.member_answers import mistake_pictures
from ensemble.report.mistakes.mistakes import mistakes_section
from ensemble.report.page.blocks import Gallery, Missing, Section, Table, Text
from ensemble.report.page.thumbnails import TILE
from folds.errors import EnsembleError, UsageError
from folds.predictions.files import PredictionMetadata, write_prediction
from folds.predictions.links import kind_of
from tests.ensemble.blending import test_people as worlds
from tests.ensemble.blending import test_people_columns as column_worlds
from tests.ensemble.report.section_parts import table_of, text_of


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of 45 people and 12 test people, a blend for people with columns of the table, and one for images."""
    folder = tmp_path_factory.mktemp("people")
    train, test = worlds.people(45, 0, "p"), worlds.people(12, 1, "q")
    (folder / "runs").mkdir()
    for run in range(2):
        for split, world, fold in (("oof", train, train["codes"] % 5), ("test", test, 0)):
            end = "oof" if split == "oof" else "fold0.test"
            meaning = PredictionMetadata("probability", split, worlds.CLASSES, world["rows"], fold=fold, run=f"r{run}")
            write_prediction(folder / "runs" / f"r{run}.{end}.npy", world["values"][run], meaning, world["rows"])
    with_columns(folder).save("persons", root=folder)
    blend(folder, pool="max", metric="log_loss").save("plain", root=folder)
    blend(folder, metric="log_loss").save("images", root=folder)
    return folder


def with_columns(folder: Path) -> en.Blend:
    return blend(folder, method="stacking", extra=["age", "site"], pool="max", metric="log_loss")


def blend(folder: Path, **options: object) -> en.Blend:
    return en.blend(str(folder / "runs" / "*.npy"), progress=False, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def evidence(root: Path) -> Evidence:
    return load_evidence(["persons"], root, metric="log_loss")


def test_a_row_is_a_person(root: Path, evidence: Evidence) -> None:
    made = en.read_predictions(root / "runs" / "blends" / "persons" / "oof.npy")
    assert evidence.oof is not None
    assert evidence.blend is not None
    assert evidence.oof.ids.tolist() == evidence.oof.persons.tolist() == made.ids.tolist()
    assert [one.name for one in evidence.oof.members] == ["r0", "r1", "blend persons", "soft vote of all runs"]
    world = worlds.people(45, 0, "p")
    own = evidence.oof.members[0].probabilities[:, 1]
    assert own == pytest.approx(worlds.largest(world["values"][0], world["codes"]), abs=1e-6)  # runs by the same rule
    member = evidence.oof.member("blend persons")
    assert member is not None
    np.testing.assert_array_equal(member.probabilities, made.probabilities)
    assert member.in_sample is not None  # the fit on all people is applied again, with its columns
    loss = -np.log(member.in_sample[np.arange(45), evidence.oof.labels])
    recorded = next(one for one in evidence.blend["fitted"]["methods"] if one["method"] == "stacking")
    assert float(loss.mean()) == pytest.approx(recorded["in_sample"], abs=1e-5)
    assert evidence.pooled is not None
    assert (evidence.pooled.rule, evidence.pooled.chosen) == ("max", False)
    assert evidence.pooled.images_of["p01"] == tuple(world["rows"].ids[world["rows"].persons == "p01"].tolist())
    assert "45 people with" in summary_of(evidence)[1]
    assert "pooled by max" in summary_of(evidence)[1]


def test_mistakes_and_groups_count_people(evidence: Evidence) -> None:
    section = mistakes_section(evidence)
    assert "of 45 people are predicted wrong" in text_of(section)
    assert not re.search(r"\d images? (of|are)", text_of(section))
    groups = table_of(section, "mistakes-columns")
    assert list(groups.header) == ["column", "value", "people", "accuracy", "against others"]
    counts: dict[str, int] = {}
    for row in groups.rows:
        counts[str(row[0])] = counts.get(str(row[0]), 0) + int(str(row[2]))
    assert counts["site"] == counts["images of the person"] == 45
    assert 30 < counts["age"] < 45  # in quarters, without those of whom it is not known
    assert sum(str(row[0]) == "age" for row in groups.rows) == 4
    worst = next(one for one in section.blocks if isinstance(one, Gallery))
    assert worst.pictures[0].title in {f"p{number:02d}" for number in range(45)}
    assert re.search(r"\d images?; mean of the runs for (no|yes): 0\.\d\d", worst.pictures[0].lines[-1])


def test_each_rule_is_scored_nested_on_the_same_people(root: Path) -> None:
    evidence = load_evidence(["plain"], root, metric="log_loss")
    found = score_rules(evidence)
    assert found is not None
    assert found.is_own
    scores = {one.spec.name: one for one in found.rules}
    assert list(scores) == ["mean", "median", "max", "top-k", "noisy-or", "log-odds", "learned"]
    for pool in ("max", "log-odds"):
        made = blend(root, pool=pool, metric="log_loss")
        assert made.nested is not None
        assert scores[pool].score.value == pytest.approx(made.nested.value, abs=1e-6)
    assert scores["mean"].over_mean is None
    over = scores["max"].over_mean
    assert over is not None
    assert over.difference.value == pytest.approx(scores["max"].score.value - scores["mean"].score.value)
    section = pooling_section(evidence)
    rows = table_of(section, "pooling-rules").rows
    assert [float(str(row[2]).split()[0]) for row in rows] == sorted(float(str(row[2]).split()[0]) for row in rows)
    assert "max (this blend)" in [row[0] for row in rows]
    assert "pooled by `max`: the largest value of an image" in text_of(section)
    lost = pooling_section(replace(evidence, blend=None))
    assert any(isinstance(one, Missing) for one in lost.blocks)


@pytest.mark.parametrize(
    ("method", "changes", "is_own"),
    [
        ("soft", {}, True),
        ("geometric", {"weights": {"r0": 0.8, "r1": 0.2}}, False),
        ("power", {"power": 3.0}, False),
        ("power", {"power": 2.0}, True),  # its default
    ],
)
def test_rules_are_scored_with_soft_voting_where_weights_cannot_be_fitted_again(
    evidence: Evidence, method: str, changes: dict[str, object], is_own: bool
) -> None:
    record = {"method": method, "fitted": None, "weights": {"r0": 0.5, "r1": 0.5}, "options": {}} | changes
    fitter, own = _fitter(record, evidence)
    assert own == is_own
    assert fitter.name == (method if is_own else "soft")


def test_a_page_of_people_names_no_command_about_images(evidence: Evidence) -> None:
    found, _ = main_predictions(evidence) or pytest.fail("no predictions")
    rows = labeled_rows(evidence, found, found.members[0])
    assert len(rows.worst()) > 1
    for of_person, named in ((None, True), (lambda person, column: [], False)):
        gallery = mistake_pictures(rows, evidence.picture, 1, of_person=of_person)[0]
        assert isinstance(gallery, Gallery)
        assert "more mistakes are not shown" in (gallery.note or "")
        assert ("ensemble mistakes" in (gallery.note or "")) == named


def test_the_page_shows_columns_and_leaves_out_what_is_of_images(root: Path, evidence: Evidence) -> None:
    gain = {"score": 0.2, "low": 0.1, "high": 0.3}
    member = {"run": "r0", "weight": 1.0, "without": gain}
    columns = {"method": "shapley", "groups": [{"name": "age", "gain": gain}, {"name": "site", "gain": None}]}
    record = dict(evidence.blend or {}) | {"worth": {"metric": "log_loss", "members": [member], "columns": columns}}
    page = html_of(replace(evidence, blend=record), [name for name in modules_of("classes", True) if name != "pooling"])
    assert "could not be made" not in page
    assert "Most is added by age: +0.200 [+0.100, +0.300] log loss." in page
    assert "The predictors are the images and the columns age and site of the table." in page
    assert "pooled by the rule <code>max</code>" in page
    assert "What each column of the samples adds to the blend" in page
    assert {"labels", "heatmaps"}.isdisjoint(modules_of("classes", True))
    assert "pooling" not in modules_of("classes")
    for section in ("labels", "heatmaps"):
        with pytest.raises(UsageError, match="people, pooled from images, has no section"):
            en.report(blend="persons", section=section, root=root, output=root / "no.html", progress=False)
    with pytest.raises(UsageError, match="has no section pooling"):
        en.report(blend="images", section="pooling", root=root, output=root / "no.html", progress=False)
    with pytest.raises(EnsembleError, match="a page has rows of one kind"):
        load_evidence(["persons", "images"], root)


def test_images_of_a_person_are_shown_together(evidence: Evidence, tmp_path: Path) -> None:
    assert evidence.pooled is not None
    person, samples = max(evidence.pooled.images_of.items(), key=lambda entry: len(entry[1]))
    assert len(samples) == 4
    paths = {}
    for number, sample in enumerate(samples):
        paths[sample] = tmp_path / sample
        Image.new("RGB", (200, 100), (40 * number, 0, 0)).save(paths[sample])
    thumbnails = thumbnails_of(replace(evidence, paths=paths))
    reference = thumbnails.reference_of_person(person)
    assert reference.startswith("thumbnail:")
    assert thumbnails.reference_of_person("p999") == ""
    together = thumbnails._together(samples)
    assert together is not None
    assert together.shape == (2 * TILE // 2 + 4, 2 * TILE + 4, 3)  # two by two
    shades = [int(together[top, left, 0]) for top in (5, 100) for left in (5, 200)]
    assert shades == pytest.approx([0, 40, 80, 120], abs=2)


def test_without_a_name_the_page_is_about_the_newest_blend(root: Path) -> None:
    assert load_evidence((), root).pooled is None
    newest = root / "runs" / "blends" / "persons" / "blend.json"
    newest.touch()
    found = load_evidence((), root)
    assert found.pooled is not None
    assert found.blend_name == "blend persons"


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_labels_and_numbers_of_people(task: str, tmp_path: Path) -> None:
    world = column_worlds.people(task, 25, 0, "p")
    (tmp_path / "runs").mkdir()
    for run in range(2):
        meaning = PredictionMetadata(
            kind_of(task), "oof", column_worlds.NAMES, world["rows"], fold=world["codes"] % 5, run=f"r{run}", task=task
        )
        write_prediction(tmp_path / "runs" / f"r{run}.oof.npy", world["values"][run], meaning, world["rows"])
    blend(tmp_path, pool="learned" if task == "regression" else "mean").save("x", root=tmp_path)
    evidence = load_evidence(["x"], tmp_path)
    assert evidence.oof is not None
    assert len(evidence.oof) == 25
    if task == "regression":
        found = score_rules(evidence)
        assert found is not None
        assert evidence.blend is not None
        own = next(one for one in found.rules if one.spec.name == "learned")
        recorded = next(one for one in evidence.blend["fitted"]["methods"] if "learned" in one["method"])
        assert own.score.value == pytest.approx(recorded["nested"]["score"], abs=1e-6)
    page = html_of(evidence, [name for name in modules_of(task, True) if name != "pooling"])
    assert "could not be made" not in page
    module = __import__(modules_of(task, True)["mistakes"], fromlist=["mistakes_section"])
    section: Section = module.mistakes_section(evidence)
    name = "mistakes-labels" if task == "multilabel" else "mistakes-errors"
    tables = {one.name: one for one in section.blocks if isinstance(one, Table)}
    assert "images" not in tables[name].header
    assert any(isinstance(one, Gallery) for one in section.blocks)
    assert not any("image" in line for one in section.blocks if isinstance(one, Text) for line in one.paragraphs)
