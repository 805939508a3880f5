"""The fold manager: a table of images in, trained folds and prediction files out.

Names are loaded by their first use, so that ``import folds`` takes no time. `ensemble` shows the same names, and those
of the combiner.
"""

from typing import TYPE_CHECKING

from folds._lazy import attach

__version__ = "0.2.0"

# Name → the module that it is loaded from; a test holds it together with the imports below, which type checkers read.
_NAMES = {
    "AuditReport": "folds.auditing.run",
    "Dataset": "folds.data.table",
    "Difference": "folds.metrics.intervals",
    "EnsembleError": "folds.errors",
    "FoldAssignment": "folds.splits.assignment",
    "FoldsFailed": "folds.errors",
    "Interval": "folds.metrics.intervals",
    "Predictions": "folds.predictions.predictions",
    "Prepared": "folds.preparation.pipeline",
    "RepeatedStratifiedPersonKFold": "folds.splits.sklearn_splitters",
    "Run": "folds.runs.results",
    "Runs": "folds.runs.results",
    "SampleTable": "folds.data.table",
    "Soup": "folds.runs.soup",
    "StratifiedPersonKFold": "folds.splits.sklearn_splitters",
    "StratifiedPersonShuffleSplit": "folds.splits.sklearn_splitters",
    "StudyReport": "folds.tuning.report",
    "UsageError": "folds.errors",
    "audit": "folds.auditing.face",
    "compare": "folds.metrics.arrays",
    "kfold": "folds.runs.face",
    "list_runs": "folds.runs.results",
    "load_folds": "folds.splits.split",
    "load_run": "folds.runs.results",
    "make_people": "folds.data.synthetic.labeled_people",
    "prepare": "folds.preparation.face",
    "read_predictions": "folds.predictions.predictions",
    "read_table": "folds.data.face",
    "score": "folds.metrics.arrays",
    "soup": "folds.runs.soup",
    "split": "folds.splits.split",
    "tune": "folds.tuning.face",
}
__getattr__, __dir__ = attach(__name__, _NAMES)
__all__ = ["__version__", *_NAMES]

if TYPE_CHECKING:
    from folds.auditing.face import audit as audit
    from folds.auditing.run import AuditReport as AuditReport
    from folds.data.face import read_table as read_table
    from folds.data.synthetic.labeled_people import make_people as make_people
    from folds.data.table import Dataset as Dataset
    from folds.data.table import SampleTable as SampleTable
    from folds.errors import EnsembleError as EnsembleError
    from folds.errors import FoldsFailed as FoldsFailed
    from folds.errors import UsageError as UsageError
    from folds.metrics.arrays import compare as compare
    from folds.metrics.arrays import score as score
    from folds.metrics.intervals import Difference as Difference
    from folds.metrics.intervals import Interval as Interval
    from folds.predictions.predictions import Predictions as Predictions
    from folds.predictions.predictions import read_predictions as read_predictions
    from folds.preparation.face import prepare as prepare
    from folds.preparation.pipeline import Prepared as Prepared
    from folds.runs.face import kfold as kfold
    from folds.runs.results import Run as Run
    from folds.runs.results import Runs as Runs
    from folds.runs.results import list_runs as list_runs
    from folds.runs.results import load_run as load_run
    from folds.runs.soup import Soup as Soup
    from folds.runs.soup import soup as soup
    from folds.splits.assignment import FoldAssignment as FoldAssignment
    from folds.splits.sklearn_splitters import RepeatedStratifiedPersonKFold as RepeatedStratifiedPersonKFold
    from folds.splits.sklearn_splitters import StratifiedPersonKFold as StratifiedPersonKFold
    from folds.splits.sklearn_splitters import StratifiedPersonShuffleSplit as StratifiedPersonShuffleSplit
    from folds.splits.split import load_folds as load_folds
    from folds.splits.split import split as split
    from folds.tuning.face import tune as tune
    from folds.tuning.report import StudyReport as StudyReport
