"""The combiner: prediction files in, better predictions and the truth about them out."""

from folds import __version__

__all__ = ["__version__"]
