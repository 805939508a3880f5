"""Check scores and runs: optimism, weak runs, training, views, versions, and what is missing."""

from __future__ import annotations

import math

import numpy as np

from ensemble.report.evidence.choice import is_worse, ranked_with
from ensemble.report.evidence.evidence import Evidence, Predicted, RunRecord
from ensemble.report.evidence.scoring import difference_of, main_part, score_of
from ensemble.report.page.blocks import Check
from ensemble.report.training.training import MIN_EPOCHS, still_rising
from ensemble.report.verdict.verdict_people import check_leaks
from ensemble.report.verdict.verdict_sentences import gain_of, kind_of_part
from folds.metrics.classification import Metric
from folds.metrics.custom import metric_of
from folds.metrics.intervals import Interval
from folds.metrics.scored_units import unlabeled_of_known_people, unlabeled_text
from folds.utils.text import counted

FAR_BELOW = 0.1  # of the best run, of metrics whose best value is 1
DECAYED = 0.05  # of the largest learning rate
# Fields of a run's record of versions that may differ from machine to machine without meaning anything.
_OF_THE_MACHINE = ("cpu", "cuda device", "machine")


def check_optimism(evidence: Evidence) -> Check | None:
    part, member = evidence.oof, evidence.main
    score = score_of(evidence, part, member)
    if part is None or member is None or score is None:
        return None
    metric, found = metric_of(evidence.metric), []
    sign = 1 if metric.greater_is_better else -1
    if member.in_sample is not None:
        fitted = Predicted(member.name, "blend", member.in_sample, changed=member.changed)
        inside = score_of(evidence, part, fitted)
        if inside is not None:
            found.append(
                f"{metric.title} {inside.value:.3f} on the people it was fitted on, {score.value:.3f} nested: "
                f"optimism {sign * (inside.value - score.value):+.3f}, which is not in the score above"
            )
    test = None if evidence.test is None else score_of(evidence, evidence.test, evidence.test.member(member.name))
    if test is not None:
        found.append(f"test {metric.title} {test.text()}, out-of-fold {score.text()}")
    among = len(ranked_with(part, member))
    if among > 1:
        found.append(f"chosen as the best of {among} by this score, so slightly optimistic")
    simple = None if evidence.simple in (None, member.name) else part.member(evidence.simple or "")
    among_simple = 0 if simple is None else len(ranked_with(part, simple))
    if simple is not None and among_simple > 1:
        found.append(f"that of `{simple.name}`, the best of {among_simple} by this score, is slightly optimistic")
    leak = check_leaks(evidence)
    if leak is not None and leak.status == "fail":
        return Check("fail", "The score is optimistic", "; ".join([leak.finding, *found]), leak.action)
    if member.selected_on_validation:
        return Check(
            "warn",
            "The score is optimistic",
            "; ".join(["epochs or models were selected on the people who are scored", *found]),
            "report the test score, or train with `--select last`",
        )
    if test is not None and is_beyond_chance(score, test, metric):
        return Check(
            "warn",
            "Test people score lower",
            f"test people score lower beyond chance: {'; '.join(found)}",
            "are the test people different (site, camera, age), or was something chosen on the out-of-fold score?",
        )
    if leak is None or leak.status != "pass":
        why = "the people of the folds are not known" if leak is None else leak.finding
        return Check(
            "unknown", "The score may be optimistic", "; ".join([why, *found]), "" if leak is None else leak.action
        )
    title = f"The score of `{member.name}` is {'slightly' if among > 1 else 'not'} optimistic"
    unseen = "each image is scored by a model that has not seen its person"
    if evidence.unit_of(part).is_person:
        unseen = "each person is scored by models that have not seen the person"
    return Check("pass", title, "; ".join([unseen, *found]))


def is_beyond_chance(score: Interval, test: Interval, metric: Metric) -> bool:
    """Return whether the test score is worse by more than both intervals allow: those of different people, whose
    half widths toward each other add in squares.
    """
    if metric.greater_is_better:
        return score.value - test.value > math.hypot(score.value - score.low, test.high - test.value)
    return test.value - score.value > math.hypot(score.high - score.value, test.value - test.low)


def check_weak_runs(evidence: Evidence) -> Check | None:
    """Return whether a run is far below the best one: significantly, and by `FAR_BELOW` where 1 is the best score."""
    part = main_part(evidence)
    simple = None if part is None or evidence.simple is None else part.member(evidence.simple)
    if part is None or simple is None:
        return None
    metric = metric_of(evidence.metric)
    others = [one for one in part.members if one.kind == "run" and one.name != simple.name]
    found = {one.name: difference_of(evidence, part, simple, one) for one in others}
    known = {name: one for name, one in found.items() if one is not None}
    if not known:
        return None
    scaled = metric.greater_is_better
    weak = {
        name: one
        for name, one in known.items()
        if one.is_significant_among(len(known))
        and is_worse(one, metric)
        and (not scaled or -gain_of(one, metric) >= FAR_BELOW)
    }
    rule = "beyond chance" + (f" and by {FAR_BELOW} or more" if scaled else "")
    if not weak:
        return Check("pass", "No run is far below the best one", f"no run scores lower than `{simple.name}` {rule}")
    texts = []
    for name, one in weak.items():
        score = score_of(evidence, part, part.member(name))
        texts.append(
            f"`{name}` has {metric.title}{'' if scaled else ' (lower is better)'} "
            f"{'' if score is None else score.text()}, {one.difference.signed_text()} against `{simple.name}`"
        )
    named = ", ".join(f"`{name}`" for name in list(weak)[:3])
    return Check(
        "warn",
        f"{named} {'is' if len(weak) == 1 else 'are'} far below the best run",
        f"{'; '.join(texts[:6])} (paired 95% CI over people)",
        "see its curve in the section Training; leave it out of blends unless they are better with it",
    )


def check_training(evidence: Evidence) -> Check | None:
    unsure = "Not known: whether training has converged"
    if not evidence.runs:
        return (
            Check("unknown", unsure, "no record of a training was found", "name the runs: `ensemble report RUN …`")
            if evidence.oof
            else None
        )
    broken, unknown, rising = [], [], []
    for name, run in evidence.runs.items():
        losses = [record.get("loss", 0.0) for epochs in run.history.values() for record in epochs]
        if losses and not np.isfinite(losses).all():
            broken.append(name)
        state = still_rising(run, evidence.metric)
        if state is None:
            unknown.append(name)
        elif state:
            rising.append(name)
    if broken:
        return Check(
            "fail",
            "Training has failed",
            f"the loss is not a number in {', '.join(broken)}",
            "a lower `--lr`, or `--amp off`",
        )
    untold = f"too few epochs, or no validation score, to tell for {', '.join(unknown[:6])}"
    if rising:
        verb = "improves" if evidence.has_columns else "rises"
        texts = [f"the validation score still {verb} at the end of {', '.join(rising[:6])}"]
        texts += [untold] if unknown else []
        return Check("warn", "Training stopped too early", "; ".join(texts), "train longer: more `--epochs`")
    if not any(run.history for run in evidence.runs.values()):
        return Check("unknown", unsure, "the runs have no history of epochs")
    if unknown:
        return Check("unknown", unsure, untold, f"{MIN_EPOCHS} `--epochs` or more tell")
    verb = "improving" if evidence.has_columns else "rising"
    finding = f"the validation score of {counted(len(evidence.runs), 'run')} has stopped {verb}"
    if any(_decays(run) for run in evidence.runs.values()):
        finding += (
            "; the learning rate decays to nearly 0, which flattens the curve of any run, so that only a run with more "
            "epochs can tell whether they help"
        )
    return Check("pass", "The validation scores are flat at the end of training", finding)


def _decays(run: RunRecord) -> bool:
    """Return whether the learning rate of the last epoch of a fold is at most a twentieth of its largest one."""
    rates = [[float(one["lr"]) for one in epochs if "lr" in one] for epochs in run.history.values()]
    return any(one and max(one) > 0 and one[-1] <= DECAYED * max(one) for one in rates)


def check_views(evidence: Evidence) -> Check | None:
    title, part = "No test-time view harms", main_part(evidence)
    turned = [] if part is None else [one for one in part.members if one.kind == "tta"]
    if part is None or not turned:
        return None
    metric, texts, harms = metric_of(evidence.metric), [], []
    for one in turned:
        plain = next((run for run in part.members if run.kind == "run" and one.name.startswith(f"{run.name} (")), None)
        found = difference_of(evidence, part, plain, one)
        if found is None:
            continue
        texts.append(f"{one.name} {found.difference.signed_text()}")
        if is_worse(found, metric):
            harms.append(one.name)
    if not texts:
        return Check("unknown", "Views were not compared", "the plain predictions of the same runs are not there")
    finding = f"{metric.title} with views minus without: {'; '.join(texts[:6])} (paired 95% CI over people)"
    if harms:
        return Check(
            "warn",
            f"Test-time views harm {counted(len(harms), 'run')}",
            f"worse with views: {', '.join(harms)}. {finding}",
            "leave the views out, or choose others: `ensemble tta --merge auto`",
        )
    return Check("pass", title, finding)


def check_versions(evidence: Evidence) -> Check | None:
    title = "All runs were trained with the same versions"
    known = {name: run.environment for name, run in evidence.runs.items() if run.environment}
    if len(evidence.runs) < 2:
        return None
    if len(known) < len(evidence.runs):
        return Check("unknown", "The versions of some runs are not known", "some runs do not record their versions")
    names = dict.fromkeys(field for one in known.values() for field in one if field not in _OF_THE_MACHINE)
    differ = []
    for field in names:
        values = sorted({str(one.get(field, "not recorded")) for one in known.values()})
        if len(values) > 1:
            differ.append(f"{field} {', '.join(values[:4])}")
    if differ:
        return Check(
            "warn",
            "Runs were trained with different versions",
            "; ".join(differ),
            "differences are small, but train runs that are compared with one version",
        )
    return Check(
        "pass", title, f"{counted(len(known), 'run')}, ensemble {next(iter(known.values())).get('ensemble', 'unknown')}"
    )


def check_complete(evidence: Evidence) -> Check | None:
    part = main_part(evidence)
    if part is None:
        return None
    unit = evidence.row_of(part)
    title = f"Every candidate predicts every {unit.one}"
    partial = [
        f"{one.name} ({int(one.present.sum()):,} of {len(part):,})" for one in part.members if not one.present.all()
    ]
    if partial:
        return Check(
            "warn",
            f"Some candidates do not predict every {unit.one}",
            f"{kind_of_part(part)} {unit.many} are missing: {', '.join(partial[:6])}",
            f"finish the training: `ensemble kfold --resume RUN`; comparisons use the {unit.many} that both predict",
        )
    unlabeled = int((~part.has_label).sum())
    by_person = evidence.per_person and part.persons_known
    inside = unlabeled_of_known_people(part.labels, part.persons) if by_person else 0
    more = f"; {unlabeled:,} have no label and {unlabeled_text(unlabeled, inside)}" if unlabeled else ""
    return Check(
        "pass",
        title,
        f"{counted(len(part.members), 'candidate')}, {len(part):,} {kind_of_part(part)} {unit.many}{more}",
    )


def check_files(evidence: Evidence) -> Check | None:
    if not evidence.warnings:
        return None
    listed = "; ".join(evidence.warnings[:4]) + (
        f"; and {len(evidence.warnings) - 4} more" if len(evidence.warnings) > 4 else ""
    )
    return Check("warn", "The files do not all fit together", listed, "`ensemble blend` names the files that are meant")
