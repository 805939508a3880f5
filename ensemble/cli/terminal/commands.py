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
    "decide": "fit thresholds, abstention and prediction sets of a run or a blend, and score them",
    "predict": "predict new images with a checkpoint, a run or a blend; write a submission",
    "export": "write a blend, a run or a checkpoint as one folder that predicts without anything else",
    "push": "upload an exported model to a repository of the Hugging Face Hub",
    "serve": "answer HTTP requests with a model, and show a page to drop images on",
    "soup": "average the weights of several runs fold by fold, if it is better out of fold",
    "costs": "score, passes, seconds, MB of one fold, k folds, TTA, the blend, its cascade, and what is smaller",
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
    "infer": "predict",
    "threshold": "decide",
    "abstain": "decide",
    "conformal": "decide --sets",
    "submit": "predict",
    "deploy": "serve",
    "server": "serve",
    "version": "--version",
    **{word: f"runs {word}" for word in ("diff", "note", "show", "rm", "rename", "mv")},
}
