"""Write what the methods of a paper need: a text, the settings, the parts, and the items of reporting guidelines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ensemble.analysis.mistakes import LabeledRows, quantile_groups
from ensemble.report.evidence.evidence import Evidence, TableRecord
from ensemble.report.evidence.image_table import people_per_class, texts_of
from ensemble.report.evidence.mistakes_data import column_values, image_properties, labeled_rows, places_in_table
from ensemble.report.evidence.scoring import changed_note, labeled, main_predictions, score_of
from ensemble.report.method.checklists import CLAIM, CLAIM_SOURCE, JACKKNIFE_SOURCE, TRIPOD, TRIPOD_SOURCE, Item
from ensemble.report.method.column_facts import column_items, noun_of, part_cells
from ensemble.report.method.method_data import MAX_VALUES
from ensemble.report.method.method_facts import Facts
from ensemble.report.method.method_models import balance_text
from ensemble.report.method.method_runs import COLUMNS, listed, to_state
from ensemble.report.method.method_source import PartRows
from ensemble.report.method.method_split import fold_rows
from ensemble.report.page.blocks import Block, Missing, Section, Table, Text
from folds.metrics.custom import metric_of
from folds.metrics.task_names import REGRESSION
from folds.utils.text import counted

GAP = re.compile(r"\[to state: [^\]]*\]")
YOU = "you must state"
MAX_RUNS = 40  # of the settings
MAX_COLUMNS = 6  # runs; more are rows
MAX_CLASSES = 40  # of the parts
MAX_FOLDS = 10  # of the parts
LONGEST = 250  # characters of a cell; the methods text has the rest

Row = list[str | int | float | None]


def method_section(evidence: Evidence) -> Section:
    """Return the methods text, the tables of settings and parts, and the checklists."""
    lead = (
        "What a paper needs, from the files alone. Replace each [to state: …] by what only you know, and check the "
        "text, which a program wrote."
    )
    facts = Facts(evidence)
    blocks: list[Block] = [Text(_paragraphs(facts))]
    if not evidence.runs:
        blocks.append(
            Missing("how the models were trained", "`ensemble report RUN` of a run with its `config.toml` says it")
        )
    blocks += [block for block in (_settings(facts), _parts(facts), _characteristics(facts)) if block is not None]
    answers = facts_for_items(facts)
    note = "Names of items are shortened. “Known” is what the files say, not whether it suffices."
    blocks.append(_checklist("method-claim", "CLAIM 2024: what is known of each item.", CLAIM, answers, note))
    blocks.append(_checklist("method-tripod", "TRIPOD+AI: what is known of each item.", TRIPOD, answers, note))
    blocks.append(Text((CLAIM_SOURCE, TRIPOD_SOURCE, JACKKNIFE_SOURCE)))
    return Section("method", "Method", lead, tuple(blocks))


def _paragraphs(facts: Facts) -> tuple[str, ...]:
    models: tuple[str, ...] = (facts.models(), facts.preprocessing(), facts.training())
    if not facts.runs:
        gap = to_state("architecture, input size, preprocessing, initial weights, and settings of the training")
        models = (facts.unknown, gap)
    elif facts.unknown:  # once, at the end
        models = (*(text.removesuffix(facts.unknown).strip() for text in models), facts.unknown)
    parts = (
        ("Data", (facts.data(), facts.missing(), facts.source(), facts.reference(), facts.changed())),
        ("Partitions", (facts.split(), facts.partition())),
        ("Models", (*models, facts.selection())),
        ("Predictions", (facts.prediction(), facts.ensembling())),
        ("Statistics", (facts.metrics(), facts.intervals())),
        ("Software", (facts.software(),)),
    )
    return tuple(f"{name}. {' '.join(filter(None, texts))}" for name, texts in parts if any(texts))


def _settings(facts: Facts) -> Table | None:
    """Return the settings of the runs, a column for each of a few; those that no run records or uses are left out."""
    runs = facts.runs[:MAX_RUNS]
    if not runs:
        return None
    read = {name: [reader(run) for run in runs] for name, reader in COLUMNS.items()}
    known = {name: values for name, values in read.items() if any(value is not None for value in values)}
    names = [run.name for run in runs]
    more = f" The first {MAX_RUNS} of {len(facts.runs)} runs." if len(facts.runs) > MAX_RUNS else ""
    note = f"From config.toml of each run; – is not recorded, or not used.{more}"
    rows: list[Row] = [[name, *values] for name, values in known.items()]
    header = ["setting", *names]
    if len(runs) > MAX_COLUMNS:
        header = ["run", *known]
        rows = [[name, *(known[key][at] for key in known)] for at, name in enumerate(names)]
    return Table("method-settings", "Settings of the training.", header, rows, len(header), note)


def _named_rows(facts: Facts) -> Iterator[tuple[str, PartRows]]:
    yield from facts.parts
    part = facts.evidence.image_part("oof")
    if part is not None and len(fold_rows(part)) <= MAX_FOLDS:
        labels = texts_of(part, facts.evidence.classes, facts.evidence.task)
        for name, inside in fold_rows(part):
            yield name, PartRows(labels[inside], part.persons[inside], {}, part.persons_known)


def _parts(facts: Facts) -> Table | None:
    """Return people, images and classes of each part."""
    parts = list(_named_rows(facts))
    if not parts:
        return None
    known = [part.persons_known for _, part in parts]
    rows: list[Row] = [["people", *(part.people if part.persons_known else None for _, part in parts)]]
    rows = rows if any(known) else []
    rows.append(["images", *(len(part) for _, part in parts)])
    rows += _rows_of_columns(facts, parts) if facts.evidence.has_columns else _rows_of_classes(facts, parts)
    rows.append(["without label", *(part.unlabeled for _, part in parts)])
    note = f"Classes: images{' (people)' if any(known) else ''}."
    if facts.evidence.has_columns:
        note = "Numbers: mean (SD)." if facts.evidence.task == REGRESSION else note.replace("Classes", "Labels")
        note += " Without label: images of which nothing is known."
    if len(facts.evidence.classes) > MAX_CLASSES:
        what = "columns" if facts.evidence.has_columns else "classes"
        note += f" The first {MAX_CLASSES} of {len(facts.evidence.classes)} {what}."
    header = ["count", *(name for name, _ in parts)]
    folds = sum(name.startswith("fold") for name in header)
    if folds and (facts.k or folds) > 1:  # with a single split there is no other fold
        note += " The model of a fold was trained on the other folds, and predicted this one."
    what = noun_of(facts.evidence.task, 2).partition(" ")[2] if facts.evidence.has_columns else "classes"
    return Table("method-parts", f"People, images and {what} of each part.", header, rows, 1, note)


def _rows_of_classes(facts: Facts, parts: Sequence[tuple[str, PartRows]]) -> list[Row]:
    counts = [people_per_class(part.labels, part.persons) for _, part in parts]
    rows: list[Row] = []
    for one in facts.evidence.classes[:MAX_CLASSES]:
        found = [each.get(one, (0, 0)) for each in counts]
        cells = [
            f"{images:,} ({people:,})" if part.persons_known else images
            for (images, people), (_, part) in zip(found, parts, strict=True)
        ]
        rows.append([f"class {facts.evidence.class_title(one)}", *cells])
    return rows


def _rows_of_columns(facts: Facts, parts: Sequence[tuple[str, PartRows]]) -> list[Row]:
    task, classes = facts.evidence.task, facts.evidence.classes
    cells = [part_cells(task, classes, part.labels, part.persons, part.persons_known) for _, part in parts]
    word = noun_of(task, 1).partition(" ")[2]
    return [[f"{word} {name}", *(each[at] for each in cells)] for at, name in enumerate(classes[:MAX_CLASSES])]


def _characteristics(facts: Facts) -> Table | None:
    """Return the values of the attributes in the training and in the test part."""
    parts, rows = facts.parts, list[Row]()
    for attribute in dict.fromkeys(name for _, part in parts for name in part.attributes):
        columns = [part.attributes.get(attribute, np.full(len(part), "")) for _, part in parts]
        values = sorted({one for column in columns for one in np.unique(column).tolist() if one})
        if not 0 < len(values) <= MAX_VALUES:
            continue
        counts = [people_per_class(column, part.persons) for (_, part), column in zip(parts, columns, strict=True)]
        for value in [*values, *([""] if any("" in each for each in counts) else [])]:
            row: Row = [attribute, value or "missing"]
            for (_, part), each in zip(parts, counts, strict=True):
                images, people = each.get(value, (0, 0))
                row += [images, f"{images / len(part):.1%}", *([people] if part.persons_known else [])]
            rows.append(row)
    if not rows:
        return None
    header = ["attribute", "value"]
    for name, part in parts:
        header += [f"{name} images", f"{name} share", *([f"{name} people"] if part.persons_known else [])]
    return Table("method-characteristics", "Characteristics of the images in each part.", header, rows, 2)


def facts_for_items(facts: Facts) -> Mapping[str, str]:
    """Return the facts that items of `ensemble.report.method.checklists` ask for, by their keys; "" where there is
    none.
    """
    evidence = facts.evidence
    predicted = labeled(evidence.oof) or labeled(evidence.test)
    see = _pointers(evidence, predicted is not None)
    missing = facts.missing()
    return see | {
        "preprocessing": facts.preprocessing(),
        "changed": f"{facts.changed()} {to_state('whether images were selected')}".strip(),
        "missing": missing if facts.train is not None else "",
        "reference": facts.reference(),
        "assignment": facts.assignment(),
        "unit": f"{facts.unit()} {facts.partition()}",
        "size": f"{facts.totals()} {to_state('how the size was arrived at')}" if facts.train is not None else "",
        "models": facts.models(),
        "software": facts.software(),
        "initialization": facts.initial_weights(),
        "training": facts.training(),
        "selection": facts.selection(),
        "ensembling": facts.ensembling(),
        "metrics": facts.metrics(),
        "intervals": facts.intervals(),
        "internal": facts.unit() if evidence.oof is not None else "",
        "external": facts.external(),
        "counts": f"{facts.totals()} Table of the parts above. {to_state('who was excluded, and why')}"
        if facts.train is not None
        else "",
        "characteristics": _characteristics_text(facts),
        "predictors": facts.predictors() if predicted is not None else to_state("the predictors"),
        "partition": f"{facts.split()} {facts.partition()}",
        "building": f"{facts.models()} {facts.unit()} {facts.selection()}",
        "prediction": facts.prediction(),
        "imbalance": balance_text(facts) if facts.runs else "",
        "output": f"Probabilities of {counted(len(evidence.classes), 'class', 'classes')}; the class is the one with "
        f"the largest probability. {to_state('thresholds, if any')}"
        if predicted is not None and facts.all_recorded
        else to_state("what the model returns, and thresholds, if any"),
        "updating": to_state("whether the model was updated or recalibrated after its evaluation"),
        "specification": to_state("where the weights and the code can be had; `ensemble export` writes a model"),
        "scores": _scores(evidence),
        **column_items(evidence, predicted is not None),
    }


def _characteristics_text(facts: Facts) -> str:
    if _characteristics(facts) is None:
        return to_state("age, sex and other characteristics; the table has no attributes")
    return f"Table of characteristics above. {to_state('clinical characteristics that the table does not have')}"


def _scores(evidence: Evidence) -> str:
    """Return the score of the suggested predictions."""
    metric, found, notes = metric_of(evidence.metric), [], list[str]()
    for name, part in (("out of fold", labeled(evidence.oof)), ("test", labeled(evidence.test))):
        score = None if part is None else score_of(evidence, part, part.member(evidence.recommended or ""))
        if score is not None:
            found.append(f"{metric.title} {name} {score.text()}")
            member = part.member(evidence.recommended or "") if part is not None else None
            notes += [changed_note(part, member)] if part is not None and member is not None else []
    if not found:
        return ""
    groups = "class and attribute" if _by_column(evidence) else "class"
    more = f"Sections Verdict and Compare; by {groups}: Mistakes."
    if evidence.has_columns:
        more = "Sections Verdict and Compare."
    who = "".join(f" Out of fold: {note}." for note in notes if note)
    return f"`{evidence.recommended}`: {', '.join(found)} (95% CI).{who} {more}"


def _pointers(evidence: Evidence, predicted: bool) -> dict[str, str]:
    """Return the facts that are pointers to other sections of the page."""
    table = evidence.table
    views = sorted(
        {one.name for part in (evidence.oof, evidence.test) if part for one in part.members if one.kind == "tta"}
    )
    sizes = "Sizes of the image files: section Data." if table is not None and table.width is not None else ""
    properties = _properties_compared(evidence) if predicted else []
    robustness = f"Section Mistakes: accuracy by {listed(properties)}. " if properties else ""
    robustness += "Section Verdict: whether folds differ."
    if views:
        robustness += f" Test-time views: section Compare ({len(views)})."
    by_column = _by_column(evidence) if predicted else ""
    return {
        "sizes": f"{sizes} {to_state('devices and protocol')}".strip(),
        "doubts": f"Section Labels in doubt: labels that models contradict. {to_state('agreement of annotators')}"
        if predicted and evidence.pooled is None
        else to_state("agreement of annotators")
        if predicted
        else "",
        "robustness": f"{robustness} {to_state('further analyses')}" if predicted else "",
        "explainability": "Section Heat maps: what models looked at."
        if evidence.heat_maps and predicted
        else to_state("methods, if any; `ensemble report --heat-maps 12` adds heat maps to this page"),
        "classes": "Section Mistakes: scores of each class with CIs. Section Calibration: reliability, overconfidence."
        if predicted
        else "",
        "failures": f"Section Mistakes: confusion matrix, wrong people and images. {to_state('their interpretation')}"
        if predicted
        else "",
        "clusters": f"{by_column} {to_state('centers and other clusters')}".strip(),
        "fairness": f"{by_column} {to_state('approaches to fairness')}".strip(),
        "limitations": f"Section Verdict: checks that warn or fail. {to_state('their discussion')}",
    }


def _judged(evidence: Evidence) -> tuple[TableRecord, LabeledRows] | None:
    """Return the table and the rows that the section Mistakes judges; None without one of them."""
    found, table = main_predictions(evidence), evidence.row_table
    return None if found is None or table is None or evidence.has_columns else (table, labeled_rows(evidence, *found))


def _properties_compared(evidence: Evidence) -> list[str]:
    """Return the properties of images by which the section Mistakes compares the accuracy: those that differ."""
    judged = _judged(evidence)
    if judged is None:
        return []
    table, rows = judged
    properties = image_properties(table, places_in_table(table, rows.ids))
    return [name for name, values in properties.items() if len(quantile_groups(values)[1]) > 1]


def _by_column(evidence: Evidence) -> str:
    """Return which tables of the section Mistakes have scores of groups: by attributes of the classes, by columns."""
    meanings, judged = evidence.class_attributes, _judged(evidence)
    names = [
        name
        for name in dict.fromkeys(name for meaning in meanings.values() for name in meaning)
        if all(name in meanings.get(one, {}) for one in evidence.classes)
        and len({meanings[one][name] for one in evidence.classes}) > 1
    ]
    found = [f"scores of each value of {listed(names)}"] if names else []
    if judged is not None:
        table, rows = judged
        columns = column_values(table, places_in_table(table, rows.ids), meanings)
        compared = [name for name, (groups, _) in columns.items() if len(np.unique(groups[groups >= 0])) > 1]
        found += [f"accuracy by {listed(compared)}, against others"] if compared else []
    return f"Section Mistakes: {'; '.join(found)}." if found else ""


def _checklist(name: str, caption: str, items: Sequence[Item], facts: Mapping[str, str], note: str) -> Table:
    rows: list[Row] = []
    for item in items:
        fact = facts[item.fact].replace("`", "") if item.fact else ""
        rows.append([item.number, item.name, _cell(fact), _status(fact)])
    return Table(name, caption, ["item", "subject", "known", "status"], rows, 4, note)


def _status(fact: str) -> str:
    if not GAP.sub("", fact).strip():
        return YOU
    return "partly" if GAP.search(fact) else "known"


def _cell(fact: str) -> str:
    if len(fact) <= LONGEST:
        return fact
    gaps, kept = "", ""
    for gap in dict.fromkeys(GAP.findall(fact)):
        if gaps and len(gaps) + len(gap) > LONGEST * 2 // 3:
            gaps += " …"
            break
        gaps = f"{gaps} {gap}".strip()
    for sentence in GAP.sub("", fact).replace(". ", ".\n").split("\n"):
        if len(kept) + len(sentence) + len(gaps) > LONGEST:
            break
        kept += f"{sentence.strip()} "
    if not kept.strip():  # the first sentence is too long
        kept = f"{_clauses(GAP.sub('', fact), max(LONGEST - len(gaps) - 30, 60))} "
    return f"{kept}See the methods text above. {gaps}".strip()


def _clauses(text: str, longest: int) -> str:
    """Return the first clauses of a text, which end at semicolons; of a longer clause the first words."""
    kept = ""
    for clause in text.strip().split("; "):
        if len(kept) + len(clause) + 2 > longest:
            break
        kept += f"{clause}; "
    if not kept:
        kept = text.strip()[:longest].rpartition(" ")[0]
    return f"{kept.rstrip('; ')} …" if kept else ""
