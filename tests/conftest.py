"""Shared by all tests: one small drawn table, one trained grid, and the command line called in this process."""

from __future__ import annotations

import os

# Before torch is imported: threads that wait for each other cost more than they bring on shared cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import copy
import fcntl
import gc
import importlib
import json
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest

from tests.processes import Called, Forked, ForkedTemplate, in_one_thread

ROOT = Path(__file__).parent.parent
# No power fails in a test, and waiting for the disk takes a twentieth of the time.
os.fsync = lambda handle: None
# Millions of objects are imported and collected, and stay: searching them for what can be freed takes a fifteenth of the
# time.
gc.disable()
# The same examples in every run, and no limit of time: the cores may be busy.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("suite")
GRID = [
    "kfold",
    "--data",
    "people",
    "--arch",
    "test_resnet,test_vit",
    "--k",
    "3",
    "--epochs",
    "1",
    "--img-size",
    "32",
    "--no-pretrained",
]


def interruptible() -> None:
    """Let a new process hear Ctrl-C (``preexec_fn``), also where the tests were started in the background, which
    ignores it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("ENSEMBLE_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _checkpoints_are_read_once() -> Iterator[None]:
    """The fold models of a grid are opened by hundreds of tests: a file that did not change is copied from memory."""
    from folds.models import checkpoint

    read = checkpoint.load_archive
    known: dict[tuple[Any, ...], Any] = {}

    def remembered(path: Path) -> Any:
        status = path.stat()
        key = (path.absolute(), status.st_ino, status.st_size, status.st_mtime_ns)
        if key not in known:
            known[key] = read(path)
            if len(known) > 40:
                known.pop(next(iter(known)))
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "load_archive", remembered)
        yield


@pytest.fixture(scope="session", autouse=True)
def _torch_computes_in_one_thread() -> Iterator[None]:
    """Threads of OpenMP wait for each other in a loop: beside another process on the same cores, a training took ten
    times as long. What a program sets and asks for stays what it was.
    """
    with pytest.MonkeyPatch.context() as patch:
        in_one_thread(patch.setattr)
        yield


@pytest.fixture(scope="session", autouse=True)
def _templates_are_forked() -> Iterator[None]:
    """The template of workers need not import the libraries once for each state of the environment."""
    from folds.execution import template

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(template, "subprocess", SimpleNamespace(Popen=ForkedTemplate, DEVNULL=subprocess.DEVNULL))
        yield


class Logged(logging.Handler):
    """What the library has logged: `notes`, `warnings`, and both in `lines`."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []
        self.react: Callable[[str], object] = lambda text: None

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.react(record.getMessage())

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self.records]

    @property
    def notes(self) -> list[str]:
        return [record.getMessage() for record in self.records if record.levelno == logging.INFO]

    @property
    def warnings(self) -> list[str]:
        return self.warnings_of("")

    def warnings_of(self, logger: str) -> list[str]:
        """Those of one module, or of a package."""
        warned = [record for record in self.records if record.levelno == logging.WARNING]
        return [record.getMessage() for record in warned if record.name.startswith(logger)]


@pytest.fixture
def logged() -> Iterator[Logged]:
    """What the library logs from here on."""
    handler, before = Logged(), {}
    for logger in (logging.getLogger("folds"), logging.getLogger("ensemble")):
        before[logger] = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield handler
    for logger, level in before.items():
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    """Run a command in this process, where the heavy imports are paid already."""
    from ensemble.cli import main

    def run(*arguments: object) -> Called:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Called(int(left.value.code or 0), printed.out, printed.err)

    return run


def call_process(arguments: Sequence[object], folder: Path, **variables: str) -> Called:
    """Run a command in a process of its own."""
    return Forked("ensemble.cli", arguments, folder, environment_of(**variables)).wait()


def environment_of(**variables: str) -> dict[str, str]:
    """The variables of a process that has this program on its path."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **variables}


def call_here(arguments: Sequence[object], folder: Path) -> int:
    """Run a command in this process, in a folder; for fixtures of a session, where `call` cannot be used."""
    from ensemble.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def start_over() -> None:
    """Remove what was trained in the current folder."""
    shutil.rmtree("runs")
    shutil.rmtree("checkpoints")


# Of what a machine has once (Ray and its ports) one process at a time makes use.
ALONE = ("folds/execution/test_ray_cluster.py", "ensemble/cli/test_tune.py")
# The files that take longest come first: started last, one of them would keep one process busy at the end.
LONGEST = (
    "ensemble/cli/test_tune.py",
    "ensemble/export/test_export.py",
    "folds/training/test_trainer.py",
    "ensemble/export/test_onnx.py",
    "ensemble/tta/test_run.py",
    "folds/runs/test_execute.py",
    "folds/runs/test_face.py",
    "folds/execution/test_ray_cluster.py",
    "ensemble/blending/test_face.py",
    "folds/training/test_recipes.py",
    "ensemble/cli/test_demo.py",
    "docs/test_examples.py",
    "test_face.py",
    "ensemble/prediction/test_cascade.py",
    "ensemble/cli/test_learned_blends.py",
    "ensemble/prediction/test_costs.py",
    "ensemble/export/test_predictor.py",
    "folds/training/test_ranks.py",
    "folds/execution/test_template.py",
    "folds/augmentation/test_pool.py",
    "ensemble/cli/test_auditing.py",
    "test_examples.py",
    "test_words.py",
)


def _file(path: Path) -> str:
    return path.relative_to(ROOT / "tests").as_posix() if path.is_relative_to(ROOT / "tests") else ""


def pytest_sessionstart(session: pytest.Session) -> None:
    if getattr(session.config.option, "numprocesses", None):  # this process distributes the tests and collects none
        gc.enable()


def pytest_collection(session: pytest.Session) -> None:
    """Every second process imports the files of tests from the last to the first: what one of them has compiled (with
    its assertions rewritten, which takes half of the time), the other one reads.
    """
    number = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    if int(number) % 2 and not sys.dont_write_bytecode and session.config.args == session.config.getini("testpaths"):
        files = sorted((ROOT / "tests").rglob("test_*.py"), reverse=True)
        for path in files[: len(files) // 2]:
            with suppress(Exception, pytest.skip.Exception):  # reported when it is collected
                importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        order = {name: place for place, name in enumerate(LONGEST)}
        items.sort(key=lambda item: order.get(_file(item.path), len(order)))


@pytest.fixture(scope="module", autouse=True)
def _alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if _file(request.path) not in ALONE:
        yield
        return
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / "alone.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that `make` filled, in a session of several processes by the first that asks; the others wait."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = shared / f"{name}.done"
        if not done.exists():
            # What a process left that failed in the middle.
            shutil.rmtree(shared / name, ignore_errors=True)
            (shared / name).mkdir()
            make(shared / name)
            done.touch()
    return shared / name


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small competition: 30 people to train on, 6 to test on."""
    from folds.data.synthetic.people import generate_people

    def draw(folder: Path) -> None:
        generate_people(folder / "people", people=30, test_people=6, size=(48, 64))

    return made_once(tmp_path_factory, "drawn", draw) / "people"


@pytest.fixture(scope="session")
def _grid(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> tuple[Path, Called]:
    def train(folder: Path) -> None:
        shutil.copytree(drawn, folder / "grid/people")
        (folder / "called.json").write_text(json.dumps(asdict(call_process(GRID, folder / "grid"))))

    folder = made_once(tmp_path_factory, "trained", train)
    return folder / "grid", Called(**json.loads((folder / "called.json").read_text()))


@pytest.fixture
def grid(_grid: tuple[Path, Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a folder in which two tiny models were trained on three folds, made the current folder."""
    folder, called = _grid
    assert called.code == 0, called.err
    shutil.copytree(folder, tmp_path / "grid")
    monkeypatch.chdir(tmp_path / "grid")
    return tmp_path / "grid"


@pytest.fixture
def grid_output(_grid: tuple[Path, Called]) -> Called:
    """What the command that trained the grid printed."""
    return _grid[1]


@pytest.fixture(scope="session")
def _decoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decoded")


@pytest.fixture
def elsewhere(_decoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, made the current one; images that another of them has decoded are not decoded again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".ensemble").symlink_to(_decoded)
    return tmp_path


@contextmanager
def holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock, as 'the run', until it is killed."""
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom folds.utils.locks import exclusive_lock\n"
        "with exclusive_lock(Path(sys.argv[1]), 'the run'):\n print('held', flush=True)\n time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path.resolve())], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()
