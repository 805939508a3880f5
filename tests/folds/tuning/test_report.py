"""The report of a tuning, from the records that its trials have left: no Ray, nothing trained."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from folds.errors import EnsembleError
from folds.tuning.report import write_report
from folds.tuning.study import Study, as_started, make_study, open_study
from folds.tuning.trials import FAILED, FINISHED, STOPPED, Trial, write_trial

SPACE = """
arch = "test_resnet"
k = 3
epochs = 4

[space]
lr = [1e-4, 1e-3, 1e-2, 1e-1]
batch_size = [8, 16]

[tune]
trials = 8
folds = [0]
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    (tmp_path / "space.toml").write_text(SPACE)
    return make_study({}, tmp_path / "space.toml", root=tmp_path / "root")


def ended(study: Study, number: int, state: str, score: float | None) -> None:
    values = study.candidates[number].values
    folds = {} if score is None else {0: score}
    write_trial(study.trial_dir(number), Trial(number, values, state, score, folds, 4, 4, 1.0, "ill" * (score is None)))


def test_the_best_finished_trial_is_written_into_the_root(study: Study, tmp_path: Path) -> None:
    for number, (state, score) in enumerate([(FINISHED, 0.5), (FINISHED, 0.7), (STOPPED, 0.9), (FAILED, None)]):
        ended(study, number, state, score)
    report = write_report(study, ["t004: lost"])
    assert [trial.number for trial in report.trials] == [1, 0, 2, 3]
    assert report.best is not None
    assert (report.best.number, report.scored, report.lost, report.importance) == (1, 3, ("t004: lost",), None)
    assert report.best_file == tmp_path / "root/runs/tune/space/best.toml"
    assert tomllib.loads(report.best_file.read_text())["lr"] == study.candidates[1].values["lr"]
    record = report.to_dict()
    assert (record["best"]["trial"], record["best"]["optimistic"], record["best"]["checked"]) == ("t001", True, None)
    assert Path(record["files"][0]).name == "trials.csv"
    assert list(Path().iterdir()) == []


def test_without_a_finished_trial_there_is_a_table_and_no_best(study: Study) -> None:
    ended(study, 0, FAILED, None)
    report = write_report(study)
    assert (report.best, report.best_file, [path.name for path in report.files]) == (None, None, ["trials.csv"])
    assert report.to_dict()["best"] is None
    assert not (study.folder / "best.toml").exists()


def test_where_nothing_has_ended_nothing_is_written(study: Study) -> None:
    report = write_report(study, ["t000: lost"])
    assert (report.trials, report.files, report.lost) == ((), (), ("t000: lost",))
    assert not study.folder.exists()


def test_enough_trials_have_an_importance(study: Study) -> None:
    for number in range(8):
        ended(study, number, FINISHED, 0.5 + 0.05 * number)
    report = write_report(study)
    assert report.importance is not None
    assert report.to_dict()["importance"] == report.importance.to_dict()


def test_a_study_continues_with_the_folds_of_its_beginning(study: Study, tmp_path: Path) -> None:
    config, root = tmp_path / "space.toml", tmp_path / "root"
    assert study.found_folds is None
    with open_study(study):
        pass
    (root / "folds.csv").write_text("id,label,person,fold\n")
    later = make_study({}, config, root=root)
    assert later.found_folds == root / "folds.csv"
    assert as_started(later).found_folds is None
    with open_study(as_started(later), resume=True):
        pass
    with pytest.raises(EnsembleError, match="started with different settings"), open_study(later, resume=True):
        pass
    with open_study(later, force=True):
        pass
    (root / "folds.csv").unlink()
    assert as_started(make_study({}, config, root=root)).found_folds == root / "folds.csv"
