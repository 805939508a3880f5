"""Parse the stages of progressive resizing: the first epochs at smaller image sizes, ``128:5`` or ``96:3,160:4``."""

from __future__ import annotations

from dataclasses import dataclass

from folds.errors import UsageError
from folds.images.settings import parse_size

_HINT = "`progressive_resizing=128:5` trains the first 5 epochs at 128 px; `96:3,160:4` has two stages"


@dataclass(frozen=True)
class Stage:
    """Some epochs at one image size.

    Attributes
    ----------
    height, width : pixels.
    epochs : how many.
    """

    height: int
    width: int
    epochs: int


def parse_stages(text: str | None) -> tuple[Stage, ...]:
    """Return the stages before the epochs at the final size; () for None.

    Raises
    ------
    UsageError : not of the form ``PX:EPOCHS[,PX:EPOCHS]``, or a stage is not larger than the one before.
    """
    found: list[Stage] = []
    for part in (text or "").split(",") if text is not None else ():
        size, colon, epochs = part.strip().partition(":")
        if not (colon and epochs.isdecimal() and len(epochs) < 9 and int(epochs) > 0):
            raise UsageError(
                f"`progressive_resizing={(text or '')[:100]}`: expected PX:EPOCHS for each stage, found {part[:50]!r}",
                hint=_HINT,
            )
        try:
            height, width = parse_size(size)
        except UsageError:
            raise UsageError(
                f"`progressive_resizing={(text or '')[:100]}`: {size[:50]!r} is no size: expected a number of pixels "
                "(8–4096) or HEIGHTxWIDTH",
                hint=_HINT,
            ) from None
        if found and not _grows(found[-1], height, width):
            raise UsageError(
                f"`progressive_resizing={(text or '')[:100]}`: each stage must be larger than the one before",
                hint=_HINT,
            )
        found.append(Stage(height, width, int(epochs)))
    return tuple(found)


def check_stages(text: str | None, epochs: int) -> None:
    """Raise UsageError if no epoch is left for the final size."""
    used = sum(stage.epochs for stage in parse_stages(text))
    if used and used >= epochs:
        raise UsageError(
            f"`progressive_resizing={text}` takes {used} epochs, and there are {epochs}: none is left for the final "
            "size",
            hint=f"`epochs={used + 1}` or more, or fewer epochs at the smaller sizes",
        )


def check_below(text: str | None, size: tuple[int, int], name: str) -> None:
    """Raise UsageError if a stage is not smaller than the final size, (height, width), of the model `name`."""
    for stage in parse_stages(text)[-1:]:
        if not _grows(stage, *size):
            raise UsageError(
                f"`progressive_resizing={text}`: {stage.width}×{stage.height} px is not smaller than the final size of "
                f"{name}, {size[1]}×{size[0]} px",
                hint="the sizes of the stages grow up to that of `img_size`",
            )


def _grows(stage: Stage, height: int, width: int) -> bool:
    """Return whether a size is larger than that of a stage, and no side smaller."""
    return stage.height <= height and stage.width <= width and (stage.height, stage.width) != (height, width)
