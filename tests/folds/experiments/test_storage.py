from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folds.errors import EnsembleError, UsageError
from folds.experiments import renaming, storage
from folds.experiments.ledger import append, ledger_file, read_ledger
from folds.experiments.storage import finish_pending, move_run, pending, remove_run
from folds.experiments.stored_runs import StoredRun, check_new_name, find_stored
from folds.predictions.files import PredictionMetadata, SampleRows, read_sidecar, write_prediction
from folds.predictions.named import files_of
from folds.utils.files import sha256_file, write_json
from tests.folds.ledger_lines import against, line

ROWS = SampleRows(np.array(["a", "b"]), np.array(["cat", "dog"]), np.array(["p", "q"]))


def predict(path: Path, run: str, split: str = "oof", fold: Any = (0, 1)) -> None:
    meaning = PredictionMetadata(
        kind="probability",
        split=split,
        classes=("cat", "dog"),
        rows=ROWS,
        run=run,
        fold=np.array(fold) if isinstance(fold, tuple) else fold,
    )
    write_prediction(path, np.full((2, 2), 0.5, np.float32), meaning, samples=ROWS)


def write_run(name: str, init_run: str = "") -> None:
    runs = Path("runs")
    folder = runs / name
    for fold in (0, 1):
        write_json(folder / f"fold{fold}/done.json", {"checkpoint_sha": f"sha{fold}"})
        predict(runs / f"{name}.fold{fold}.test.npy", name, "test", fold)
        checkpoint = Path("checkpoints", name, f"fold{fold}.pt")
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write_bytes(b"weights")
    (folder / "config.toml").write_text(
        f'arch = ["swin"]\nname = "{name}"\nfolds = "runs/{name}/folds.csv"\n'
        + (f'init_run = "{init_run}"\n' if init_run else "")
        + "k = 2\n\n[resolved]\njobs = 1\n"
    )
    predict(runs / f"{name}.oof.npy", name)
    predict(runs / f"tta/{name}.oof.npy", name)
    predict(runs / f"tta/{name}/views/hflip.oof.npy", name)
    append(ledger_file(), "run", line(name, config_sha=sha256_file(folder / "config.toml")))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, of which the second starts from the first and is compared with it, and a blend of both."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    write_run("swin")
    write_run("swin.fold9", init_run="swin")
    write_json(Path("runs/swin.fold9/experiment.json"), {"baseline": "swin"})
    append(ledger_file(), "run", line("swin.fold9", baseline=against("swin")))
    append(ledger_file(), "note", {"run": "swin", "time": "now", "text": "good"})
    predict(Path("runs/blends/soft-1/oof.npy"), "soft-1")
    inputs = [{"path": f"runs/{name}.oof.npy", "run": name, "sha": "s"} for name in ("swin", "swin.fold9")]
    write_json(Path("runs/blends/soft-1/blend.json"), {"inputs": inputs})
    tables = "".join(f'\n[[run]]\nname = "{name}"\nfolds = [0, 1]\n' for name in ("swin", "swin.fold9"))
    Path("runs/blends/soft-1/blend.toml").write_text(f"schema = 1\n{tables}")
    return tmp_path / "work"


def tree(folder: Path) -> dict[str, bytes]:
    """Every file with its content; of the ledger, what it says."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in [name for name in found if name.endswith("ledger.jsonl")]:
        ledger = read_ledger(folder / name)
        found[name] = json.dumps([ledger.entries, ledger.notes]).encode()
    return found


def remove_swin(folder: Path) -> None:
    remove_run(find_stored("swin", folder))


def rename_swin(folder: Path) -> None:
    stored = find_stored("swin", folder)
    move_run(stored, check_new_name(stored, "big", folder))


def move_swin(folder: Path) -> None:
    stored = find_stored("swin", folder)
    move_run(stored, check_new_name(stored, "swin", folder.parent / "other"))


def test_a_run_is_removed_from_every_place(project: Path) -> None:
    others = {name: content for name, content in tree(project).items() if "swin.fold9" in name or "blends" in name}
    places = [str(place.path) for place in find_stored("swin").places()]
    assert places[:3] == ["runs/swin", "runs/tta/swin", "checkpoints/swin"]
    assert "runs/swin.fold9.oof.npy" not in places
    remove_swin(project)
    left = tree(project)
    assert {name: left[name] for name in others} == others
    assert not [name for name in left if "swin" in name and "swin.fold9" not in name]
    ledger = read_ledger(ledger_file())
    assert {entry["run"] for entry in ledger.entries} == {"swin.fold9"}
    assert ledger.notes == ()
    assert read_sidecar(Path("runs/swin.fold9.oof.npy")) is not None  # the shared samples file is kept
    with pytest.raises(UsageError, match="unknown run 'swin'"):
        find_stored("swin")


def test_the_last_run_takes_the_samples_file_with_it(project: Path) -> None:
    for name in ("swin", "swin.fold9"):
        remove_run(find_stored(name))
    assert not list(Path("runs").glob("samples-*.csv"))
    assert list(Path("runs/blends/soft-1").glob("samples-*.csv"))


def test_a_run_is_renamed_in_every_place(project: Path) -> None:
    before = sha256_file(Path("runs/swin.fold9/config.toml"))
    rename_swin(project)
    assert not [name for name in tree(project) if "swin" in name and "swin.fold9" not in name]
    for path in files_of("big"):
        found = read_sidecar(path)
        assert found is not None
        assert found.run == "big"
    assert json.loads(Path("runs/tta/big/views/hflip.oof.json").read_text())["run"] == "big"
    assert Path("runs/big/config.toml").read_text().splitlines()[1:3] == [
        'name = "big"',
        'folds = "runs/big/folds.csv"',
    ]
    assert 'init_run = "big"' in Path("runs/swin.fold9/config.toml").read_text()
    assert json.loads(Path("runs/swin.fold9/experiment.json").read_text())["baseline"] == "big"
    latest = read_ledger(ledger_file()).latest()
    assert latest["big"]["config_sha"] == sha256_file(Path("runs/big/config.toml"))
    assert latest["swin.fold9"]["config_sha"] != before
    assert latest["swin.fold9"]["baseline"]["run"] == "big"
    assert read_ledger(ledger_file()).notes_of("big") == ["good"]


def test_blends_of_a_renamed_run_find_its_files_and_checkpoints(project: Path) -> None:
    rename_swin(project)
    record = json.loads(Path("runs/blends/soft-1/blend.json").read_text())
    assert [one["path"] for one in record["inputs"]] == ["runs/big.oof.npy", "runs/swin.fold9.oof.npy"]
    text = Path("runs/blends/soft-1/blend.toml").read_text()
    assert '[[run]]\nname = "swin"\nrun = "big"\nfolds' in text
    assert '[[run]]\nname = "swin.fold9"\nfolds' in text
    assert find_stored("big").used_by()[0] == "the blend blends/soft-1"
    stored = find_stored("big")
    move_run(stored, check_new_name(stored, "swin", Path()))
    assert "run = " not in Path("runs/blends/soft-1/blend.toml").read_text()


def test_a_run_moves_to_another_folder_with_its_lines(project: Path) -> None:
    move_swin(project)
    other = project.parent / "other"
    assert read_sidecar(other / "runs/swin.oof.npy") is not None
    assert (other / "checkpoints/swin/fold1.pt").read_bytes() == b"weights"
    ledger = read_ledger(other / "runs/ledger.jsonl")
    assert ([entry["run"] for entry in ledger.entries], ledger.notes_of("swin")) == (["swin"], ["good"])
    assert "swin" not in read_ledger(ledger_file()).latest()
    assert not [name for name in tree(project) if "swin" in name and "swin.fold9" not in name]


def test_a_blend_is_renamed_and_removed(project: Path) -> None:
    stored = find_stored("soft-1")
    assert stored.title == "blends/soft-1"
    move_run(stored, check_new_name(stored, "final", Path()))
    assert json.loads(Path("runs/blends/final/oof.json").read_text())["run"] == "final"
    remove_run(find_stored("blends/final"))
    assert not list(Path("runs/blends").iterdir())
    assert files_of("swin")


@pytest.mark.parametrize("change", [remove_swin, rename_swin, move_swin])
def test_a_crash_at_any_step_is_finished_afterwards(
    project: Path, change: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda file: None)  # takes most of the time, and no power fails here
    base = project.parent / "base"
    shutil.copytree(project, base)
    change(project)
    wanted = tree(project.parent / "work"), tree(project.parent / "other")
    left = 0

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return real(*given, **more)

        return step

    steps = ("remove", "write_json", "write_atomic", "_move_file", "_move_folder", "append")
    for crash in range(0, 200, 3):
        for folder in ("work", "other"):
            shutil.rmtree(project.parent / folder, ignore_errors=True)
        shutil.copytree(base, project)
        left = crash
        with monkeypatch.context() as patched:
            for module in (storage, renaming):
                for name in (one for one in steps if hasattr(module, one)):
                    patched.setattr(module, name, counting(getattr(module, name)))
            try:
                change(project)
            except KeyboardInterrupt:
                pass
            else:
                assert crash > 5
                break
        assert crash == 0 or pending(project) is not None
        finish_pending(project)
        assert crash == 0 or (tree(project), tree(project.parent / "other")) == wanted
    assert pending(project) is None


def test_a_taken_or_impossible_name_is_refused(project: Path) -> None:
    stored = find_stored("swin")
    with pytest.raises(EnsembleError, match=r"the name swin\.fold9 is taken: it exists"):
        check_new_name(stored, "swin.fold9", Path())
    append(ledger_file(), "run", line("gone"))
    with pytest.raises(EnsembleError, match="taken: only its lines in the ledger are left"):
        check_new_name(stored, "gone", Path())
    for name in ("../x", "tta", ""):
        with pytest.raises(UsageError, match="expected a name"):
            check_new_name(stored, name, Path())
    remove_run(find_stored("gone"))
    assert "gone" not in read_ledger(ledger_file()).latest()


@pytest.mark.parametrize("name", ["..", "tta", "blends/../..", "nothing", "runs/../../x"])
def test_a_name_cannot_lead_out_of_the_folder(project: Path, name: str) -> None:
    with pytest.raises(UsageError, match="unknown run"):
        find_stored(name)


def test_a_damaged_journal_is_refused_and_named(project: Path) -> None:
    write_json(Path("runs/.pending.json"), {"operation": "remove", "run": "../..", "blend": False})
    with pytest.raises(EnsembleError, match=r"runs/\.pending\.json is damaged"):
        finish_pending()
    assert StoredRun("swin").arrays()
