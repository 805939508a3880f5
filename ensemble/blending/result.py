"""The attributes of a blend that writing and reporting need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ensemble.alignment.split import AlignedSplit
from ensemble.analysis.cost import Costs
from ensemble.blending.contributions import ContributionReport
from ensemble.blending.fit import FittedBlend
from ensemble.blending.request import BlendConfig
from ensemble.blending.scores import RunScore
from ensemble.learning.combination import Combination
from ensemble.members.reading import Member
from ensemble.voting.base import Vote


class BlendResult:
    """The base of `ensemble.blending.blend.Blend`, which has these attributes."""

    identity: str
    request: BlendConfig
    method: str
    weights: Mapping[str, float]
    splits: Mapping[str, AlignedSplit]
    votes: Mapping[str, Vote]
    runs: Mapping[str, Mapping[str, RunScore]]
    total: Mapping[str, RunScore]
    members: Sequence[Member]
    costs: Costs
    combination: Combination | None
    fitted: FittedBlend | None
    worths: ContributionReport | None
    notes: Sequence[str]

    @property
    def name(self) -> str:
        """Return the default name, method and short hash: ``soft-1a2b3c4d``."""
        return f"{self.method}-{self.identity[:8]}"

    def record(self) -> dict[str, Any]:
        """Return the content of blend.json."""
        raise NotImplementedError
