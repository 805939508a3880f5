"""Say what the default input size of a model costs, where it is large and was not chosen."""

from __future__ import annotations

from folds.data.table import Dataset
from folds.errors import EnsembleError
from folds.models.model_names import resolve
from folds.runs.run import Run

USUAL = 224  # px, the size of most models
_COSTLY = 1.5  # times the pixels of the usual size, from which the size is worth a line


def size_note(run: Run, data: Dataset) -> str:
    """Return one line about a model whose own size is larger than usual and was not asked for; "" for others."""
    shape, recipe = run.architecture, run.recipe
    pixels = shape.height * shape.width / USUAL**2
    if recipe.img_size is not None or pixels < _COSTLY or shape.joined:
        return ""
    settings = run.image_settings
    images = len(data.train) + (0 if data.test is None else len(data.test))
    size = images * settings.height * settings.width * settings.depth
    try:
        resolve(shape.name, (USUAL, USUAL), arguments=recipe.model_args)
        way = f"; `img_size={USUAL}` lowers both"
    except EnsembleError:
        way = f"; it does not accept {USUAL}×{USUAL} px"
    return (
        f"{run.base}: {shape.timm_name} reads images of {shape.width}×{shape.height} px by default: a step takes at "
        f"least {pixels:.1f} times as long as at {USUAL}×{USUAL} px, and {images:,} decoded images take "
        f"{size / 1e9:.2g} GB{way}"
    )
