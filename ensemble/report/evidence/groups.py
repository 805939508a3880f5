"""Read the prediction files of a report: those of runs, of runs with views and of each blend, aligned by id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ensemble.alignment.split import AlignedSplit
from ensemble.blending.aligned import AlignedMembers, align_members
from ensemble.blending.blend import read_inputs
from ensemble.blending.request import BlendConfig
from ensemble.report.evidence.blend_files import InSample, fitted_on_all, is_plain, read_ingredients, read_record
from ensemble.report.evidence.evidence import Kind
from ensemble.report.evidence.inputs import ReportInputs
from ensemble.report.evidence.split_by_image import runs_by_image
from folds.errors import EnsembleError, UsageError
from folds.predictions.changed_labels import changed_ids
from folds.predictions.files import PredictionMetadata
from folds.predictions.optimism import selected_runs
from folds.utils.progress import Progress

SPLITS: tuple[Literal["oof", "test"], ...] = ("oof", "test")


@dataclass(frozen=True)
class Group:
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
    aligned : of runs, and of a blend for people, how its runs were aligned: with the images of the people.
    """

    kind: Kind
    name: str
    splits: Mapping[str, AlignedSplit]
    passes: Mapping[str, float]
    selected: frozenset[str] = frozenset()
    record: Mapping[str, Any] | None = None
    in_sample: InSample | None = None
    changed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    aligned: AlignedMembers | None = None


def read_groups(
    inputs: ReportInputs,
    request: BlendConfig,
    warnings: list[str],
    leaking: dict[Path, PredictionMetadata],
    progress: Progress,
) -> list[Group]:
    """Return the runs, the runs with views, and the blends; the runs of the blends, if no run was named.

    With a rule of `pool` in the request, rows are people: runs are pooled by it, if it is not fitted, else by the mean,
    and the files of the blends have people already.

    Files with a split by image are added to `leaking`, and left out with all files of their runs.
    """
    groups = []
    ingredients = {folder: read_ingredients(folder, request) for folder in inputs.blends}
    if inputs.runs:
        try:
            groups.append(_read_runs("run", inputs.runs, request, warnings, progress))
        except EnsembleError:
            leaking |= runs_by_image(inputs.runs)
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
) -> Group:
    members = read_inputs([str(file) for file in files], request, progress)
    return _group_of(kind, align_members(members, request), warnings)


def _group_of(kind: Kind, loaded: AlignedMembers, warnings: list[str]) -> Group:
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
    return Group(kind, "", loaded.splits, passes, frozenset(selected), changed=changed, aligned=loaded)


def _changed(name: str, runs: Path, warnings: list[str]) -> frozenset[str]:
    """Return the ids of the images whose training label a run changed; none, and a warning, for a damaged record."""
    if not is_plain(name):
        return frozenset()
    try:
        return changed_ids(name, runs)
    except EnsembleError as error:
        warnings.append(f"the changed labels of {name} are not left out of comparisons: {error.message}")
        return frozenset()


def _read_blend(folder: Path, members: AlignedMembers | None, request: BlendConfig, warnings: list[str]) -> Group:
    files = [path for split in SPLITS if (path := folder / f"{split}.npy").is_file()]
    if not files:
        raise EnsembleError(f"{folder} has no predictions", hint="ensemble blend … writes them again")
    own = replace(request, pool=None, per_person=False)  # of people already
    loaded = align_members(read_inputs([str(file) for file in files], own), own)
    warnings += loaded.warnings
    record = read_record(folder)
    listed = [one for one in record.get("runs") or () if isinstance(one, dict)]
    runs = [str(one.get("run")) for one in listed if one.get("weight")]
    costs = [one["cost"].get("passes") for one in listed if one.get("weight") and isinstance(one.get("cost"), dict)]
    known = costs and len(costs) == len(runs) and all(isinstance(one, int | float) for one in costs)
    in_sample = None
    if record.get("fitted") and members is not None and "oof" in members.splits:
        in_sample = fitted_on_all(folder, members)
    inputs = record.get("inputs")
    members_of = [one.get("run") for one in (inputs if isinstance(inputs, list) else []) if isinstance(one, dict)]
    made_of = sorted({one for one in (*runs, *members_of) if isinstance(one, str)})
    changed = frozenset[str]().union(*(_changed(one, folder.parent.parent, warnings) for one in made_of))
    name = f"blend {folder.resolve().name}"
    return Group(
        "blend",
        name,
        loaded.splits,
        dict.fromkeys((run.name for split in loaded.splits.values() for run in split.runs), float(sum(costs)))
        if known
        else {},
        frozenset([name] if selected_runs(folder.parent.parent, [run for run in runs if is_plain(run)]) else []),
        record,
        in_sample=in_sample,
        changed={name: changed},
        aligned=members if record.get("pool") else None,
    )
