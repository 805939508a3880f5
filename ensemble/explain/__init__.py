"""Heat maps of what models looked at. The package itself is the function ``ensemble.explain(run, images)``."""

from folds._lazy import callable_package

callable_package(__name__, "ensemble.explain.face")
