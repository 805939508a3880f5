"""Read thousands of mutated checkpoints, sidecars and settings, as a stranger could send them, and count what goes wrong.

``python benchmarks/fuzz_files.py --count 10000``. Every mutation is read in a child process as the commands read it. Wrong
are: an exception other than `EnsembleError` (a crash, "internal error"), more than 5 s of CPU time, more than 1 GB of
memory, and code that runs. Mutation number i is the same in every run, so ``--first i --count 1 --show`` repeats one.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import ctypes
import gc
import json
import os
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

SECONDS = 5.0
MEMORY = 1 << 30
KINDS = ("checkpoint", "pickle", "weights", "sidecar", "samples", "settings", "space", "record", "blend")
EVIL = "fuzz_evil"  # a module in the working folder; that it was imported is code that ran
_evil: list[str] = []


def laughs(kind: type, levels: int = 40) -> Any:
    """Return a value of 2**levels values that needs memory for `levels`."""
    value = kind(["ha", 1])
    for _ in range(levels):
        value = kind([value, value])
    return value


def endless() -> list[Any]:
    """Return a list that contains itself."""
    value: list[Any] = []
    value.append(value)
    return value


def deep(levels: int) -> list[Any]:
    """Return a list nested `levels` deep."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


_VALUES: list[Any] = [
    *(None, True, 0, -1, 1, 2, 10**9, 10**30, -(2**63), 0.5, 1e308, -1e308, float("nan"), float("inf")),
    *("", " ", "a", "x" * 100_000, "\ud800", "\0", "../../x", "/", "/proc/self/fd", "/dev/zero", "pipe", "x" * 300),
    *("\x1b[2J", f"{EVIL}:run", "(a+)+$", "hf-hub:a/b", "label+label", "1" * 5000, "é\u202e"),
    *([], {}, [None], ["a", "a"], [1, "a", None], {"a": {}}, {"": []}, [[], [[]]]),
]
PLAIN: list[Callable[[], Any]] = [
    *(partial(copy.deepcopy, value) for value in _VALUES),
    lambda: deep(15),
    lambda: deep(60),
    lambda: ["a"] * 10_000 + ["x" * 50_000],
    lambda: list(range(100_000)),
]
SHARED: list[Callable[[], Any]] = [
    *(lambda: laughs(list), lambda: laughs(tuple), endless, lambda: deep(900), lambda: 10**20_000, lambda: b"bytes"),
    *(lambda: {(1, 2): 3}, lambda: {laughs(tuple, 10): 1}, lambda: (1, 2), lambda: {1: 2}, lambda: {"a", "b"}),
]


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside of nested mappings and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [at] if at else []
    for key, one in list(inner)[:40]:
        found += places(one, (*at, key))
    return found


def mutate(record: dict[str, Any], rng: random.Random, palette: list[Callable[[], Any]]) -> dict[str, Any]:
    """Return a copy of a record in which one to three values are replaced, removed, moved or added."""
    changed, known = copy.deepcopy(record), places(record)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        *path, key = rng.choice(known)
        with contextlib.suppress(KeyError, IndexError, TypeError, AttributeError):  # an earlier change removed it
            parent: Any = changed
            for step in path:
                parent = parent[step]
            change(parent, key, rng, palette)
    return changed


def change(parent: Any, key: Any, rng: random.Random, palette: list[Callable[[], Any]]) -> None:
    """Change the value of a key of a mapping or list."""
    way, old = rng.random(), parent[key]
    if way < 0.1:
        del parent[key]
    elif way < 0.25 and type(old) in (int, float):
        parent[key] = old * rng.choice((-1, 0, 2, 10**3, 10**6, 10**9)) + rng.choice((0, 1, -1))
    elif way < 0.35 and isinstance(parent, dict):
        parent[rng.choice(("depth", "window", "embed_dim", "transform", "__class__", "ids"))] = rng.choice(palette)()
    elif way < 0.45 and isinstance(old, list) and old:
        parent[key] = old * rng.choice((2, 100))
    else:
        parent[key] = rng.choice(palette)()


def damage(content: bytes, rng: random.Random) -> bytes:
    """Return bytes with some changed, removed or repeated."""
    made = bytearray(content)
    for _ in range(rng.choice((1, 2, 8))):
        at = rng.randrange(len(made) + 1)
        way = rng.random()
        if way < 0.5 and at < len(made):
            made[at] = rng.randrange(256)
        elif way < 0.7:
            del made[at : at + rng.choice((1, 4, 50))]
        elif way < 0.9:
            made[at:at] = made[at : at + rng.choice((1, 8, 200))]
        else:
            made[at:at] = rng.choice((b"\0", b"[" * 3000, b"9" * 5000, b"\xff\xfe", b'"', b"{", b"h\0h\0\x86q\0" * 40))
    return bytes(made)


class Files:
    """The valid files that are mutated, in the working folder."""

    def __init__(self) -> None:
        import numpy as np
        import torch
        from PIL import Image

        from folds.models.checkpoint import Checkpoint, hash_ids, save_checkpoint
        from folds.models.factory import create_model
        from folds.models.model_names import resolve
        from folds.predictions.files import PredictionMetadata, write_prediction
        from folds.predictions.rows import SampleRows

        Path(f"{EVIL}.py").write_text(
            "import builtins\nbuiltins.fuzz_evil_ran = True\n\ndef run(image): return image\n"
        )
        if not Path("pipe").exists():
            os.mkfifo("pipe")
        architecture = resolve("test_vit", (32, 32), arguments={"depth": 1, "embed_dim": 16, "num_heads": 2})
        data = {
            "data": "d.csv",
            "path": "path",
            "label": "label",
            "person": "person",
            "person_regex": None,
            "test": None,
        }
        Path("d.csv").write_text("path,label,person\na.png,0,p\nb.png,1,q\n")
        for picture in ("a.png", "b.png"):
            Image.new("RGB", (8, 8)).save(picture)
        images = {"height": 32, "width": 32, "fit": "squash", "window": None}
        parts: dict[str, Any] = {"class_attributes": {}, "images": images, "data": data, "recipe": {"seed": 0}}
        parts |= {"run": "r", "fold": 0, "k": 2, "amp": "off", "classes": ("0", "1"), "target": "label"}
        save_checkpoint(
            Path("valid.pt"),
            Checkpoint(
                **parts,
                architecture=architecture,
                weights=create_model(architecture, 2).state_dict(),
                training_hashes=hash_ids(["a"]),
                validation_hashes=hash_ids(["b"]),
                folds_sha="0" * 64,
                versions={"torch": "2"},
            ),
        )
        self.record = torch.load("valid.pt", weights_only=True)
        self.record["architecture"] = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in self.record["architecture"].items()
        }
        self.record |= {"training_ids": ["a"], "validation_ids": ["b"], "validation_labels": ["1"], "data": data}
        self.weights = self.record.pop("weights")
        ids = np.array([f"i{i}" for i in range(6)])
        rows = SampleRows(ids, np.array(list("010101")), np.array(list("aabbcc")))
        values = np.full((6, 2), 0.5, np.float32)
        sidecar = PredictionMetadata("probability", "oof", ("0", "1"), rows, fold=np.zeros(6, int), run="m")
        write_prediction(Path("inline.npy"), values, sidecar)
        write_prediction(Path("shared.npy"), values, sidecar, rows)
        self.inline, self.shared = (json.loads(Path(f"{name}.json").read_text()) for name in ("inline", "shared"))
        self.samples = Path(self.shared["samples"]).read_bytes()
        self.array = Path("inline.npy").read_bytes()
        self.settings: dict[str, Any] = {
            **{"data": "d.csv", "arch": ["test_vit"], "k": 3, "seeds": 1, "repeats": 1, "epochs": 2, "lr": 0.1},
            **{"img_size": "32", "loss": "ce", "model_args": {"depth": 2}, "per_person": {"0": 2}},
            **{"rebin": {"age": {"column": "age", "cuts": [1, 2]}}, "opt_args": {"eps": 1e-8}, "schedule": "cosine"},
        }
        self.space = {
            "space": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}, "batch_size": [16, 32]},
            "tune": {"trials": 4, "folds": [0], "metric": "macro_f1", "gpus": 0.5, "reduction": 3.0},
        }
        self.blend = {
            **{"schema": 1, "identity": "0" * 64, "classes": ["0", "1"]},
            "combination": {"runs": ["m"], "pool": "soft", "weights": [1.0]},
            "run": [{"name": "m", "target": "label", "folds": [0, 1], "views": [], "checkpoints": {"0": "0" * 64}}],
        }
        columns = {"names": ["age", "site"], "means": [40.0, 0.0], "deviations": [9.0, 0.0], "categories": [[], ["a"]]}
        made: dict[str, Any] = {
            **{"runs": ["m"], "pool": "soft", "stacked": [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]},
            "pooling": {"rule": "log-odds", "runs": ["m"], "damping": [0.5], "prior": [[0.5, 0.5]]},
            "extra": {**columns, "coefficients": [[0.1, 0.2]] * 4},
        }
        self.people = self.blend | {"combination": made}


def make(kind: str, files: Files, rng: random.Random) -> Callable[[], Any]:
    """Write a mutation of a kind of file; return what a command does with it."""
    import torch

    name = Path(f"mutated-{kind}")
    if kind in ("checkpoint", "weights"):
        changed = mutate(files.record, rng, PLAIN + SHARED)
        weights = dict(files.weights)
        if rng.random() < (0.7 if kind == "weights" else 0.2):
            key = rng.choice(list(weights))
            weights[key] = rng.choice(ODD)(weights[key])
        changed.setdefault("weights", weights)
        content = changed if kind == "checkpoint" else rng.choice((weights, {"state_dict": weights}, changed))
        path = name.with_suffix(".pt")
        torch.save(content, path)
        return lambda: use_checkpoint(path) if kind == "checkpoint" else use_weights(path)
    if kind == "pickle":
        path = name.with_suffix(".pt")
        with zipfile.ZipFile("valid.pt") as old, zipfile.ZipFile(path, "w", rng.choice((0, 0, 0, 8))) as new:
            for part in old.infolist():
                kept = old.read(part.filename)
                new.writestr(part.filename, damage(kept, rng) if part.filename.endswith("data.pkl") else kept)
        if rng.random() < 0.2:
            path.write_bytes(damage(path.read_bytes(), rng))
        return lambda: use_checkpoint(path)
    if kind in ("sidecar", "samples"):
        return make_sidecar(kind, name.with_suffix(".npy"), files, rng)
    base = {"settings": files.settings, "record": files.settings | {"resolved": {"threads": 1, "folds_sha": "0"}}}
    blend = rng.choice((files.blend, files.people)) if kind == "blend" else {}
    record = {**base, "space": files.space, "blend": blend}[kind]
    path = name.with_suffix(".toml")
    text = as_toml(mutate(record, rng, PLAIN)).encode(errors="surrogatepass")
    path.write_bytes(damage(text, rng) if rng.random() < 0.4 else text)
    return {"settings": use_settings, "space": use_space, "record": use_record, "blend": use_blend}[kind](path)


def make_sidecar(kind: str, path: Path, files: Files, rng: random.Random) -> Callable[[], Any]:
    """Write a mutated sidecar, or a mutated samples file with the sidecar that names it."""
    record = mutate(rng.choice((files.inline, files.shared)), rng, PLAIN) if kind == "sidecar" else dict(files.shared)
    if kind == "samples":
        import hashlib

        content = damage(files.samples, rng)
        record |= {"samples": "mutated-samples.csv", "samples_sha": hashlib.sha256(content).hexdigest()}
        Path("mutated-samples.csv").write_bytes(content)
    text = json.dumps(record).encode()
    path.with_suffix(".json").write_bytes(damage(text, rng) if rng.random() < 0.3 else text)
    path.write_bytes(damage(files.array, rng) if rng.random() < 0.3 else files.array)

    def use() -> Any:
        from ensemble.members.reading import read_members

        return read_members([path])

    return use


def as_toml(record: dict[str, Any]) -> str:
    """Return a record as TOML, also where its values have no TOML form."""
    from folds.utils.toml import toml_value

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(one) for key, one in value.items() if one is not None}
        return [plain(one) for one in value if one is not None] if isinstance(value, list | tuple) else value

    return "".join(f"{key} = {toml_value(value)}\n" for key, value in plain(record).items())


def use_checkpoint(path: Path) -> Any:
    """Load a checkpoint, its model and its data."""
    from folds.data.sources import load_checkpoint_data
    from folds.models.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    checkpoint.build(path)
    return load_checkpoint_data(checkpoint.data, classes=checkpoint.classes, run=checkpoint.run)


def use_weights(path: Path) -> Any:
    """Begin a training with weights from a file."""
    from folds.models.factory import create_model
    from folds.models.model_names import resolve

    architecture = resolve("test_vit", (32, 32), arguments={"depth": 1, "embed_dim": 16, "num_heads": 2})
    return create_model(architecture, 3, init=path)


def use_settings(path: Path) -> Callable[[], Any]:
    """Return the reading of a settings file, named by the user and as ./ensemble.toml, and the check of its recipe."""

    def use() -> Any:
        from folds.config.files import load_settings, read_run_tables
        from folds.models.build_limit import BuildLimit
        from folds.models.factory import create_model
        from folds.models.model_names import resolve
        from folds.training.resolve import validate_recipe

        Path("ensemble.toml").write_bytes(path.read_bytes())
        try:
            settings, recipe, _ = load_settings({})
        finally:
            Path("ensemble.toml").unlink()
        read_run_tables(path)
        validate_recipe(recipe)  # imports a transform
        # A training may take as much memory as the machine has; here, as much as the limit of the others.
        model = resolve(settings.arch[0], recipe.size(), arguments=recipe.model_args)
        return create_model(model, 2, limit=BuildLimit(2**25))

    return use


def use_space(path: Path) -> Callable[[], Any]:
    """Return the reading of the file of a study."""

    def use() -> Any:
        from folds.tuning.study import make_study

        return make_study({}, path)

    return use


def use_record(path: Path) -> Callable[[], Any]:
    """Return the reading of the record of a run."""

    def use() -> Any:
        from folds.config.files import load_settings, read_record

        read_record(path)
        return load_settings({}, path, implicit=False, runs_code=False)

    return use


def use_blend(path: Path) -> Callable[[], Any]:
    """Return the reading of a blend's recipe."""

    def use() -> Any:
        from ensemble.blending.recipe import read_recipe
        from ensemble.model_files.made_up_rows import IMAGES, made_up_rows

        combination = read_recipe(path).combination
        # The persons and columns of an exported model's expected images follow from the combination.
        rows = made_up_rows(combination, IMAGES)
        if combination.extra is not None:
            combination.extra.logits(rows.attributes, IMAGES)
        return combination

    return use


def _odd(name: str) -> Callable[[Any], Any]:
    def change(value: Any) -> Any:
        import torch

        return {
            "sparse": lambda: value.to_sparse(),
            "meta": lambda: value.to("meta"),
            "expanded": lambda: value.expand(10**9, *value.shape),
            "complex": lambda: value.to(torch.complex64),
            "nan": lambda: value * float("nan"),
            "empty": lambda: value[:0],
            "integer": lambda: value.long(),
            "number": lambda: 5,
            "list": lambda: value.tolist(),
        }[name]()

    return change


ODD = list(map(_odd, ("sparse", "meta", "expanded", "complex", "nan", "empty", "integer", "number", "list")))


def run_one(number: int, files: Files, show: bool = False) -> dict[str, Any]:
    """Read mutation `number`; return its kind and what happened."""
    import builtins
    import logging

    from folds.errors import EnsembleError

    logging.disable(logging.CRITICAL)
    rng = random.Random(number)
    kind = KINDS[number % len(KINDS)]
    try:
        use = make(kind, files, rng)
    except (OverflowError, RecursionError, TypeError, ValueError, RuntimeError, UnicodeError, NotImplementedError):
        return {"number": number, "kind": kind, "outcome": "not written"}
    forget_peak()
    start = time.process_time()
    try:
        use()
        outcome, text = "read", ""
    except EnsembleError as error:
        outcome, text = "refused", "\n".join(error.lines())
    except BaseException as error:
        outcome, text = "crash", f"{type(error).__name__}: {error}"
        if show:
            traceback.print_exc()
    if getattr(builtins, "fuzz_evil_ran", False) or EVIL in sys.modules:
        outcome, text = "code", "the module was imported"
    seconds = time.process_time() - start
    return {
        "number": number,
        "kind": kind,
        "outcome": outcome,
        "text": text[:300],
        "seconds": seconds,
        "peak": peak_bytes(),
    }


def forget_peak() -> None:
    """Let the peak of this process begin anew, without what making the mutation took (Linux only)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Return the most memory of this process since `forget_peak`, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(next(line.split()[1] for line in status.read_text().splitlines() if "VmHWM" in line))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(first: int, last: int, show: bool) -> None:
    """Read the mutations from `first` to before `last`; print a JSON line before and after each."""
    import folds.models.build_limit  # noqa: F401 - imported before the first is timed

    files = Files()
    for number in range(first, last):
        print(json.dumps({"started": number}), flush=True)
        print(json.dumps(run_one(number, files, show)), flush=True)


def main() -> None:
    """Run the mutations and print the counts and the failures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this time")
    parser.add_argument("--show", action="store_true", help="print the traceback of a crash")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    if options.child:
        child(options.first, options.first + options.count, options.show)
        return
    end, number, last = time.monotonic() + options.minutes * 60, options.first, options.first + options.count
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[dict[str, Any]] = []
    slowest, peak, start = 0.0, 0, time.monotonic()
    while number < last and time.monotonic() < end:
        for result in watch(number, last, options.show, end):
            number = result["number"] + 1
            outcome = result["outcome"]
            slowest, peak = max(slowest, result.get("seconds", 0.0)), max(peak, result.get("peak", 0))
            if outcome in ("read", "refused", "crash") and result["seconds"] > SECONDS:
                outcome = "slow"
            elif outcome in ("read", "refused") and result["peak"] > MEMORY:
                outcome = "memory"
            counts[result["kind"], outcome] += 1
            if outcome not in ("read", "refused", "not written"):
                wrong.append(result | {"outcome": outcome})
                print(json.dumps(wrong[-1]), flush=True)
            if outcome == "memory":
                break  # a new child, because a process may keep what it had
    print(f"\n{number - options.first:,} mutations in {time.monotonic() - start:.0f} s, slowest {slowest:.1f} s, "
          f"largest {peak / 2**20:.0f} MiB (libraries included)")  # fmt: skip
    for kind in KINDS:
        print(
            f"{kind:12}", ", ".join(f"{count:,} {what}" for (of, what), count in sorted(counts.items()) if of == kind)
        )
    print(f"{len(wrong)} wrong")
    sys.exit(1 if wrong else 0)


def watch(first: int, last: int, show: bool, end: float) -> Any:
    """Run a child; yield its results, and a result for a mutation that hangs or kills it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).resolve()), "--child", "--first", str(first)]
        process = subprocess.Popen(
            [*command, "--count", str(last - first), *(["--show"] if show else [])],
            stdout=subprocess.PIPE,
            cwd=folder,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        started, output = first, process.stdout
        assert output is not None
        try:
            while time.monotonic() < end:
                ready, _, _ = select.select([output], [], [], 240 if started == first else 12 * SECONDS)
                line = output.readline() if ready else ""
                if not line:
                    what = "hang" if not ready else f"died ({process.wait()})"
                    if ready and started == last - 1 and process.returncode == 0:
                        return
                    yield {"number": started, "kind": KINDS[started % len(KINDS)], "outcome": what, "seconds": 0.0}
                    return
                result = json.loads(line)
                started = result.get("started", started)
                if "outcome" in result:
                    yield result
                    if result["number"] == last - 1:
                        return
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
