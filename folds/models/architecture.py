"""Describe a model so that the same one can be built again: its name in timm, its input, arguments and head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from folds.models.head_spec import LINEAR


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build the same model again, as stored in the checkpoint.

    `height` and `width` are in pixels; `mean` and `std` apply to inputs scaled to 0–1; `arguments` are passed to
    ``timm.create_model``. `head` is ``linear``, ``cosine:30``, ``corn``, ``cumulative`` or a head on frozen features
    (`folds.models.head_spec`).
    `joined` are the backbones whose features are joined: mappings with `timm_name`, `mean`, `std` and `arguments`.
    """

    name: str
    timm_name: str
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    head: str = LINEAR
    joined: tuple[Mapping[str, Any], ...] = ()

    @property
    def channels(self) -> int:
        """Return the number of channels of an image, each of which has a mean."""
        return len(self.mean)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values; without those later ones that have their usual value."""
        usual = {"head": LINEAR, "joined": ()}
        return {name: value for name, value in asdict(self).items() if name not in usual or value != usual[name]}

    def parts(self) -> tuple[Architecture, ...]:
        """Return the joined backbones, or the architecture itself."""
        size = {"height": self.height, "width": self.width}
        own = [{**one, "mean": tuple(one["mean"]), "std": tuple(one["std"])} for one in self.joined]
        return tuple(Architecture(**{"name": one["timm_name"], **size, **one}) for one in own) or (self,)

    def describe(self) -> str:
        """Return one phrase for messages: ``swin_tiny_patch4_window7_224 with embed_dim=64, 64×64 px``."""
        arguments = {k: v for k, v in self.arguments.items() if k != "img_size"}
        named = (
            self.timm_name
            if not arguments
            else f"{self.timm_name} with {', '.join(f'{k}={v}' for k, v in arguments.items())}"
        )
        head = "" if self.head == LINEAR else f", {self.head} head"
        return f"{named}{head}, {self.width}×{self.height} px"
