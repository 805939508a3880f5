"""Options of the command line: those made from the descriptions of settings, and those of several commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from ensemble.cli.terminal import console
from folds.config.setting import DATA, FOLDS, FROZEN, MODEL, OPTIMIZER, RUN, SAMPLING, TRAINING, Setting

EXPERIMENT, EXECUTION, REPORT, WRITTEN = "Experiment", "Execution", "Report", "Output"
# Titles of the panels of `--help`, in this order; a command's own panels come between the two groups.
FIRST_PANELS = (DATA, FOLDS, MODEL, TRAINING, OPTIMIZER, SAMPLING, FROZEN)
LAST_PANELS = (EXPERIMENT, EXECUTION, REPORT, RUN)
COLUMNS = ("path", "label", "person", "id", "split", "person_regex")
# Further settings of how a table and its images are read.
READING = (
    *("images", "test_images", "test_labels", "missing_persons", "merge_spellings", "skip_unusable", "max_pixels"),
    *("stack", "label_of", "uncertain"),
)

ScoreByOption = Annotated[
    str | None,
    typer.Option(
        "--score-by",
        "--per",
        help="person: average the predictions for each person (group) before scoring",
        metavar="person",
        rich_help_panel=REPORT,
    ),
]
# The data of a training, for commands that find them in its record.
TableOption = Annotated[
    Path | None,
    typer.Option("--data", help="the table it was trained on, if it has moved", metavar="PATH", rich_help_panel=DATA),
]
TestTableOption = Annotated[
    Path | None,
    typer.Option("--test", help="its test images, if they have moved", metavar="PATH", rich_help_panel=DATA),
]
ImageFoldersOption = Annotated[
    str | None,
    typer.Option(
        "--images",
        help="the folder of the images that the table names, if it has moved",
        metavar="DIR[,DIR]",
        rich_help_panel=DATA,
    ),
]
TestImageFoldersOption = Annotated[
    str | None,
    typer.Option("--test-images", help="the same for the test table", metavar="DIR[,DIR]", rich_help_panel=DATA),
]
DeviceOption = Annotated[
    str, typer.Option("--devices", help="auto, cpu, a GPU number, mps, or xpu", rich_help_panel=EXECUTION)
]
PredictingDevicesOption = Annotated[
    str, typer.Option("--devices", help="auto, cpu, GPU numbers 0,1, mps, or xpu", rich_help_panel=EXECUTION)
]
MODELS = "Models"
FoldsOption = Annotated[
    str | None,
    typer.Option(
        help="models of a run: numbers of folds, or all: its model of all people",
        metavar="I[,J]|all",
        rich_help_panel=MODELS,
    ),
]
RefitOption = Annotated[
    bool,
    typer.Option("--refit", help="each run of a blend predicts with its model of all people", rich_help_panel=MODELS),
]
CascadeOption = Annotated[
    str | None,
    typer.Option(
        help="skip models that an image does not need: exact (no decision changes), or the loss of the nested score "
        "that is allowed, e.g. .001; off: use all models of an exported model that has a cascade",
        metavar="exact|LOSS|off",
        rich_help_panel=EXECUTION,
    ),
]
PassCostOption = Annotated[
    str | None,
    typer.Option(
        help="cost of a forward pass of each run, for --cascade [multiplications]",
        metavar="RUN=N,…",
        rich_help_panel=EXECUTION,
    ),
]
DECISIONS = "Decisions"
ThresholdOption = Annotated[
    list[str] | None,
    typer.Option(
        help="CLASS=.3, or an aim to fit it to: CLASS:sensitivity>=.95, CLASS:specificity>=…, CLASS:precision>=…, "
        "CLASS:youden, macro_f1, or rounder[:METRIC] for grades; may be repeated",
        metavar="RULE",
        rich_help_panel=DECISIONS,
    ),
]
CostOption = Annotated[
    Path | None,
    typer.Option(
        help="take the decision with the smallest expected cost: a CSV or TOML of true class × decision; of several "
        "labels hat:fn=5,fp=1,ask=.5, or a table of these",
        metavar="COSTS",
        rich_help_panel=DECISIONS,
    ),
]
AbstainOption = Annotated[
    float | None,
    typer.Option(
        help="answer only where the confidence is so high that at most this share of the answers is wrong; of several "
        "labels of the yes and of the no",
        metavar="ERROR",
        rich_help_panel=DECISIONS,
    ),
]
SetsOption = Annotated[
    float | None,
    typer.Option(
        help="prediction sets that contain the true class of a new person's image with this probability; of numbers "
        "intervals",
        metavar="LEVEL",
        rich_help_panel=DECISIONS,
    ),
]
SetsForOption = Annotated[
    str,
    typer.Option(
        help="what has this probability: image (a random one of a new person), person (all images at once), class",
        metavar="WHAT",
        rich_help_panel=DECISIONS,
    ),
]
SetScoreOption = Annotated[
    str,
    typer.Option(
        help="lac (smallest sets), aps or raps (more even coverage); of numbers absolute (one width) or spread (of the "
        "runs of a blend)",
        metavar="NAME",
        rich_help_panel=DECISIONS,
    ),
]
MaxWidthOption = Annotated[
    list[str] | None,
    typer.Option(
        help="of numbers, the width of the interval above which there is no answer: age=10; may be repeated",
        metavar="WIDTH",
        rich_help_panel=DECISIONS,
    ),
]
ConfidenceOption = Annotated[
    float,
    typer.Option(
        help="with which aims and the error hold for new people; 0: observed values, nothing guaranteed",
        metavar="P",
        rich_help_panel=DECISIONS,
    ),
]
AbstainLabelOption = Annotated[
    str, typer.Option(help="label of images without an answer", metavar="TEXT", rich_help_panel=DECISIONS)
]
# The options of the decision rules, which several commands take: name → (annotation, default).
_RULES = {
    "threshold": (ThresholdOption, None),
    "cost_matrix": (CostOption, None),
    "abstain": (AbstainOption, None),
    "sets": (SetsOption, None),
    "sets_for": (SetsForOption, "image"),
    "set_score": (SetScoreOption, "lac"),
    "max_width": (MaxWidthOption, None),
    "confidence": (ConfidenceOption, 0.9),
    "abstain_label": (AbstainLabelOption, "abstain"),
}
FormOption = Annotated[
    str | None,
    typer.Option(
        help="columns of the CSV: label, probabilities (one per class or label), decisions (0 or 1 for each of several "
        "labels), numbers or intervals (of a regression), or sets (predict) [label, or as --like]",
        metavar="FORM",
        rich_help_panel=WRITTEN,
    ),
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(help="names of the CSV's columns, id first: ImageID,ans", metavar="A,B", rich_help_panel=WRITTEN),
]
LikeOption = Annotated[
    Path | None,
    typer.Option(
        help="sample submission whose rows, order and columns the CSV gets", metavar="FILE", rich_help_panel=WRITTEN
    ),
]
CsvOption = Annotated[
    Path | None,
    typer.Option(
        help="also write the answers as a CSV, e.g. a submission: the test samples of a blend, or the predicted images",
        metavar="FILE",
        rich_help_panel=WRITTEN,
    ),
]
JobsOption = Annotated[
    str,
    typer.Option(
        help="folds trained in parallel on each device; auto: one per CPU core, on GPUs as measured",
        metavar="N",
        rich_help_panel=EXECUTION,
    ),
]
GpusPerJobOption = Annotated[
    int | None,
    typer.Option(
        help="GPUs that train one fold together [1, or as the run was started]", metavar="N", rich_help_panel=EXECUTION
    ),
]
RayOption = Annotated[
    str | None,
    typer.Option(
        help="address of a Ray cluster: auto or HOST:PORT [a local one]", metavar="A", rich_help_panel=EXECUTION
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option("--resume", help="continue an interrupted run", rich_help_panel=RUN),
]
ForceOption = Annotated[bool, typer.Option("--force", help="retrain from scratch", rich_help_panel=RUN)]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="show the plan, train nothing", rich_help_panel=RUN)]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "-c", "--config", help="settings in TOML, e.g. a run's config.toml", metavar="FILE", rich_help_panel=RUN
    ),
]

Command = TypeVar("Command", bound=Callable[..., Any])


def takes_settings(
    *keys: str,
    help: Mapping[str, str] | None = None,
    panels: Mapping[str, str] | None = None,
    rules: bool = False,
) -> Callable[[Command], Command]:
    """Return a decorator that replaces the ``**given`` of a command by the options of these settings.

    The signature of the command is made from the descriptions of the settings (`folds.config.setting`), so that a
    setting is the same option in every command. ``given`` maps each setting to the typed value, or to None.
    `folds.config.files.load_settings` reads the environment variables of the settings.

    Parameters
    ----------
    keys : keys of the settings, in the order of the help.
    help, panels : key → help text and panel, where they differ from the setting's own for this command.
    rules : whether the command has the options of decision rules as well; `rules_of` takes them out of ``given``.
    """
    from folds.config.lookup import all_settings  # imported here so that commands without settings start faster

    described = [
        replace(one, panel=(panels or {}).get(one.key, one.panel)) for one in (all_settings()[key] for key in keys)
    ]
    texts = help or {}

    def dress(command: Command) -> Command:
        *own, given = inspect.signature(command, eval_str=True).parameters.values()
        if given.kind is not inspect.Parameter.VAR_KEYWORD:
            raise TypeError(f"{command.__name__} takes no **{given.name}")
        options = [_option(one, texts.get(one.key)) for one in described]
        keywords = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        if rules:
            keywords += [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
                for name, (annotation, default) in _RULES.items()
            ]
        signature = inspect.Signature([*options, *keywords])
        vars(command)["__signature__"] = signature
        vars(command)["settings"] = tuple(one.spelling for one in described)
        return command

    return dress


def rules_of(given: dict[str, Any]) -> dict[str, Any]:
    """Take the options of decision rules out of ``given``, and return them as arguments of `ensemble.decide`."""
    found = {name: given.pop(name) for name in _RULES}
    return found | {"threshold": found["threshold"] or None, "max_width": found["max_width"] or None}


def _option(described: Setting, help: str | None) -> inspect.Parameter:
    """Return a setting as a parameter for typer; the first long flag is the preferred spelling."""
    flags = [f"--{name.replace('_', '-')}" for name in described.spellings]
    if described.type is bool:
        flags = [f"{flag}/--no-{flag.removeprefix('--')}" for flag in flags]
    if described.short is not None:
        flags.append(described.short)
    kind = str if described.type is tuple or described.word is not None else described.type
    option = typer.Option(
        *flags,
        help=help or described.help_text,
        metavar=described.metavar or ("NAME" if described.choices else None),
        rich_help_panel=described.panel,
    )
    return inspect.Parameter(
        described.spelling, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def setting_flags() -> tuple[str, ...]:
    """Return the keys of all settings that have a flag; settings that are tables of a file have none."""
    from folds.config.lookup import all_settings

    return tuple(one.key for one in all_settings().values() if not one.is_table)


def listed(text: str | None) -> tuple[str, ...] | None:
    """Return the parts of ``A,B``; None if the option was not given."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def scored_by_person(text: str | None) -> bool:
    """Return whether ``--score-by person`` is given; anything but ``person`` is an error."""
    from folds.errors import UsageError

    if text not in (None, "person"):
        raise UsageError(f"`score_by={text}`: expected person", hint="remove it to score images")
    return text is not None


def csv_columns(csv: Path | None, form: str | None, columns: str | None, like: Path | None) -> list[str] | None:
    """Return the names of ``--columns A,B``; options of a CSV without ``--csv`` are an error."""
    from folds.errors import UsageError

    if csv is None and (form, columns, like) != (None, None, None):
        raise UsageError("`form`, `columns` and `like` describe a CSV", hint="name it with `csv=FILE`")
    return None if columns is None else [name.strip() for name in columns.split(",")]


def check_resume_or_force(resume: bool, force: bool) -> None:
    """Raise an error if --resume and --force are both given."""
    from folds.errors import UsageError

    if resume and force:
        raise UsageError("`resume` and `force` contradict each other", hint="give one of them")


def fold_numbers(text: str | None) -> list[int] | None:
    """Return the folds of ``--fold 0,3``; None for all."""
    from folds.errors import UsageError

    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"`fold={text}`: expected fold numbers", hint="`fold=0` or `fold=0,3`") from None


def jobs_asked(text: str) -> int | None:
    """Return the number of ``--jobs N``; None for ``auto``."""
    from folds.errors import UsageError

    if text == "auto":
        return None
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise UsageError(f"`jobs` must be 1 or more, or auto, found {text}")
    return int(text)


def resuming() -> str:
    """Return the command as typed, with --resume."""
    import shlex

    return shlex.join(
        ["ensemble", *(word for word in console.words if word not in ("--resume", "--force")), "--resume"]
    )
