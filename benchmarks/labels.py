"""Measure at which ranks three wrong labels stand among those in doubt, with the models of the demo.

    python benchmarks/labels.py                          the demo's data and models, a few minutes on two cores
    python benchmarks/labels.py --seeds 0,1,2            further people with other wrong labels
    python benchmarks/labels.py --keep FOLDER            keep the runs, and continue them
    python benchmarks/labels.py --archs resnet18 --k 3 --epochs 8    smaller

Gender and age of three of 150 synthetic people are exchanged in a circle before anything is trained. The runs do not
know whom. Printed is the rank of each of them among the people in doubt, for each run and for their soft vote, by the
table of the report ("People with labels in doubt"), in the order of labels.csv, and by other orders of the same people.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import folds
from ensemble.blending.labeled_predictions import LabeledPredictions, read_labeled_predictions
from ensemble.label_check.doubts import LabelDoubts, find_doubts
from ensemble.report.labels.doubtful_people import doubtful_people
from folds.data.sources import BUILT_IN
from folds.data.synthetic.people import SyntheticSpec, generate_people, wrongly_labeled

ARCHS = ("swin", "resnet18")
SIZE = (96, 128)


def ranks(found: LabelDoubts, wrong: Sequence[str]) -> dict[str, list[int | None]]:
    """Return order → the rank of each wrongly labeled person, from 1; None if the person is not in doubt."""
    orders = {
        "report": [one.person for one in doubtful_people(found)],
        "people": [one.person for one in found.people],
        "attributes": list(dict.fromkeys(one.person for one in found.attributes)),
    }
    scores = by_person(found)
    in_doubt = set(orders["people"])
    for name, values in scores.items():
        ordered = sorted(in_doubt, key=lambda one, values=values: (values[one], one))  # type: ignore[misc]
        orders[name] = ordered
    places = {name: {one: at for at, one in enumerate(order, 1)} for name, order in orders.items()}
    return {name: [place.get(one) for one in wrong] for name, place in places.items()}


def by_person(found: LabelDoubts) -> dict[str, dict[str, float]]:
    """Return name of a score → person → value, smaller for more doubt, over all images of the person.

    ``self-confidence`` is the mean vote for the label, ``margin`` that minus the best other vote, and ``log`` the mean
    logarithm of the vote, in which an image that contradicts the label clearly counts most.
    """
    rows, votes = found.rows, found.votes
    own = found.vote
    others = votes.copy()
    others[np.arange(len(rows)), rows.labels] = -1
    values: dict[str, NDArray[np.float64]] = {
        "self-confidence": own,
        "margin": own - others.max(axis=1),
        "log": np.log(np.clip(own, 1e-6, 1)),
    }
    names, codes = rows.people
    count = np.bincount(codes)
    return {key: dict(zip(names, (np.bincount(codes, each) / count).tolist())) for key, each in values.items()}


def measure(root: Path, seed: int, archs: Sequence[str], people: int, epochs: int, k: int) -> None:
    """Train the runs of one seed in `root`, and print the ranks."""
    generate_people(root / BUILT_IN, people=people, test_people=12, seed=seed, size=SIZE, wrong_labels=3)
    spec = SyntheticSpec(people, 12, seed, SIZE, traps=False, wrong_labels=3)
    wrong = [one.folder for one in wrongly_labeled(spec)]
    print(f"seed {seed}: wrong labels of {', '.join(wrong)}", flush=True)
    folds.kfold(
        root / BUILT_IN, arch=list(archs), k=k, epochs=epochs, target="mask+gender+age", root=root, progress=False
    )
    for files in [*([one] for one in archs), *([list(archs)] if len(archs) > 1 else [])]:
        judged = read_labeled_predictions([str(root / "runs" / f"{one}.oof.npy") for one in files])
        assert isinstance(judged, LabeledPredictions)  # of classes
        found = find_doubts(judged.rows, judged.class_attributes)
        right = float((~judged.rows.wrong).mean())
        print(f"  {' + '.join(files)}: accuracy {right:.3f}, {len(found.people)} people in doubt", flush=True)
        for name, places in ranks(found, wrong).items():
            inside = sum(place is not None and place <= 10 for place in places)
            print(f"    {name:16s} ranks {places}, {inside} of {len(wrong)} among the first ten", flush=True)


def main() -> None:
    """Print the ranks for each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--archs", default=",".join(ARCHS))
    parser.add_argument("--people", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as made:
        for seed in map(int, given.seeds.split(",")):
            root = (given.keep or Path(made)) / f"seed{seed}"
            root.mkdir(parents=True, exist_ok=True)
            measure(root, seed, given.archs.split(","), given.people, given.epochs, given.k)


if __name__ == "__main__":
    main()
