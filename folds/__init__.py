"""The fold manager: a table of images in, trained folds and prediction files out."""

__version__ = "0.2.0"
