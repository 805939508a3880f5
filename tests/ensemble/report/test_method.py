"""The section Method: the text has the numbers of its files and nothing else, and every item of the guidelines is there."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.report.evidence.evidence import SOFT_VOTE, Evidence, RunRecord, TableRecord
from ensemble.report.evidence.image_table import table_of_parts
from ensemble.report.face import html_of
from ensemble.report.method import method_models, method_runs
from ensemble.report.method.checklists import CLAIM, TRIPOD
from ensemble.report.method.method import YOU, method_section
from ensemble.report.mistakes.mistakes import mistakes_section
from ensemble.report.page.blocks import Missing, Table, Text
from folds.config.recipe import Recipe
from folds.utils.html import LONGEST
from tests.ensemble.report import hostile
from tests.ensemble.report.evidence_worlds import draw_evidence
from tests.ensemble.report.section_parts import table_of

CONFIG: dict[str, Any] = {
    "epochs": 15,
    "batch_size": 32,
    "lr": 0.0005,
    "weight_decay": 0.05,
    "warmup": 1.0,
    "loss": "ce",
    "label_smoothing": 0.1,
    "augment": "light",
    "clip": 1.0,
    "keep": "last",
    "patience": 0,
    "fit": "squash",
    "normalise": "model",
    "pretrained": True,
    "opt": "adamw",
    "schedule": "cosine",
    "sampler": "none",
    "target": "label",
    "seed": 3,
    "resolved": {
        "architecture": {"timm_name": "resnet18", "height": 224, "width": 192, "arguments": {}},
        "amp": "bf16",
        "device": "cuda",
    },
}
FOLDS = {"k": 5, "seed": 3, "repeat": 0, "stratify": ["site"], "repair": {"moved": 2}}
VERSIONS = {"ensemble": "0.2.0", "python": "3.11.7", "torch": "2.14.1", "numpy": 3}


def record(name: str, tested: tuple[int, ...] = (0, 1, 2, 3, 4), folds: Any = None, **changed: Any) -> RunRecord:
    done: dict[int, Any] = {fold: {} for fold in range(5)}
    config = CONFIG | changed
    return RunRecord(
        name, Path("runs") / name, 5, {}, done, config, VERSIONS, FOLDS if folds is None else folds, tested
    )


def world(**changed: Any) -> Evidence:
    given: dict[str, Any] = {"runs": {name: record(name) for name in ("run0", "run1", "run2")}, "recommended": "run0"}
    return draw_evidence(**given | changed)


def table_alone() -> Evidence:
    return replace(draw_evidence(), oof=None, test=None, recommended=None, simple=None)


def paragraphs(evidence: Evidence) -> dict[str, str]:
    """First word → the paragraph of the methods text."""
    first = method_section(evidence).blocks[0]
    assert isinstance(first, Text)
    return {text.partition(". ")[0]: text.partition(". ")[2] for text in first.paragraphs}


def answers(evidence: Evidence, name: str = "method-claim") -> dict[str, tuple[Any, Any]]:
    return {str(row[0]): (row[2], row[3]) for row in table_of(method_section(evidence), name).rows}


def test_the_text_has_exactly_the_numbers_of_the_files() -> None:
    found = paragraphs(world())
    assert found["Data"].startswith(
        "The training data were 200 images of 40 people in 3 classes (cat, 70 images of 14 people; dog, 65 images of 13 "
        "people; eel, 65 images of 13 people). The test data were 100 images of 20 people in 3 classes (cat, 35 images of 7 "
        "people; dog, 40 images of 8 people; eel, 25 images of 5 people). No label and no value of an attribute was missing."
    )
    assert found["Partitions"] == (
        "The images were split into 5 folds, so that all images of a person were in one fold. Folds were stratified by "
        "class and `site` (StratifiedGroupKFold, seed 3), and whole people were then moved between folds to balance them. "
        "A fold had 40 images of 8 people. No person of the test data was in the training data."
    )
    assert found["Models"] == (
        "`run0` was timm's resnet18, with inputs of 224 × 192 pixels, initialized with timm's pretrained weights [to state: "
        "the data of the pretraining]. Images were resized without keeping their aspect ratio and normalized with the mean "
        "and SD of the model. `run0` was trained for 15 epochs with AdamW (peak learning rate 0.0005, weight decay 0.05, "
        "batches of 32 images, learning rate schedule: cosine after 1 epoch of warmup); loss: cross-entropy with label "
        "smoothing 0.1; augmentation: light (mirror images with probability 0.5, shift ±4%); bfloat16 mixed precision; seed "
        "3; gradient norm clipped at 1. The weights were those of the last epoch. `run0` was one of 4 candidates [to state: "
        "whether it was chosen before the scores were seen]. [to state: how settings were chosen]"
    )
    assert found["Predictions"] == (
        "Each image was predicted by the model that was not trained on its fold, and these out-of-fold predictions were "
        "pooled. Test images were predicted by the mean probabilities of the models of 5 folds. Different models were not "
        "combined."
    )
    assert found["Statistics"] == (
        "The main metric was macro F1. 95% confidence intervals (CIs) were computed by a jackknife over people (Tukey, "
        "1958) with Student's t, on the logit scale. Models were compared by paired differences, by the same jackknife on the "
        "scale of the metric, with the Bonferroni correction for several comparisons. The CIs do not cover the choice of "
        "the training seed."
    )
    assert found["Software"] == "ensemble 0.2.0, Python 3.11.7 and PyTorch 2.14.1 were used. Device: GPU (CUDA)."


def test_nothing_is_claimed_about_a_run_whose_config_is_missing() -> None:
    bare = RunRecord("run0", Path("runs/run0"), 5, {}, {}, {})
    for runs in ({}, {"run0": bare}):
        found = paragraphs(world(runs=runs))
        outside = re.sub(r"\[to state: [^\]]*\]", "", " ".join(found[name] for name in ("Models", "Software")))
        assert not re.search(r"\d+ epochs|AdamW|pretrained|random|timm's \w|last epoch|squash|CPU|\d\.\d", outside), (
            outside
        )
        assert "StratifiedGroupKFold" not in found["Partitions"]
        assert "[to state: how people were assigned to folds" in found["Partitions"]
        assert "[to state: which models predicted the test images]" in found["Predictions"]
        assert answers(world(runs=runs))["23"][1] == answers(world(runs=runs))["24"][1] == YOU
        assert answers(world(runs=runs), "method-tripod")["13"][1] == YOU
    assert any(isinstance(block, Missing) for block in method_section(world(runs={})).blocks)
    assert "[to state: which epoch was kept]" in paragraphs(world(runs={"run0": bare}))["Models"]


def test_a_report_of_a_table_alone_claims_no_metric_and_no_split() -> None:
    found = paragraphs(table_alone())
    assert found["Data"].startswith("The training data were 200 images of 40 people")
    assert found["Statistics"] == "[to state: metrics] [to state: how confidence intervals were computed]"
    assert "Predictions" not in found
    assert found["Partitions"].startswith("[to state: how the images were split")
    nothing = Evidence((), None, None)
    assert paragraphs(nothing)["Data"].startswith("[to state: numbers of images, people and classes]")
    assert answers(nothing)["12"][1] == answers(nothing)["37"][1] == YOU


def blend(**changed: Any) -> dict[str, Any]:
    fitted = {
        "chosen": "greedy",
        "parts": 5,
        "chosen_without_each_part": ["greedy", "soft"],
        "methods": [{"method": "greedy", "title": "greedy selection of runs"}],
    }
    runs = [{"run": "run0", "weight": 0.75}, {"run": "run2", "weight": 0.25}, {"run": "run1", "weight": 0.0}]
    return {"method": "auto", "runs": runs, "fitted": fitted} | changed


def weights_of(runs: Iterable[str]) -> list[dict[str, Any]]:
    return [{"run": name, "weight": 0.5} for name in runs]


def test_a_fitted_blend_says_its_weights_and_that_it_is_nested() -> None:
    evidence = world(recommended="blend soft", blend=blend(), blend_name="blend soft")
    assert paragraphs(evidence)["Predictions"].endswith(
        "The models were combined by greedy selection of runs (weights: `run0` 0.750, `run2` 0.250). This was fitted to the "
        "out-of-fold predictions and scored by nested cross-validation: the people of each of 5 outer folds were predicted "
        "by a fit without them. The method was chosen by its nested score; this choice was repeated without each outer fold."
    )
    assert paragraphs(evidence)["Models"].startswith("2 models were trained. `run0` and `run2` were timm's resnet18")
    plain = paragraphs(
        world(recommended="blend soft", blend=blend(method="soft", fitted=None), blend_name="blend soft")
    )
    assert "nothing was fitted" in plain["Predictions"]
    assert "nested" not in plain["Predictions"]
    other = paragraphs(world(recommended="blend soft", blend=blend(), blend_name="blend other"))
    assert other["Predictions"].endswith("`blend soft` combines several models [to state: how].")


def test_models_that_differ_have_a_sentence_each() -> None:
    runs = {"run0": record("run0"), "run1": record("run1", lr=0.001, pretrained=False, mixup=0.2)}
    evidence = world(runs=runs, recommended="blend soft", blend=blend(runs=weights_of(runs)))
    text = paragraphs(evidence)["Models"]
    assert "`run0` was trained for 15 epochs with AdamW (peak learning rate 0.0005," in text
    assert "`run1` was trained for 15 epochs with AdamW (peak learning rate 0.001," in text
    assert "initialized with random weights" in text
    assert "mixup, alpha 0.2" in text
    settings = table_of(method_section(evidence), "method-settings")
    assert list(settings.header) == ["setting", "run0", "run1"]
    assert ["learning rate", "0.0005", "0.001"] in [list(row) for row in settings.rows]
    many = {f"m{at}": record(f"m{at}", lr=at / 1000) for at in range(1, 9)}
    evidence = world(runs=many, recommended="blend soft", blend=blend(runs=weights_of(many)))
    text = paragraphs(evidence)["Models"]
    assert "8 models were trained." in text
    assert "The models differ in their settings of the training (table of the settings)." in text
    rows = table_of(method_section(evidence), "method-settings")
    assert (rows.header[0], len(rows.rows)) == ("run", 8)


def test_a_selection_on_the_scored_people_is_said() -> None:
    runs = {"run0": record("run0", keep="best", patience=4, metric="macro_f1")}
    assert (
        "those of the epoch with the best validation macro F1, with early stopping after 4 epochs without a better one, "
        "chosen on the scored people." in paragraphs(world(runs=runs))["Models"]
    )


def test_a_head_on_frozen_features_is_no_training_of_the_network() -> None:
    frozen = record(
        "run0", features=True, head="logistic", l2=None, inner_folds=5, feature_views="plain,hflip", epochs=1
    )
    text = paragraphs(world(runs={"run0": frozen}))["Models"]
    assert (
        "logistic regression whose L2 strength was chosen by 5 inner folds over people was fitted to features of the "
        "training images (views plain,hflip)." in text
    )
    assert "epochs with" not in text


def test_people_in_several_folds_and_in_both_parts_are_counted() -> None:
    evidence = world()
    assert evidence.oof is not None
    assert evidence.test is not None
    assert evidence.table is not None
    fold = evidence.oof.fold.copy()  # type: ignore[union-attr]
    fold[:2] = [0, 1]  # two images of the first person
    persons = evidence.table.persons.copy()
    persons[evidence.table.test.nonzero()[0][:5]] = "p000"
    changed = replace(evidence, oof=replace(evidence.oof, fold=fold), table=replace(evidence.table, persons=persons))
    text = paragraphs(changed)["Partitions"]
    assert "by image, not by person: 1 person of 40 had images in more than one fold." in text
    assert "1 test person had images in the training data as well" in text
    unknown = replace(evidence, oof=replace(evidence.oof, persons_known=False))
    assert "The people are not known. [to state: the unit of the split]" in paragraphs(unknown)["Partitions"]
    assert (
        "over people (out of fold over images, because people are not known there)" in paragraphs(unknown)["Statistics"]
    )
    assert (
        "jackknife over images, because people are not known" in paragraphs(replace(unknown, test=None))["Statistics"]
    )


def test_folds_that_are_not_trained_yet_are_not_forgotten() -> None:
    evidence = world()
    part = evidence.oof
    assert part is not None
    assert part.fold is not None
    inside = part.fold == 1
    member = replace(part.members[0], probabilities=part.members[0].probabilities[inside])
    rows = [values[inside] for values in (part.ids, part.labels, part.persons, part.fold)]
    one = replace(part, ids=rows[0], labels=rows[1], persons=rows[2], fold=rows[3], members=(member,))
    assert (
        "into 5 folds, so that all images of a person were in one fold; 1 of these was predicted."
        in paragraphs(replace(evidence, oof=one))["Partitions"]
    )
    held_out = {"run0": record("run0", folds={"k": 1, "seed": 3, "stratify": []})}
    assert paragraphs(replace(evidence, oof=one, runs=held_out))["Partitions"].startswith(
        "One part of the people was held out of the training and predicted. People were assigned to the two parts "
        "stratified by class (seed 3). The held-out part had 40 images of 8 people."
    )


def test_what_is_missing_is_counted() -> None:
    evidence = world()
    found = evidence.table
    assert found is not None
    site = found.attributes["site"].copy()
    site[:3] = ""
    labels = found.labels.copy()
    labels[-2:] = ""
    width = np.full(len(found.ids), 512)
    width[4] = 0
    changed = replace(found, attributes={"site": site}, labels=labels, width=width, left_out=7)
    paths = {sample: Path(sample) for sample in found.ids.tolist()[:-1]}
    text = answers(replace(evidence, table=changed, paths=paths))["12"][0]
    assert text == (
        "site was missing for 3 of 200 training images. 2 of 100 test images had no label (not scored). Images left out "
        "because they could not be used: 7. 1 image file could not be found for this report. 1 image file could not be "
        "read."
    )
    rows = table_of(method_section(replace(evidence, table=changed)), "method-characteristics").rows
    assert ["site", "missing", 3, "1.5%", 1, 0, "0.0%", 0] in [list(row) for row in rows]


def test_the_parts_have_people_images_and_classes() -> None:
    rows = {row[0]: list(row[1:]) for row in table_of(method_section(world()), "method-parts").rows}
    evidence = world()
    assert evidence.oof is not None
    assert rows["people"] == [40, 20, 8, 8, 8, 8, 8]
    assert rows["images"] == [200, 100, 40, 40, 40, 40, 40]
    assert rows["class cat"][:2] == ["70 (14)", "35 (7)"]
    inside = (evidence.oof.fold == 2) & (evidence.oof.labels == 1)
    assert rows["class dog"][4] == f"{inside.sum()} ({len(np.unique(evidence.oof.persons[inside]))})"
    assert rows["without label"] == [0] * 7


def test_every_item_of_the_guidelines_is_there_once() -> None:
    assert [one.number for one in CLAIM] == [str(number) for number in range(1, 45)]
    several = {"3": "abc", "5": "ab", "6": "abc", "8": "abc", "9": "abc", "12": "abcdefg", "18": "abcdef", "20": "abc"}
    several |= {"23": "ab", "27": "abc"}
    items = [f"{one}{letter}" for one in range(1, 28) for letter in several.get(str(one), [""])]
    assert [one.number for one in TRIPOD] == items
    for evidence in (world(), Evidence((), None, None)):
        assert list(answers(evidence)) == [one.number for one in CLAIM]
        assert list(answers(evidence, "method-tripod")) == items
        for name in ("method-claim", "method-tripod"):
            for fact, status in answers(evidence, name).values():
                assert (status == YOU) == (not re.sub(r"\[to state: [^\]]*\]", "", str(fact)).strip())
                assert (status == "partly") == ("[to state" in str(fact) and status != YOU)


def test_known_items_say_what_is_known() -> None:
    found = answers(world())
    assert found["20"] == (
        "The images were split into 5 folds, so that all images of a person were in one fold. No person of the test data was "
        "in the training data.",
        "known",
    )
    assert found["21"] == (
        "Training: 40 people, 200 images; test: 20 people, 100 images. [to state: how the size was arrived at]",
        "partly",
    )
    assert re.match(
        r"run0: macro F1 out of fold 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\], macro F1 test 0\.\d{3} \[", str(found["37"][0])
    )
    assert found["17"] == ("", YOU)
    assert "section Data" in str(found["13"][0])
    balanced = {"run0": record("run0", sampler="balanced", loss="wce")}
    assert answers(world(runs=balanced), "method-tripod")["13"] == (
        "classes balanced by sampling (balanced); loss: class-weighted cross-entropy with label smoothing 0.1.",
        "known",
    )


@pytest.mark.parametrize("name", [hostile.SCRIPT, hostile.LATEX, hostile.MARKDOWN, "[to state: x]"])
def test_names_of_strangers_are_texts_of_the_section(name: str) -> None:
    config = {"opt": name, "loss": name, "augment": name, "fit": name, "keep": "best", "metric": name}
    config |= {
        "resolved": {"architecture": {"timm_name": name, "arguments": {name: name}}, "amp": name},
        "epochs": name,
    }
    runs = {
        "run0": replace(record("run0", **config), folds={"seed": name, "stratify": [name]}, environment={"torch": name})
    }
    evidence = world(
        runs=runs, classes=(name, "b"), blend={"runs": name, "fitted": name, "method": 3}, blend_name="blend soft"
    )
    found = evidence.table
    assert found is not None
    attributes = {name: np.full(len(found.ids), name)}
    section = method_section(replace(evidence, table=replace(found, attributes=attributes), recommended="blend soft"))
    assert len(section.blocks) > 5
    for block in section.blocks:
        if isinstance(block, Table) and block.name in ("method-claim", "method-tripod") and len(name) < 60:
            assert all(len(str(cell)) <= 2 * LONGEST for row in block.rows for cell in row)
    assert hostile.SCRIPT not in html_of(replace(evidence, recommended="blend soft"), ["method"])


def test_cells_of_the_checklists_are_shown_whole() -> None:
    """A cell longer than the page shows would be cut in its middle."""
    many = {f"model{at}": record(f"model{at}", lr=at / 1000) for at in range(1, 9)}
    made_of = [
        blend(),
        blend(runs=weights_of(many)),
        blend(runs=weights_of(f"a-long-name-{at}" * 3 for at in range(9))),
    ]
    for evidence in (world(), *(world(runs=many, recommended="blend soft", blend=one) for one in made_of)):
        for name in ("method-claim", "method-tripod"):
            assert all(len(str(fact)) <= LONGEST for fact, _ in answers(evidence, name).values())


def test_a_table_without_people_counts_images() -> None:
    evidence = table_alone()
    found = evidence.table
    assert isinstance(found, TableRecord)
    unknown = replace(evidence, table=replace(found, persons=found.ids, persons_known=False))
    assert paragraphs(unknown)["Data"].startswith(
        "The training data were 200 images in 3 classes (cat, 70 images; dog,"
    )
    assert list(table_of(method_section(unknown), "method-parts").rows[0])[:2] == ["images", 200]


def test_pointers_name_only_tables_that_are_there() -> None:
    evidence = world()
    found = evidence.table
    assert found is not None
    claim, tripod = answers(evidence)["30"][0], answers(evidence, "method-tripod")["14"][0]
    assert "accuracy by brightness and sharpness." in str(claim)  # all images have one size
    assert str(tripod).startswith("Section Mistakes: accuracy by site, against others.")
    one_site = replace(evidence, table=replace(found, attributes={"site": np.full(len(found.ids), "north")}))
    for number in ("12d", "14", "23b"):
        assert "Mistakes" not in str(answers(one_site, "method-tripod")[number][0])
    meaning = {"cat": {"age": "old"}, "dog": {"age": "young"}, "eel": {"age": "old"}}
    named = answers(replace(one_site, class_attributes=meaning), "method-tripod")["23b"][0]
    assert str(named).startswith("Section Mistakes: scores of each value of age.")
    tables = {
        block.name
        for block in mistakes_section(replace(one_site, class_attributes=meaning)).blocks
        if isinstance(block, Table)
    }
    assert "mistakes-attributes" in tables
    assert "mistakes-columns" not in tables


def test_without_a_table_only_the_predictions_are_counted() -> None:
    """A table that was moved: nothing is known of the images that were not predicted."""
    evidence = world()
    parts = [one for one in (evidence.oof, evidence.test) if one is not None]
    for found in (None, table_of_parts(parts, evidence.classes)):
        predicted = replace(evidence, table=found)
        text = paragraphs(predicted)
        assert text["Data"].startswith("The out-of-fold predictions are of 200 images of 40 people")
        assert "The test predictions are of 100 images of 20 people" in text["Data"]
        assert "training data were" not in text["Data"]
        assert "No label" not in text["Data"]
        assert "[to state: what is missing in the data: no table was read]" in text["Data"]
        assert "No person of the test" not in text["Partitions"]
        assert "[to state: whether test people are in the training data: no table was read]" in text["Partitions"]
        assert answers(predicted)["12"][1] == YOU
        assert answers(predicted)["21"][0].startswith(
            "Out of fold: 40 people, 200 images; test: 20 people, 100 images. ["
        )
        assert table_of(method_section(predicted), "method-parts").header[1:3] == ["out of fold", "test"]


def test_settings_of_other_runs_are_not_attributed_to_a_model_without_a_record() -> None:
    runs = {name: record(name) for name in ("run0", "run2")}
    text = paragraphs(world(runs=runs, recommended="blend soft", blend=blend(runs=weights_of(["run0", "hers"]))))
    assert text["Models"].startswith("`run0` was timm's resnet18")
    assert text["Models"].count("[to state: how `hers` was trained]") == 1
    assert "run2" not in text["Models"]
    hers = world(runs=runs, recommended="run1")
    text = paragraphs(hers)
    assert text["Models"].startswith("[to state: how `run1` was trained]")
    assert "resnet18" not in text["Models"]
    assert "was not trained on its fold" not in re.sub(r"\[to state: [^\]]*\]", "", text["Predictions"])
    assert "were not combined" not in text["Predictions"]
    tripod = answers(hers, "method-tripod")
    assert not any("only predictors" in str(fact) or "largest probability" in str(fact) for fact, _ in tripod.values())


def test_the_soft_vote_is_made_of_the_runs_that_were_not_left_out() -> None:
    evidence = world(runs={name: record(name) for name in ("leaky", "run0", "run1", "run2")}, recommended=SOFT_VOTE)
    assert evidence.oof is not None
    assert evidence.test is not None
    named = [
        replace(
            part,
            members=tuple(replace(one, name=SOFT_VOTE) if one.kind == "blend" else one for one in part.members),
        )
        for part in (evidence.oof, evidence.test)
    ]
    text = paragraphs(replace(evidence, oof=named[0], test=named[1]))["Models"]
    assert text.startswith("3 models were trained. `run0`, `run1` and `run2` were timm's resnet18")


def test_people_with_changed_labels_are_left_out_of_the_score() -> None:
    evidence = world()
    part = evidence.oof
    assert part is not None
    changed = frozenset(part.ids[:3].tolist())
    members = tuple(
        replace(one, changed=changed) if one.name in ("run0", "blend soft") else one for one in part.members
    )
    note = "scored on the 39 people whose training labels were not changed, without 1 person"
    for name in ("run0", "blend soft"):
        found = replace(evidence, oof=replace(part, members=members), recommended=name)
        assert (
            f"For `{name}` the training labels of 3 images were replaced, softened or not learned. Its out-of-fold "
            f"predictions are {note}, by the labels of the table." in paragraphs(found)["Data"]
        )
        assert f"Out of fold: {note}." in answers(found)["37"][0]


def test_no_test_set_is_a_gap() -> None:
    evidence = world()
    assert evidence.table is not None
    rows = ~evidence.table.test
    found = evidence.table
    alone = replace(
        found, ids=found.ids[rows], labels=found.labels[rows], persons=found.persons[rows], test=found.test[rows],
        attributes={}, width=None, height=None, brightness=None, sharpness=None,
    )  # fmt: skip
    text = paragraphs(replace(evidence, test=None, table=alone))["Partitions"]
    assert text.endswith("No test predictions are in this report [to state: whether there is a separate test set].")


def test_people_are_known_or_not_in_each_part() -> None:
    """A test part without people takes none from the training part."""
    evidence = world()
    found, test = evidence.table, evidence.test
    assert found is not None
    assert test is not None
    persons = np.where(found.test, found.ids, found.persons)
    mixed = replace(
        evidence,
        table=replace(found, persons=persons, persons_known=False),
        test=replace(test, persons=test.ids, persons_known=False),
    )
    text = paragraphs(mixed)
    assert text["Data"].startswith(
        "The training data were 200 images of 40 people in 3 classes (cat, 70 images of 14 people;"
    )
    assert "The test data were 100 images in 3 classes (cat, 35 images;" in text["Data"]
    assert "[to state: whether test people are in the training data]" in text["Partitions"]
    rows = {row[0]: list(row[1:]) for row in table_of(method_section(mixed), "method-parts").rows}
    assert rows["people"][:3] == [40, None, 8]
    assert rows["class cat"][:2] == ["70 (14)", 35]


def test_a_single_split_has_no_other_folds() -> None:
    evidence = world()
    assert evidence.oof is not None
    part = replace(evidence.oof, fold=np.zeros(len(evidence.oof), np.int64))
    held_out = {"run0": record("run0", folds={"k": 1, "seed": 3, "stratify": []})}
    found = table_of(method_section(replace(evidence, oof=part, runs=held_out)), "method-parts")
    assert "other folds" not in found.note
    assert "other folds" in table_of(method_section(evidence), "method-parts").note


def test_a_long_sentence_is_cut_at_a_semicolon_and_not_left_out() -> None:
    stratify = {"k": 5, "seed": 3, "stratify": [f"a_long_column_{at}" for at in range(12)]}
    attributes = {"run0": record("run0", augment_more={f"class{at}": "strong" for at in range(40)}, folds=stratify)}
    for name in ("method-claim", "method-tripod"):
        for fact, _ in answers(world(runs=attributes), name).values():
            assert not str(fact).startswith("See the methods text above.")
    assert "run0 was trained for 15 epochs" in str(answers(world(runs=attributes))["25"][0])


def test_intervals_are_said_as_they_are_computed() -> None:
    two = world(metric="sensitivity_at:specificity=0.9", classes=("a", "b"))
    assert "bounds are taken at the quantile" in paragraphs(two)["Statistics"]
    assert "Student's t. Models" in paragraphs(world(metric="log_loss"))["Statistics"]


def test_software_without_versions_is_a_gap() -> None:
    text = paragraphs(world(runs={"run0": replace(record("run0"), environment={"cuda": "12"})}))["Software"]
    assert text.startswith("[to state: software and its versions] Device")
    text = paragraphs(world(runs={"run0": replace(record("run0"), environment={"torch": "2.1"})}))["Software"]
    assert text.startswith("PyTorch 2.1 was used.")


def test_every_setting_is_read_or_known_not_to_matter() -> None:
    """A new setting of the training is said, or it is listed as one that a paper need not name."""
    source = inspect.getsource(method_runs) + inspect.getsource(method_models)
    assert [one.name for one in fields(Recipe) if f'"{one.name}"' not in source] == []
    assert {one.name for one in fields(Recipe)} > method_runs.UNSAID


def test_settings_of_pseudo_labels_grades_and_channels_are_said() -> None:
    given = {"pseudo": "run1", "pseudo_weight": 0.5, "pseudo_confidence": 0.95, "accumulate": 4, "channels": ["0", "3"]}
    text = paragraphs(world(runs={"run0": record("run0", **given, task="ordinal", class_order=["cat", "dog"])}))[
        "Models"
    ]
    assert "pseudo-labels with a probability of at least 0.95; weight of a pseudo-labeled image 0.5" in text
    assert "each batch in 4 parts (gradient accumulation)" in text
    assert "task: ordinal; order of the grades: cat, dog; channels 0, 3 of each file" in text
