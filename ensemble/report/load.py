"""Read what a report is made from: prediction files aligned by id, the records of runs, the table and its images."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ensemble.alignment.split import AlignedSplit, RunPredictions
from ensemble.blending.aligned import AlignedMembers, align_ingredients, align_members
from ensemble.blending.blend import read_inputs
from ensemble.blending.recipe import read_recipe
from ensemble.blending.request import BlendConfig
from ensemble.learning.apply import apply_combination
from ensemble.report.choice import choose
from ensemble.report.evidence import SOFT_VOTE, Evidence, Kind, Part, Predicted
from ensemble.report.findings import find_findings
from ensemble.report.image_table import image_paths, read_image_table, table_of_parts, table_record
from ensemble.report.inputs import ReportInputs, find_inputs, keep_one_task, stated_task
from ensemble.report.run_records import channels_of, record_of, window_of
from ensemble.report.thumbnails import Thumbnails
from ensemble.voting.vote import vote, vote_of_run
from folds.data.table import Dataset
from folds.errors import EnsembleError, UsageError, without_marks
from folds.experiments.paired_rows import known_runs
from folds.experiments.sites import NewSites, find_new_sites, left_out_by
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Interval, interval_over_people
from folds.metrics.scored_units import scored_units
from folds.metrics.task_names import CLASSES, COLUMN_TASKS, check_task
from folds.metrics.tasks import default_metric, metric_for_task
from folds.predictions.changed_labels import changed_ids
from folds.predictions.files import PredictionMetadata, SampleRows, read_array, read_sidecar
from folds.predictions.label_columns import label_matrix
from folds.predictions.links import predictions_of
from folds.predictions.optimism import selected_runs
from folds.predictions.reading import score_rows
from folds.predictions.uncertain import check_uncertain
from folds.utils.files import read_json
from folds.utils.numeric import factorize, groups_in_several_folds
from folds.utils.progress import SILENT, Progress

logger = logging.getLogger(__name__)
_SPLITS: tuple[Literal["oof", "test"], ...] = ("oof", "test")


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
    what : see `ensemble.report.inputs.find_inputs`.
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
    stated = _stated_task(inputs)
    predicted = bool(inputs.runs or inputs.views or inputs.blends)
    check_uncertain(uncertain)
    if task is not None:
        check_task(task)
    columns = {"label": label, "task": task, "uncertain": uncertain}
    given = next((name for name, value in columns.items() if value is not None), None)
    if predicted and given is not None:
        raise UsageError(
            f"`{given}` is for a table without predictions: their files state it", hint=f"leave `{given}` out"
        )
    given_metric, metric = metric, default_metric(stated) if metric is None else metric
    if predicted:
        metric_for_task(metric, stated)
    request = BlendConfig(metric=metric)
    request.check()
    leaking: dict[Path, PredictionMetadata] = {}
    new_sites = _new_sites(inputs, metric, per_person)
    groups = _read_groups(inputs, request, warnings, leaking, progress)
    base = next((one for one in groups if one.splits), None)
    shared = {} if base is None else base.splits
    members = [part.member for one in shared.values() for run in one.runs for part in run.parts]
    per_person = per_person or any(one.sidecar is not None and one.sidecar.label_of for one in members)
    parts = {name: _part(name, shared[name], groups) for name in _SPLITS if name in shared}
    folders = inputs.folders or _folders_of(inputs.blends)
    if base is None and leaking:
        parts = {"oof": _part_by_image(leaking)}
    records = {name: one for name, folder in sorted(folders.items()) if (one := record_of(name, folder)) is not None}
    with progress.step("reading the table") as advance:
        advance(0, 1)
        task = stated if predicted else task
        configs = [one.config for one in records.values()]
        dataset = read_image_table(data or inputs.data, configs, root, warnings, task, label, uncertain)
        advance(1, 1)
    split = None if base is None else next(iter(base.splits.values()))
    task = _task(split, next(iter(leaking.values()), None), dataset)
    if not predicted:  # the table says what it is
        metric = default_metric(task) if given_metric is None else metric
        metric_for_task(metric, task)
    classes = _classes(split, next(iter(leaking.values()), None), dataset)
    parts = {name: _completed(part, dataset, classes, task) for name, part in parts.items()}
    paths = {} if dataset is None else image_paths(dataset)
    if dataset is None:
        table, findings = table_of_parts(parts.values(), classes, task), tuple[dict[str, Any], ...]()
    else:
        table = table_record(dataset, paths, root, progress)
        findings = find_findings(dataset, records, root, len(paths), progress)
    blends = {one.name: one.record for one in groups if one.record is not None}
    window, max_pixels = window_of(records)
    channels, frame = channels_of(records)
    made = Evidence(
        classes,
        parts.get("oof"),
        parts.get("test"),
        metric=metric,
        runs=records,
        table=table,
        paths=paths,
        class_attributes=_class_attributes(split, dataset),
        findings=findings,
        warnings=tuple(dict.fromkeys(without_marks(line) for line in warnings)),
        root=root,
        thumbnail=Thumbnails(paths, window, max_pixels, channels, frame).reference,
        window=window,
        max_pixels=max_pixels,
        channels=channels,
        frame=frame,
        per_person=per_person,
        task=task,
        by_image=_scores_by_image(leaking, metric, per_person),
        new_sites=new_sites,
    )
    if base is None and leaking:  # no score is one of new people
        return made
    recommended, simple = choose(made, preferred=list(blends) if inputs.named else [])
    named = recommended if recommended in blends else next(iter(blends), None)
    return replace(
        made,
        recommended=recommended,
        simple=simple,
        blend=None if named is None else blends[named],
        blend_name=named,
    )


def find_thumbnails(what: Iterable[Any], root: Path = Path()) -> Thumbnails:
    """Return the images of the table that runs, blends or files were made with; none if the table is not there.

    Raises
    ------
    EnsembleError : nothing has a name.
    """
    inputs = find_inputs(what, root)
    folders = inputs.folders or _folders_of(inputs.blends)
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


def _scores_by_image(leaking: Mapping[Path, PredictionMetadata], metric: str, per_person: bool) -> dict[str, Interval]:
    """Return run → the score that files whose folds split the images of people claim."""
    return {
        one.run or path.stem: _claimed(path, one, metric, per_person)
        for path, one in leaking.items()
        if one.rows.labels is not None
    }


def _claimed(path: Path, sidecar: PredictionMetadata, metric: str, per_person: bool) -> Interval:
    values = _values_of(path, sidecar)
    if not sidecar.has_columns:
        return score_rows(values, sidecar, metric, per_person).interval
    labels = label_codes(sidecar.rows.labels, len(sidecar.rows), sidecar.classes, sidecar.task)
    persons = sidecar.rows.ids if sidecar.rows.persons is None else sidecar.rows.persons
    units = scored_units(labels, [values], persons, per_person, sidecar.task)
    return interval_over_people(metric_of(metric), units.labels, units.predictions[0], units.persons)


def _stated_task(inputs: ReportInputs) -> str:
    """Return the task that the first prediction file with a sidecar states, before the files are read."""
    blends = [folder / f"{split}.npy" for folder in inputs.blends for split in _SPLITS]
    for path in (*inputs.runs, *inputs.views, *blends):
        if (task := stated_task(path)) is not None:
            return task
    return CLASSES


@dataclass(frozen=True)
class _Group:
    """Prediction files that are aligned together.

    Attributes
    ----------
    name : of the blend; "" for others.
    splits : split → the aligned predictions.
    passes : run → forward passes per image.
    selected : runs whose models were selected on the people who are scored.
    record : content of the blend's blend.json.
    in_sample : predictions of a fitted blend on the people it was fitted on.
    changed : run → ids of the images whose training label it changed; that of a blend is under its name.
    """

    kind: Kind
    name: str
    splits: Mapping[str, AlignedSplit]
    passes: Mapping[str, float]
    selected: frozenset[str] = frozenset()
    record: Mapping[str, Any] | None = None
    in_sample: _InSample | None = None
    changed: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _InSample:
    """Predictions (n, classes) for ids (n,), with the classes of their columns."""

    ids: NDArray[np.str_]
    values: NDArray[np.floating]
    classes: tuple[str, ...]


def _read_groups(
    inputs: ReportInputs,
    request: BlendConfig,
    warnings: list[str],
    leaking: dict[Path, PredictionMetadata],
    progress: Progress,
) -> list[_Group]:
    """Return the runs, the runs with views, and the blends; the runs of the blends, if no run was named.

    Files with a split by image are added to `leaking`, and left out with all files of their runs.
    """
    groups = []
    ingredients = {folder: _ingredients(folder, request) for folder in inputs.blends}
    if inputs.runs:
        try:
            groups.append(_read_runs("run", inputs.runs, request, warnings, progress))
        except EnsembleError:
            leaking |= _by_image(inputs.runs)
            if not leaking:
                raise
            starts = tuple(f"{path.name.removesuffix('.oof.npy')}." for path in leaking)
            others = [path for path in inputs.runs if path not in leaking and not path.name.startswith(starts)]
            if others:
                groups.append(_read_runs("run", others, request, warnings, progress))
    elif ingredients:
        found = next((one for one in ingredients.values() if one is not None), None)
        if found is not None:
            groups.append(_group_of("run", found, warnings))
    if inputs.views:
        groups.append(_read_runs("tta", inputs.views, request, warnings, progress))
    for folder, members in ingredients.items():
        try:
            groups.append(_read_blend(folder, members, request, warnings))
        except (EnsembleError, UsageError) as error:
            if inputs.named:
                raise
            warnings.append(f"the blend {folder.name} is left out: {error.message}")
    return groups


def _read_runs(
    kind: Kind, files: Sequence[Path], request: BlendConfig, warnings: list[str], progress: Progress
) -> _Group:
    members = read_inputs([str(file) for file in files], request, progress)
    return _group_of(kind, align_members(members, request), warnings)


def _by_image(files: Sequence[Path]) -> dict[Path, PredictionMetadata]:
    """Return the out-of-fold files whose folds split the images of people, which no blend accepts."""
    found, samples = {}, dict[str, SampleRows]()
    for path in files:
        sidecar = read_sidecar(path, samples) if path.suffix == ".npy" else None
        if sidecar is None or sidecar.split != "oof" or sidecar.rows.persons is None:
            continue
        if isinstance(sidecar.fold, np.ndarray):
            persons = factorize(sidecar.rows.persons)[1]
            if len(groups_in_several_folds(persons, sidecar.fold)):
                found[path] = sidecar
    return found


def _values_of(path: Path, sidecar: PredictionMetadata) -> NDArray[np.floating]:
    values = np.asarray(read_array(path))
    return predictions_of(sidecar.task, values) if sidecar.kind == "logit" else values


def _part_by_image(files: Mapping[Path, PredictionMetadata]) -> Part:
    """Return the rows of the first of these files, with the runs of the same rows."""
    first = next(iter(files.values()))
    members = tuple(
        Predicted(one.run or path.stem, "run", np.asarray(_values_of(path, one), np.float32))
        for path, one in files.items()
        if one.classes == first.classes and np.array_equal(one.rows.ids, first.rows.ids)
    )
    labels = label_codes(first.rows.labels, len(first.rows), first.classes, first.task)
    persons = first.rows.ids if first.rows.persons is None else first.rows.persons
    return Part("oof", first.rows.ids, labels, persons, np.asarray(first.fold, np.int64), members)


def _group_of(kind: Kind, loaded: AlignedMembers, warnings: list[str]) -> _Group:
    warnings += loaded.warnings
    folders = {
        member.path.parent.parent if member.path.parent.name == "tta" else member.path.parent
        for member in loaded.members
    }
    names = {member.sidecar.run or member.run for member in loaded.members if member.sidecar is not None}
    selected = {name for folder in sorted(folders) for name in selected_runs(folder, sorted(names))}
    passes = {name: one.total for name, one in loaded.costs.of.items()}
    changed = {
        name: frozenset().union(*(_changed(name, folder, warnings) for folder in sorted(folders)))
        for name in sorted(names)
    }
    return _Group(kind, "", loaded.splits, passes, frozenset(selected), changed=changed)


def _changed(name: str, runs: Path, warnings: list[str]) -> frozenset[str]:
    """Return the ids of the images whose training label a run changed; none, and a warning, for a damaged record."""
    if not _is_plain(name):
        return frozenset()
    try:
        return changed_ids(name, runs)
    except EnsembleError as error:
        warnings.append(f"the changed labels of {name} are not left out of comparisons: {error.message}")
        return frozenset()


def _ingredients(folder: Path, request: BlendConfig) -> AlignedMembers | None:
    """Return the runs that a blend was made of; None if their files are not there any more."""
    record = read_json(folder / "blend.json")
    listed = record.get("inputs") if isinstance(record, dict) else None
    places = [one.get("path") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    files = [_moved(place, folder.parent.parent) for place in places if isinstance(place, str)]
    if not files or None in files:
        return None
    try:
        return align_ingredients(read_inputs([str(file) for file in files], request), request)
    except (EnsembleError, UsageError) as error:
        logger.info("the runs of the blend %s are not shown: %s", folder.name, error.message)
        return None


def _moved(place: str, runs: Path) -> Path | None:
    """Return a file of a blend: below the ``runs/`` of the blend, or where it was; None if it is in neither."""
    parts = Path(place).parts
    inside = parts[len(parts) - parts[::-1].index("runs") :] if "runs" in parts else ()
    candidates = [runs.joinpath(*inside)] if inside and ".." not in inside else []
    return next((path for path in [*candidates, Path(place)] if path.is_file()), None)


def _read_blend(folder: Path, members: AlignedMembers | None, request: BlendConfig, warnings: list[str]) -> _Group:
    files = [path for split in _SPLITS if (path := folder / f"{split}.npy").is_file()]
    if not files:
        raise EnsembleError(f"{folder} has no predictions", hint="ensemble blend … writes them again")
    loaded = align_members(read_inputs([str(file) for file in files], request), request)
    warnings += loaded.warnings
    record = read_json(folder / "blend.json")
    record = record if isinstance(record, dict) else {}
    if record.get("pool"):
        raise UsageError(
            f"{folder.name} is a blend for people, and a report is about images",
            hint="ensemble blend prints its nested score over people; leave it out of the report",
        )
    listed = [one for one in record.get("runs") or () if isinstance(one, dict)]
    runs = [str(one.get("run")) for one in listed if one.get("weight")]
    costs = [one["cost"].get("passes") for one in listed if one.get("weight") and isinstance(one.get("cost"), dict)]
    known = costs and len(costs) == len(runs) and all(isinstance(one, int | float) for one in costs)
    in_sample = None
    if record.get("fitted") and members is not None and "oof" in members.splits:
        in_sample = _fitted_on_all(folder, members.splits["oof"])
    inputs = record.get("inputs")
    members_of = [one.get("run") for one in (inputs if isinstance(inputs, list) else []) if isinstance(one, dict)]
    made_of = sorted({one for one in (*runs, *members_of) if isinstance(one, str)})
    changed = frozenset[str]().union(*(_changed(one, folder.parent.parent, warnings) for one in made_of))
    name = f"blend {folder.resolve().name}"
    return _Group(
        "blend",
        name,
        loaded.splits,
        dict.fromkeys((run.name for split in loaded.splits.values() for run in split.runs), float(sum(costs)))
        if known
        else {},
        frozenset([name] if selected_runs(folder.parent.parent, [run for run in runs if _is_plain(run)]) else []),
        record,
        in_sample=in_sample,
        changed={name: changed},
    )


def _folders_of(blends: Sequence[Path]) -> dict[str, Path]:
    """Return the folders of the runs that blends were made of, as far as they are there."""
    found: dict[str, Path] = {}
    for folder in blends:
        record = read_json(folder / "blend.json")
        runs = record.get("runs") if isinstance(record, dict) else None
        for one in runs if isinstance(runs, list) else ():
            name = one.get("run") if isinstance(one, dict) else None
            place = folder.parent.parent / name if isinstance(name, str) and _is_plain(name) else None
            if place is not None and (place / "config.toml").is_file():
                found[place.name] = place
    return found


def _is_plain(name: str) -> bool:
    return "/" not in name and name not in ("", ".", "..") and "\0" not in name


def _fitted_on_all(folder: Path, split: AlignedSplit) -> _InSample | None:
    """Return the predictions of a fitted blend for the people it was fitted on."""
    try:
        recipe = read_recipe(folder / "blend.toml")
        combination = recipe.combination
        chosen = split.select_runs(list(combination.runs))
        if chosen is None or tuple(recipe.classes) != tuple(chosen.classes):  # the blend named its positive class
            return None
        return _InSample(chosen.rows.ids, apply_combination(chosen, combination).probabilities, tuple(chosen.classes))
    except (EnsembleError, UsageError, ValueError, KeyError) as error:
        logger.info("the optimism of %s is not shown: %s", folder.name, error)
        return None


def _part(name: Literal["oof", "test"], rows: AlignedSplit, groups: Sequence[_Group]) -> Part:
    """Return the rows of a split of the first group, with the predictions of all groups for them."""
    index = {sample: at for at, sample in enumerate(rows.rows.ids.tolist())}
    members: list[Predicted] = []
    for group in groups:
        split = group.splits.get(name)
        if split is None or set(split.classes) != set(rows.classes) or _answers_other(split.task, rows.task):
            continue
        columns = np.array([split.classes.index(one) for one in rows.classes])
        place = _place(split.rows.ids, index)
        for run in split.runs:
            values = _spread(_probabilities(split, run), place, columns, len(rows))
            inside = None
            fit = group.in_sample
            if fit is not None and name == "oof" and set(fit.classes) == set(rows.classes):
                order = np.array([fit.classes.index(one) for one in rows.classes])
                inside = _spread(fit.values, _place(fit.ids, index), order, len(rows))
            title = group.name or _title(run)
            members.append(
                Predicted(
                    title,
                    "tta" if group.kind != "blend" and _turned(run) else group.kind,
                    values,
                    group.passes.get(run.name),
                    inside,
                    name == "oof" and (run.name in group.selected or title in group.selected),
                    group.changed.get(group.name or run.name, frozenset()),
                )
            )
    labels = label_codes(rows.rows.labels, len(rows), rows.classes, rows.task)
    persons, known = rows.rows.persons, rows.rows.persons is not None
    fold = rows.fold.astype(np.int64) if rows.fold is not None and name == "oof" and (rows.fold >= 0).all() else None
    members = _with_soft_vote(members, rows, groups[0])
    return Part(name, rows.rows.ids, labels, rows.rows.ids if persons is None else persons, fold, tuple(members), known)


def _with_soft_vote(members: list[Predicted], rows: AlignedSplit, runs: _Group) -> list[Predicted]:
    """Add the mean of all runs, which needs no fit, if there are several and it is no blend already."""
    plain = members[: len(runs.splits[name].runs)] if (name := rows.name) in runs.splits else []
    if len(plain) < 2 or runs.kind != "run":
        return members
    mean = vote(rows).probabilities
    if any(one.kind == "blend" and np.allclose(one.probabilities, mean, atol=1e-6, equal_nan=True) for one in members):
        return members
    passes = None if any(one.passes is None for one in plain) else float(sum(one.passes or 0 for one in plain))
    selected = any(one.selected_on_validation for one in plain)
    changed = frozenset[str]().union(*(one.changed for one in plain))
    return [*members, Predicted(SOFT_VOTE, "blend", np.asarray(mean, np.float32), passes, None, selected, changed)]


def _probabilities(split: AlignedSplit, run: RunPredictions) -> NDArray[np.floating]:
    """Return (n, classes) the probabilities of a run, the shares of its votes if it has hard labels; NaN where it is
    absent.
    """
    present = run.present(0, len(split))
    if present is None:
        alone = split.select_runs([run.name])
        return vote_of_run(alone if alone is not None else split).probabilities
    values = np.asarray(run.votes(0, len(split)) if run.hard else run.probabilities(0, len(split)), np.float32)
    values[~present] = np.nan
    return values


def label_codes(texts: NDArray[np.str_] | None, rows: int, classes: Sequence[str], task: str) -> NDArray:
    """Return the labels of `Part`: (rows,) class indices, or (rows, columns) of several labels or numbers.

    Parameters
    ----------
    texts : (rows,) text; None if no label is known.
    """
    if task in COLUMN_TASKS:
        return label_matrix(np.full(rows, "") if texts is None else texts, classes, task)
    code = {name: at for at, name in enumerate(classes)}
    codes = [] if texts is None else [code.get(one, -1) for one in texts.tolist()]
    return np.full(rows, -1, np.int64) if texts is None else np.array(codes, np.int64)


def _answers_other(task: str, other: str) -> bool:
    """Return whether predictions of one task are none of the other: columns of their own beside exclusive classes."""
    return task != other and (task in COLUMN_TASKS or other in COLUMN_TASKS)


def _place(ids: NDArray[np.str_], index: Mapping[str, int]) -> NDArray[np.int64]:
    return np.array([index.get(sample, -1) for sample in ids.tolist()], np.int64)


def _spread(
    values: NDArray[np.floating], place: NDArray[np.int64], columns: NDArray[np.int64], rows: int
) -> NDArray[np.float32]:
    """Return (rows, classes) with the values at their places, NaN elsewhere."""
    spread = np.full((rows, len(columns)), np.nan, np.float32)
    kept = place >= 0
    spread[place[kept]] = np.asarray(values)[kept][:, columns]
    return spread


def _turned(run: RunPredictions) -> list[str]:
    """Return the test-time views of a run, without the plain image."""
    return [view for view in run.views if view != "none"]


def _title(run: RunPredictions) -> str:
    views = _turned(run)
    if not views:
        return run.name
    return f"{run.name} ({', '.join(views) if len(views) <= 3 else f'{len(run.views)} views'})"


def _completed(part: Part, dataset: Dataset | None, predicted: Sequence[str], task: str) -> Part:
    """Return a part with the labels and the people of the table, where the predictions do not have them."""
    table = None if dataset is None else dataset.train if part.name == "oof" else dataset.test
    if table is None or table.labels is None or (part.has_label.any() and part.persons_known):
        return part
    index = {sample: at for at, sample in enumerate(table.ids.tolist())}
    place = _place(part.ids, index)
    if not (place >= 0).all():
        return part
    labels = part.labels
    if not part.has_label.any() and part.members:
        classes = dataset.train.classes if dataset is not None else ()
        if set(classes) == set(predicted):  # the columns are in the order of the predictions
            classes = tuple(predicted)
        elif task in COLUMN_TASKS:
            classes = ()
        if len(classes) == part.members[0].probabilities.shape[1]:
            labels = label_codes(table.labels[place], len(place), classes, task)
    if part.persons_known or table.persons is None:
        return replace(part, labels=labels)
    return replace(part, labels=labels, persons=table.persons[place], persons_known=True)
