"""The section on heat maps: which images, by which model, and what it says when something is missing."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ensemble as en
from ensemble.report.evidence.evidence import Evidence, Part, Predicted
from ensemble.report.evidence.load import load_evidence
from ensemble.report.heatmaps.heatmaps import heatmaps_section
from ensemble.report.page.blocks import Gallery, Missing, Section, Text
from folds.predictions.files import read_sidecar
from tests.ensemble.column_runs import NAMES, write_run, write_table
from tests.ensemble.report.evidence_worlds import draw_evidence


def evidence_of(root: Path, heat_maps: int, run: str = "test_resnet") -> Evidence:
    """The evidence of a run in a folder, with the paths of its images."""
    table = en.read_table(root / "people")
    parts = {}
    classes: tuple[str, ...] = ()
    for split in ("oof", "fold0.test"):
        sidecar = read_sidecar(root / f"runs/{run}.{split}.npy")
        assert sidecar is not None
        classes, rows = sidecar.classes, sidecar.rows
        labels = (
            np.array([classes.index(name) for name in rows.labels])
            if rows.labels is not None
            else np.full(len(rows), -1)
        )
        member = Predicted(run, "run", np.load(root / f"runs/{run}.{split}.npy"))
        name = "oof" if split == "oof" else "test"
        persons = rows.ids if rows.persons is None else rows.persons
        fold = np.asarray(sidecar.fold) if name == "oof" else None
        parts[name] = Part(name, rows.ids, labels, persons, fold, (member,))
    tables = [one for one in (table.train, table.test) if one is not None]
    paths = {str(i): Path(path) for one in tables for i, path in zip(one.ids, one.paths or ())}
    return Evidence(
        classes, parts["oof"], parts["test"], paths=paths, root=root, heat_maps=heat_maps, recommended="blend"
    )


def galleries(section: Section) -> list[Gallery]:
    return [block for block in section.blocks if isinstance(block, Gallery)]


def missing(section: Section) -> str:
    (block,) = section.blocks
    assert isinstance(block, Missing)
    return block.how


def test_mistakes_right_predictions_and_test_images_are_shown(grid: Path) -> None:
    pytest.importorskip("pytorch_grad_cam", reason="needs the extra explain")
    evidence = evidence_of(grid, 6)
    part = evidence.oof
    assert part is not None
    section = heatmaps_section(evidence)
    out_of_fold, test = galleries(section)
    assert len(out_of_fold.pictures) == 6
    assert len(test.pictures) == 3
    row = {name: i for i, name in enumerate(part.ids.tolist())}
    predicted = part.members[0].probabilities.argmax(1)
    persons = []
    for picture in out_of_fold.pictures:
        at = row[picture.title]
        assert picture.tags["kind"] == ("right" if predicted[at] == part.labels[at] else "mistake")
        assert picture.tags["predicted"] == evidence.classes[predicted[at]]
        assert f"model of fold {part.fold[at]}, out of fold" in picture.lines[1]  # type: ignore[index]
        persons += [part.persons[at]] if picture.tags["kind"] == "mistake" else []
    assert len(persons) == len(set(persons)) == 3
    widths = [
        Image.open(io.BytesIO(base64.b64decode(one.source.partition(",")[2]))).size
        for one in (out_of_fold.pictures[0], test.pictures[0])
    ]
    assert widths == [(448, 224), (672, 224)]  # input and heat; for test images the disagreement as well
    lead = section.blocks[0]
    assert isinstance(lead, Text)
    assert re.match(r"Of the heat, \d+% in the center and \d+% at the border ", lead.paragraphs[0])
    assert "mean of the models of 3 folds" in test.pictures[0].lines[1]
    again = heatmaps_section(evidence)
    assert galleries(again) == galleries(section)


def test_what_is_missing_says_how_to_get_it(grid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--heat-maps 8" in missing(heatmaps_section(draw_evidence()))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "ensemble-folds[explain]" in missing(heatmaps_section(evidence_of(grid, 4)))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert "Keep checkpoints/RUN" in missing(heatmaps_section(draw_evidence(heat_maps=4)))
    without = evidence_of(grid, 4)
    assert "cannot be read" in missing(
        heatmaps_section(Evidence(without.classes, without.oof, None, root=grid, heat_maps=4))
    )


def test_only_checkpoints_of_the_run_are_read(grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pytorch_grad_cam", reason="needs the extra explain")
    (tmp_path / "test_resnet").mkdir()
    (tmp_path / "test_resnet" / "fold0.pt").write_text("of a stranger")
    monkeypatch.chdir(tmp_path)  # a folder with the name of the run is no checkpoint
    assert len(galleries(heatmaps_section(evidence_of(grid, 2)))[0].pictures) == 2


@pytest.mark.parametrize("name", ["..", ".", "../elsewhere", "a/b", "a\\b"])
def test_a_name_that_leads_elsewhere_has_no_checkpoints(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoints" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fold0.pt").touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    drawn = draw_evidence(heat_maps=4, root=tmp_path)
    assert drawn.oof is not None
    part = replace(drawn.oof, members=(replace(drawn.oof.members[0], name=name),))
    assert "Keep checkpoints/RUN" in missing(heatmaps_section(replace(drawn, oof=part)))


@pytest.mark.parametrize(("task", "run"), [("multilabel", "labels"), ("regression", "numbers")])
def test_each_label_or_number_has_its_own_heat(task: str, run: str, tmp_path: Path) -> None:
    pytest.importorskip("pytorch_grad_cam", reason="needs the extra explain")
    write_table(tmp_path)
    write_run(tmp_path, task, run)
    config = tmp_path / "runs" / run / "config.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(f'data = "train.csv"\nlabel = "{",".join(NAMES[task])}"\ntask = "{task}"\nperson = "person"\n')
    evidence = replace(load_evidence([run], tmp_path, data=tmp_path / "train.csv"), heat_maps=4)
    section = heatmaps_section(evidence)
    part = evidence.oof
    assert part is not None
    out_of_fold = galleries(section)[0]
    values, word = part.members[0].probabilities, "label" if task == "multilabel" else "number"
    row = {name: i for i, name in enumerate(part.ids.tolist())}
    kinds = [one.tags["kind"] for one in out_of_fold.pictures]
    assert kinds[:2] == ["mistake", "mistake"]
    assert len({part.persons[row[one.title]] for one in out_of_fold.pictures[:2]}) == 2
    for one in out_of_fold.pictures:
        at, column = row[one.title], evidence.classes.index(one.tags[word])
        value, true = values[at, column], part.labels[at, column]
        assert part.fold is not None
        assert f"model of fold {part.fold[at]}, out of fold" in one.lines[2]
        if task == "multilabel":
            assert one.lines[0] == f"table: {'has' if true else 'no'} {one.tags[word]}"
            assert f"heat for {one.tags[word]} ({value:.2f})" in one.lines[1]
            assert (one.tags["kind"] == "mistake") == ((value > 0.5) != (true == 1))
        else:
            assert float(one.lines[0].split()[1].rstrip(",")) == pytest.approx(true, abs=0.06)
            assert f"heat for {one.tags[word]} {value:.4g}" in one.lines[1]
    assert not [block for block in section.blocks if isinstance(block, Missing)]
