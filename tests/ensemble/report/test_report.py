"""`ensemble report` and `en.report`: the file, its sections, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ensemble as en
from ensemble.report import contents
from ensemble.report.contents import sections_of
from ensemble.report.evidence.evidence import Evidence
from ensemble.report.face import html_of
from ensemble.report.page.blocks import Section, Table
from folds.utils.files import write_json
from tests.conftest import ROOT, call_process
from tests.ensemble.report import hostile
from tests.ensemble.report.evidence_worlds import draw_evidence
from tests.ensemble.report.report_worlds import write_world
from tests.ensemble.report.test_page import Elements
from tests.folds.experiments.loggers.stores import opened


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"), runs=2)


def test_a_report_of_a_folder_is_one_file_with_pictures(world: Path, tmp_path: Path) -> None:
    path = en.report(root=world, output=tmp_path / "page.html", progress=False)
    html = path.read_text(encoding="utf-8")
    assert path == tmp_path / "page.html"
    assert html.count("data:image/jpeg;base64,") > 20
    assert 'id="verdict"' in html
    assert 'id="data"' in html
    assert "Submit <code>" in html
    assert path.stat().st_size < 10_000_000
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_an_existing_file_is_kept_unless_forced(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("mine")
    with pytest.raises(en.EnsembleError, match="exists"):
        en.report("run0", root=world, output=path, progress=False)
    assert path.read_text() == "mine"
    en.report("run0", root=world, output=path, section="verdict", force=True, progress=False)
    html = path.read_text(encoding="utf-8")
    assert 'id="verdict"' in html
    assert 'id="data"' not in html


def test_each_table_of_the_page_is_also_a_file_where_asked(world: Path, tmp_path: Path) -> None:
    path, folder = tmp_path / "page.html", tmp_path / "paper" / "tables"
    en.report(root=world, output=path, section=["data", "method"], tables=folder, progress=False)
    html = path.read_text(encoding="utf-8")
    names = {one.stem for one in folder.iterdir()}
    assert names == set(re.findall(r'data-table="([^"]+)"', html))
    assert {"data-classes", "method-parts", "method-settings", "method-claim", "method-tripod"} <= names
    assert {one.suffix for one in folder.iterdir()} == {".csv", ".md", ".tex"}
    (folder / "method-parts.tex").write_text("edited")
    path.unlink()
    with pytest.raises(en.EnsembleError, match="of these names"):
        en.report("run0", root=world, output=path, section="method", tables=folder, progress=False)
    assert not path.exists()  # neither the page nor a table
    assert (folder / "method-parts.tex").read_text() == "edited"
    with pytest.raises(en.EnsembleError, match="not a folder"):
        en.report("run0", root=world, output=path, tables=folder / "method-parts.tex", progress=False)


def test_wrong_arguments_are_one_line_and_write_nothing(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    for wrong, message in (
        ({"section": "verdit"}, "did you mean verdict"),
        ({"section": "methods"}, "did you mean method"),
        ({"metric": "macro_f2"}, "did you mean macro_f1"),
        ({"runs": "run9"}, "did you mean run"),
        ({"runs": [3]}, "found a int"),
    ):
        given: dict[str, Any] = wrong
        with pytest.raises((en.EnsembleError, en.UsageError), match=message):
            en.report(**given, root=world, output=path, progress=False)
    assert not path.exists()


def test_the_page_is_opened_where_asked(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    path = en.report("run0", root=world, output=tmp_path / "page.html", section="verdict", open=True, progress=False)
    assert shown == [path.absolute().as_uri()]


def test_the_page_is_stored_with_the_runs_that_it_shows(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = opened("fake wandb", tmp_path, monkeypatch)
    path = tmp_path / "page.html"
    with pytest.raises(en.EnsembleError, match=r"none of the runs of this report \(run0\) was logged to wandb"):
        en.report("run0", root=world, output=path, section="verdict", log_to="wandb", progress=False)
    assert not path.exists()
    logged_to = {"place": "http://127.0.0.1:9", "project": "faces", "group": "base", "run": "abc"}
    for run in ("run0", "run1"):
        write_json(world / "runs" / run / "wandb.json", logged_to)
    en.report(root=world, output=path, section="verdict", log_to=["wandb"], progress=False)
    assert [(name, one.group, one.files) for name, one in tracker.seen().items()] == [
        ("base/report", "base", {"base-report": ["page.html"]})
    ]
    assert tracker.started[0]["project"] == "faces"
    with pytest.raises(en.UsageError, match="TensorBoard stores no files"):
        en.report("run0", root=world, output=path, force=True, log_to="tensorboard", progress=False)


def test_a_section_that_fails_does_not_take_the_others_along(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(evidence: Evidence) -> Section:
        raise RuntimeError(hostile.SCRIPT)

    monkeypatch.setattr("ensemble.report.data.data.data_section", broken)
    sections = {one.name: one for one in sections_of(draw_evidence(), ["verdict", "data"])}
    assert list(sections) == ["verdict", "data"]
    html = html_of(draw_evidence(), ["verdict", "data"])
    assert "could not be made: RuntimeError" in html
    assert hostile.SCRIPT not in html


def test_a_section_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(contents.SECTIONS, "later", "ensemble.report.nothing")
    assert [one.name for one in sections_of(draw_evidence(), ["verdict", "later"])] == ["verdict"]


def test_all_sections_that_are_accepted_are_there() -> None:
    assert [name for name, module in contents.SECTIONS.items() if importlib.util.find_spec(module) is None] == []


def test_every_section_has_unique_tables_and_says_what_is_missing() -> None:
    """No section raises for evidence without tables, images, runs, or predictions."""
    whole = draw_evidence()
    for evidence in (
        whole,
        replace(whole, test=None, table=None),
        replace(whole, oof=None, test=None, recommended=None, simple=None, table=None),
    ):
        for section in sections_of(evidence):
            assert section.blocks
            assert not [one for one in section.blocks if "internal error" in getattr(one, "how", "")]
        assert html_of(evidence)


def test_names_of_strangers_do_not_get_into_the_page_as_elements() -> None:
    classes = (hostile.SCRIPT, hostile.ATTRIBUTE, hostile.SVG)
    html = html_of(draw_evidence(classes=classes, recommended="blend soft"))
    assert hostile.SCRIPT not in html
    elements = Elements(html).found
    assert sum(tag == "script" for tag, _ in elements) == 1
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]


def test_without_jinja2_the_error_names_the_extra(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "jinja2" else found(name, *rest)
    )
    with pytest.raises(en.EnsembleError, match="needs jinja2") as error:
        en.report(root=world, output=tmp_path / "page.html", progress=False)
    assert "ensemble-folds[report]" in str(error.value.hint)


def test_the_command_writes_the_page_and_says_where(world: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    tables = ("--tables", tmp_path / "tables", "--no-formulas", "--section", "method")
    words = ["report", "run0", "-o", path, "--section", "verdict", "--score-by", "person", *tables, "--json"]
    done = call_process(words, world)
    assert done.code == 0, done.err
    said = {"path": str(path), "bytes": path.stat().st_size, "tables": str(tmp_path / "tables")}
    assert json.loads(done.out) == said
    assert (tmp_path / "tables" / "method-claim.csv").is_file()
    assert "averaged over each person" in path.read_text(encoding="utf-8")
    again = call_process(["report", "run0", "-o", path], world)
    assert again.code == 1
    assert "exists" in again.err
    assert "--force" in again.err


def test_the_wheel_has_the_templates() -> None:
    import tomllib

    with open(ROOT / "pyproject.toml", "rb") as file:
        packaged = tomllib.load(file)["tool"]["setuptools"]["package-data"]["ensemble"]
    folder = ROOT / "ensemble"
    found = {path for pattern in packaged for path in folder.glob(pattern)}
    assert {path for path in (folder / "report" / "page" / "templates").iterdir() if path.is_file()} <= found


def test_tables_of_all_sections_have_a_row_for_each_header() -> None:
    for section in sections_of(draw_evidence()):
        for block in section.blocks:
            if isinstance(block, Table):
                assert {len(row) for row in block.rows} <= {len(block.header)}, block.name
