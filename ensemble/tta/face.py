"""`ensemble.tta`: predict a trained run in several views, merge the views, and score the merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble.tta.merge import MergeConfig
from ensemble.tta.result import MergedViews
from ensemble.tta.run import augment_folds
from ensemble.tta.scores import TTAGain, ViewScores, gain_of, tta_record
from ensemble.tta.views import parse_views
from folds.data.table import folder_names
from folds.metrics.intervals import Difference
from folds.metrics.task_names import COLUMN_TASKS
from folds.predictions.files import fold_files, oof_file
from folds.predictions.predictions import Predictions, mean_of_folds, read_predictions
from folds.utils.arguments import FLAG, NAME, PATH, PROGRESS, check_arguments, list_of, whole, wrong_argument
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.display import Displayed, Table
from folds.utils.progress import Progress
from folds.utils.schema import either, named, optional
from folds.utils.text import counted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class TTAResult(Displayed):
    """The predictions of a run in several views, merged and scored.

    Attributes
    ----------
    made : the merge of the views.
    scored : scores of the views and of their merge, one entry per split.
    gains : out-of-fold gain of the merge; None without labels, or with a single view.
    root : the folder that holds ``runs/``.
    """

    made: MergedViews
    scored: tuple[ViewScores, ...]
    gains: TTAGain | None
    root: Path = Path()

    @property
    def run(self) -> str:
        """Return the name of the run."""
        return self.made.run

    @property
    def oof(self) -> Predictions:
        """Return the merged out-of-fold predictions."""
        return read_predictions(oof_file(self.root / "runs" / "tta", self.run))

    @property
    def test(self) -> Predictions | None:
        """Return the mean over the fold models of the merged test predictions; None without test samples."""
        return mean_of_folds(list(fold_files(self.root / "runs" / "tta", self.run).values()))

    @property
    def gain(self) -> Difference | None:
        """Return the score of the merge minus that of the plain image, paired over people; None without labels.

        The score is macro F1 for classes, else the default metric of the task.
        """
        return None if self.gains is None else self.gains.against_plain

    @property
    def _has_columns(self) -> bool:
        return self.made.task in COLUMN_TASKS

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files of the merged predictions, which `ensemble.blend` can combine."""
        folder = self.root / "runs" / "tta"
        found = (oof_file(folder, self.run), *fold_files(folder, self.run).values())
        return tuple(path for path in found if path.exists())

    def frame(self) -> pd.DataFrame:
        """Return one row per split and view, and one per merge: score with its 95% CI, weight, accuracy of classes."""
        import pandas as pd

        rows = []
        for one in self.scored:
            merged = [] if one.merged is None else [("merged", one.merged)]
            for name, score in [*one.views.items(), *merged]:
                found, weights = score.interval, self.made.merge.weights.get(name)
                ends = {"low": found.low, "high": found.high}
                row = {"split": one.split, "view": name, self.made.metric.name: found.value, **ends}
                weight = None if weights is None else float(np.mean(weights))
                rows.append(row | ({} if self._has_columns else {"accuracy": score.accuracy}) | {"weight": weight})
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values that ``ensemble tta --json`` prints."""
        return tta_record(self.made, self.scored, self.gains)

    def display_table(self) -> Table:
        """Return the table that a notebook shows: one row per view and per merge, and the gain of the merge."""
        rows, title = [], self.made.metric.title
        for one in self.scored:
            merged = (
                [] if one.merged is None else [(f"{self.made.merge.how} of {len(self.made.merge.views)}", one.merged)]
            )
            for name, score in [*one.views.items(), *merged]:
                found = score.interval
                rows.append(
                    [
                        one.split,
                        name,
                        f"{found.value:.3f}",
                        found.ci_text(),
                        *(() if self._has_columns else (f"{score.accuracy:.3f}",)),
                    ]
                )
        warnings = [one.merged.interval.warning for one in self.scored if one.merged is not None]
        notes = [f"warning: {warning}" for warning in dict.fromkeys(warnings) if warning]
        if self.gain is not None:
            notes.append(f"vs no TTA: {self.gain.difference.signed_text()} {title} (paired 95% CI over people)")
        return Table(
            f"{self.run} in {counted(len(self.made.merge.views), 'view')}",
            ["split", "view", title, "95% CI", *(() if self._has_columns else ("accuracy",))],
            rows,
            notes,
            left=2,
        )

    def display_parts(self) -> Sequence[str]:
        """Return the forest plot of the gain; () without labels."""
        if self.gains is None:
            return ()
        from folds.utils.charts.rows import forest  # here, because only notebooks need it
        from folds.utils.charts.series import Row  # here, because only notebooks need it
        from folds.utils.html import figure

        found = {
            "against the plain image": self.gains.against_plain,
            "against the mean of all": self.gains.against_mean,
        }
        rows = [
            Row(name, one.difference.value, one.difference.low, one.difference.high, one.difference.signed_text())
            for name, one in found.items()
            if np.isfinite(one.difference.value)
        ]
        metric = self.made.metric
        title = f"Gain of the views of {self.run}: paired difference in {metric.title}, 95% CI over people"
        text = "; ".join(f"{name} {one.text()}" for name, one in found.items()) + "."
        ends = ("worse with views", "better with views")
        left, right = ends if metric.greater_is_better else ends[::-1]
        drawn = forest(rows, title, text, f"difference in {metric.title}", left=left, right=right)
        return (figure(drawn, title, text),)


_KINDS = {
    "views": named(either(NAME, list_of(NAME, "views")), "text or a list of views, such as 'hflip'"),
    "merge": NAME,
    "budget": optional(whole()),
    "data": optional(PATH),
    "device": named(either(NAME, whole(0)), "auto, cpu, or GPU numbers such as 0,1"),
    "root": PATH,
    "progress": PROGRESS,
    **dict.fromkeys(("adaptive", "per_person", "force"), FLAG),
}


def tta(
    run: Any,
    *,
    views: str | Sequence[str] = "hflip",
    merge: str = "mean",
    budget: int | None = None,
    adaptive: bool = False,
    data: str | Path | None = None,
    test: str | Path | None = None,
    images: str | Path | Sequence[str | Path] | None = None,
    test_images: str | Path | Sequence[str | Path] | None = None,
    per_person: bool = False,
    device: str = "auto",
    force: bool = False,
    root: str | Path = ".",
    progress: bool | Progress = True,
) -> TTAResult:
    """Predict a run's validation and test rows in several views, merge the views, and return the merge and its gain.

    The same as the command ``ensemble tta``. Views that were predicted before are not predicted again, so that another
    merge needs no prediction.

    Parameters
    ----------
    run : a run (from `kfold` or `load_run`), its name, or the path of a checkpoint.
    views : ``hflip``, ``vflip``, ``rot90``, ``d4``, ``scale:1.1``, …, joined by ``,`` or ``*``, or a list of them; the
        plain image is always one of the views.
    merge : ``mean`` or ``geometric``; ``weighted`` or ``classwise``, with weights fitted on out-of-fold predictions;
        ``auto``, the best of these. Of numbers ``median`` instead of ``geometric``; ``classwise`` is for classes.
    budget : maximum number of views per image, chosen by out-of-fold score.
    adaptive : whether to use more views only where the plain image is uncertain; for classes.
    data, test : the table that the run was trained on and its test images, if they have moved.
    images, test_images : folder (or folders) of the images that these tables name, if they have moved.
    per_person : whether to average the probabilities of each person's images before scoring.
    device : ``auto`` (all GPUs), ``cpu``, or GPU numbers ``0,1``; the rows of a fold are divided among them.
    force : whether to predict the views again.
    root : the folder that holds ``runs/`` and ``checkpoints/``; ignored if `run` is a run, which has its own.
    progress : False for no progress output.

    Raises
    ------
    UsageError : an unknown view or merge.
    EnsembleError : the run does not exist, the table lacks rows of the run, or a fitted merge has no labels.

    Examples
    --------
    Predict in two views besides the plain image, and let the merge vote beside the plain run::

        turned = en.tta("swin", views=["hflip", "scale:1.1"])
        turned.gain  # +0.012 [+0.003, +0.021], significant
        en.blend({"swin": en.load_run("swin"), "swin-tta": turned})

    Views are checked before anything is predicted:

    >>> import ensemble as en
    >>> en.tta("swin", views="hflop")
    Traceback (most recent call last):
    ...
    folds.errors.UsageError: unknown view 'hflop'; did you mean hflip or vflip?
    """
    log_in_notebook()
    check_arguments(locals(), _KINDS)
    if not isinstance(run, str | Path):
        name, folder = getattr(run, "name", None), getattr(run, "root", None)
        if name is None or folder is None:
            raise wrong_argument("run", "a run or its name", run)
        run, root = name, folder
    config = MergeConfig(merge, budget, adaptive)
    config.check()
    made, scored = augment_folds(
        str(run),
        parse_views(views if isinstance(views, str) else ",".join(views)),
        config,
        data=None if data is None else Path(data),
        test=None if test is None else Path(test),
        images=folder_names(images),
        test_images=folder_names(test_images),
        per_person=per_person,
        device=str(device),
        force=force,
        root=Path(root),
        progress=progress_of(progress),
    )
    return TTAResult(made, tuple(scored), gain_of(made, per_person), Path(root))
