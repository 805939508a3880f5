"""`ensemble.explain`: heat maps of what the models of a run looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ensemble.explain.assignment import assign, find_images, load_models, open_tables
from ensemble.explain.result import HeatMaps
from folds.data.table import folder_names
from folds.utils.arguments import NAME, PATH, PROGRESS, check_arguments, list_of, whole, wrong_argument
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.progress import Progress
from folds.utils.schema import either, named, optional

_KINDS = {
    "images": named(either(PATH, list_of(PATH, "images")), "an image, an id, or a list of them"),
    "target_class": NAME,
    "head": optional(NAME),
    "fold": optional(whole(0)),
    "data": optional(PATH),
    "test": optional(PATH),
    "device": named(either(NAME, whole(0)), "auto, cpu, or the number of a GPU"),
    "root": PATH,
    "progress": PROGRESS,
}


def explain(
    run: Any,
    images: str | Path | Sequence[str | Path],
    *,
    target_class: str = "predicted",
    head: str | None = None,
    fold: int | None = None,
    data: str | Path | None = None,
    test: str | Path | None = None,
    image_folders: str | Sequence[str] | None = None,
    test_image_folders: str | Sequence[str] | None = None,
    device: str | int = "auto",
    root: str | Path = ".",
    progress: bool | Progress = True,
) -> HeatMaps:
    """Show which parts of images the models of a run used, as heat maps by Grad-CAM.

    An image of the training is explained by the model of the fold that has not seen its person. Other images are
    explained by all models: the mean of their maps, and where they disagree. Needs the extra ``explain``.

    Parameters
    ----------
    run : a run, its name, or the path of a checkpoint.
    images : ids of the table of the training, files, folders or patterns; at most 1,000 images.
    target_class : the class whose evidence is shown: ``predicted``, ``true``, or the name of a class.
    head : attribute of a model with one head per attribute; by default the label, which joins them.
    fold : explain with the model of this fold alone, also images that it was trained on.
    data, test : the table the run was trained on and its test images, if they have moved.
    image_folders, test_image_folders : folders of the images that these tables name, if they have moved.
    device : ``auto``, ``cpu`` or the number of a GPU.
    root : the folder that holds ``runs/`` and ``checkpoints/``.
    progress : False for no progress output.

    Returns
    -------
    HeatMaps with ``.maps`` float32 (n, height, width) in 0–1, ``.disagreement``, ``.probabilities``, ``.save(folder)``.

    Raises
    ------
    UsageError : no such class, head or fold.
    EnsembleError : the library is not installed; there is no such run or image; an image cannot be read; or the
        architecture has no features on a grid.

    Examples
    --------
    Look at three images, then write the pictures::

        looked = en.explain("swin", ["new/1.jpg", "new/2.jpg", "p017/03.jpg"])
        looked.save("heat/")

    A run that does not exist is named:

    >>> import ensemble as en
    >>> en.explain("swin", "new/1.jpg", root="/nowhere")
    Traceback (most recent call last):
    ...
    folds.errors.EnsembleError: checkpoint or run not found: swin
    """
    log_in_notebook()
    check_arguments(locals(), _KINDS)
    if not isinstance(run, str | Path):
        name, folder = getattr(run, "name", None), getattr(run, "root", None)
        if name is None or folder is None:
            raise wrong_argument("run", "a run, its name or a checkpoint", run)
        run, root = name, folder
    models = load_models(str(run), fold, Path(root))
    # Here, because it imports torch; a missing run is an error before.
    from ensemble.explain.images import explain_images
    from ensemble.explain.maps import require_library

    require_library()
    tables = open_tables(
        next(iter(models.values())),
        Path(root),
        data=None if data is None else Path(data),
        test=None if test is None else Path(test),
        images=folder_names(image_folders),
        test_images=folder_names(test_image_folders),
    )
    listed = [images] if isinstance(images, str | Path) else list(images)
    found = find_images([str(one) for one in listed], tables)
    return explain_images(
        models,
        assign(found, models, forced=fold is not None or Path(run).is_file()),
        target_class=target_class,
        head=head,
        device=str(device),
        progress=progress_of(progress),
    )
