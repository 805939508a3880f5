"""`ensemble kfold --preview`: some images as training sees them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from folds.augmentation.custom import load_transform
from folds.augmentation.mixup import MixupCutmix
from folds.augmentation.preview import PreviewSettings, preview_rows, write_preview
from folds.errors import UsageError
from folds.images.cache import load_images
from folds.images.settings import CACHE
from folds.runs.plan import Plan
from folds.training.resolve import presets_of, trained_labels
from folds.utils.files import check_not_existing
from folds.utils.parallel import Progress
from folds.utils.text import Note


def write_previews(
    plan: Plan,
    path: Path,
    force: bool = False,
    note: Note = lambda text: None,
    progress: Progress | None = None,
) -> list[Path]:
    """Draw a sheet for the first run of each architecture: ``FILE.png``, or ``FILE-<run>.png`` where there are several.

    Raises
    ------
    EnsembleError : a sheet exists and `force` is not given; an image cannot be used.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"--preview {path}: expected a PNG", hint=f"--preview {path.with_suffix('.png')}")
    runs = list({run.base: run for run in reversed(plan.runs)}.values())[::-1]
    table, written = plan.table, []
    for run in runs:
        file = path if len(runs) == 1 else path.with_name(f"{path.stem}-{run.name}{path.suffix}")
        check_not_existing(file, "the sheet", force)
        recipe = run.recipe
        cache = load_images(
            table.paths or (),
            run.image_settings,
            cache_dir=CACHE / "images",
            where=table.locations,
            note=note,
            progress=progress,
        )
        names, of_class = presets_of(recipe, table.classes, table.class_attributes)
        labels = trained_labels(recipe, table) or ([] if table.labels is None else table.labels.tolist())
        codes = of_class[[table.classes.index(label) for label in labels]]
        rows = np.array(preview_rows(labels, codes, recipe.seed))
        how = PreviewSettings(
            names,
            codes[rows],
            recipe.erase,
            MixupCutmix(recipe.mixup, recipe.cutmix),
            None if recipe.transform is None else load_transform(recipe.transform),
            run.architecture.mean,
            run.architecture.std,
            recipe.seed,
        )
        write_preview(file, cache.pixels[rows], [labels[row] for row in rows.tolist()], how)
        written.append(file)
    return written
