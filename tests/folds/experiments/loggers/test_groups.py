"""Trackers that know groups of runs, with stand-ins for their packages, and with the packages where they are installed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from folds.errors import EnsembleError, UsageError
from folds.experiments.loggers.groups import read_tracked, tracked_groups
from folds.experiments.loggers.open import open_tracker
from folds.experiments.loggers.reports import check_report_trackers, report_stores, store_report
from folds.utils.files import read_json, write_json
from tests.conftest import Logged
from tests.folds.experiments.loggers.courses import event, made_job
from tests.folds.experiments.loggers.stores import FakeTrackio, FakeWandB, opened
from tests.folds.ledger_lines import line

FAKES = ("fake wandb", "fake trackio")
ALL = (*FAKES, "wandb", "trackio")


@pytest.fixture(params=ALL)
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    return opened(request.param, tmp_path, monkeypatch)


@pytest.fixture(params=FAKES)
def fake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    return opened(request.param, tmp_path, monkeypatch)


def test_each_fold_is_a_run_of_the_group_and_the_score_of_all_folds_another(
    store: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [made_job(fold=fold, epochs=0) for fold in (0, 1)]
    Path("runs/swin/config.toml").write_text('epochs = 2\nlr = 0.001\ndata = "/home/somebody/people.csv"\n')
    with open_tracker(store.tracker) as tracker:
        for epoch in (1, 2):  # side by side
            for job in jobs:
                tracker.event(job, event(epoch, total=2))
        tracker.entry(line("swin", hypothesis="small is better"))
    seen = store.seen()
    assert sorted(seen) == ["swin", "swin/fold0", "swin/fold1"]
    assert {one.group for one in seen.values()} == {"swin"}
    assert [seen[name].kind for name in sorted(seen)] == ["summary", "fold", "fold"]
    for fold in (0, 1):
        one = seen[f"swin/fold{fold}"]
        assert {step: values["loss/training"] for step, values in one.steps.items()} == {1: 3.0, 2: 1.5}
        assert one.steps[2]["score/macro_f1"] == 0.2
        assert (one.config["fold"], one.config["k"], one.config["lr"]) == (fold, 2, 0.001)
        assert "people.csv" not in str(one.config)
    scores = seen["swin"].summary
    assert (scores["oof/macro_f1"], scores["oof/macro_f1_low"], scores["oof/macro_f1_high"]) == (0.5, 0.4, 0.6)
    assert (seen["swin"].config["loss"], seen["swin"].config["about_hypothesis"]) == ("ce", "small is better")
    assert capsys.readouterr().out == ""


def test_a_resumed_fold_continues_its_run_and_writes_no_epoch_twice(store: Any) -> None:
    with open_tracker(store.tracker) as first:
        first.event(made_job(epochs=2), event(3))
    before = store.seen()["swin/fold1"].id
    with open_tracker(store.tracker) as second:
        for epoch in (3, 4, 5):  # the state was saved after epoch 2
            second.event(made_job(epochs=epoch - 1), event(epoch, total=5))
    seen = store.seen()["swin/fold1"]
    assert seen.id == before
    assert {step: values["loss/training"] for step, values in seen.steps.items()} == {
        epoch: 3.0 / epoch for epoch in (1, 2, 3, 4, 5)
    }


def test_the_summary_is_continued_when_more_folds_are_trained(store: Any) -> None:
    for folds, score in (({"1": "sha"}, 0.4), ({"0": "a", "1": "sha"}, 0.5)):
        with open_tracker(store.tracker) as tracker:
            entry = line("swin", folds=folds)
            entry["oof"]["macro_f1"]["score"] = score
            tracker.entry(entry)
    seen = store.seen()
    assert list(seen) == ["swin"]
    assert (seen["swin"].summary["oof/macro_f1"], seen["swin"].summary["folds"]) == (0.5, 2)


def test_repeats_and_seeds_are_in_the_group_of_their_run(fake: Any) -> None:
    with open_tracker(fake.tracker) as tracker:
        tracker.set_groups({"swin-seed1": "swin", "swin-seed2": "swin"})
        for run in ("swin-seed1", "swin-seed2"):
            tracker.event(made_job(run), event(3, total=3))
            tracker.entry(line(run))
    seen = fake.seen()
    assert sorted(seen) == ["swin-seed1", "swin-seed1/fold1", "swin-seed2", "swin-seed2/fold1"]
    assert {one.group for one in seen.values()} == {"swin"}
    folders = {run: Path("runs") / run for run in ("swin-seed1", "swin-seed2")}
    assert [place.group for place in tracked_groups(fake.tracker, folders)] == ["swin"]


def test_a_fold_that_is_trained_anew_is_another_run(fake: Any) -> None:
    with open_tracker(fake.tracker) as tracker:
        tracker.event(made_job(), event(3))
    before = fake.seen()["swin/fold1"].id
    shutil.rmtree("runs/swin/fold1")  # as `force` does
    with open_tracker(fake.tracker) as tracker:
        tracker.event(made_job(epochs=0), event(1))
    seen = fake.seen()["swin/fold1"]
    assert seen.id != before
    assert set(seen.steps) == {1}


@pytest.mark.parametrize("change", [{"run": "../x y"}, {"run": 3}, {"place": "elsewhere"}, {"project": "other"}])
def test_a_record_of_another_place_or_a_damaged_one_is_not_continued(fake: Any, change: dict[str, Any]) -> None:
    with open_tracker(fake.tracker) as tracker:
        tracker.event(made_job(), event(3))
    before, file = fake.seen()["swin/fold1"].id, Path(f"runs/swin/fold1/{fake.tracker}.json")
    write_json(file, read_json(file) | change)
    with open_tracker(fake.tracker) as tracker:
        tracker.event(made_job(), event(4))
    assert fake.seen()["swin/fold1"].id not in (before, change.get("run"))
    assert read_tracked(file) is not None


def test_a_fold_that_ends_early_is_finished_with_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fake = opened("fake wandb", tmp_path, monkeypatch)
    jobs = [made_job(fold=fold) for fold in (0, 1, 2)]
    with open_tracker("wandb") as tracker:
        tracker.event(jobs[0], event(3, total=3))
        assert fake.stored["swin/fold0"].exit_code == 0  # is not open until the last fold is trained
        for job in jobs[1:]:
            tracker.event(job, event(3, total=9))
        (jobs[1].fold_dir / "done.json").write_text("{}")
    assert [fake.seen()[f"swin/fold{fold}"].exit_code for fold in (0, 1, 2)] == [0, 0, 1]


def test_no_secret_is_sent(fake: Any) -> None:
    made_job()
    Path("runs/swin/config.toml").write_text(
        'hub_token = "hf_abc"\ninit_run = "https://me:key@example.org/a/b.pt?sig=xyz"\n'
    )
    secret = {"api_key": "hf_abc", "loss": "ce", "page": "s3://me:key@example.org/b?sig=xyz"}
    with open_tracker(fake.tracker) as tracker:
        tracker.event(made_job(), event(3))
        tracker.entry(line("swin", settings=secret))
    configs = [one.config for one in fake.seen().values()]
    assert configs[0]["init_run"] == "https://example.org/a/b.pt"
    assert configs[1]["page"] == "s3://example.org/b"
    assert not [word for word in ("hf_abc", "key@", "xyz") if word in str(configs)]


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeWandB:
    monkeypatch.chdir(tmp_path)
    found: FakeWandB = opened("fake wandb", tmp_path, monkeypatch)
    return found


def test_wandb_is_offline_until_somebody_is_logged_in(wandb: FakeWandB, logged: Logged) -> None:
    with open_tracker("wandb") as tracker:
        tracker.event(made_job(), event(3))
    assert wandb.started[0]["mode"] == "offline"
    assert (
        logged.notes[-1] == "W&B is offline (no account is logged in): `wandb sync wandb` sends what is written there"
    )


@pytest.mark.parametrize("how", ["key", "netrc"])
def test_wandb_is_offline_if_the_server_cannot_be_reached(
    wandb: FakeWandB, logged: Logged, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("urllib.request.getproxies", dict)
    if how == "key":
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    else:
        Path(".netrc").write_text("machine 127.0.0.1:9 login user password secret\n")
    with open_tracker("wandb") as tracker:
        tracker.event(made_job(), event(3))
    assert wandb.started[0]["mode"] == "offline"
    assert "(127.0.0.1 cannot be reached)" in logged.notes[-1]


@pytest.fixture
def online(wandb: FakeWandB, monkeypatch: pytest.MonkeyPatch) -> FakeWandB:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setattr("folds.experiments.loggers.wandb._answers", lambda url: True)
    return wandb


def test_wandb_continues_online_after_the_last_step_of_the_server(online: FakeWandB) -> None:
    for epochs in ((3,), (3, 4)):
        with open_tracker("wandb") as tracker:
            for epoch in epochs:
                tracker.event(made_job(epochs=epoch - 1), event(epoch))
    assert [(one["mode"], one["resume"]) for one in online.started] == [("online", "allow")] * 2
    assert set(online.seen()["swin/fold1"].steps) == {1, 2, 3, 4}


def test_wandb_goes_offline_if_the_server_is_gone_later(online: FakeWandB, logged: Logged) -> None:
    with open_tracker("wandb") as tracker:
        tracker.event(made_job(fold=0), event(3, total=3))
        online.refused = True
        tracker.event(made_job(fold=1), event(3, total=3))
    assert [one["mode"] for one in online.started] == ["online", "online", "offline"]
    assert set(online.seen()["swin/fold1"].steps) == {1, 2, 3}
    assert "W&B is offline (ConnectionError)" in logged.notes[-1]
    assert not logged.warnings


def test_wandb_never_asks_for_a_login(wandb: FakeWandB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(EnsembleError, match="WANDB_MODE=online, but no account is logged in to W&B"):
        open_tracker("wandb").__enter__()
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with open_tracker("wandb") as tracker:
        tracker.event(made_job(), event(3))
    assert [one["mode"] for one in wandb.started] == ["disabled"]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_folder_of_earlier_runs_is_not_taken_for_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    import sys
    import types

    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))  # what the import of such a folder gives
    with pytest.raises(UsageError, match=f"`?logger={name}`?: {name} is not installed") as raised:
        open_tracker(name)
    assert raised.value.hint == f"pip install 'ensemble-folds[{name}]', or remove `logger`"


def test_a_run_of_trackio_with_the_same_name_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fake: FakeTrackio = opened("fake trackio", tmp_path, monkeypatch)
    with open_tracker("trackio") as tracker:
        tracker.event(made_job(), event(3))
    with open_tracker("trackio", Path("other/runs")) as tracker:  # another folder, in the same store
        tracker.event(made_job(runs=Path("other/runs")), event(3))
    with open_tracker("trackio") as tracker:
        tracker.event(made_job(epochs=3), event(4))
    assert [set(seen.steps) for _, seen in fake.all if seen.steps] == [{1, 2, 3}, {1, 2, 3}, {1, 2, 3, 4}]


def test_a_report_is_stored_once_in_each_group(store: Any, logged: Logged) -> None:
    with open_tracker(store.tracker) as tracker:
        tracker.set_groups({"swin-seed1": "swin", "swin-seed2": "swin"})
        for run in ("swin-seed1", "swin-seed2", "resnet18"):
            tracker.entry(line(run))
    page = Path("report.html")
    page.write_text("<!doctype html><title>Report</title>")
    folders = {run: Path("runs") / run for run in ("swin-seed1", "swin-seed2", "resnet18", "not-logged")}
    store_report(page, report_stores([store.tracker], folders))
    assert [note for note in logged.notes if "artifact" in note] == [
        f"report.html is now an artifact of the group {group} of {store.tracker}" for group in ("swin", "resnet18")
    ]
    if isinstance(store, FakeWandB | FakeTrackio) or store.tracker == "wandb":
        seen = store.seen()
        files = {name: one.files for name, one in seen.items() if one.files}
        assert files == {f"{group}/report": {f"{group}-report": ["report.html"]} for group in ("swin", "resnet18")}
        assert {seen[f"{group}/report"].group for group in ("swin", "resnet18")} == {"swin", "resnet18"}


def test_the_report_of_a_group_is_one_run_with_several_versions(fake: Any) -> None:
    with open_tracker(fake.tracker) as tracker:
        tracker.entry(line("swin"))
    Path("report.html").write_text("page")
    for _ in range(2):
        store_report(Path("report.html"), report_stores([fake.tracker], {"swin": Path("runs/swin")}))
    assert sorted(fake.seen()) == ["swin", "swin/report"]


def test_a_report_of_runs_that_were_not_logged_says_how_they_are(fake: Any) -> None:
    made_job()
    with pytest.raises(EnsembleError, match=rf"none of the runs of this report \(swin\) was logged to {fake.tracker}"):
        report_stores([fake.tracker], {"swin": Path("runs/swin")})
    with pytest.raises(EnsembleError, match="no run of this report was logged to"):
        report_stores([fake.tracker], {})


def test_a_tracker_that_fails_is_named_and_the_page_stays(wandb: FakeWandB, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_tracker("wandb") as tracker:
        tracker.entry(line("swin"))
    Path("report.html").write_text("page")

    def full(*words: Any, **named: Any) -> None:
        raise OSError("the disk\nis full")

    monkeypatch.setattr(wandb, "init", full)
    with pytest.raises(
        EnsembleError, match=r"report\.html is written, but a tracker did not take it: OSError: the disk is"
    ):
        store_report(Path("report.html"), report_stores(["wandb"], {"swin": Path("runs/swin")}))
    assert Path("report.html").read_text() == "page"


def test_tensorboard_and_unknown_trackers_take_no_report() -> None:
    with pytest.raises(UsageError, match="TensorBoard stores no files"):
        check_report_trackers(["tensorboard"])
    with pytest.raises(UsageError, match=r"unknown log_to 'wand'; did you mean wandb\?"):
        check_report_trackers(["wand"])


def test_a_report_of_runs_that_were_logged_to_another_place_is_refused(fake: Any) -> None:
    with open_tracker(fake.tracker) as tracker:
        tracker.event(made_job(), event(3))
    file = Path(f"runs/swin/fold1/{fake.tracker}.json")
    write_json(file, read_json(file) | {"place": "elsewhere"})
    with pytest.raises(EnsembleError, match="were logged to another place"):
        report_stores([fake.tracker], {"swin": Path("runs/swin")})
