"""Name the files and folders that several commands write and read; docs/files.md says what is in them."""

from __future__ import annotations

from pathlib import Path

RUNS = Path("runs")  # of runs, their predictions, and blends
FOLDS_FILE = Path("folds.csv")  # as `ensemble folds` writes it
RUN_CONFIG = "config.toml"  # the settings of a run
FOLD_DONE = "done.json"  # of a fold: it is finished, with what score
FOLD_STATE = "state.pt"  # of a fold: what its training continues from
FOLD_HISTORY = "history.csv"  # of a fold: its epochs
BLEND_RECORD = "blend.json"  # of a blend: its scores
BLEND_RECIPE = "blend.toml"  # of a blend: how it is made again
