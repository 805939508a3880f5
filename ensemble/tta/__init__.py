"""Test-time augmentation: a trained run predicted in several views. The package itself is the function
``ensemble.tta(run, views=…)``.
"""

from folds._lazy import callable_package

callable_package(__name__, "ensemble.tta.face")
