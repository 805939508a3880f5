"""Read what a report is made from: prediction files aligned by id, the records of runs, the table and its images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ensemble.alignment.split import AlignedSplit
from ensemble.blending.request import BlendConfig
from ensemble.report.evidence.blend_files import folders_of
from ensemble.report.evidence.choice import choose
from ensemble.report.evidence.evidence import Evidence, Part, Pooled
from ensemble.report.evidence.findings import find_findings
from ensemble.report.evidence.groups import SPLITS, Group, read_groups
from ensemble.report.evidence.image_table import image_paths, read_image_table, table_of_parts, table_record
from ensemble.report.evidence.inputs import ReportInputs, find_inputs, keep_one_task, stated_task
from ensemble.report.evidence.parts import completed, part_of
from ensemble.report.evidence.people import (
    check_same_labels,
    extra_of,
    images_of_people,
    in_ranges,
    people_table,
    persons_of_images,
    pooled_of,
    reading_rule,
    with_columns_of_blends,
)
from ensemble.report.evidence.run_records import channels_of, record_of, window_of
from ensemble.report.evidence.split_by_image import part_by_image, scores_by_image
from ensemble.report.page.thumbnails import Thumbnails
from folds.data.table import Dataset
from folds.errors import EnsembleError, UsageError, without_marks
from folds.experiments.paired_rows import known_runs
from folds.experiments.sites import NewSites, find_new_sites, left_out_by
from folds.metrics.custom import metric_of
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, check_task
from folds.metrics.tasks import default_metric, metric_for_task
from folds.predictions.files import PredictionMetadata
from folds.predictions.uncertain import check_uncertain
from folds.utils.progress import SILENT, Progress


def load_evidence(
    what: Iterable[Any] = (),
    root: Path = Path(),
    *,
    metric: str | None = None,
    per_person: bool = False,
    data: Path | None = None,
    label: str | None = None,
    task: str | None = None,
    uncertain: str | None = None,
    progress: Progress = SILENT,
) -> Evidence:
    """Return the evidence of a report about runs, blends, prediction files or a table.

    What is missing is left out: only predictions that cannot be read or aligned are an error.

    Parameters
    ----------
    what : see `ensemble.report.evidence.inputs.find_inputs`.
    root : the folder that holds ``runs/``.
    metric : by default that of the task.
    per_person : whether the probabilities of each person's images are averaged before scoring.
    data : the table, if it is not where the runs found it.
    label, task, uncertain : the columns of labels or numbers of a table without predictions, what they are, and what
        labels of -1 are read as.

    Raises
    ------
    EnsembleError : nothing has a name, there are no runs, or files cannot be read or aligned.
    UsageError : an unknown metric, or one that does not fit the task; columns of a table beside predictions.
    """
    if metric is not None:
        metric_of(metric)
    inputs = find_inputs(what, root, label is not None or task is not None)
    warnings: list[str] = [] if inputs.named else keep_one_task(inputs)
    predicted = bool(inputs.runs or inputs.views or inputs.blends)
    _check_columns(predicted, label, task, uncertain)
    stated = _stated_task(inputs)
    given_metric, metric = metric, default_metric(stated) if metric is None else metric
    if predicted:
        metric_for_task(metric, stated)
    read = _read_predictions(inputs, metric, per_person, warnings, progress)
    folders = inputs.folders or folders_of(inputs.blends)
    records = {name: one for name, folder in sorted(folders.items()) if (one := record_of(name, folder)) is not None}
    with progress.step("reading the table") as advance:
        advance(0, 1)
        asked = stated if predicted else task
        configs = [one.config for one in records.values()]
        dataset = read_image_table(data or inputs.data, configs, root, warnings, asked, label, uncertain)
        advance(1, 1)
    split, by_image = read.split, next(iter(read.leaking.values()), None)
    task = _task(split, by_image, dataset)
    if not predicted:  # the table says what it is
        metric = default_metric(task) if given_metric is None else metric
        metric_for_task(metric, task)
    classes = _classes(split, by_image, dataset)
    parts = {name: completed(part, dataset, classes, task) for name, part in read.parts.items()}
    paths = {} if dataset is None else image_paths(dataset)
    if dataset is None:
        of_images = parts if read.pooled is None else read.pooled.images
        table, findings = table_of_parts(of_images.values(), classes, task), tuple[dict[str, Any], ...]()
        table = None if table is None else with_columns_of_blends(table, read.groups)
    else:
        table = table_record(dataset, paths, root, progress)
        findings = find_findings(dataset, records, root, len(paths), progress)
    made = _with_images(
        Evidence(
            classes,
            parts.get("oof"),
            parts.get("test"),
            metric=metric,
            runs=records,
            table=table,
            class_attributes=_class_attributes(split, dataset),
            findings=findings,
            warnings=tuple(dict.fromkeys(without_marks(line) for line in warnings)),
            root=root,
            per_person=read.per_person,
            task=task,
            by_image=scores_by_image(read.leaking, metric, read.per_person),
            new_sites=read.new_sites,
            pooled=read.pooled,
        ),
        paths,
    )
    if read.base is None and read.leaking:  # no score is one of new people
        return made
    return _with_choice(made, read.groups, inputs.named)


@dataclass(frozen=True)
class _Read:
    """The predictions of a report.

    Attributes
    ----------
    base : the group whose rows the page has; None without predictions that can be aligned.
    leaking : files whose folds split the images of people.
    """

    groups: list[Group]
    base: Group | None
    parts: Mapping[str, Part]
    leaking: Mapping[Path, PredictionMetadata]
    per_person: bool
    new_sites: list[NewSites]
    pooled: Pooled | None = None

    @property
    def split(self) -> AlignedSplit | None:
        """Return the first split of the page, which has its classes."""
        return None if self.base is None else next(iter(self.base.splits.values()))


def _read_predictions(
    inputs: ReportInputs, metric: str, per_person: bool, warnings: list[str], progress: Progress
) -> _Read:
    """Return the predictions of the page: of people if its blends are for people, else of images.

    If nothing was named and the images of people cannot be pooled, the newest blend is left out with a warning.
    """
    rule = reading_rule(inputs)
    new_sites = _new_sites(inputs, metric, per_person or rule is not None)
    leaking: dict[Path, PredictionMetadata] = {}
    lines: list[str] = []
    try:
        groups = _groups(inputs, BlendConfig(metric=metric, pool=rule), lines, leaking, progress)
    except (EnsembleError, UsageError) as error:
        if inputs.named or rule is None:
            raise
        warnings.append(f"the blend {inputs.blends[0].name} is left out: {error.message}")
        inputs.blends.clear()
        rule, lines = None, []
        leaking.clear()
        groups = _groups(inputs, BlendConfig(metric=metric), lines, leaking, progress)
    warnings += lines
    base = next((one for one in groups if one.splits), None)
    shared = {} if base is None else base.splits
    pooled = None
    if rule is not None:
        pooled = pooled_of(groups, next((one for one in groups if one.record is not None), None))
    people = None if pooled is None else persons_of_images(pooled)
    members = [part.member for one in shared.values() for run in one.runs for part in run.parts]
    by_label = any(one.sidecar is not None and one.sidecar.label_of for one in members)
    parts: dict[str, Part] = {name: part_of(name, shared[name], groups, people) for name in SPLITS if name in shared}
    if base is None and leaking:
        parts = {"oof": part_by_image(leaking)}
    return _Read(groups, base, parts, leaking, pooled is None and (per_person or by_label), new_sites, pooled)


def _groups(
    inputs: ReportInputs,
    request: BlendConfig,
    warnings: list[str],
    leaking: dict[Path, PredictionMetadata],
    progress: Progress,
) -> list[Group]:
    request.check()
    groups = read_groups(inputs, request, warnings, leaking, progress)
    if request.pool is not None:
        check_same_labels(groups)
    return groups


def _check_columns(predicted: bool, label: str | None, task: str | None, uncertain: str | None) -> None:
    """Raise UsageError for columns of labels or numbers of a table that is shown beside predictions."""
    check_uncertain(uncertain)
    if task is not None:
        check_task(task)
    columns = {"label": label, "task": task, "uncertain": uncertain}
    given = next((name for name, value in columns.items() if value is not None), None)
    if predicted and given is not None:
        raise UsageError(
            f"`{given}` is for a table without predictions: their files state it", hint=f"leave `{given}` out"
        )


def _with_images(made: Evidence, paths: Mapping[str, Path]) -> Evidence:
    """Return the evidence with the files of the images, and how they are read."""
    window, max_pixels = window_of(made.runs)
    channels, frame = channels_of(made.runs)
    made = replace(made, paths=paths, window=window, max_pixels=max_pixels, channels=channels, frame=frame)
    thumbnails = thumbnails_of(made)
    return replace(made, thumbnail=thumbnails.reference, person_thumbnail=thumbnails.reference_of_person)


def thumbnails_of(made: Evidence) -> Thumbnails:
    """Return the small images of a page."""
    people = None if made.pooled is None else images_of_people(made.pooled, made.table)
    return Thumbnails(made.paths, made.window, made.max_pixels, made.channels, made.frame, people)


def _with_choice(made: Evidence, groups: Sequence[Group], named: bool) -> Evidence:
    """Return the evidence with what it suggests, and the blend that it is about."""
    blends = {one.name: one.record for one in groups if one.record is not None}
    recommended, simple = choose(made, preferred=list(blends) if named else [])
    name = recommended if recommended in blends else next(iter(blends), None)
    record = None if name is None else blends[name]
    table, extra, pooled = made.table, extra_of(record), made.pooled
    if pooled is not None:  # of several blends, that which the page is about
        pooled = pooled_of(groups, next((one for one in groups if one.name == name), None))
    rows = None
    if table is not None and pooled is not None:
        rows = people_table(table, extra)
    elif table is not None and extra:
        rows = in_ranges(table, extra)
    return replace(
        made, recommended=recommended, simple=simple, blend=record, blend_name=name, people_table=rows, pooled=pooled
    )


def find_thumbnails(what: Iterable[Any], root: Path = Path()) -> Thumbnails:
    """Return the images of the table that runs, blends or files were made with; none if the table is not there.

    Raises
    ------
    EnsembleError : nothing has a name.
    """
    inputs = find_inputs(what, root)
    folders = inputs.folders or folders_of(inputs.blends)
    records = {name: one for name, folder in sorted(folders.items()) if (one := record_of(name, folder)) is not None}
    dataset = read_image_table(inputs.data, [one.config for one in records.values()], root, [], _stated_task(inputs))
    return Thumbnails({} if dataset is None else image_paths(dataset), *window_of(records))


def _new_sites(inputs: ReportInputs, metric: str, per_person: bool) -> list[NewSites]:
    """Return what runs that left sites out say of a new site, and take their files out of the candidates.

    Their models answer another question than folds by person, so the two are not ranked together. If there are no
    others, they stay.
    """
    folders = {path.parent for path in inputs.runs}
    left = [
        (folder, name)
        for folder in sorted(folders)
        for name in known_runs(folder)
        if left_out_by(name, folder) is not None
    ]
    starts = tuple(str(folder / f"{name}.") for folder, name in left)
    others = [path for path in inputs.runs if not str(path).startswith(starts)]
    found = []
    for folder in sorted(folders):
        names = {path.name.split(".oof.")[0] for path in inputs.runs if path.parent == folder}
        found += find_new_sites(folder, names, metric, per_person)
    if others:
        inputs.runs[:] = others
        away = tuple(f"{name}." for _, name in left)
        inputs.views[:] = [path for path in inputs.views if not path.name.startswith(away)]
    return found


def _classes(
    split: AlignedSplit | None, by_image: PredictionMetadata | None, dataset: Dataset | None
) -> tuple[str, ...]:
    """Return the classes in the order of the columns; those of the table where there are no predictions."""
    tables = (split, by_image, None if dataset is None else dataset.train)
    return next((one.classes for one in tables if one is not None), ())


def _task(split: AlignedSplit | None, by_image: PredictionMetadata | None, dataset: Dataset | None) -> str:
    """Return what the predictions answer; of a table without predictions, whether it has columns of labels."""
    if split is not None:
        return split.task
    other = by_image.task if by_image is not None else CLASSES if dataset is None else dataset.train.task
    return other if other in COLUMN_TASKS else CLASSES


def _class_attributes(split: AlignedSplit | None, dataset: Dataset | None) -> Mapping[str, Mapping[str, str]]:
    """Return class → attribute → value, of the predictions or else of the table."""
    found = {} if split is None else split.class_attributes
    return found or ({} if dataset is None else dataset.train.class_attributes)


def _stated_task(inputs: ReportInputs) -> str:
    """Return the task that the first prediction file with a sidecar states, before the files are read."""
    blends = [folder / f"{split}.npy" for folder in inputs.blends for split in SPLITS]
    for path in (*inputs.runs, *inputs.views, *blends):
        if (task := stated_task(path)) is not None:
            return task
    return CLASSES
