"""The name of a file says its run and its split."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensemble.members.naming import run_and_split, word_splits


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("swin.oof.npy", ("swin", "oof")),
        ("swin.fold0.test.npy", ("swin.fold0", "test")),
        ("Swin.OOF.NPY", ("Swin", "oof")),
        ("swin.test.csv.gz", ("swin", "test")),
        ("oof_swin.npy", ("oof_swin", "")),
        ("contest.npz", ("contest", "")),
    ],
)
def test_an_ending_says_the_split(name: str, expected: tuple[str, str]) -> None:
    assert run_and_split(Path(name)) == expected


def test_words_tell_files_apart_only_if_both_splits_occur() -> None:
    both = word_splits([Path("oof_a.npy"), Path("test_a.npy"), Path("b.npy")])
    assert both == {Path("oof_a.npy"): ("a", "oof"), Path("test_a.npy"): ("a", "test")}
    assert word_splits([Path("test_a.npy"), Path("b.npy")]) == {}
    assert word_splits([Path("oof_a.npy"), Path("contest_a.npy")]) == {}
