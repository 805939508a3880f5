"""Find all unusable images before training, and report them in one error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from folds.errors import EnsembleError, combine_errors
from folds.images.bit_depth import show
from folds.images.content_index import MISSING, UnreadableImageError, open_regular, read_content
from folds.images.decode import decode_image, identify_image
from folds.images.settings import ImageSettings
from folds.images.stacks import shown_path, stack_parts
from folds.utils.parallel import map_threads
from folds.utils.progress import Advance


def unusable_images(
    paths: Sequence[Path],
    locations: Sequence[str] | None = None,
    *,
    settings: ImageSettings | None = None,
    threads: int | None = None,
    progress: Advance | None = None,
) -> list[tuple[int, str]]:
    """Return (position, problem) of each unusable image.

    Parameters
    ----------
    locations : the source of each path, for the texts.
    settings : decode all images with these settings; None to read only the headers.
    """
    return [
        (at, line)
        for at, line, _ in find_unusable(paths, locations, settings=settings, threads=threads, progress=progress)
    ]


def find_unusable(
    paths: Sequence[Path],
    locations: Sequence[str] | None = None,
    *,
    settings: ImageSettings | None = None,
    threads: int | None = None,
    progress: Advance | None = None,
) -> list[tuple[int, str, UnreadableImageError]]:
    """Return (position, problem as text, problem) of each unusable image; parameters as for `unusable_images`."""
    return [
        (at, problem_line(at, paths, locations, problem), problem)
        for at, problem in _problems(paths, settings, threads, progress)
    ]


def check_images(
    paths: Sequence[Path],
    locations: Sequence[str] | None = None,
    *,
    settings: ImageSettings | None = None,
    threads: int | None = None,
    progress: Advance | None = None,
) -> None:
    """Raise one EnsembleError for all unusable images; nothing is written.

    Without `settings` only headers are read, which finds missing or empty files, files that are not images, and images
    that are too large. With `settings` all images are decoded, which also finds truncated and damaged files.
    """
    problems = _problems(paths, settings, threads, progress)
    if problems:
        raise refusal(problems, paths, locations)


def refusal(
    problems: Sequence[tuple[int, UnreadableImageError]], paths: Sequence[Path], locations: Sequence[str] | None
) -> EnsembleError:
    """Return one error for the (position, problem) of many images, with a hint for their common cause."""
    lines = [problem_line(at, paths, locations, problem) for at, problem in problems]
    values = [problem.values for _, problem in problems if problem.values is not None]
    if len(values) == len(problems):
        low, high = min(low for low, _ in values), max(high for _, high in values)
        hint = f"set the values of black and white; the range found is `window={show(low)},{show(high)}`"
    elif all(problem.reason == MISSING for _, problem in problems):
        hint = "paths are relative to the folder of the table: check `data` and the path column (`path`)"
    else:
        hint = "replace these files, remove their rows from the table, or leave them out with `skip_unusable=True`"
    return combine_errors(lines, f"image{'s' if len(lines) > 1 else ''} cannot be used", hint=hint)


def problem_line(at: int, paths: Sequence[Path], locations: Sequence[str] | None, problem: UnreadableImageError) -> str:
    """Return ``train.csv row 3: images/a.jpg does not exist``."""
    return f"{locations[at] + ': ' if locations else ''}{shown_path(paths[at])} {problem.reason}"


def _problems(
    paths: Sequence[Path], settings: ImageSettings | None, threads: int | None, progress: Advance | None
) -> list[tuple[int, UnreadableImageError]]:
    def one(at: int) -> UnreadableImageError | None:
        try:
            if settings is None:
                for path in stack_parts(Path(paths[at])):
                    with open_regular(path) as file:
                        identify_image(file)
            else:
                decode_image(read_content(Path(paths[at])).data, settings)
        except UnreadableImageError as problem:
            return problem
        return None

    found = map_threads(one, len(paths), threads, progress)
    return [(at, problem) for at, problem in enumerate(found) if problem is not None]
