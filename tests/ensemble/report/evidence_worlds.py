"""Draw evidence for the tests of a report: people with several images, and members with known skill."""

from __future__ import annotations

from typing import Any

import numpy as np

from ensemble.report.evidence.evidence import Evidence, Part, Predicted, TableRecord


def draw_evidence(
    seed: int = 0,
    people: int = 40,
    per_person: int = 5,
    classes: tuple[str, ...] = ("cat", "dog", "eel"),
    skills: tuple[float, ...] = (2.0, 1.6, 1.2),
    **changed: Any,
) -> Evidence:
    """Return evidence of three runs and their mean, out of fold and on test people, with a table."""
    random = np.random.default_rng(seed)

    def part(name: Any, first: int, count: int) -> Part:
        person = np.repeat(np.arange(first, first + count), per_person)
        n = len(person)
        label = random.integers(0, len(classes), count)[person - first]
        common = random.normal(size=(count, len(classes)))[person - first] * 0.8
        members = []
        for number, skill in enumerate(skills):
            logits = common + random.normal(size=(n, len(classes)))
            logits[np.arange(n), label] += skill
            values = np.exp(logits - logits.max(axis=1, keepdims=True))
            values = (values / values.sum(axis=1, keepdims=True)).astype(np.float32)
            members.append(Predicted(f"run{number}", "run", values, passes=1.0))
        mean = np.mean([one.probabilities for one in members], axis=0, dtype=np.float32)
        members.append(Predicted("blend soft", "blend", mean, passes=float(len(skills))))
        ids = np.array([f"{name}/p{one:03d}_{i % per_person}.jpg" for i, one in enumerate(person)])
        fold = (person % 5).astype(np.int64) if name == "oof" else None
        return Part(
            name, ids, label.astype(np.int64), np.array([f"p{one:03d}" for one in person]), fold, tuple(members)
        )

    oof, test = part("oof", 0, people), part("test", people, people // 2)
    ids, persons = np.concatenate([oof.ids, test.ids]), np.concatenate([oof.persons, test.persons])
    names = np.array(classes)
    n = len(ids)
    table = TableRecord(
        ids,
        np.concatenate([names[oof.labels], names[test.labels]]),
        persons,
        np.arange(n) >= len(oof),
        attributes={"site": np.where(np.arange(n) % 3 == 0, "north", "south")},
        width=np.full(n, 512),
        height=np.full(n, 384),
        brightness=random.uniform(40, 200, n).astype(np.float32),
        sharpness=random.uniform(1, 30, n).astype(np.float32),
    )
    given: dict[str, Any] = {"recommended": "blend soft", "simple": "run0", "table": table}
    return Evidence(classes, oof, test, **given | changed)
