"""Which images cannot be used: all of them in one error, before anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from folds.errors import EnsembleError, collected
from folds.images.bit_depth import show
from folds.images.content_index import MISSING, Unreadable, open_regular, read_content
from folds.images.decode import ImageSettings, decode_image, identify_image
from folds.utils.parallel import usable_cores

Progress = Callable[[int, int], None]  # images done, images in all
Result = TypeVar("Result")

_BLOCK = 8  # images a thread takes at a time


def unusable_images(
    paths: Sequence[Path],
    where: Sequence[str] | None = None,
    *,
    settings: ImageSettings | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[tuple[int, str]]:
    """(position, problem) of each image that cannot be used. Without `settings` only headers are read; with them all images are decoded."""
    return [(at, problem_line(at, paths, where, problem)) for at, problem in _problems(paths, settings, threads, progress)]


def check_images(
    paths: Sequence[Path],
    where: Sequence[str] | None = None,
    *,
    settings: ImageSettings | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Raise one EnsembleError for all images that cannot be used; nothing is written.

    Without `settings` only headers are read, which finds what is missing, empty, no image or too large; with them all images
    are decoded, which also finds what is truncated or damaged.
    """
    problems = _problems(paths, settings, threads, progress)
    if problems:
        raise refusal(problems, paths, where)


def refusal(problems: Sequence[tuple[int, Unreadable]], paths: Sequence[Path], where: Sequence[str] | None) -> EnsembleError:
    """One error out of the (position, problem) of many images, with the hint that fits them all."""
    lines = [problem_line(at, paths, where, problem) for at, problem in problems]
    values = [problem.values for _, problem in problems if problem.values is not None]
    if len(values) == len(problems):
        low, high = min(low for low, _ in values), max(high for _, high in values)
        hint = f"state the values that become black and white; those found are --window {show(low)},{show(high)}"
    elif all(problem.reason == MISSING for _, problem in problems):
        hint = "paths are relative to the table's folder: check --data and the path column (--path)"
    else:
        hint = "replace these files, or take their rows out of the table"
    return collected(lines, f"image{'s' if len(lines) > 1 else ''} cannot be used", hint=hint)


def problem_line(at: int, paths: Sequence[Path], where: Sequence[str] | None, problem: Unreadable) -> str:
    """``train.csv row 3: images/a.jpg does not exist``."""
    return f"{where[at] + ': ' if where else ''}{paths[at]} {problem.reason}"


def in_threads(task: Callable[[int], Result], count: int, threads: int | None, progress: Progress | None) -> list[Result]:
    """``[task(0), …, task(count - 1)]``, computed in threads (Pillow decodes outside Python's lock).

    When a task raises, or the user interrupts, what is running ends first: nothing works on after this returns.
    """
    results: list[Result] = []
    pool = ThreadPoolExecutor(max_workers=threads or usable_cores())
    with warnings.catch_warnings():  # Pillow's remarks about metadata would print one line a file
        warnings.simplefilter("ignore")
        try:
            for done in pool.map(lambda start: [task(at) for at in range(start, min(start + _BLOCK, count))], range(0, count, _BLOCK)):
                results += done
                if progress is not None:
                    progress(len(results), count)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return results


def _problems(paths: Sequence[Path], settings: ImageSettings | None, threads: int | None, progress: Progress | None) -> list[tuple[int, Unreadable]]:
    def one(at: int) -> Unreadable | None:
        try:
            if settings is None:
                with open_regular(Path(paths[at])) as file:
                    identify_image(file)
            else:
                decode_image(read_content(Path(paths[at])).data, settings)
        except Unreadable as problem:
            return problem
        return None

    found = in_threads(one, len(paths), threads, progress)
    return [(at, problem) for at, problem in enumerate(found) if problem is not None]
