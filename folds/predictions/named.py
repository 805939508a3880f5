"""Find prediction files by the name of a run or of a blend, and tell which runs are unfinished.

A name is that of a run (``swin``), or of a folder of the program with a name in it: ``blends/soft-1a2b``, ``tta/swin``.
The bare name of a blend also finds it, unless a run has that name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from folds.predictions.file_names import BLEND_RECORD, RUN_CONFIG, RUNS
from folds.predictions.files import fold_files, oof_file
from folds.utils.toml import read_toml

BLENDS, TTA = "blends", "tta"


def blend_names(runs: Path = RUNS) -> list[str]:
    """Return the names of the blends, ``blends/<name>``, sorted."""
    return sorted(f"{BLENDS}/{path.parent.name}" for path in (runs / BLENDS).glob("*/blend.json"))


def is_blend(name: str, runs: Path = RUNS) -> bool:
    """Return whether a name is that of a blend: ``blends/<name>``, or ``<name>`` if there is no run of this name."""
    if name.startswith(f"{BLENDS}/"):
        return True
    taken = oof_file(runs, name).exists() or (runs / name / RUN_CONFIG).exists()
    return not taken and is_plain_name(name) and (runs / BLENDS / name / BLEND_RECORD).is_file()


def oof_of(name: str, runs: Path = RUNS) -> Path:
    """Return the file of out-of-fold predictions of a run or a blend; it need not exist."""
    if is_blend(name, runs):
        return runs / BLENDS / name.removeprefix(f"{BLENDS}/") / "oof.npy"
    return oof_file(runs, name)


def files_of(name: str, runs: Path = RUNS) -> list[Path]:
    """Return the existing prediction files of a name, out-of-fold first; [] if nothing has this name."""
    folder, _, rest = name.rpartition("/")
    if folder not in ("", BLENDS, TTA) or not is_plain_name(rest):
        return []
    if folder != TTA and is_blend(name, runs):
        found = [runs / BLENDS / rest / f"{split}.npy" for split in ("oof", "test")]
    else:
        found = [oof_file(runs / folder, rest), *fold_files(runs / folder, rest).values()]
    return [path for path in found if path.is_file()]


def prediction_names(runs: Path = RUNS) -> list[str]:
    """Return all names that `files_of` finds: runs, then blends."""
    own = {path.name.removesuffix(".oof.npy") for path in runs.glob("*.oof.npy")}
    return [*sorted(own), *blend_names(runs)]


@dataclass(frozen=True)
class Progress:
    """The finished folds of a run, and how many it has."""

    finished: int
    k: int

    def text(self) -> str:
        """Return ``2 of 5 folds``."""
        return f"{self.finished} of {self.k} fold{'' if self.k == 1 else 's'}"


def progress_of(run: str, runs: Path = RUNS) -> Progress | None:
    """Return how far a run is; None for predictions without a folder of the program, or with a damaged record."""
    folder = runs / run
    try:
        k = read_toml(folder / RUN_CONFIG).get("k")
    except (OSError, ValueError):
        return None
    if type(k) is not int or k < 1:
        return None
    return Progress(sum(path.parent.name[4:].isdecimal() for path in folder.glob("fold*/done.json")), k)


def unfinished_runs(runs: Path = RUNS) -> dict[str, Progress]:
    """Return the runs that are not trained on all their folds, by name."""
    names = sorted(path.parent.name for path in runs.glob("*/config.toml"))
    found = {name: progress_of(name, runs) for name in names}
    return {name: one for name, one in found.items() if one is not None and one.finished < one.k}


def is_plain_name(name: str) -> bool:
    """Return whether a name is that of a file in a folder, and leads nowhere else."""
    return bool(name) and name not in (".", "..") and "/" not in name and "\0" not in name
