"""Try on a GPU what only a GPU can settle, in one command; each line is printed as soon as it is known.

    python benchmarks/gpu_smoke.py                        # on a GPU, about five minutes
    python benchmarks/gpu_smoke.py --device mps           # or xpu:0; parts that only CUDA has are left out
    python benchmarks/gpu_smoke.py --device cpu --quick   # that the script itself runs, about two minutes

Augmentation on the GPU against the CPU, a dozen recipes, images that are streamed, a training again and resumed, number
formats, jobs that share the GPU (`--only sharing`), memory that runs out, waits of the host within a step, ms of each augmentation, the model alone with and without
cudnn.benchmark, compiled models, and the time a state takes. Exits 1 if a part fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "4")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from folds.augmentation.batch import PRESETS, apply_changes, augment_batch, compiled_work, to_input
from folds.augmentation.changes import compute_changes, sample_parameters, split_changes
from folds.augmentation.mixup import MixupCutmix, compute_mixing, draw_mixing, mix_batch, split_mixing
from folds.augmentation.mixup import apply_mixing as mix
from folds.config.command_settings import Settings
from folds.config.recipe import Recipe
from folds.data.synthetic.people import generate_people
from folds.execution.gpu_sharing import Headroom, choose_jobs, measure_cost
from folds.execution.placement import Execution
from folds.models.accelerators import computes_in, described, device_name, scaler_of, scales_gradients, synchronize
from folds.models.memory import DeviceSharedError
from folds.models.model_names import resolve
from folds.optim.optimizers import build_optimizer
from folds.runs.gpu_jobs import trial_order
from folds.runs.open import prepare_jobs
from folds.runs.plan import build_plan
from folds.training import loop
from folds.training.ema import MovingAverage
from folds.training.job import Job
from folds.training.measured_formats import measure_numbers
from folds.training.state import TrainingState
from folds.training.trainer import train_fold

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SWIN = "swin_tiny_patch4_window7_224"
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "strong + mix + ema": {"augment": "strong", "mixup": 0.2, "cutmix": 1.0, "ema": 0.9},
    "ldam, heads, accumulate": {"loss": "ldam", "target": "mask+gender+age", "accumulate": 2},
    "fp16": {"amp": "fp16"},
    "fp16, sgd, no clip": {"amp": "fp16", "opt": "sgd", "clip": 0.0, "weight_decay": 1e-4},
    "bf16": {"amp": "bf16"},
    "amp off": {"amp": "off"},
    "freeze": {"freeze": 1},
    "lion": {"opt": "lion"},
    "keep best": {"keep": "best"},
    "grad checkpointing (vit)": {"arch": "test_vit", "grad_checkpointing": True},
    "swin, layer decay": {"arch": SWIN, "layer_decay": 0.75, "epochs": 1},
    "deterministic": {"deterministic": True},
}
QUICK = ("plain", "strong + mix + ema", "bf16", "keep best")


@dataclass
class Smoke:
    """The parts, and what they share."""

    device: str
    minutes: float
    only: str
    quick: bool
    start: float = field(default_factory=time.monotonic)
    failed: list[str] = field(default_factory=list)

    @property
    def gpu(self) -> bool:
        return self.device != "cpu"

    def say(self, *words: object) -> None:
        print(f"[{time.monotonic() - self.start:5.0f} s]", *words, flush=True)

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    def wait(self) -> None:
        synchronize(self.device)

    def part(self, name: str, act: Callable[[], None]) -> None:
        """Run a part unless it is not asked for or there is no time left; an error is printed, and the next one runs."""
        if self.only and not any(word in name for word in self.only.split(",")):
            return
        if time.monotonic() - self.start > 60 * self.minutes:
            self.say(name, "left out: no time")
            return
        try:
            act()
        except Exception as error:
            self.failed.append(name)
            self.say(f"*** {name} FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            traceback.print_exc(limit=-4)

    def job(self, name: str, arch: str = "test_resnet", **recipe: Any) -> Job:
        """Return fold 0 of a new run."""
        for folder in ("runs", "checkpoints"):
            shutil.rmtree(Path(folder) / name, ignore_errors=True)
        values = {"epochs": 2, "img_size": "64" if self.gpu else "32", "pretrained": False} | recipe
        settings = Settings(data=Path("people"), arch=(arch,), k=3, name=name)
        execution = Execution(devices=self.device.removeprefix("cuda:"))
        plan = build_plan(settings, Recipe(**values), folds=[0], execution=execution)
        return replace(prepare_jobs(plan)[0], device=self.device)

    def milliseconds(self, act: Callable[[], object], times: int = 20) -> float:
        act()
        act()
        self.wait()
        start = time.perf_counter()
        for _ in range(times):
            act()
        self.wait()
        return (time.perf_counter() - start) / times * 1e3


def oof(job: Job) -> NDArray[np.float32]:
    return np.load(job.fold_dir / "oof.npy")


def augmentation(smoke: Smoke) -> None:
    """The same numbers on both devices: values differ where a pixel falls on the border of two."""
    batch = torch.randint(0, 256, (16, 64, 64, 3), dtype=torch.uint8)
    draws_of_mix = draw_mixing(16, MixupCutmix(0.2, 1.0), torch.Generator().manual_seed(2))
    targets = torch.eye(4).repeat(4, 1)
    for name, way in PRESETS.items():
        draws = sample_parameters(16, way, torch.Generator().manual_seed(1))
        changes = split_changes(compute_changes(draws, way, (64, 64)), [16], smoke.device)[0]
        mixing = split_mixing(compute_mixing(draws_of_mix, (64, 64)), [16], smoke.device)[0]
        for layout in (torch.channels_last, torch.contiguous_format):
            here = augment_batch(batch, draws, way, MEAN, STD, layout=layout)
            there = apply_changes(batch.to(smoke.device), changes, MEAN, STD, layout)
            mixed_here = mix_batch(here, targets, draws_of_mix)[0]
            mixed_there = mix(there, targets.to(smoke.device), mixing)[0]
            shares = [
                float(((one - other.cpu()).abs() > 1e-3).float().mean())
                for one, other in ((here, there), (mixed_here, mixed_there))
            ]
            smoke.say(
                f"augmentation {name}, {layout}: share of values that differ by more than 1e-3: {shares[0]:.5f}; "
                f"mixed {shares[1]:.5f}"
            )


def recipe_part(smoke: Smoke, name: str, recipe: dict[str, Any]) -> None:
    done = train_fold(smoke.job("case", **recipe))
    smoke.say(f"trained {name}: macro F1 {done['macro_f1']:.3f}, amp {done['amp']}, {done['seconds']} s")


def streamed(smoke: Smoke) -> None:
    job = smoke.job("streamed", augment="none")
    train_fold(job)
    resident = oof(job)
    job = replace(smoke.job("streamed", augment="none"), memory_fraction=1e-12)
    train_fold(job)
    smoke.say("streamed against resident: largest difference", abs(resident - oof(job)).max())


def repeated(smoke: Smoke) -> None:
    """How far two trainings, and a resumed one, are apart; on a CPU and with `deterministic` they are equal."""
    for arch in ("resnet18", SWIN) if smoke.gpu else ("test_resnet",):
        for deterministic in (False, True) if smoke.gpu else (False,):
            recipe = {"epochs": 2, "deterministic": deterministic}
            first = smoke.job("repeat", arch, **recipe)
            train_fold(first)
            expected = oof(first)
            again = smoke.job("repeat", arch, **recipe)
            train_fold(again)
            repeat = oof(again)
            job = replace(smoke.job("repeat", arch, **recipe), save_seconds=-1.0)

            def stop(event: dict[str, Any]) -> None:
                if event["event"] == "epoch":
                    raise KeyboardInterrupt

            try:
                train_fold(job, stop)
            except KeyboardInterrupt:
                train_fold(job)
            smoke.say(
                f"{arch}, deterministic {deterministic}: again {abs(expected - repeat).max():.2e}, bytes equal "
                f"{expected.tobytes() == repeat.tobytes()}; resumed {abs(expected - oof(job)).max():.2e}"
            )


def out_of_memory(smoke: Smoke) -> None:
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1.2e9 / whole)
    try:
        job = smoke.job("oom", "resnet18", img_size="224", batch_size=128, epochs=1)
        done = train_fold(job, lambda event: smoke.say(event["text"]) if event["event"] == "note" else None)
        smoke.say("out of memory: micro batch", done["micro_batch"])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def sharing(smoke: Smoke) -> None:
    """Rates of 1 to 4 processes on the GPU, and what would be chosen; then jobs that give way when memory is short."""
    for arch, batch in (("test_resnet", 32), ("resnet18", 32), ("resnet50", 128)):
        settings = Settings(data=Path("people"), arch=(arch,), k=3, name="sharing")
        recipe = Recipe(epochs=2, img_size="64" if batch == 32 else "224", pretrained=False, batch_size=batch)
        plan = build_plan(settings, recipe, execution=Execution(devices=smoke.device.removeprefix("cuda:")))
        order = trial_order(plan, plan.runs[0])
        cost, room = measure_cost(order, smoke.device, partial(Headroom, images=0), 20)
        smoke.say(f"{arch}, batch {batch}: host {cost.host:.2f}; {choose_jobs(cost, room, 20)[1]}")
    job = replace(smoke.job("gives-way", "resnet18", img_size="224", batch_size=128, epochs=1), gives_way=True)
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1.2e9 / whole)
    try:
        train_fold(job)
    except DeviceSharedError as error:
        smoke.say("a job that shares the GPU gives way:", error)
    else:
        raise AssertionError("a job without memory did not give way")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def number_formats(smoke: Smoke) -> None:
    """What torch can do on this kind of device, and the rates of its number formats."""
    kind = smoke.device.partition(":")[0]
    able = {amp: computes_in(kind, amp) for amp in ("fp16", "bf16")}
    smoke.say(f"{described() or 'cpu'}; computes in {able}, scales gradients {scales_gradients(kind)}")
    found = measure_numbers(resolve("test_resnet", (64, 64)), Recipe(batch_size=32, opt="adamw"), 18, smoke.device)
    smoke.say("number formats:", {name: round(rate) for name, rate in found.items()})


def host_waits(smoke: Smoke) -> None:
    """Where the host waits for the GPU inside a step."""
    names = ("apply_changes", "apply_mixing", "_train_step")
    real = {name: getattr(loop, name) for name in names}

    def watched(act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            torch.cuda.set_sync_debug_mode("warn")
            try:
                return act(*arguments, **named)
            finally:
                torch.cuda.set_sync_debug_mode("default")

        return call

    for name in names:
        setattr(loop, name, watched(real[name]))
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train_fold(smoke.job("waits", augment="strong", mixup=0.2, cutmix=1.0, ema=0.9))
    finally:
        for name in names:
            setattr(loop, name, real[name])
    found = [f"{one.filename}:{one.lineno}" for one in caught if "synchron" in str(one.message).lower()]
    smoke.say("waits inside a step:", {place: found.count(place) for place in sorted(set(found))} or "none")


def augmentation_times(smoke: Smoke) -> None:
    n, px = (128, 224) if smoke.gpu else (4, 64)
    images = torch.randint(0, 256, (4 * n, px, px, 3), dtype=torch.uint8, device=smoke.device)
    rows = torch.randperm(4 * n, device=smoke.device)[:n]
    batch, found = images[rows], {"gather": smoke.milliseconds(lambda: images[rows])}
    works = {"": None, " compiled": compiled_work()} if smoke.cuda else {"": None}
    for name, way in PRESETS.items():
        draws = sample_parameters(n, way, torch.Generator().manual_seed(1))
        changes = split_changes(compute_changes(draws, way, (px, px)), [n], smoke.device)[0]
        for kind, work in works.items():
            found[name + kind] = smoke.milliseconds(
                lambda c=changes, w=work: apply_changes(batch, c, MEAN, STD, torch.channels_last, work=w)  # type: ignore[misc]
            )
    inputs, targets = to_input(batch, MEAN, STD, torch.channels_last), torch.eye(n, device=smoke.device)
    draws = draw_mixing(n, MixupCutmix(0.2, 1.0), torch.Generator())
    mixing = split_mixing(compute_mixing(draws, (px, px)), [n], smoke.device)[0]
    found["mix"] = smoke.milliseconds(lambda: mix(inputs, targets, mixing))
    smoke.say(f"augmentation of {n} images of {px} px, ms:", {name: round(ms, 2) for name, ms in found.items()})


def model_alone(smoke: Smoke) -> None:
    cases: dict[str, tuple[int, ...]] = {"test_resnet": (4,)}
    if smoke.gpu:
        cases = {"resnet18": (32, 128, 256), SWIN: (32, 64, 128), "efficientnet_b0": (32, 128)}
    for arch, sizes in cases.items():
        for benchmark in (False, True):
            torch.backends.cudnn.benchmark = benchmark
            for batch in sizes:
                if time.monotonic() - smoke.start > 60 * smoke.minutes:
                    return
                smoke.say(f"{arch} alone, batch {batch}, cudnn.benchmark {benchmark}:", one_model(smoke, arch, batch))
    torch.backends.cudnn.benchmark = False


def one_model(smoke: Smoke, arch: str, batch: int) -> str:
    px = 224 if smoke.gpu else 64
    layout = torch.channels_last if arch.startswith(("res", "eff", "test")) else torch.contiguous_format
    model = timm.create_model(arch, num_classes=18).to(smoke.device).to(memory_format=layout).train()
    optimizer = build_optimizer(model, "adamw", 0.05, 1.0, {})
    images = torch.randn(batch, 3, px, px, device=smoke.device).contiguous(memory_format=layout)
    labels = torch.randint(18, (batch,), device=smoke.device)

    def step() -> None:
        with torch.autocast(smoke.device.split(":")[0], torch.bfloat16, enabled=smoke.gpu):
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    ms = smoke.milliseconds(step, 20 if smoke.gpu else 2)
    start = time.perf_counter()
    step()
    host = (time.perf_counter() - start) * 1e3  # until everything is started: what the host needs
    smoke.wait()
    return f"{batch / ms * 1e3:,.0f} images/s ({ms:.1f} ms, host {host:.1f} ms)"


def compiled(smoke: Smoke) -> None:
    for arch in ("resnet18", SWIN):
        done = train_fold(smoke.job("compiled", arch, img_size="224", compile=True, batch_size=32, epochs=3))
        smoke.say(
            f"{arch} compiled: {done['seconds']} s of three epochs, compiling included; macro F1 {done['macro_f1']:.3f}"
        )


def states(smoke: Smoke) -> None:
    for arch in ("resnet18", SWIN) if smoke.gpu else ("test_resnet",):
        model = timm.create_model(arch).to(smoke.device)
        optimizer = build_optimizer(model, "adamw", 0.05, 1.0, {})
        for weights in model.parameters():
            weights.grad = torch.zeros_like(weights)
        optimizer.step()
        average = MovingAverage(model, 0.999)
        ema_ms = smoke.milliseconds(lambda average=average: average.update(10))  # type: ignore[misc]
        state = TrainingState(model, optimizer, average, scaler_of(smoke.device, "off"))
        smoke.wait()
        start = time.perf_counter()
        copied = state.state()
        copy = time.perf_counter() - start
        start = time.perf_counter()
        with open("st.pt", "wb") as file:
            torch.save(copied, file)
            file.flush()
            os.fsync(file.fileno())
        smoke.say(
            f"state of {arch}: copied in {copy * 1e3:.0f} ms, written in {(time.perf_counter() - start) * 1e3:.0f} ms, "
            f"{Path('st.pt').stat().st_size / 1e6:.0f} MB; EMA update {ema_ms:.2f} ms"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--minutes", type=float, default=6.0, help="parts that begin later are left out")
    parser.add_argument("--only", default="", help="words of the parts to run, separated by commas")
    parser.add_argument("--quick", action="store_true", help="a few recipes only")
    smoke = Smoke(**vars(parser.parse_args()))
    name = device_name(smoke.device) or "cpu"
    smoke.say(f"torch {torch.__version__}, timm {timm.__version__}, {name}, {os.cpu_count()} cores")
    root, before = Path(tempfile.mkdtemp(prefix="smoke-")), Path.cwd()
    os.chdir(root)
    try:
        generate_people(Path("people"), people=30, test_people=6, size=(48, 64))
        smoke.part("augmentation", lambda: augmentation(smoke))
        for case, recipe in CASES.items():
            if not smoke.quick or case in QUICK:
                smoke.part(case, lambda c=case, r=recipe: recipe_part(smoke, c, r))  # type: ignore[misc]
        smoke.part("streamed", lambda: streamed(smoke))
        smoke.part("repeated and resumed", lambda: repeated(smoke))
        smoke.part("number formats", lambda: number_formats(smoke))
        if smoke.cuda:
            smoke.part("sharing", lambda: sharing(smoke))
            smoke.part("out of memory", lambda: out_of_memory(smoke))
            smoke.part("waits", lambda: host_waits(smoke))
        smoke.part("times of augmentation", lambda: augmentation_times(smoke))
        smoke.part("model alone", lambda: model_alone(smoke))
        if smoke.cuda:
            smoke.part("compiled", lambda: compiled(smoke))
        smoke.part("states", lambda: states(smoke))
    finally:
        os.chdir(before)
        shutil.rmtree(root, ignore_errors=True)
    smoke.say("failed: " + ", ".join(smoke.failed) if smoke.failed else "done")
    return bool(smoke.failed)


if __name__ == "__main__":
    sys.exit(main())
