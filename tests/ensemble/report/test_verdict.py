"""The verdict: three sentences with the right numbers, and a check for each way in which numbers mislead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble.report.evidence.choice import choose
from ensemble.report.evidence.evidence import SOFT_VOTE, Evidence, Predicted, RunRecord
from ensemble.report.evidence.scoring import difference_of, score_of
from ensemble.report.labels.labels import labels_section
from ensemble.report.page.blocks import Check, Checks, Missing, Table, Text
from ensemble.report.training.training import training_section
from ensemble.report.verdict.verdict import checks_of, verdict_section
from ensemble.report.verdict.verdict_runs import is_beyond_chance
from ensemble.report.verdict.verdict_sentences import sentences
from folds.metrics.classification import METRICS
from folds.metrics.intervals import Interval, difference_over_people, interval_over_people
from tests.ensemble.report.evidence_worlds import draw_evidence
from tests.ensemble.report.section_parts import oof


def with_oof(evidence: Evidence, **changed: Any) -> Evidence:
    return replace(evidence, oof=replace(oof(evidence), **changed))


def with_main(evidence: Evidence, **changed: Any) -> Evidence:
    """Change the recommended member."""
    members = tuple(
        replace(one, **changed) if one.name == evidence.recommended else one for one in oof(evidence).members
    )
    return with_oof(evidence, members=members)


def check(evidence: Evidence, subject: str) -> Check:
    return next(one for one in checks_of(evidence) if one.subject == subject)


def run(name: str, scores: list[float], loss: float = 1.0, **environment: str) -> RunRecord:
    history = {
        fold: [{"epoch": at + 1, "loss": loss, "validation_macro_f1": score} for at, score in enumerate(scores)]
        for fold in range(2)
    }
    return RunRecord(name, Path(name), 2, history, {}, {}, {"torch": "2.11", **environment})


@pytest.fixture
def world() -> Evidence:
    return draw_evidence(people=120)


def test_the_sentences_have_the_score_and_the_paired_difference(world: Evidence) -> None:
    submit, score, against = sentences(world)
    part, metric = oof(world), METRICS["macro_f1"]
    mean, single = part.members[3].probabilities, part.members[0].probabilities
    assert submit == "Submit `blend soft` (a combination of runs, 3 forward passes per image)."
    assert interval_over_people(metric, part.labels, mean, part.persons).text() in score
    assert world.test is not None
    assert (
        interval_over_people(metric, world.test.labels, world.test.members[3].probabilities, world.test.persons).text()
        in score
    )
    found = difference_over_people(metric, part.labels, single, mean, part.persons)
    assert found.difference.signed_text() in against
    assert "`run0`" in against


def test_averaged_over_people_the_sentence_says_so(world: Evidence) -> None:
    assert "averaged over each person's images" in sentences(replace(world, per_person=True))[1]
    by_person = score_of(replace(world, per_person=True), oof(world), oof(world).members[0])
    by_image = score_of(world, oof(world), oof(world).members[0])
    assert by_person is not None
    assert by_image is not None
    assert by_person.value > by_image.value  # five images of a person are easier together


def test_a_significant_gain_names_what_is_better() -> None:
    world = draw_evidence(people=300, skills=(1.5, 1.5, 1.5, 1.5, 1.5), recommended="blend soft")
    assert sentences(world)[2].startswith(
        "Significantly better than the best single run, `run0`, on the same people: `blend soft`"
    )


def test_without_labels_nothing_is_suggested(world: Evidence) -> None:
    unlabeled = replace(with_oof(world, labels=np.full(len(oof(world)), -1)), test=None)
    section = verdict_section(unlabeled)
    assert isinstance(section.blocks[0], Text)
    assert section.blocks[0].paragraphs[0].startswith("There are no predictions with known labels yet")
    nothing = verdict_section(replace(world, oof=None, test=None, recommended=None, simple=None, table=None))
    assert any(isinstance(one, Missing) for one in nothing.blocks)


def test_a_clean_world_passes_and_failures_come_first(world: Evidence) -> None:
    found = checks_of(world)
    assert {one.subject: one.status for one in found}["leaks"] == "pass"
    assert not [one for one in found if one.status == "fail"]
    order = ["fail", "warn", "unknown", "pass"]
    positions = [order.index(one.status) for one in found]
    assert positions == sorted(positions)
    assert isinstance(verdict_section(world).blocks[-1], Checks)


def test_people_in_two_folds_fail(world: Evidence) -> None:
    fold = np.array(oof(world).fold)
    fold[0] = (fold[0] + 1) % 5
    found = check(with_oof(world, fold=fold), "leaks")
    assert found.status == "fail"
    assert found.finding.startswith("1 person is in more than one fold, e.g. p000")
    assert check(with_oof(world, persons_known=False), "leaks").status == "warn"
    assert check(with_oof(world, fold=None), "leaks").status == "unknown"


def test_test_people_in_training_fail(world: Evidence) -> None:
    assert world.test is not None
    persons = np.array(world.test.persons)
    persons[:5] = oof(world).persons[0]
    found = check(replace(world, test=replace(world.test, persons=persons)), "test people")
    assert found.status == "fail"
    assert "e.g. p000" in found.finding


def test_copies_warn_and_unseen_images_are_not_called_free_of_them(world: Evidence) -> None:
    assert check(world, "copies").status == "unknown"
    compared = {"kind": "images compared", "severity": "note", "count": 900}
    assert check(replace(world, findings=[compared]), "copies").status == "pass"
    copy = {
        "kind": "identical images in training and test",
        "severity": "warning",
        "count": 2,
        "message": "2 test images are copies",
    }
    found = check(replace(world, findings=[copy, compared]), "copies")
    assert (found.status, found.finding) == ("warn", "2 test images are copies")


def test_rare_classes_warn_and_a_class_of_one_person_fails() -> None:
    world = draw_evidence(people=60)
    part, labels = oof(world), np.array(oof(world).labels)
    labels[labels == 2] = 0
    few = np.unique(part.persons)[:3]
    labels[np.isin(part.persons, few)] = 2
    found = check(with_oof(world, labels=labels), "rare classes")
    assert found.status == "warn"
    assert "eel (3)" in found.finding
    labels[np.isin(part.persons, few[1:])] = 0
    assert check(with_oof(world, labels=labels), "rare classes").status == "fail"


def test_few_people_warn(world: Evidence) -> None:
    assert check(draw_evidence(people=15), "people").status == "warn"
    assert check(world, "people").status == "pass"


def test_a_fold_that_is_off_is_named(world: Evidence) -> None:
    assert check(world, "folds").status == "pass"
    part = oof(world)
    values = np.array(part.members[3].probabilities)
    values[part.fold == 3] = values[part.fold == 3][:, [1, 2, 0]]
    found = check(with_main(world, probabilities=values), "folds")
    assert found.status == "warn"
    assert "fold 3 (" in found.finding
    assert "fold 2 (" not in found.finding


def test_overconfidence_warns_with_the_gap(world: Evidence) -> None:
    part = oof(world)
    values = np.array(part.members[3].probabilities) ** 8
    values /= values.sum(axis=1, keepdims=True)
    found = check(with_main(world, probabilities=values.astype(np.float32)), "probabilities")
    gap = float((values.max(axis=1) - (values.argmax(axis=1) == part.labels)).mean())
    assert found.status == "warn"
    assert found.finding.startswith(f"Overconfident: mean confidence minus accuracy: {gap:+.3f}")
    flat = (values + 5) / (values + 5).sum(axis=1, keepdims=True)
    assert check(with_main(world, probabilities=flat.astype(np.float32)), "probabilities").finding.startswith(
        "Underconfident"
    )


def test_optimism_is_told_apart_from_the_nested_score(world: Evidence) -> None:
    part = oof(world)
    fitted = np.eye(3, dtype=np.float32)[part.labels]
    found = check(with_main(world, in_sample=fitted), "optimism")
    nested = METRICS["macro_f1"](part.labels, part.members[3].probabilities)
    assert (
        f"macro F1 1.000 on the people it was fitted on, {nested:.3f} nested: optimism {1 - nested:+.3f}"
        in found.finding
    )
    assert sentences(with_main(world, in_sample=fitted))[1].startswith("Its nested out-of-fold macro F1")
    selected = check(with_main(world, selected_on_validation=True), "optimism")
    assert selected.status == "warn"
    assert "this is optimistic" in sentences(with_main(world, selected_on_validation=True))[1]


def test_a_test_score_far_below_warns() -> None:
    world = draw_evidence(people=200, skills=(4.0, 3.5))
    assert world.test is not None
    members = tuple(replace(one, probabilities=one.probabilities[:, [1, 2, 0]]) for one in world.test.members)
    found = check(replace(world, test=replace(world.test, members=members)), "optimism")
    assert found.status == "warn"


def test_a_class_that_is_never_recognized_is_named(world: Evidence) -> None:
    values = np.array(oof(world).members[3].probabilities)
    values[:, 1] = 0
    found = check(with_main(world, probabilities=values), "weak classes")
    assert found.status == "warn"
    assert found.finding.startswith("Never recognized: dog; weakest: dog F1 0.000")


@pytest.mark.parametrize(
    ("scores", "loss", "status"),
    [
        ([0.5, 0.6, 0.65, 0.66] + [0.66] * 16, 1.0, "pass"),
        ([at / 30 for at in range(20)], 1.0, "warn"),
        ([0.5], 1.0, "unknown"),
        ([0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8], 1.0, "unknown"),  # 7 epochs: the section Training cannot tell either
        ([0.5, 0.6, 0.65] + [0.66] * 13 + [0.66, 0.64, 0.7, 0.66], 1.0, "pass"),  # a last leap is no slope
        ([float("nan")] * 20, 1.0, "unknown"),
        ([0.5] * 20, float("nan"), "fail"),
    ],
)
def test_training_that_has_not_converged(world: Evidence, scores: list[float], loss: float, status: str) -> None:
    found = check(replace(world, runs={"run0": run("run0", scores, loss)}), "training")
    assert found.status == status
    told = training_section(replace(world, runs={"run0": run("run0", scores)})).blocks[0]
    assert isinstance(told, Text)
    said = {"pass": "; converged", "warn": "still improved", "unknown": "too few epochs"}.get(status, "; converged")
    assert said in told.paragraphs[0] or "no validation score is recorded" in told.paragraphs[0]


def test_views_that_harm_are_named(world: Evidence) -> None:
    part = oof(world)
    flipped = np.array(part.members[0].probabilities)[:, [1, 0, 2]]
    turned = Predicted("run0 (vflip)", "tta", flipped, 2.0)
    found = check(with_oof(world, members=(*part.members, turned)), "views")
    assert found.status == "warn"
    assert found.finding.startswith("Worse with views: run0 (vflip)")
    same = Predicted("run0 (hflip)", "tta", part.members[0].probabilities, 2.0)
    assert check(with_oof(world, members=(*part.members, same)), "views").status == "pass"


def test_different_versions_are_named(world: Evidence) -> None:
    runs = {"a": run("a", [0.5] * 20), "b": run("b", [0.5] * 20, torch="2.12", cpu="AVX2")}
    found = check(replace(world, runs=runs), "versions")
    assert (found.status, found.finding) == ("warn", "torch 2.11, 2.12")


def test_missing_predictions_are_named(world: Evidence) -> None:
    values = np.array(oof(world).members[3].probabilities)
    values[:100] = np.nan
    found = check(with_main(world, probabilities=values), "complete")
    assert (found.status, "blend soft (500 of 600)" in found.finding) == ("warn", True)


def test_doubts_about_the_files_are_shown(world: Evidence) -> None:
    assert check(replace(world, warnings=("run1 is upside down",)), "files").finding == "run1 is upside down"


def test_a_blend_that_is_significantly_worse_is_not_suggested() -> None:
    world = draw_evidence(people=200, skills=(4.0, 0.0, -1.0))
    assert choose(world) == ("run0", "run0")
    found = difference_of(world, oof(world), oof(world).members[0], oof(world).members[3])
    assert found is not None
    assert found.is_significant


def test_views_are_suggested_only_where_they_are_significantly_better(world: Evidence) -> None:
    part = oof(world)
    runs = part.members[:1]
    same = Predicted("run0 (hflip)", "tta", part.members[0].probabilities)
    better = Predicted("run0 (hflip)", "tta", np.eye(3, dtype=np.float32)[part.labels])
    assert choose(with_oof(world, members=(*runs, same)))[0] == "run0"
    assert choose(with_oof(world, members=(*runs, better)))[0] == "run0 (hflip)"


@pytest.mark.parametrize("metric", ["log_loss", "brier", "accuracy", "roc_auc"])
def test_other_metrics_with_their_direction(world: Evidence, metric: str) -> None:
    found = replace(world, metric=metric)
    simple = choose(found)[1]
    values = [METRICS[metric](oof(world).labels, one.probabilities) for one in oof(world).members[:3]]
    best = min(values) if metric in ("log_loss", "brier") else max(values)
    assert simple == f"run{values.index(best)}"
    assert METRICS[metric].title in sentences(found)[1]


def test_only_a_passed_check_of_leaks_says_that_the_people_are_unseen(world: Evidence) -> None:
    unseen = "on people whom no model had seen in training"
    assert unseen in sentences(world)[1]
    assert check(replace(world, test=None), "optimism").status == "pass"
    fold = np.array(oof(world).fold)
    fold[0] = (fold[0] + 1) % 5
    leaking = with_oof(world, fold=fold)
    assert unseen not in sentences(leaking)[1]
    assert "optimistic, because people are in training and validation" in sentences(leaking)[1]
    assert check(leaking, "optimism").status == "fail"
    for unknown in (with_oof(world, fold=None), with_oof(world, persons_known=False)):
        assert unseen not in sentences(unknown)[1]
        assert check(replace(unknown, test=None), "optimism").status == "unknown"
    nothing = replace(leaking, recommended=None, simple=None)
    (said,) = sentences(nothing)
    assert said.startswith("Submit nothing yet: 1 person is in more than one fold, e.g. p000")
    assert not any(isinstance(one, Missing) for one in verdict_section(nothing).blocks)


def test_people_with_changed_labels_are_left_out_of_differences(world: Evidence) -> None:
    part = oof(world)
    simple, _, _, blend = part.members
    changed = with_main(world, changed=frozenset([str(part.ids[0]), str(part.ids[7])]))  # images of p000 and p001
    kept = ~np.isin(part.persons, ["p000", "p001"])
    expected = difference_over_people(
        METRICS["macro_f1"],
        part.labels[kept],
        simple.probabilities[kept],
        blend.probabilities[kept],
        part.persons[kept],
    )
    found = difference_of(changed, oof(changed), *(oof(changed).members[at] for at in (0, 3)))
    assert found.difference == expected.difference
    assert found.difference != difference_of(world, part, simple, blend).difference
    other = difference_of(changed, oof(changed), *oof(changed).members[:2])
    assert other.difference == difference_of(world, part, *part.members[:2]).difference  # neither has changed a label
    assert ", without 2 people of whom `blend soft` changed training labels" in sentences(changed)[2]
    assert expected.difference.signed_text() in sentences(changed)[2]
    all_but_one = frozenset(part.ids[part.persons != "p000"].tolist())
    none = with_main(world, changed=all_but_one)
    assert difference_of(none, oof(none), *(oof(none).members[at] for at in (0, 3))) is None


def test_a_test_score_is_lower_beyond_chance_if_the_gap_exceeds_both_half_widths() -> None:
    score, f1, loss = Interval(0.80, 0.77, 0.90), METRICS["macro_f1"], METRICS["log_loss"]
    assert not is_beyond_chance(score, Interval(0.76, 0.60, 0.79), f1)  # 0.04 < hypot(0.03, 0.03)
    assert is_beyond_chance(score, Interval(0.75, 0.60, 0.78), f1)  # 0.05 > hypot(0.03, 0.03)
    assert not is_beyond_chance(score, Interval(0.95, 0.94, 0.96), f1)
    assert not is_beyond_chance(score, Interval(0.90, 0.89, 0.91), loss)  # 0.10 < hypot(0.10, 0.01)
    assert is_beyond_chance(score, Interval(0.91, 0.90, 0.95), loss)


def test_the_best_of_several_by_the_score_is_called_slightly_optimistic(world: Evidence) -> None:
    title = "optimism"
    assert "chosen as the best" not in check(world, title).finding  # one blend
    several = check(replace(world, recommended="run0"), title)
    assert (several.status, "chosen as the best of 3 by this score" in several.finding) == ("pass", True)


def test_members_that_predict_all_images_are_ranked_before_others(world: Evidence) -> None:
    part = oof(world)
    right = np.eye(3, dtype=np.float32)[part.labels]
    half = np.where(np.arange(len(part))[:, None] < 300, right, np.float32(np.nan))
    runs = list(part.members[:3])
    runs[1] = replace(runs[1], probabilities=half)
    assert choose(with_oof(world, members=tuple(runs)))[1] == "run0"
    # Nobody predicts all: run0 is right where nobody else predicts, and wrong where the others do.
    first, second = right[:, [1, 2, 0]].copy(), np.array(part.members[1].probabilities)
    first[100:] = right[100:]
    second[100:] = np.nan
    first[-1] = np.nan
    two = (replace(runs[0], probabilities=first), replace(runs[1], probabilities=second))
    assert choose(with_oof(world, members=two))[1] == "run1"


def with_blend(world: Evidence, probabilities: np.ndarray, **changed: Any) -> Evidence:
    return with_main(world, probabilities=probabilities.astype(np.float32), **changed)


def test_a_chosen_blend_that_is_no_better_is_told_apart_from_the_advice(world: Evidence) -> None:
    part = oof(world)
    worse = with_blend(world, part.members[2].probabilities, passes=2.0)
    found = difference_of(worse, oof(worse), oof(worse).member("blend soft"), oof(worse).members[0])
    assert found is not None
    assert found.difference.value > 0
    chosen, score, against = sentences(worse)
    assert chosen.startswith(
        "You chose `blend soft` (a combination of runs, 2 forward passes per image). `run0` scores "
    )
    assert f"{found.difference.value:.3f} macro F1 higher (difference {found.difference.signed_text()}" in chosen
    assert chosen.endswith("at half the forward passes: submit `run0` unless you have a reason for the combination.")
    of_run = score_of(worse, oof(worse), oof(worse).members[0])
    assert of_run is not None
    assert f"that of `run0` is {of_run.text()}" in score
    assert "gain is not shown" not in against
    assert against.endswith("there is no gain of `blend soft`, not even by the scores alone.")
    soft = replace(worse, recommended=SOFT_VOTE)
    members = tuple(replace(one, name=SOFT_VOTE) if one.name == "blend soft" else one for one in oof(worse).members)
    assert sentences(with_oof(soft, members=members))[0].startswith(f"This page is about `{SOFT_VOTE}`")


def test_views_that_score_best_are_compared_too(world: Evidence) -> None:
    part = oof(world)
    better = np.where(np.arange(len(part))[:, None] % 4 == 0, np.eye(3)[part.labels], part.members[0].probabilities)
    turned = Predicted("run0 (hflip)", "tta", better.astype(np.float32), 2.0)
    found = with_oof(world, members=(*part.members, turned))
    change = difference_of(found, oof(found), part.members[0], turned)
    between = difference_of(found, oof(found), part.members[3], turned)
    assert change is not None
    assert between is not None
    against = sentences(found)[2]
    assert f"`run0 (hflip)`, which scores best, by {change.difference.signed_text()}" in against
    assert f"(from `blend soft` by {between.difference.signed_text()})" in against


def test_a_run_far_below_the_best_is_named_with_its_score(world: Evidence) -> None:
    poor = Predicted("poor", "run", np.full((len(oof(world)), 3), 1 / 3, np.float32))
    found = check(with_oof(world, members=(*oof(world).members, poor)), "weak runs")
    score = score_of(world, oof(world), poor)
    assert score is not None
    assert found.status == "warn"
    assert "`poor`" in found.title
    assert f"`poor` has macro F1 {score.text()}" in found.finding
    level = draw_evidence(people=60, skills=(2.0, 2.0, 2.0))
    assert check(level, "weak runs").status == "pass"


def test_people_who_are_contradicted_in_all_images_are_named_as_in_the_section() -> None:
    pytest.importorskip("cleanlab")
    world, people = draw_evidence(skills=(3.0, 3.0, 3.0)), ["p003", "p011", "p027"]
    part = oof(world)
    labels = np.where(np.isin(part.persons, people), (part.labels + 1) % 3, part.labels)
    wrong = with_oof(world, labels=labels)
    found = check(wrong, "labels")
    assert found.status == "warn"
    table = next(one for one in labels_section(wrong).blocks if getattr(one, "name", "") == "labels-people")
    assert isinstance(table, Table)
    first = [row[0] for row in table.rows[:3]]
    assert set(first) == set(people)
    for row in table.rows[:3]:
        at = int(np.flatnonzero(part.persons == row[0])[0])
        assert row[1:3] == [f"{world.classes[labels[at]]} → {world.classes[part.labels[at]]}", "5 of 5"]
        assert f"{row[0]} ({row[1]})" in found.finding
    assert found.action.startswith(f"look at {', '.join(map(str, first))} first")


def test_titles_say_what_was_found(world: Evidence) -> None:
    few = check(draw_evidence(people=15), "people")
    score = score_of(few_world := draw_evidence(people=15), oof(few_world), few_world.main)
    assert score is not None
    assert few.title == f"Few people: the 95% CI of macro F1 is {score.high - score.low:.3f} wide"
    values = np.array(oof(world).members[3].probabilities)
    values[:, 1] = 0
    assert (
        check(with_main(world, probabilities=values), "weak classes").title
        == "The weakest class, dog, has an F1 of 0.000"
    )
    assert "0.5 or more, the threshold of this check" in check(world, "weak classes").finding
    leaking = np.array(oof(world).fold)
    leaking[0] = (leaking[0] + 1) % 5
    assert check(with_oof(world, fold=leaking), "leaks").title == "People are in training and validation"


def test_a_decayed_learning_rate_is_named_where_curves_are_flat(world: Evidence) -> None:
    flat = [0.5, 0.6, 0.65, 0.66] + [0.66] * 16
    plain = run("run0", flat)
    assert "learning rate" not in check(replace(world, runs={"run0": plain}), "training").finding
    history = {
        fold: [{**one, "lr": 1e-3 * (1 - at / 19.5)} for at, one in enumerate(epochs)]
        for fold, epochs in plain.history.items()
    }
    found = check(replace(world, runs={"run0": replace(plain, history=history)}), "training")
    assert (found.status, "the learning rate decays to nearly 0" in found.finding) == ("pass", True)
