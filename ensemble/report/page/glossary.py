"""Explain the words of a page that not every reader knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from ensemble.report.page.blocks import Picture

# Word → where it is used, and what it means.
GLOSSARY = {
    "95% CI": (r"\bCIs?\b", "Confidence interval: the range in which the value of new people plausibly lies."),
    "Blend": (r"(?i)\bblends?\b", "Several models whose probabilities are combined."),
    "Bonferroni": (
        r"Bonferroni",
        "A correction for many comparisons: each must be clearer, so that chance seldom makes any of them significant.",
    ),
    "Fold": (
        r"(?i)\bfolds?\b",
        "A part of the people. Each fold is predicted by a model that was trained on all the other ones.",
    ),
    "hflip": (r"\bhflip\b", "The view of an image that is mirrored, left to right."),
    "Jackknife": (
        r"(?i)\bjackknife\b",
        "A way to find a confidence interval: the score is computed again without each person.",
    ),
    "Log loss": (r"(?i)\blog loss\b", "Minus the mean logarithm of the probability of the true class; 0 is best."),
    "Macro F1": (
        r"(?i)\bmacro F1\b",
        "The mean over classes of F1, the harmonic mean of precision and recall: each class counts alike. 1 is best.",
    ),
    "Member": (r"(?i)\bmembers?\b", "A model, or a model with views, that a blend may combine."),
    "OOF, out of fold": (
        r"\bOOF\b|(?i:\bout.of.fold\b)",
        "Each person is predicted by a model that has not seen them, so the score holds for new people.",
    ),
    "Mean absolute error": (
        r"(?i)\bmean absolute error\b(?! of grades)",
        "MAE: the mean distance between predicted and true numbers, in their unit; 0 is best.",
    ),
    "Pareto": (r"(?i)\bpareto\b", "A model is on the Pareto frontier if no other one is better at the same cost."),
    "Passes": (r"(?i)\bpass(es)?\b", "How often an image goes through a model: the cost of a prediction."),
    "ROC-AUC": (r"ROC-AUC", "How well a probability orders: 0.5 is chance, 1 is perfect."),
    "Slope": (
        r"\(slope ",
        "By how much a prediction grows where the true number is 1 higher; below 1, it is pulled to the middle.",
    ),
    "Temperature": (
        r"(?i)\btemperature\b",
        "A number by which confidence is lowered or raised in all predictions alike; the predicted class stays.",
    ),
    "View": (
        r"(?i)\bviews?\b",
        "A version of an image, such as its mirror image, that is predicted as well; the predictions are averaged.",
    ),
    "Vote": (r"(?i)\bvotes?\b", "The mean of the members' probabilities, from which the predicted class is taken."),
}


def words_of(page: object) -> list[tuple[str, str]]:
    """Return the words of the glossary that a page, or a part of one, has, with what they mean."""
    text = " ".join(_texts(page))
    return [(word, meaning) for word, (pattern, meaning) in GLOSSARY.items() if re.search(pattern, text)]


def _texts(part: object) -> Iterator[str]:
    """Yield the texts of a part of a page, without markup and pictures."""
    if isinstance(part, str):
        yield re.sub(r"<[^>]*>", " ", part) if part.startswith("<svg") else part
    elif isinstance(part, Picture):
        yield from part.lines
    elif is_dataclass(part):
        for one in fields(part):
            yield from _texts(getattr(part, one.name))
    elif isinstance(part, list | tuple):
        for one in part:
            yield from _texts(one)
