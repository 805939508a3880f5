"""Exported models: one folder that predicts without anything else. The package itself is the function
``ensemble.export(blend, "model/")``.
"""

from folds._lazy import callable_package

callable_package(__name__, "ensemble.export.face")
