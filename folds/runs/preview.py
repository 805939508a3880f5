"""Write images with their augmentation for ``ensemble kfold --preview``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from folds.augmentation.custom import load_transform
from folds.augmentation.mixup import MixupCutmix
from folds.augmentation.preview import MAX_IMAGES, PreviewSettings, preview_rows, write_preview
from folds.errors import UsageError
from folds.images.cache import load_images
from folds.runs.plan import Plan
from folds.runs.run import Run
from folds.training.resolve import presets_of, trained_labels
from folds.utils.files import check_not_existing
from folds.utils.progress import SILENT, Progress

_MAX_CLASSES = 40  # on a sheet, one per row; more make it too long to look at


def write_previews(plan: Plan, path: Path, force: bool = False, progress: Progress = SILENT) -> list[Path]:
    """Write a sheet of images for the first run of each architecture; return the paths.

    The file is ``FILE.png``, or ``FILE-<run>.png`` for several runs.

    Raises
    ------
    UsageError : `path` is not a PNG file.
    EnsembleError : a sheet exists and `force` is not given, or an image cannot be used.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"`preview={path}`: expected a .png file", hint=f"`preview={path.with_suffix('.png')}`")
    runs = list({run.base: run for run in reversed(plan.runs)}.values())[::-1]
    written = []
    with progress.step("decoding images") as advance:
        for run in runs:
            file = path if len(runs) == 1 else path.with_name(f"{path.stem}-{run.name}{path.suffix}")
            check_not_existing(file, "the sheet", force)
            cache = load_images(
                plan.table.paths or (),
                run.image_settings,
                cache_dir=plan.image_cache,
                locations=plan.table.locations,
                progress=advance,
            )
            _write(plan, run, file, cache.pixels)
            written.append(file)
    return written


def _write(plan: Plan, run: Run, file: Path, pixels: NDArray[np.uint8]) -> None:
    table, recipe = plan.table, run.recipe
    names, class_index = presets_of(recipe, table.classes, table.class_attributes)
    labels = trained_labels(recipe, table) or ([] if table.labels is None else table.labels.tolist())
    index = np.array([0 if table.has_columns else table.classes.index(label) for label in labels], np.int64)
    codes = class_index[index]
    rows = np.array(
        preview_rows(labels, codes, recipe.seed, max_images=max(MAX_IMAGES, min(len(table.classes), _MAX_CLASSES)))
    )
    settings = PreviewSettings(
        names,
        codes[rows],
        recipe.erase,
        MixupCutmix(recipe.mixup, recipe.cutmix),
        None if recipe.transform is None else load_transform(recipe.transform),
        run.architecture.mean,
        run.architecture.std,
        recipe.seed,
        recipe.crop_scale,
        recipe.crop_ratio,
        (run.architecture.height, run.architecture.width),
        not (run.image_settings.channels or run.image_settings.stack),
    )
    write_preview(file, pixels[rows], [labels[row] for row in rows.tolist()], settings)
