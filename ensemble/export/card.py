"""Write the model card, ``README.md``: what the model was trained on, its score, its limits and how it is used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ensemble.decisions.label_decision import read_decision
from ensemble.decisions.report import guarantee_lines, rule_lines, score_lines, shown_scores
from ensemble.decisions.rows import PERSON
from ensemble.learning.columns.combination import ColumnCombination
from ensemble.learning.cumulative import NumberToGrades
from ensemble.model_files.record import CASCADE, DECISION, ModelRecord
from folds.errors import printable
from folds.metrics.task_names import MULTILABEL, REGRESSION
from folds.predictions.label_columns import COLUMN_NAMES

_MOST_CLASSES = 200
_KNOWS = {
    MULTILABEL: "- It knows only these labels; of an image unlike those of the training the probabilities say nothing.",
    REGRESSION: "- An image unlike those of the training gets a number all the same; nothing says how far it is off.",
}


def card_text(record: ModelRecord, onnx_note: str = "") -> str:
    """Return the card as Markdown with the front matter of Hugging Face."""
    people = record.trained.get("people")
    trained = f"{record.trained.get('images', 0):,} images" + (f" of {people:,} people" if people else "")
    folds = len(record.models)
    columns = COLUMN_NAMES.get(record.task, "classes")
    predicted = "numbers" if record.task == REGRESSION else "probabilities"
    call = "predict" if record.task == REGRESSION else "predict_proba"
    of_people = record.unit == PERSON
    rows = 3 if record.person_head and not of_people else 2
    shape = f"({rows}, {columns})" if record.task != REGRESSION or len(record.classes) > 1 else f"({rows},)"
    lines = [
        *_front(record),
        f"# {_text(record.name)}",
        "",
        f"{_does(record)} It is a {record.kind} of "
        f"{len(record.runs)} run{'s' * (len(record.runs) > 1)} with {folds} model{'s' * (folds > 1)}, trained on "
        f"{trained}, and was exported by {_text(record.program)}. {_predicts_with(record)}",
        "",
        *_needs_lines(record),
        "## Score",
        "",
        *_score_lines(record),
        *_class_table(record),
        "## Use",
        "",
        "```python",
        "import ensemble as en  # pip install ensemble-folds",
        "",
        'model = en.load("model/")  # this folder; no network and no other file is needed',
        f"model.{call}({_arguments(record)})  # {shape} float32, columns in the order of model.classes_",
        *(["# rows in the order of the sorted names of persons: predict_frame has them as id"] if of_people else []),
        "```",
        "",
        _command(record),
        "",
        *([onnx_note, ""] if onnx_note else []),
        *_decision_lines(record),
        *_cascade_lines(record),
        "## Models",
        "",
        *_model_table(record),
        "",
        "## Limits",
        "",
        *_limits(record),
        "",
        "## Files",
        "",
        "`model.toml` describes everything and holds the SHA-256 of every other file; `weights/*.safetensors` are the "
        f"weights ({record.precision}); `expected.npz` holds {record.expected['images']} synthetic images and the "
        f"{predicted} that they{_made_up(record)} must get, which are computed again when "
        "the model is loaded. No file holds code, and "
        "none holds an image, an id or a name from the training data.",
    ]
    return "\n".join([*lines, ""])


def _does(record: ModelRecord) -> str:
    """Return what the model predicts, in one sentence."""
    names, of = (
        ", ".join(map(_text, record.classes[:_MOST_CLASSES])),
        "a person" if record.unit == PERSON else "an image",
    )
    if record.task == REGRESSION:
        return f"Predicts the number{'s' * (len(record.classes) > 1)} {names} of {of}, in the unit of the training."
    if record.task == MULTILABEL:
        return f"Predicts for each of {len(record.classes)} labels the probability that {of} has it: {names}."
    what = "people" if record.unit == PERSON else "images"
    return f"Classifies {what} into {len(record.classes)} classes ({_text(record.target)})."


def _needs_lines(record: ModelRecord) -> list[str]:
    """Return what the model needs beside images; [] for most models."""
    lines, pooling = [], record.combination.pooling
    if pooling is not None:
        lines += [
            "It answers for people, not for images: the images of a person are pooled "
            f"({_text(pooling.text)}), and the person of every image is needed.",
            "",
        ]
    if record.person_head and pooling is None:
        lines += [
            f"It predicts an image from all images of its person (head {record.person_head}): the person of every "
            "image is needed, and other images of the person change the answer.",
            "",
        ]
    if record.extra_columns:
        mean = " A person has the mean of the numbers of its images, or their most frequent text." if pooling else ""
        lines += [
            f"Beside the images it needs the columns {_text(', '.join(record.extra_columns))}; a cell is empty where "
            f"the value is not known.{mean}",
            "",
        ]
    return lines


def _takes_persons(record: ModelRecord) -> bool:
    """Return whether the persons of the images are needed."""
    return record.unit == PERSON or record.person_head is not None


def _arguments(record: ModelRecord) -> str:
    """Return the arguments of a call for two rows."""
    if _takes_persons(record):
        images, found = ["a1.jpg", "a2.jpg", "b.jpg"], ', persons=["a", "a", "b"]'
    else:
        images, found = ["new1.jpg", "new2.jpg"], ""
    if record.extra_columns:
        cells = ", ".join([*("…" for _ in images[1:]), "None"])
        found += f", columns={{{', '.join(f'{json.dumps(name)}: [{cells}]' for name in record.extra_columns)}}}"
    return f"{json.dumps(images)}{found}"


def _command(record: ModelRecord) -> str:
    """Return the sentence about the command that writes a CSV."""
    of_people, with_persons = record.unit == PERSON, _takes_persons(record)
    if not with_persons and not record.extra_columns:
        return "`ensemble predict model/ images/ --csv answers.csv` writes a CSV."
    names = ["path", *(["person"] if with_persons else []), *map(_text, record.extra_columns)]
    return (
        f"`ensemble predict model/ table.csv{' --per person' if of_people else ''} --csv answers.csv` writes a CSV; "
        f"the table has the columns {', '.join(names)}."
    )


def _made_up(record: ModelRecord) -> str:
    """Return whose the synthetic images are, if that matters."""
    parts = ["people"] if _takes_persons(record) else []
    parts += ["columns"] if record.extra_columns else []
    return f" (with made-up {' and '.join(parts)})" if parts else ""


def _front(record: ModelRecord) -> list[str]:
    """Return the front matter in YAML; every text is quoted as JSON, which YAML reads."""
    kind = "image-regression" if record.task == REGRESSION else "image-classification"
    lines = ["---", "library_name: ensemble-folds"]
    lines += [f"pipeline_tag: {kind}"] if record.task != REGRESSION else []  # the Hub knows no regression of images
    lines += ["tags:", f"- {kind}", "- ensemble", "- timm", "- pytorch"]
    score = record.score
    if score:
        metric = json.dumps(score["metric"])
        lines += ["model-index:", f"- name: {json.dumps(record.name)}", "  results:", "  - task:"]
        lines += [f"      type: {kind}", "    dataset:", '      type: "private"']
        lines += [f"      name: {json.dumps(score['basis'])}", "    metrics:", f"    - type: {metric}"]
        lines += [f"      name: {metric}", f"      value: {score['score']:.6f}"]
    return [*lines, "---", ""]


def _score_lines(record: ModelRecord) -> list[str]:
    lines = []
    for score in (record.score, record.test_score):
        if not score:
            continue
        ends = f"[{score['low']:.3f}, {score['high']:.3f}]" if "low" in score and "high" in score else "[unknown]"
        over = "over people" if score.get("people") else "over images"
        counted = f"{score['images']:,} images" + (f" of {score['people']:,} people" if score.get("people") else "")
        counted = f"{score['images']:,} people" if record.unit == PERSON else counted  # a row is a person
        unit = ", per person" if score["per_person"] else ""
        accuracy = f", accuracy {score['accuracy']:.3f}" if "accuracy" in score else ""
        lines += [
            f"{_text(score['metric'])} {score['score']:.3f} {ends} ({score['level']:.0%} CI {over}{unit}){accuracy}, "
            f"on {counted}: {_text(score['basis'])}.",
            "",
        ]
        if score.get("warning"):
            lines += [f"Warning: {_text(score['warning'])}.", ""]
    if not lines:
        return ["Unknown: no predictions with labels were found when the model was exported.", ""]
    if record.score:
        lines += [_score_note(record), ""]
    return lines


def _score_note(record: ModelRecord) -> str:
    """Return whether the score is that of these models."""
    if record.refit:
        return (
            "Out-of-fold predictions are made by models of folds, which were not trained on the person. The models "
            "here were trained on all people by the same procedure: the score is that of the procedure, and these "
            "models themselves were never tested on other people."
        )
    if max((len(run.models) for run in record.runs), default=0) <= 1:
        return "The score is that of this one model on the people of its fold, on whom it was not trained."
    return (
        "Out-of-fold predictions are made by models that were not trained on the person. New images get the mean "
        "of the models of the folds, which this score does not describe exactly."
    )


def _predicts_with(record: ModelRecord) -> str:
    """Return what predicts a new image."""
    of_run = max((len(run.models) for run in record.runs), default=0)
    one = len(record.models) == 1
    if record.refit:
        return "The model was trained on all people." if one else "Each run has one model, trained on all people."
    if of_run <= 1:
        return "It is one checkpoint, of one fold." if one else "Each run has one checkpoint, of one fold."
    return "The prediction of a run is the mean of the models of its folds."


def _decision_lines(record: ModelRecord) -> list[str]:
    """Return the section about decision rules: what they are, what they aim at, and their nested scores."""
    if DECISION not in record.extras:
        return []
    decision = read_decision(record.extras[DECISION], record.classes, f"[{DECISION}]")
    scores = shown_scores(decision)
    lines = ["## Decision rules", "", *(f"- {_text(line)}" for line in rule_lines(decision))]
    lines += [f"- {_text(line)}" for line in guarantee_lines(decision)]
    lines += ["", f"The rules are for one row per {decision.unit}. "]
    if not scores:
        return [*lines[:-1], f"{lines[-1]}Nothing is known about their result on other people.", ""]
    people = f" ({decision.source.people:,} people)" if decision.source.people else ""
    lines[-1] += f"On people who were not used to fit them{people}, nested, with 95% CIs over people:"
    return [*lines, "", *(f"- {_text(line.strip())}" for line in score_lines(scores)), ""]


def _cascade_lines(record: ModelRecord) -> list[str]:
    """Return the section about the cascade: its order, and what it may lose."""
    table = record.extras.get(CASCADE)
    if table is None:
        return []
    lines = ["## Cascade", "", "Models that an image does not need are skipped, in this order:", ""]
    for at, step in enumerate(table.get("steps") or (), start=1):
        views = ", ".join(f"{name} ({count} view{'s' * (count > 1)})" for name, count in step["views"].items())
        lines.append(
            f"{at}. {_text(views)}, {step['folds']} fold{'s' * (step['folds'] > 1)} each; an image is decided if all "
            f"folds name the same class and it leads by {step['threshold']:.4g}"
        )
    if not table.get("steps"):
        costs = sorted(table.get("costs", {}).items(), key=lambda one: (one[1], one[0]))
        lines.append(f"1. runs by the cost of a pass: {_text(', '.join(name for name, _ in costs)) or 'one run'}")
    tolerance = table.get("tolerance")
    loss = (
        "Only models that can no longer change the decision are skipped: no decision changes, probabilities do."
        if tolerance is None
        else f"The allowed loss of the nested {_text(table.get('metric'))} is {tolerance:g}; the score above is that "
        "of all models."
    )
    return [*lines, "", loss, ""]


def _class_table(record: ModelRecord) -> list[str]:
    table: Mapping[str, Any] = record.score.get("per_class") or {}
    if not table:
        return []
    unit = "people" if record.score["per_person"] else "images"
    lines = [f"| class | {unit} | precision | recall | F1 |", "|---|---:|---:|---:|---:|"]
    for name, (support, precision, recall, f1) in list(table.items())[:_MOST_CLASSES]:
        lines.append(f"| {_text(name)} | {support:,.0f} | {precision:.3f} | {recall:.3f} | {f1:.3f} |")
    more = len(table) - _MOST_CLASSES
    return [*lines, "", *([f"… and {more:,} more classes in model.toml", ""] if more > 0 else [])]


def _model_table(record: ModelRecord) -> list[str]:
    lines = ["| run | architecture | input | folds | views | weight |", "|---|---|---:|---:|---|---:|"]
    shares = dict(zip(record.combination.runs, record.combination.shares.tolist(), strict=True))
    for run in record.runs:
        weight = f"{shares[run.name]:.3f}" if run.name in shares else "–"
        if run.joined:
            lines.append(f"| {_text(run.name)} | joins {_text(', '.join(run.joined))} | | | | {weight} |")
            continue
        one = record.models[run.models[0]]["architecture"]
        size = f"{one['width']}×{one['height']} px"
        views = f"{len(run.merge.views)} ({run.merge.how})" if len(run.merge.views) > 1 else "1"
        name, timm = _text(run.name), _text(one["timm_name"])
        lines.append(f"| {name} | {timm} | {size} | {len(run.models)} | {views} | {weight} |")
    return [*lines, "", f"Combination: {_text(record.combination.pool)}{_steps(record)}.", *_hand_over_lines(record)]


def _hand_over_lines(record: ModelRecord) -> list[str]:
    """Return a paragraph for each run whose number becomes probabilities of the grades."""
    lines = []
    for run in record.runs:
        fit = NumberToGrades.from_record(run.hand_over)
        if fit is not None:
            points = ", ".join(f"{point:.4g}" for point in fit.points) or "none"
            number = f"The number {_text(run.classes[0])} of {_text(run.name)}"
            how = "by a cumulative logistic fit to the out-of-fold numbers of the training"
            lines += ["", f"{number} becomes probabilities of the grades {how}, even between two grades at {points}."]
    return lines


def _steps(record: ModelRecord) -> str:
    made = record.combination
    if isinstance(made, ColumnCombination):
        own = " with a combination of its own for each label" if made.each else ""
        return " with a linear model of the numbers of the runs" if made.linear is not None else own
    steps = [("calibration of each run", made.before), ("stacking", made.stacked)]
    steps += [("calibration of the result", made.after), ("class bias", made.bias)]
    named = [name for name, step in steps if step is not None]
    return f" with {', '.join(named)}" if named else ""


def _limits(record: ModelRecord) -> list[str]:
    known = "- It knows only these classes: an image of anything else gets one of them, often with high probability."
    lines = [
        _KNOWS.get(record.task, known),
        "- The score holds for people and images like those of the training. Other cameras, places or groups of people "
        "can be predicted worse; score the model on labeled images of your own before relying on it.",
    ]
    if record.task != REGRESSION:
        lines.append("- Probabilities are calibrated only if the combination above says so.")
    if record.combination.bias is not None:
        lines.append("- A class bias adapts decisions to the metric, so probabilities are not calibrated.")
    what = "numbers (relative to the largest)" if record.task == REGRESSION else "probabilities"
    if record.half_difference is not None:
        lines.append(
            f"- Weights are stored in fp16: on the synthetic images, {what} differ from those of the fp32 "
            f"weights by at most {record.half_difference:.1e}."
        )
    if any(model.get("selected_on_validation") for model in record.models):
        lines.append("- Something about a model was chosen on its validation images, so the score may be too high.")
    if record.combination.pool == "rank":
        lines.append("- Rank voting compares images with each other: one image alone cannot be predicted.")
    return lines


def _text(text: object) -> str:
    """Return a text that has no meaning in Markdown or HTML."""
    escaped = re.sub(r"([\\`*_{}\[\]<>#|~!&])", r"\\\1", printable(str(text)))
    return escaped.replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")
