"""The report: one page that shows what the numbers of runs and blends mean, and the images behind them. The package
itself is the function ``ensemble.report(…)``.
"""

from folds._lazy import callable_package

callable_package(__name__, "ensemble.report.face")
