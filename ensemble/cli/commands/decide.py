"""`ensemble decide`: fit thresholds, abstention and prediction sets, and print what they are worth on unseen people."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import ScoreByOption, rules_of, scored_by_person, takes_settings
from folds.predictions.file_names import BLEND_RECIPE


@takes_settings(rules=True)
def decide(
    what: Annotated[
        str,
        typer.Argument(
            help="the name of a run or of a blend, a blend.toml, or a prediction file", metavar="BLEND|RUN|FILE.npy"
        ),
    ],
    score_by: ScoreByOption = None,
    **given: Any,
) -> int:
    """Fit decision rules to out-of-fold predictions and print what they are worth; nothing is written.

    Every value is nested over people: each part of the people is decided by rules that were fitted to the others.
    People count equally, however many images they have. The risk–coverage curve shows the error of the answers if only
    the most confident images are answered. ensemble predict takes the same options and applies the rules to new images.
    """
    from ensemble.cli.reports.decide import decide_report
    from ensemble.decisions.decision import Decision
    from ensemble.decisions.face import decide as fit
    from ensemble.decisions.rows import PERSON

    console.flags = {**console.flags, "per_person": "--score-by person"}
    found = fit(
        what,
        **rules_of(given),
        per_person=scored_by_person(score_by),
    )
    console.result(decide_report(found), found.to_dict())
    for text in found.warnings:
        console.warn(text)
    decision = found.decision
    if _predicts(what, decision.source.kind) and not (isinstance(decision, Decision) and decision.answers_nothing):
        options = [*console.again_without("score_by"), *(["--per", "person"] if decision.unit == PERSON else [])]
        console.next_step(f"ensemble predict {shlex.quote(what)} IMAGES", [*options, "--csv", "answers.csv"])
    return 0


def _predicts(what: str, kind: str) -> bool:
    """Return whether `ensemble predict` takes this name: a run with checkpoints, or a blend with its description."""
    path = Path(what)
    if kind == "blend":
        folder = path.parent if path.suffix == ".toml" else path
        return any((one / BLEND_RECIPE).is_file() for one in (folder, Path("runs/blends") / what))
    return kind == "run" and (Path("checkpoints") / what).is_dir()
