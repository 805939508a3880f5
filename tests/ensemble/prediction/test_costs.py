"""The table of costs: scores on unseen people, differences to the full blend, passes, sizes; what is missing says how."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble as en
from ensemble.prediction import costs as module
from ensemble.prediction.costs import costs
from ensemble.prediction.costs_scores import PartScores
from ensemble.prediction.costs_table import ROWS
from ensemble.prediction.inputs import images_table
from ensemble.prediction.measure import job_of, peak_memory, reduced, seconds_per_image
from ensemble.prediction.source import load_source
from folds.data.table import SampleTable
from folds.errors import EnsembleError, UsageError
from tests.conftest import Called
from tests.ensemble.prediction.test_predict import TEST, _blended, blended

__all__ = ["_blended", "blended"]  # fixtures


def test_each_row_has_the_scores_of_what_it_names(blended: Path) -> None:
    found = costs("views", cascade="exact", measure=False)
    rows = {row.name: row for row in found.rows}
    assert list(rows) == list(ROWS)
    blend = json.loads(Path("runs/blends/views/blend.json").read_text())["blend"]
    assert rows["full blend"].score is not None
    assert rows["full blend"].score.value == pytest.approx(blend["oof"]["score"]["macro_f1"]["score"])
    assert rows["full blend"].test is not None
    assert rows["full blend"].test.value == pytest.approx(blend["test"]["score"]["macro_f1"]["score"])
    run, fold = rows["best fold"].what.split(" fold ")
    folds = en.load_run(run).test
    assert folds is not None
    assert rows["k folds"].test is not None
    assert rows["k folds"].test.value == pytest.approx(folds.score("macro_f1").value)
    one = en.read_predictions(f"runs/{run}.fold{fold}.test.npy")
    assert rows["best fold"].test is not None
    assert rows["best fold"].test.value == pytest.approx(one.score("macro_f1").value)
    assert rows["cascade"].difference is not None
    assert rows["cascade"].difference.difference.value == 0
    size = sum(path.stat().st_size for path in Path(f"checkpoints/{run}").glob("*.pt")) / 1e6
    assert rows["k folds"].megabytes == pytest.approx(size)
    assert [rows[name].passes for name in ("best fold", "k folds")] == [1, 3]
    assert rows["refit"].missing.startswith("ensemble kfold")
    assert rows["student"].missing
    assert rows["soup"].missing.startswith(f"ensemble soup {run}")


def test_the_best_run_is_chosen_without_the_people_it_is_scored_on(blended: Path) -> None:
    source = load_source("soft")
    loaded = module.load_source_evidence(source, Path())
    fitted = module.fit_loaded(source, loaded, None)
    scores = PartScores(source, loaded, fitted)
    evidence = loaded.evidence
    for part in np.unique(evidence.parts):
        rest, inside = np.flatnonzero(evidence.parts != part), np.flatnonzero(evidence.parts == part)
        best = max(range(2), key=lambda run: loaded.metric(evidence.labels[rest], evidence.first[run, rest]))
        np.testing.assert_array_equal(scores.plain[0][inside], evidence.first[best, inside])


def test_replacements_are_scored_on_the_same_people(blended: Path, tmp_path: Path) -> None:
    for name in ("runs", "checkpoints", "people"):
        shutil.copytree(blended / name, tmp_path / name)
    shutil.copyfile(tmp_path / "checkpoints/test_resnet/fold1.pt", tmp_path / "checkpoints/test_resnet/all.pt")
    (tmp_path / "runs/test_vit/soup.json").write_text(json.dumps({"runs": ["test_resnet", "test_vit"]}))
    found = costs("soft", cascade="exact", student="test_vit", measure=False, root=tmp_path)
    rows = {row.name: row for row in found.rows}
    expected = en.load_run("test_vit").score("macro_f1")
    for name in ("student", "soup"):
        assert rows[name].what == "test_vit"
        assert rows[name].score is not None
        assert rows[name].score.value == pytest.approx(expected.value)
        assert rows[name].passes == 3
        assert rows[name].missing == ""
    assert "procedure" in rows["refit"].what
    assert rows["refit"].score is not None
    assert rows["refit"].score.value == pytest.approx(en.load_run("test_resnet").score("macro_f1").value)
    assert rows["refit"].passes == 1
    np.save(tmp_path / "runs/only.oof.npy", np.zeros((2, 2)))
    with pytest.raises(EnsembleError):
        costs("soft", cascade="exact", student="nothing", measure=False, root=tmp_path)


def test_images_of_the_measurement_are_named_as_for_predict(blended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[tuple[str, ...]] = []

    def seconds(sources: Any, table: SampleTable, device: str, advance: Any) -> dict[str, tuple[float, float]]:
        timed.append(tuple(table.ids.tolist()))
        return dict.fromkeys(sources, (0.5, 2.0))

    monkeypatch.setattr(module, "seconds_per_image", seconds)
    monkeypatch.setattr(module, "peak_memory", lambda job: 3e6)
    table = images_table(TEST, load_source("soft"))
    for images in (TEST, table, [str(path) for path in table.paths or ()]):
        found = en.costs("soft", images, cascade="exact", progress=False)
        assert {row.seconds for row in found.rows if not row.missing} == {0.5}
        assert {row.memory for row in found.rows if not row.missing} == {3.0}
    assert timed[0] == timed[1] == tuple(table.ids.tolist())
    assert len(timed[2]) == len(table)
    assert "best fold" in repr(found)
    assert "best fold" in found._repr_html_()
    with pytest.raises(UsageError, match="measure must be True or False"):
        en.costs("soft", measure="no")  # type: ignore[arg-type]


def test_times_and_passes_are_measured_in_turn(blended: Path) -> None:
    source = load_source("soft")
    table = images_table(TEST, source).take(np.arange(8))
    run = {"run": "test_resnet", "plain": True}
    found = seconds_per_image({"full": source, "one": reduced(source, run | {"fold": 1})}, table, "cpu")
    assert found["full"][1] == 6
    assert found["one"][1] == 1
    assert all(seconds >= 0 for seconds, _ in found.values())


def test_memory_is_that_of_a_process_of_its_own(blended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = images_table(TEST, load_source("soft")).take(np.arange(2))
    assert table.paths is not None
    ballast = np.ones(3 << 26)  # 1.5 GiB of this process are not the child's
    peak = peak_memory(job_of("test_resnet", Path(), "cpu", table.paths))
    assert peak is not None
    assert 5e7 < peak < 3 << 29 == ballast.nbytes
    monkeypatch.setattr("sys.executable", "false")  # a process that fails
    assert peak_memory(job_of("test_resnet", Path(), "cpu", table.paths)) is None


def test_the_command_prints_a_table_of_100_columns(blended: Path, tmp_path: Path, call: Callable[..., Called]) -> None:
    out = tmp_path / "costs.csv"
    done = call("costs", "views", "--cascade", "exact", "--no-measure", "--csv", out)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert max(map(len, [line for line in lines if line.startswith(ROWS)])) <= 100
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["row"] for row in rows] == list(ROWS)
    assert float(rows[4]["difference"]) == 0
    assert call("costs", "views", "--no-measure", "--csv", out).code == 1  # it exists
    record = json.loads(call("costs", "views", "--cascade", "exact", "--no-measure", "--json").out)
    assert [row["name"] for row in record["rows"]] == list(ROWS)
    assert record["rows"][4]["passes"] <= record["rows"][3]["passes"]
