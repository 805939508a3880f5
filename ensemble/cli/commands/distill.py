"""`ensemble distill`: train students of a blend."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ensemble.cli.commands.kfold import (
    BackendOption,
    BaselineOption,
    DevicesOption,
    FoldOption,
    HypothesisOption,
    LoggerOption,
    SaveEveryOption,
    StrictOption,
    planning_of,
    run_training,
    training_of,
)
from ensemble.cli.terminal import console
from ensemble.cli.terminal.options import (
    ConfigOption,
    DryRunOption,
    ForceOption,
    JobsOption,
    RayOption,
    ResumeOption,
    ScoreByOption,
    jobs_asked,
    setting_flags,
    takes_settings,
)


@takes_settings(*(key for key in setting_flags() if key != "soft_labels"))
def distill(
    blend: Annotated[
        str, typer.Argument(help="the teacher: the name of a blend or of a run, or a blend.toml", metavar="BLEND|RUN")
    ],
    fold: FoldOption = None,
    hypothesis: HypothesisOption = None,
    baseline: BaselineOption = None,
    logger: LoggerOption = None,
    jobs: JobsOption = "auto",
    devices: DevicesOption = "auto",
    backend: BackendOption = "local",
    ray_address: RayOption = None,
    save_every: SaveEveryOption = 30.0,
    score_by: ScoreByOption = None,
    resume: ResumeOption = False,
    force: ForceOption = False,
    strict: StrictOption = False,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    **given: Any,
) -> int:
    """Train one model per fold on the out-of-fold predictions of a blend: a student, one pass per image.

    The table and the folds are those of the blend. The target of an image is a mixture (--soft-weight) of its label and
    of the blend's out-of-fold prediction, which for a fitted blend is the nested one: no model behind it has seen its
    person. The student is a run like any other, named BLEND-student-ARCH. Settings are those of ensemble kfold.
    """
    from folds.utils.startup import lasting_imports

    with lasting_imports():
        from ensemble.distillation.teacher import find_teacher
        from folds.config.contradictions import check_contradictions
        from folds.config.files import load_settings
        from folds.config.lookup import by_key
        from folds.execution.placement import Execution

    training = training_of(score_by, resume, force, strict, hypothesis)
    check_contradictions({key: given[key] is not None for key in ("k", "holdout", "leave_out")})
    teacher = find_teacher(blend)
    flags = teacher.settings(by_key(given))
    settings, _, _ = load_settings(flags, config)
    flags.setdefault("name", settings.name or teacher.student_name(settings.arch))
    settings, recipe, origins = load_settings(flags, config)
    execution = Execution(devices, jobs_asked(jobs), backend, ray_address, save_every)
    planning = planning_of(fold, execution, baseline, origins) | {"variants": []}
    console.note(teacher.text())
    return run_training(settings, recipe, planning, training, logger=logger, preview=None, dry_run=dry_run)
