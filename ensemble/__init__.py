"""Combine prediction files of k-fold runs, and score the combination by nested cross-validation.

``import ensemble as en`` gives the names of `folds` and of this package. Each name is imported on first use.
"""

from typing import TYPE_CHECKING

from folds import _NAMES as _SHARED
from folds import __version__
from folds._lazy import attach

# Name → the module that it is imported from. A test checks that the imports below, for type checkers, are the same.
_NAMES = {
    **dict.fromkeys(_SHARED, "folds"),
    "Blend": "ensemble.blending.blend",
    "ColumnMistakes": "ensemble.review.column_mistakes",
    "CostTable": "ensemble.prediction.costs_table",
    "Decision": "ensemble.decisions.decision",
    "DecisionReport": "ensemble.decisions.report",
    "DoubtfulColumns": "ensemble.review.column_labels",
    "DoubtfulLabels": "ensemble.review.labels",
    "ExportedModel": "ensemble.export.face",
    "HeatMaps": "ensemble.explain.result",
    "Mistakes": "ensemble.review.mistakes",
    "PredictedImages": "ensemble.prediction.result",
    "Predictor": "ensemble.export.predictor",
    "TTAResult": "ensemble.tta.face",
    "blend": "ensemble.blending.face",
    "costs": "ensemble.prediction.costs",
    "decide": "ensemble.decisions.face",
    "explain": "ensemble.explain",  # the package, which is callable
    "export": "ensemble.export",  # the package, which is callable
    "from_hub": "ensemble.export.hub",
    "labels": "ensemble.review.labels",
    "load": "ensemble.export.predictor",
    "mistakes": "ensemble.review.mistakes",
    "distill": "ensemble.distillation.face",
    "predict": "ensemble.prediction.face",
    "push": "ensemble.export.hub",
    "report": "ensemble.report",  # the package, which is callable
    "serve": "ensemble.serving.face",
    "tta": "ensemble.tta",  # the package, which is callable
}
__getattr__, __dir__ = attach(__name__, _NAMES)
__all__ = ["__version__", *_NAMES]

if TYPE_CHECKING:
    from ensemble.blending.blend import Blend as Blend
    from ensemble.blending.face import blend as blend
    from ensemble.decisions.decision import Decision as Decision
    from ensemble.decisions.face import decide as decide
    from ensemble.decisions.report import DecisionReport as DecisionReport
    from ensemble.distillation.face import distill as distill
    from ensemble.explain.face import explain as explain
    from ensemble.explain.result import HeatMaps as HeatMaps
    from ensemble.export.face import ExportedModel as ExportedModel
    from ensemble.export.face import export as export
    from ensemble.export.hub import from_hub as from_hub
    from ensemble.export.hub import push as push
    from ensemble.export.predictor import Predictor as Predictor
    from ensemble.export.predictor import load as load
    from ensemble.prediction.costs import costs as costs
    from ensemble.prediction.costs_table import CostTable as CostTable
    from ensemble.prediction.face import predict as predict
    from ensemble.prediction.result import PredictedImages as PredictedImages
    from ensemble.report.face import report as report
    from ensemble.review.column_labels import DoubtfulColumns as DoubtfulColumns
    from ensemble.review.column_mistakes import ColumnMistakes as ColumnMistakes
    from ensemble.review.labels import DoubtfulLabels as DoubtfulLabels
    from ensemble.review.labels import labels as labels
    from ensemble.review.mistakes import Mistakes as Mistakes
    from ensemble.review.mistakes import mistakes as mistakes
    from ensemble.serving.face import serve as serve
    from ensemble.tta.face import TTAResult as TTAResult
    from ensemble.tta.face import tta as tta
    from folds import AuditReport as AuditReport
    from folds import Dataset as Dataset
    from folds import Difference as Difference
    from folds import EnsembleError as EnsembleError
    from folds import FoldAssignment as FoldAssignment
    from folds import FoldsFailed as FoldsFailed
    from folds import Interval as Interval
    from folds import Predictions as Predictions
    from folds import Prepared as Prepared
    from folds import RepeatedStratifiedPersonKFold as RepeatedStratifiedPersonKFold
    from folds import Run as Run
    from folds import Runs as Runs
    from folds import SampleTable as SampleTable
    from folds import Soup as Soup
    from folds import StratifiedPersonKFold as StratifiedPersonKFold
    from folds import StratifiedPersonShuffleSplit as StratifiedPersonShuffleSplit
    from folds import StudyReport as StudyReport
    from folds import UsageError as UsageError
    from folds import audit as audit
    from folds import compare as compare
    from folds import kfold as kfold
    from folds import list_runs as list_runs
    from folds import load_folds as load_folds
    from folds import load_run as load_run
    from folds import make_people as make_people
    from folds import prepare as prepare
    from folds import read_predictions as read_predictions
    from folds import read_table as read_table
    from folds import score as score
    from folds import soup as soup
    from folds import split as split
    from folds import tune as tune
