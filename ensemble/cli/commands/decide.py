"""`ensemble decide`: fit thresholds, abstention and prediction sets, and print what they are worth on unseen people."""

from __future__ import annotations

from typing import Annotated

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import (
    AbstainLabelOption,
    AbstainOption,
    ConfidenceOption,
    CostOption,
    ScoreByOption,
    SetScoreOption,
    SetsForOption,
    SetsOption,
    ThresholdOption,
    scored_by_person,
)


def decide(
    what: Annotated[
        str,
        typer.Argument(
            help="the name of a run or of a blend, a blend.toml, or a prediction file", metavar="BLEND|RUN|FILE.npy"
        ),
    ],
    threshold: ThresholdOption = None,
    cost_matrix: CostOption = None,
    abstain: AbstainOption = None,
    sets: SetsOption = None,
    sets_for: SetsForOption = "image",
    set_score: SetScoreOption = "lac",
    confidence: ConfidenceOption = 0.9,
    abstain_label: AbstainLabelOption = "abstain",
    score_by: ScoreByOption = None,
) -> int:
    """Fit decision rules to out-of-fold predictions and print what they are worth; nothing is written.

    Every value is nested over people: each part of the people is decided by rules that were fitted to the others.
    People count equally, however many images they have. The risk–coverage curve shows the error of the answers if only
    the most confident images are answered. ensemble predict takes the same options and applies the rules to new images.
    """
    from ensemble.cli.reports.decide import decide_report
    from ensemble.decisions.face import decide as fit

    found = fit(
        what,
        threshold=threshold or None,
        cost_matrix=cost_matrix,
        abstain=abstain,
        sets=sets,
        sets_for=sets_for,
        set_score=set_score,
        confidence=confidence,
        abstain_label=abstain_label,
        per_person=scored_by_person(score_by),
    )
    console.result(decide_report(found), found.to_dict())
    for text in found.warnings:
        console.warn(text)
    return 0
