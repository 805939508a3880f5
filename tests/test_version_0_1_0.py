"""A folder that version 0.1.0 made is listed, blended, resumed and augmented by this version to the same bytes.

`data/version_0.1.0.tar.gz` was written by version 0.1.0 alone: two finished runs of `test_resnet` on two folds, a third
(`cut`) whose fold 1 was killed after its first epoch, two blends, one TTA; `expected/` holds what version 0.1.0
printed,
and the predictions of `cut` after version 0.1.0 itself had resumed it.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folds.config.files import load_settings
from folds.runs.environment import environment
from folds.runs.open import prepare_jobs
from folds.runs.plan import build_plan
from tests.conftest import Called

ARCHIVE = Path(__file__).parent / "data/version_0.1.0.tar.gz"
PROCESSOR = "AuthenticAMD 25 1"  # vendor, family and model of the machine that made the archive
KFOLD = (
    "kfold --data people --arch test_resnet --k 2 --epochs 3 --img-size 32 --no-pretrained -c old.toml --resume".split()
)
SOURCES = ["runs/test_resnet*.npy", "runs/whole*.npy"]
PROSE = {"warning", "notes", "said", "summary", "messages"}  # sentences for people: free to be worded better


@pytest.fixture(scope="module")
def _unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("version_0_1_0")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "legacy"


@pytest.fixture
def legacy(_unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old folder, made the current folder."""
    shutil.copytree(_unpacked, tmp_path / "legacy")
    monkeypatch.chdir(tmp_path / "legacy")
    return tmp_path / "legacy"


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder` but locks and the cache of decoded images: relative path → bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock" and ".ensemble" not in path.relative_to(folder).parts
    }


def assert_kept(old: Any, new: Any, at: str = "") -> None:
    """Fail unless every key and value of `old` is in `new`; keys may be added, sentences may change."""
    if isinstance(old, dict):
        assert old.keys() <= new.keys(), f"{at}: {sorted(old.keys() - new.keys())} are gone"
        for key in old.keys() - PROSE:
            assert_kept(old[key], new[key], f"{at}.{key}")
    elif isinstance(old, list):
        assert len(old) == len(new), at
        for i, (one, other) in enumerate(zip(old, new)):
            assert_kept(one, other, f"{at}[{i}]")
    elif isinstance(old, float):
        assert new == pytest.approx(old, rel=1e-9, abs=1e-12), at
    else:
        assert new == old, at


def same_machine(legacy: Path) -> bool:
    """Return whether this machine computes with what made the archive, so that training must give the same bits."""
    recorded = json.loads((legacy / "runs/cut/environment.json").read_text())
    now = environment()
    names = ("machine", "cpu", "torch", "torchvision", "timm", "numpy", "pillow")
    return _processor() == PROCESSOR and all(recorded[name] == now[name] for name in names)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n\n")[0].splitlines() if info.is_file() else []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return " ".join(fields.get(name, "?") for name in ("vendor_id", "cpu family", "model"))


def assert_same_arrays(old: dict[str, bytes], new: dict[str, bytes], exact: bool, tolerance: float) -> None:
    assert old.keys() <= new.keys()
    for name, before in old.items():
        if exact:
            assert new[name] == before, f"{name} has other bytes"
        else:
            np.testing.assert_allclose(_array(new[name]), _array(before), atol=tolerance, rtol=0, err_msg=name)


def _array(raw: bytes) -> Any:
    import io

    return np.load(io.BytesIO(raw), allow_pickle=False)


def predictions(folder: Path) -> dict[str, bytes]:
    return {name: raw for name, raw in contents(folder).items() if name.endswith(".npy")}


def test_runs_of_0_1_0_are_listed_with_same_values(call: Callable[..., Called], legacy: Path) -> None:
    called = call("runs", "--json")
    assert called.code == 0, called.err
    assert_kept(json.loads((legacy / "expected/runs.json").read_text()), json.loads(called.out))


@pytest.mark.parametrize("method", ["soft", "greedy"])
def test_blend_of_runs_of_0_1_0_has_the_same_bytes(call: Callable[..., Called], legacy: Path, method: str) -> None:
    called = call("blend", *SOURCES, "--method", method, "-o", "again", "--json")
    assert called.code == 0, called.err
    expected = json.loads((legacy / f"expected/{method}.json").read_text())
    for name in ("name", "folder"):
        expected.pop(name)
    assert_kept(expected, json.loads(called.out))
    for split in ("oof", "test"):
        again = Path(f"runs/blends/again/{split}.npy")
        assert again.read_bytes() == Path(f"runs/blends/{method}/{split}.npy").read_bytes()


def test_blend_of_0_1_0_is_known_as_the_same_blend(call: Callable[..., Called], legacy: Path) -> None:
    before = predictions(legacy / "runs/blends/soft")
    called = call("blend", *SOURCES, "--method", "soft", "-o", "soft")
    assert called.code == 0, called.err
    assert predictions(legacy / "runs/blends/soft") == before


def test_finished_run_of_0_1_0_resumes_to_nothing(call: Callable[..., Called], legacy: Path) -> None:
    before = contents(legacy)
    called = call(*KFOLD)
    assert called.code == 0, called.err
    assert contents(legacy) == before


def test_killed_run_of_0_1_0_resumes_to_its_bytes(call: Callable[..., Called], legacy: Path) -> None:
    before = contents(legacy)
    called = call(*KFOLD, "--name", "cut", "--seed", "1")
    assert called.code == 0, called.err
    after = contents(legacy)
    # The finished fold is not trained again.
    assert {n: raw for n, raw in after.items() if "cut/fold0" in n or "cut.fold0" in n} == {
        n: raw for n, raw in before.items() if "cut/fold0" in n or "cut.fold0" in n
    }
    # It went on from the saved epoch: the first epoch's measurements are still those of version 0.1.0.
    history = {name: raw["runs/cut/fold1/history.csv"].splitlines() for name, raw in (("old", before), ("new", after))}
    assert history["new"][: len(history["old"])] == history["old"]
    assert len(history["new"]) == 1 + 3
    expected = predictions(legacy / "expected")
    assert len(expected) == 3
    assert_same_arrays(expected, predictions(legacy / "runs"), same_machine(legacy), 1e-4)
    for path in (legacy / "expected").glob("cut*.json"):
        old, new = json.loads(path.read_text()), json.loads((legacy / "runs" / path.name).read_text())
        for name in ("created", "checkpoint_sha"):
            old.pop(name)
        assert_kept(old, new)


def test_views_of_0_1_0_are_not_predicted_again(call: Callable[..., Called], legacy: Path) -> None:
    before = contents(legacy)
    called = call("tta", "test_resnet", "--views", "hflip", "--json")
    assert called.code == 0, called.err
    assert_kept(json.loads((legacy / "expected/tta.json").read_text()), json.loads(called.out))
    assert contents(legacy) == before


def test_checkpoints_of_0_1_0_predict_the_same_views(call: Callable[..., Called], legacy: Path) -> None:
    before = predictions(legacy / "runs/tta")
    assert len(before) == 9
    shutil.rmtree(legacy / "runs/tta")
    called = call("tta", "test_resnet", "--views", "hflip", "--json")
    assert called.code == 0, called.err
    assert_same_arrays(before, predictions(legacy / "runs/tta"), same_machine(legacy), 1e-5)


def test_defaults_that_changed_are_those_of_a_run_that_was_started(call: Callable[..., Called], legacy: Path) -> None:
    """Weight decay depends on the optimizer now; a run with Adam was started with 0.05."""
    record = legacy / "runs/cut/config.toml"
    record.write_text(record.read_text().replace('opt = "adamw"', 'opt = "adam"'))
    changed = (legacy / "old.toml").read_text() + '\nopt = "adam"\n'
    (legacy / "adam.toml").write_text(changed)
    words = [word if word != "old.toml" else "adam.toml" for word in KFOLD]
    called = call(*words, "--name", "cut", "--seed", "1", "--dry-run")
    assert called.code == 0, called.err
    other = call(*words, "--name", "cut", "--seed", "1", "--dry-run", "--weight-decay", "0")
    assert other.code == 1
    assert "weight_decay: 0.05 → 0" in other.err


def test_focal_loss_of_a_run_that_was_started_stays_smoothed(call: Callable[..., Called], legacy: Path) -> None:
    """Only cross-entropy is smoothed by default now; and weighted losses are divided by the weights of a batch."""
    record = legacy / "runs/cut/config.toml"
    record.write_text(record.read_text().replace('loss = "ce"', 'loss = "focal:weights=inverse"'))
    words = [*KFOLD, "--name", "cut", "--seed", "1", "--loss", "focal:weights=inverse", "--dry-run"]
    called = call(*words)
    assert called.code == 0, called.err
    other = call(*words, "--label-smoothing", "0")
    assert other.code == 1
    assert "label_smoothing: 0.1 → 0" in other.err
    flags = {"data": "people", "arch": "test_resnet", "k": 2, "epochs": 3, "img_size": "32", "pretrained": False}
    own, recipe, _ = load_settings(
        flags | {"name": "cut", "seed": 1, "loss": "focal:weights=inverse"}, Path("old.toml")
    )
    plan = build_plan(own, recipe)
    assert prepare_jobs(plan, resume=True)[0].course == 1
    assert plan.runs[0].recipe.label_smoothing == 0.1
