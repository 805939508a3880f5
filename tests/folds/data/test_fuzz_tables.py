"""A short version of ``benchmarks/fuzz_inputs.py --part tables``: no drawn table is read wrongly without a word."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_tables", ROOT / "benchmarks" / "fuzz_tables.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_no_drawn_table_is_read_wrongly_without_a_word(fuzz):
    counts, wrong = fuzz.run(80)
    assert not wrong, "\n".join(wrong)
    assert {fuzz.RIGHT, fuzz.REFUSED, fuzz.WARNED} <= counts.keys(), "the draws have every kind of table"


@pytest.mark.parametrize("seed", [166, 300, 322, 520, 710, 2736, 50328, 51605])
def test_draws_that_were_read_wrongly_once_are_not_again(fuzz, seed):
    verdict, described = fuzz.check(seed)
    assert verdict != fuzz.WRONG, described


def test_a_silent_error_would_be_found(fuzz, monkeypatch):
    def swap(drawn, rng):
        drawn.columns["person"] = ["p0", *drawn.columns["person"][:-1]]

    monkeypatch.setattr(fuzz, "CHANGES", [swap])
    monkeypatch.setattr(random.Random, "randint", lambda self, low, high: min(high, max(low, 1)))
    assert fuzz.check(1)[0] == fuzz.WRONG
