"""Some mutations of `benchmarks/fuzz_files.py`: a stranger's file is read or refused, never a crash or code that runs."""

import importlib.util
import logging
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "fuzz_files.py"


@pytest.fixture(autouse=True)
def _logging_is_on_again():
    """The script turns it off for its process, which here runs other tests too."""
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz_files", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files(fuzz, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield fuzz.Files()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start", range(9))
def test_mutated_files_are_read_or_refused(fuzz, files, start):
    results = [fuzz.run_one(number, files) for number in range(start, 45, len(fuzz.KINDS))]
    assert {result["outcome"] for result in results} <= {"read", "refused", "not written"}, results
    assert any(result["outcome"] != "not written" for result in results)
