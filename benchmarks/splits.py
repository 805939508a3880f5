"""Splitting by person: scikit-learn's StratifiedGroupKFold against ours, with and without the repair.

    python benchmarks/splits.py                 both parts
    python benchmarks/splits.py --part skewed   60 sets of 30 people who differ strongly: what folds lack, how balanced they are
    python benchmarks/splits.py --part large    a million images of 140,000 people: seconds, and that the folds are the same
    python benchmarks/splits.py --part labels   60 sets of people with several labels an image; with the package
                                                iterative-stratification, if it is installed; with --first,
                                                of other seeds; and 100,000 images of 20,000 people
    python benchmarks/splits.py --part table    commands on a CSV of 980,000 rows, whole processes: seconds and memory
        --old SOURCE    in turn with the program in another source tree, as ratios; and that both write the same folds
        --files         the images are there, too (empty files), for kfold --dry-run

The shares are of a fold's images; a class counts as lacking in a fold if at least k people have it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from ensemble.cli.terminal.console import table
from folds.data.table import SampleTable
from folds.splits.kfold import split_by_person
from folds.splits.multilabel import split_labels_by_person

# Images of each of the 18 classes of the mask competition.
MASK_TASK = np.array(
    [2765, 2045, 415, 3640, 4090, 545, 553, 409, 83, 728, 818, 109, 553, 409, 83, 728, 818, 109], float
)


def skewed_people(seed: int, people: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels, persons), an entry an image: 10 to 59 images a person, whose classes follow a Dirichlet(.3)."""
    random = np.random.default_rng(seed)
    persons = np.repeat(np.arange(people), random.integers(10, 60, people))
    mix = random.dirichlet(np.full(classes, 0.3), people)
    return np.array([random.choice(classes, p=mix[person]) for person in persons]), persons


def table_of(labels: np.ndarray, persons: np.ndarray) -> SampleTable:
    """A table of these, without images."""
    ids = np.array([f"image{i:07d}" for i in range(len(labels))])
    names = [f"c{i:02d}" for i in range(int(labels.max()) + 1)]
    people = np.array([f"person{i:06d}" for i in range(int(persons.max()) + 1)])
    return SampleTable("benchmark", ids, None, np.array(names)[labels], people[persons], tuple(names), {}, {}, ())


def of_scikit_learn(labels: np.ndarray | None, persons: np.ndarray | None, k: int) -> np.ndarray:
    """Return the fold of each image, (n,) int."""
    assert labels is not None
    assert persons is not None
    fold = np.full(len(labels), -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i, (_, index) in enumerate(
            StratifiedGroupKFold(k, shuffle=True, random_state=0).split(labels, labels, persons)
        ):
            fold[index] = i
    return fold


def judged(labels: np.ndarray, persons: np.ndarray, fold: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """Folds × classes that are lacking, worst and mean deviation of a class share, worst deviation of a fold's size."""
    lacking, deviations = 0, []
    for name in np.unique(labels):
        mine = labels == name
        if len(np.unique(persons[mine])) >= k:
            lacking += k - len(np.unique(fold[mine]))
        deviations += [abs(mine[fold == i].mean() - mine.mean()) for i in range(k)]
    return (
        lacking,
        max(deviations),
        float(np.mean(deviations)),
        float(np.abs(np.bincount(fold, minlength=k) / len(fold) * k - 1).max()),
    )


def skewed(people: int, classes: int, k: int = 5, sets: int = 60) -> list[list[object]]:
    """A row for each way to split."""
    ways = {
        "scikit-learn": lambda labels, persons: of_scikit_learn(labels, persons, k),
        "ours, --no-repair": lambda labels, persons: split_by_person(table_of(labels, persons), k, repaired=False).fold,
        "ours": lambda labels, persons: split_by_person(table_of(labels, persons), k).fold,
    }
    rows: list[list[object]] = []
    results = {}
    for way, split in ways.items():
        found, seconds = [], 0.0
        for seed in range(sets):
            labels, persons = skewed_people(seed, people, classes)
            started = time.process_time()
            fold = split(labels, persons)
            seconds += time.process_time() - started
            found.append(judged(labels, persons, fold, k))
        results[way] = np.array(found)
        lacking, worst, mean, size = results[way].T
        worse = (results[way][:, :3] > results["scikit-learn"][:, :3] + 1e-12).any(axis=1).sum()
        row = [
            f"{people} people, {classes} classes",
            way,
            f"{(lacking > 0).sum()} of {sets}",
            f"{worst.mean():.4f}",
            f"{worst.max():.4f}",
        ]
        rows.append([*row, f"{mean.mean():.4f}", f"{size.mean():.3f}", worse, f"{seconds / sets:.3f}"])
    return rows


def people_with_labels(seed: int, people: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels (n, labels) 0 or 1, persons (n,)): 3 to 29 images a person; rates differ strongly, two labels co-occur."""
    random = np.random.default_rng(seed)
    persons = np.repeat(np.arange(people), random.integers(3, 30, people))
    rates = random.beta(0.4, 2.5, labels) * random.gamma(0.6, 1 / 0.6, (people, labels))
    found = (random.random((len(persons), labels)) < np.clip(rates, 0, 0.95)[persons]).astype(float)
    found[:, 1] = np.where(random.random(len(found)) < 0.7, found[:, 0], found[:, 1])
    return found, persons


def of_powerset(labels: np.ndarray, persons: np.ndarray, k: int) -> np.ndarray:
    """The fold of each image: scikit-learn's grouped split of the sets of labels."""
    return of_scikit_learn(np.unique(labels, axis=0, return_inverse=True)[1].ravel(), persons, k)


def of_glued_people(labels: np.ndarray, persons: np.ndarray, k: int) -> np.ndarray:
    """The fold of each image: iterative stratification of people, who have a label if one of their images has it."""
    from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

    glued = np.zeros((int(persons.max()) + 1, labels.shape[1]))
    np.maximum.at(glued, persons, labels)
    fold = np.empty(len(glued), int)
    for i, (_, index) in enumerate(MultilabelStratifiedKFold(k, shuffle=True, random_state=0).split(glued, glued)):
        fold[index] = i
    return fold[persons]


def several_labels(people: int, labels: int, first: int, k: int = 5, sets: int = 60) -> list[list[object]]:
    """A row for each way to split; the last two columns compare each set with the better one of the other packages."""
    ways = {
        "iterative-stratification, people glued": of_glued_people,
        "scikit-learn on the powerset": of_powerset,
        "ours, without repair": lambda labels, persons, k: split_labels_by_person(labels, persons, k, repaired=False),
        "ours": split_labels_by_person,
    }
    rows: list[list[object]] = []
    others = np.full((sets, 2), np.inf)
    for way, split in ways.items():
        found, seconds = [], 0.0
        for seed in range(first, first + sets):
            values, persons = people_with_labels(seed, people, labels)
            started = time.process_time()
            try:
                fold = split(values, persons, k)
            except ImportError:
                break
            seconds += time.process_time() - started
            columns = [judged(column, persons, fold, k) for column in values.T]
            lacking = sum(len(np.unique(persons[c == 1])) >= k > len(np.unique(fold[c == 1])) for c in values.T)
            mean = float(np.mean([one[2] for one in columns]))
            found.append((lacking, max(one[1] for one in columns), mean, columns[0][3]))
        if found:
            lacking, worst, mean, size = np.array(found).T
            row = [f"{people} people, {labels} labels", way, f"{(lacking > 0).sum()} of {sets}", f"{worst.mean():.4f}"]
            row += [f"{worst.max():.4f}", f"{mean.mean():.4f}", f"{size.mean():.3f}", f"{seconds / sets:.3f}"]
            deviations = np.stack([worst, mean], axis=1)
            if way.startswith("ours"):
                ratio = deviations / others
                row += [f"{(one <= 0.5).sum()} ({np.median(one):.2f}, {one.max():.2f})" for one in ratio.T]
            else:
                others = np.minimum(others, deviations)
                row += ["", ""]
            rows.append([*row])
    return rows


def large_labels(people: int = 20_000, images: int = 100_000, labels: int = 14, k: int = 5) -> list[list[object]]:
    """Seconds and deviations of one large table of several labels."""
    random = np.random.default_rng(0)
    persons = np.concatenate([np.arange(people), random.integers(people, size=images - people)])
    rates = random.beta(0.4, 2.5, labels) * random.gamma(0.6, 1 / 0.6, (people, labels))
    values = (random.random((images, labels)) < np.clip(rates, 0, 0.95)[persons]).astype(float)
    rows: list[list[object]] = []
    for way, repaired in (("ours, without repair", False), ("ours", True)):
        started = time.process_time()
        fold = split_labels_by_person(values, persons, k, repaired=repaired)
        seconds = time.process_time() - started
        columns = [judged(column, persons, fold, k) for column in values.T]
        worst, mean = max(one[1] for one in columns), float(np.mean([one[2] for one in columns]))
        rows.append([f"{images:,} images of {people:,} people", way, f"{worst:.6f}", f"{mean:.6f}", f"{seconds:.1f}"])
    return rows


def large(people: int = 140_000, images: int = 1_000_000, k: int = 5) -> list[list[object]]:
    """Seconds on one table, and whether the folds are the same."""
    random = np.random.default_rng(0)
    persons = np.concatenate([np.arange(people), random.integers(people, size=images - people)])
    labels = random.choice(len(MASK_TASK), images, p=MASK_TASK / MASK_TASK.sum())
    sample = table_of(labels, persons)
    rows: list[list[object]] = []
    times = []
    for way in ("scikit-learn", "ours, --no-repair", "ours"):
        wall, cpu = time.perf_counter(), time.process_time()
        if way == "scikit-learn":
            expected = of_scikit_learn(sample.labels, sample.persons, k)
            same = "–"
        else:
            fold = split_by_person(sample, k, repaired=way == "ours").fold
            same = "yes" if np.array_equal(fold, expected) else "NO"
            assert same == "yes"
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
        rows.append([way, f"{times[-1][0]:.1f}", f"{times[-1][1]:.1f}", f"{times[0][1] / times[-1][1]:.1f}", same])
    return rows


def write_table(path: Path, shuffled: bool, people: int = 140_000, images: int = 7) -> None:
    """A CSV with the columns path, label, person; in the order of the people, or in one of chance."""
    random = np.random.default_rng(0)
    persons = np.repeat(np.arange(people), images)
    labels = random.choice(len(MASK_TASK), len(persons), p=MASK_TASK / MASK_TASK.sum())
    order = random.permutation(len(persons)) if shuffled else np.arange(len(persons))
    with open(path, "w") as file:
        file.write("path,label,person\n")
        for i in order.tolist():
            file.write(f"images/person{persons[i]:06d}/photo{i:06d}.jpg,{labels[i]},person{persons[i]:06d}\n")


def write_images(table: Path) -> None:
    """An empty file for each image of the table."""
    for line in table.read_text().splitlines()[1:]:
        path = table.parent / line.split(",")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


# Runs the command, then prints its seconds (wall, CPU) and the most memory it held (MB; Linux counts in KiB).
CHILD = """
import resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(code, time.perf_counter() - started, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6)
"""


def measure(source: Path, folder: Path, words: list[str]) -> tuple[float, float, float]:
    """Seconds by the clock, CPU seconds and peak memory in MB of one command as a process of its own."""
    command = [sys.executable, "-c", "import sys; from ensemble.cli import main; sys.exit(main())", *words]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *command], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    code, wall, cpu, memory = map(float, done.stdout.split())
    if code:
        raise SystemExit(f"{' '.join(words)} of {source} failed:\n{done.stderr}")
    return wall, cpu, memory


def of_table(old: Path | None, files: bool, repeats: int) -> list[list[object]]:
    """A row for each command: medians of whole processes, of both sources in turn."""
    here = Path(__file__).resolve().parent.parent
    sources = {"now": here} if old is None else {"old": old.resolve(), "now": here}
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name:
        for order in ("by person", "shuffled"):
            folder = Path(name) / order.replace(" ", "-")
            folder.mkdir()
            write_table(folder / "t.csv", order == "shuffled")
            check, kfold = ["folds", "check", "now.csv", "--no-images"], ["kfold", "--dry-run", "--folds", "now.csv"]
            commands = {"folds": ["folds", "-o"], "folds check": check}
            if files and order == "by person":
                write_images(folder / "t.csv")
                commands["kfold --dry-run"] = [*kfold, "--arch", "test_resnet", "--no-pretrained"]
            for command, words in commands.items():
                found: dict[str, list[tuple[float, float, float]]] = {source: [] for source in sources}
                for _ in range(repeats):
                    for source, path in sources.items():
                        output = [f"{source}.csv", "--force"] if command == "folds" else []
                        found[source].append(measure(path, folder, [*words, *output, "--data", "t.csv"]))
                middle = {source: np.median(np.array(each), axis=0) for source, each in found.items()}
                wall, cpu, memory = middle["now"]
                row: list[object] = [f"{command}, {order}", f"{wall:.1f}", f"{cpu:.1f}", f"{memory:.0f}"]
                if old is not None:
                    # Of runs in turn: what else the machine does weighs on both.
                    ratio = statistics.median(a[1] / b[1] for a, b in zip(found["old"], found["now"], strict=True))
                    row += [f"{middle['old'][1]:.1f}", f"{middle['old'][2]:.0f}", f"{ratio:.1f}×"]
                rows.append(row)
                print(*row, sep="  ", file=sys.stderr, flush=True)
            if old is not None and (folder / "old.csv").read_bytes() != (folder / "now.csv").read_bytes():
                raise SystemExit(f"{order}: the folds are not the same")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["skewed", "large", "labels", "table"])
    parser.add_argument("--old", type=Path, help="a source tree to compare with (--part table)")
    parser.add_argument("--files", action="store_true", help="make the image files, too (--part table)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="seed of the first of the 60 sets (--part labels)")
    asked = parser.parse_args()
    part = asked.part
    if part == "table":
        header = ["980,000 rows", "s", "CPU s", "MB", *(["old CPU s", "old MB", "CPU ratio"] if asked.old else [])]
        print(table(header, of_table(asked.old, asked.files, asked.repeats)))
        return
    if part == "labels":
        header = [
            "60 sets of",
            "",
            "sets lacking a label",
            "worst deviation, mean",
            "max",
            "mean deviation",
            "size off",
            "CPU s a set",
        ]
        rows = [row for people, labels in ((30, 8), (40, 14)) for row in several_labels(people, labels, asked.first)]
        print(table([*header, "worst: sets at most half (median, max)", "mean: the same"], rows, 2))
        print(table(["", "", "worst deviation", "mean deviation", "CPU s"], large_labels(), 2))
        return
    if part != "large":
        header = [
            "60 sets of",
            "",
            "sets lacking a class",
            "worst deviation, mean",
            "max",
            "mean deviation",
            "size off",
            "sets worse",
            "CPU s a set",
        ]
        print(
            table(
                header,
                [row for people, classes in ((30, 18), (26, 10), (100, 18)) for row in skewed(people, classes)],
                2,
            )
        )
    if part != "skewed":
        print("\na million images of 140,000 people, 18 classes, k=5")
        print(table(["", "s", "CPU s", "times as quick", "same folds"], large()))


if __name__ == "__main__":
    main()
