"""Name the commands, with their lines in `ensemble --help`, and the words that other programs have for them."""

from __future__ import annotations

# Command → its line in `ensemble --help`. The lines are here so that the help imports no command module
# (ensemble.cli.commands.<name>, with a function of that name).
COMMANDS = {
    "demo": "run the full pipeline on synthetic data (a few minutes on a CPU)",
    "prepare": "write a new image set: cropped to faces, backgrounds replaced; originals stay untouched",
    "folds": "split a table by person (group); folds check: audit the data and a split",
    "kfold": "train one model per fold and architecture; write out-of-fold and test predictions",
    "tune": "tune hyperparameters on one fold; unpromising trials are stopped early (ASHA)",
    "blend": "combine prediction files by voting or by learned weights, aligned by id",
    "tta": "test-time augmentation of a checkpoint or a run",
    "distill": "train one model on the out-of-fold predictions of a blend: a student",
    "predict": "predict new images with a checkpoint, a run or a blend; write a submission",
    "runs": "list, filter, compare, show, rename, move and remove runs and blends; add notes",
    "trust": "let ./ensemble.toml of a folder name code (transform); remembered outside the folder",
    "doctor": "check the installation: versions, devices, mismatched packages",
    "completion": "print a script that completes commands, flags and run names in bash, zsh or fish",
}
# What people type who know another program → the command that does it here.
MEANT = {
    "train": "kfold",
    "fit": "kfold",
    "cv": "kfold",
    "resume": "kfold --resume",
    "split": "folds",
    "check": "folds check",
    "audit": "folds check",
    "vote": "blend",
    "ensemble": "blend",
    "stack": "blend --method stacking",
    "average": "blend",
    "augment": "tta",
    "sweep": "kfold --sweep",
    "search": "tune",
    "hpo": "tune",
    "crop": "prepare",
    "list": "runs",
    "ls": "runs",
    "compare": "runs diff",
    "student": "distill",
    "refit": "kfold --fold all",
    "infer": "predict",
    "submit": "predict",
    "version": "--version",
    **{word: f"runs {word}" for word in ("diff", "note", "show", "rm", "rename", "mv")},
}
