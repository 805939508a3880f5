"""What is shared of the ledger names no paths."""

from folds.experiments.anonymize import anonymous_entry, without_paths


def test_paths_of_an_entry_are_hidden_and_hashes_kept():
    entry = {
        "run": "swin",
        "data": "/home/ann/hospital/table.csv",
        "settings": {"data": "fa9d2209c4df", "init": "../ben/w.pt", "test": "photos", "loss": "focal", "lr": 0.1},
        "hypothesis": "the scans in ~/clinic/march help, 50/50",
        "changed": ["lr"],
        "git": None,
    }
    assert anonymous_entry(entry) == {
        "run": "swin",
        "data": "(path)",
        "settings": {"data": "fa9d2209c4df", "init": "(path)", "test": "(path)", "loss": "focal", "lr": 0.1},
        "hypothesis": "the scans in (path) help, (path)",
        "changed": ["lr"],
        "git": None,
    }


def test_a_text_without_paths_is_kept():
    assert without_paths("focal helps: +0.02 (p = 0.03)") == "focal helps: +0.02 (p = 0.03)"
    assert without_paths(r"see C:\Users\ann\x.csv, please") == "see (path), please"
