"""Decide how runs are computed, once: from their records, from what was measured on this machine, or by measuring.

Runs that are compared must not differ by what a measurement says: those of one command with the same model, image size
and batch have one format.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from folds.config.files import DAMAGED, read_record
from folds.errors import EnsembleError
from folds.models.accelerators import device_name, kind_of, measures_formats, prefers_channels_last
from folds.models.precision import resolve_amp
from folds.models.timing import has_bf16, recall, remember
from folds.predictions.file_names import RUN_CONFIG
from folds.runs.plan import Plan
from folds.runs.run import Run
from folds.training.amp import recorded_amp
from folds.training.measured_formats import (
    BF16,
    FP32,
    FUSED,
    OFF,
    Amount,
    Format,
    Rates,
    choose,
    choose_number,
    has_compiler,
    measure,
    measure_compiled,
    measure_numbers,
    rate_of,
)
from folds.training.stages import work_of
from folds.utils.progress import SILENT, Progress
from folds.utils.text import duration

logger = logging.getLogger(__name__)

# images × pixels × parameters: twenty seconds of training or more; with less, measuring costs more than it can gain.
# Not seconds, because those differ from one command to the next.
_WORTH_MEASURING = 2e14
_WORTH_COMPILING = 3600.0  # seconds of training
_GAIN_OF_COMPILING = 1.15
_COMPILATIONS = 3  # that the saved time must be worth


def decide_formats(plan: Plan, *, anew: bool = False, progress: Progress = SILENT) -> dict[str, Format]:
    """Return run → how its jobs are computed; the same for runs with the same model, image size and batch.

    Started runs keep what their records say, and the others follow them, or an existing run that they are compared
    with; else the run that trains longest decides. What a recipe gives itself (`amp`, `channels_last`, `compile`) stays
    its own.

    Parameters
    ----------
    anew : ignore the records, because the runs are trained from scratch.
    """
    found: dict[str, Format] = {}
    for group in _groups(plan):
        started = [run for run in group if not anew and (run.folder / RUN_CONFIG).exists()]
        own = {run.name: decide_format(plan, run, progress=progress) for run in started}
        found |= own
        others = [run for run in group if run.name not in own]
        if not others:
            continue
        first = _followed(plan, group, own)
        if first is None:
            longest = max(others, key=lambda run: _trained_images(plan, run))
            first = decide_format(plan, longest, anew=anew, progress=progress)
        found |= {run.name: _for_recipe(first, run) for run in others}
    return {run.name: found[run.name] for run in plan.runs}


def _groups(plan: Plan) -> list[list[Run]]:
    """Return the runs that must have one format; a run whose format is not measured is alone."""
    groups: dict[object, list[Run]] = {}
    for run in plan.runs:
        groups.setdefault(_model(run) if _is_measured(plan, run) else run.name, []).append(run)
    return list(groups.values())


def _is_measured(plan: Plan, run: Run) -> bool:
    """Return whether the format of a run is open, and follows from what is measured on a CPU."""
    return plan.placement.kind == "cpu" and not run.recipe.features and run.recipe.amp == "auto"


def _model(run: Run) -> tuple[object, ...]:
    """Return the model, the image size and the batch of a run."""
    shape = run.architecture
    return shape.timm_name, shape.height, shape.width, run.recipe.batch_size


def _followed(plan: Plan, group: Sequence[Run], own: Mapping[str, Format]) -> Format | None:
    """Return the format that new runs of a group follow; None if there is none.

    It is that of the first started run, else of a baseline that was trained earlier. One in bf16 is not followed on a
    CPU without instructions for it.
    """
    if not _is_measured(plan, group[0]):
        return None
    formats, names = dict(own), {run.name for run in plan.runs}
    for run in group:
        path = run.runs / (run.baseline or "") / RUN_CONFIG
        earlier = run.baseline is not None and run.baseline not in names and path.is_file()
        if earlier and _is_of_model(read_record(path), run):
            formats.setdefault(str(run.baseline), _recorded(path, None))
    for name, one in formats.items():
        if one.amp != BF16 or has_bf16():
            return replace(one, reason=f"{FP32 if one.amp == OFF else one.amp}, as the run {name}")
    return None


def _is_of_model(record: Mapping[str, Any], run: Run) -> bool:
    """Return whether a record of a training on a CPU has the model, the image size and the batch of a run."""
    resolved = record.get("resolved")
    resolved = resolved if isinstance(resolved, Mapping) else {}
    shape = resolved.get("architecture")
    shape = shape if isinstance(shape, Mapping) else {}
    theirs = *(shape.get(key) for key in ("timm_name", "height", "width")), record.get("batch_size")
    return resolved.get("device") == "cpu" and theirs == _model(run)


def _for_recipe(decided: Format, run: Run) -> Format:
    """Return the format of another run for this one, whose recipe may give a part of it."""
    layout = decided.channels_last if run.recipe.channels_last is None else None
    return replace(decided, channels_last=layout, compiled=decided.compiled and not run.recipe.compile)


def decide_format(plan: Plan, run: Run, *, anew: bool = False, progress: Progress = SILENT) -> Format:
    """Return how the jobs of a run are computed.

    A run that was started keeps what its record says. On most GPUs, and where `amp` is given, nothing is measured.

    Parameters
    ----------
    anew : ignore the record, because the run is trained from scratch.
    """
    path, asked, device = run.folder / RUN_CONFIG, run.recipe.amp, plan.placement.devices[0]
    amp = resolve_amp(asked, device)[0]
    if not measures_formats(device) or run.recipe.features:  # features are shared by runs, so nothing is measured
        if asked == "auto":
            amp = recorded_amp(run.folder) or amp
        return Format(amp, validation="", stored="")
    if path.exists() and not anew:
        return _recorded(path, None if asked == "auto" else amp)
    if device != "cpu":
        chosen = _measured_numbers(plan, run, progress) if asked == "auto" else Format(amp, validation="", stored="")
        usual = run.recipe.channels_last is not None or prefers_channels_last(device)
        return chosen if usual else replace(chosen, channels_last=False)
    if asked != "auto":
        # As before, and stored predictions in full precision: they are what other commands compute again.
        return Format(
            amp,
            validation=BF16 if amp == BF16 else OFF,
            stored=OFF,
            reason=f"{FP32 if amp == OFF else amp}, as requested",
        )
    return _measured(plan, run, progress)


def log_formats(decided: Sequence[tuple[Run, Format]]) -> None:
    """Log how runs are computed and why, one line for those that differ only in repeat or seed."""
    for name, reason in dict.fromkeys((run.base, one.reason) for run, one in decided):
        if reason:
            logger.info(f"{name}: number format: {reason}")
    line = formats_line({run.name: one.amp for run, one in decided})
    if line:
        logger.info(line)


def formats_line(formats: Mapping[str, str]) -> str:
    """Return which runs have which number format: ``trained in bf16: a, b; in fp32: c``; "" if all have the same.

    Parameters
    ----------
    formats : run → ``off``, ``bf16``, ``fp16``; with ``auto``, which is not decided yet, nothing is said.
    """
    amps = list(dict.fromkeys(formats.values()))
    if len(amps) < 2 or "auto" in amps:
        return ""
    runs = {amp: ", ".join(name for name, own in formats.items() if own == amp) for amp in amps}
    return "trained " + "; ".join(f"in {FP32 if amp == OFF else amp}: {names}" for amp, names in runs.items())


def recorded_amps(runs: Sequence[Run]) -> dict[str, str]:
    """Return run → its number format, as its record says; without runs whose record does not say it."""
    found = {}
    for run in runs:
        path = run.folder / RUN_CONFIG
        resolved = read_record(path).get("resolved") if path.exists() else None
        amp = resolved.get("amp") if isinstance(resolved, Mapping) else None
        amp = recorded_amp(run.folder) or amp if amp == "auto" else amp
        if isinstance(amp, str):
            found[run.name] = amp
    return found


def resolved_format(decided: Format) -> dict[str, Any]:
    """Return the entries of [resolved] in config.toml, from which `decide_format` reads them again."""
    return {
        "amp": decided.amp,
        "memory_format": {None: None, True: "channels_last", False: "contiguous"}[decided.channels_last],
        "compiled": decided.compiled or None,
        "validation": decided.validation or None,
        "stored": decided.stored or None,
        "format": decided.reason or None,
    }


def _recorded(path: Path, amp: str | None) -> Format:
    """Return the format of a run that was started; runs of earlier versions recorded only `amp`."""
    resolved = read_record(path).get("resolved", {})
    resolved = resolved if isinstance(resolved, Mapping) else {}  # `Run.check_same_settings` says that it is damaged

    def one_of(key: str, allowed: Sequence[Any]) -> Any:
        value = resolved.get(key)
        if value is not None and value not in allowed:
            names = ", ".join(map(str, allowed))
            raise EnsembleError(
                f"{path} is damaged: [resolved] {key} must be one of {names}, found {value!r}", hint=DAMAGED
            )
        return value

    layout, compiled = one_of("memory_format", ("channels_last", "contiguous")), bool(one_of("compiled", (True, False)))
    if compiled and not has_compiler():
        logger.warning(
            f"{path.parent.name} was compiled, and this machine has no C++ compiler: what is left is trained without, "
            "and last digits may differ"
        )
        compiled = False
    return Format(
        amp or one_of("amp", (OFF, BF16, "fp16", "auto")) or OFF,
        None if layout is None else layout == "channels_last",
        compiled,
        one_of("validation", (OFF, BF16, FUSED)) or "",
        one_of("stored", (OFF,)) or "",
        str(resolved.get("format", "")),
    )


def _measured(plan: Plan, run: Run, progress: Progress) -> Format:
    """Return the format by measurement, or fp32 with the reason why nothing was measured."""
    fp32 = Format()
    if plan.placement.backend == "ray" and plan.execution.address is not None:
        return replace(fp32, reason="fp32, because the machines of the cluster may differ (`amp=bf16` asks for bf16)")
    if not has_bf16():
        return replace(fp32, reason="fp32, because this CPU has no bf16 instructions")
    trained = _trained_images(plan, run)
    shape = run.architecture
    slots = len(plan.placement.devices)
    if _work(plan, run) < _WORTH_MEASURING:
        return replace(fp32, reason="fp32, because the training is too short to measure bf16")
    amount = Amount(trained / slots, min(len(run.assignment.validation_index(fold)) for fold in plan.folds))
    what = _what(run, plan.placement.threads)
    rates = Rates.from_record(recall(what) or {})
    try:
        if rates is None:
            with progress.step(f"{run.name}: measuring number formats"):
                rates = measure(shape, run.recipe, run.target.outputs, plan.placement.threads)
            # Another command may have measured meanwhile: both take the same numbers.
            earlier = Rates.from_record(recall(what) or {})
            rates = earlier or rates
            if earlier is None:
                remember(what, vars(rates))
        return _compiled(run, choose(rates, amount), rates, amount, what)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        return replace(fp32, reason=f"fp32, because the formats could not be measured: {reason}")


def _trained_images(plan: Plan, run: Run) -> float:
    """Return the images of all epochs of a run; one of a smaller size counts by its pixels."""
    shape, epochs = run.architecture, run.recipe.epochs
    share = work_of(run.recipe.progressive, epochs, (shape.height, shape.width))
    return share * epochs * sum(len(run.assignment.training_index(fold)) for fold in plan.folds)


def _measured_numbers(plan: Plan, run: Run, progress: Progress) -> Format:
    """Return the number format on a device whose formats are measured, or fp32 with the reason why none was."""
    fp32, device = Format(validation="", stored=""), plan.placement.devices[0]
    if _work(plan, run) < _WORTH_MEASURING:
        return replace(fp32, reason="fp32, because the training is too short to measure other formats")
    what = _what(run, plan.placement.threads) | {"device": f"{kind_of(device)} {device_name(device)}"}
    rates = _numbers(recall(what))
    try:
        if rates is None:
            with progress.step(f"{run.name}: measuring number formats"):
                rates = measure_numbers(run.architecture, run.recipe, run.target.outputs, device)
            remember(what, rates)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        return replace(fp32, reason=f"fp32, because the formats could not be measured: {reason}")
    return choose_number(rates)


def _numbers(record: Mapping[str, Any] | None) -> dict[str, float] | None:
    """Return the rates of a record of `measure_numbers`; None if it does not hold them."""
    known = record is not None and FP32 in record and set(record) <= {FP32, BF16, "fp16"}
    good = known and all(isinstance(rate, float) and 0 < rate < math.inf for rate in (record or {}).values())
    return dict(record or {}) if good else None


def _work(plan: Plan, run: Run) -> float:
    """Return images × pixels × parameters of all trainings of a run."""
    return _trained_images(plan, run) * run.architecture.height * run.architecture.width * run.parameters


def _compiled(run: Run, chosen: Format, rates: Rates, amount: Amount, what: Mapping[str, Any]) -> Format:
    """Return the format compiled, if the training is long, a compiler is there, and it is clearly faster."""
    rate = rate_of(rates, chosen)
    seconds = amount.seconds_of(rate)
    if run.recipe.compile or seconds < _WORTH_COMPILING or not has_compiler():
        return chosen
    if rates.compiled == (0.0, 0.0):
        logger.info(f"{run.name}: about {duration(seconds)} of training: trying whether compiling pays")
        found = measure_compiled(run.architecture, run.recipe, run.target.outputs, what["threads"], chosen)
        rates = replace(rates, compiled=found if found[0] else (1e-9, 0.0))  # a failure is remembered as well
        remember(what, vars(rates))
    fast, compiling = rates.compiled
    saved = seconds - amount.seconds_of(fast)
    if fast < _GAIN_OF_COMPILING * rate or saved < _COMPILATIONS * compiling:
        return chosen
    reason = f"{chosen.reason}; compiled {fast:.0f} images/s, after {compiling:.0f} s of compiling"
    return replace(chosen, compiled=True, reason=reason)


def _what(run: Run, threads: int) -> dict[str, Any]:
    """Return what the rates of a model depend on, beside the machine."""
    recipe = run.recipe
    return {
        "formats": 1,  # version of the measurement
        "architecture": {key: value for key, value in asdict(run.architecture).items() if key not in ("mean", "std")},
        "outputs": run.target.outputs,
        "batch": recipe.batch_size,
        "threads": threads,
        "channels_last": recipe.channels_last,
        "grad_checkpointing": recipe.grad_checkpointing,
        "opt": recipe.opt,
    }
