"""`ensemble.predict`: predict new images with a checkpoint, a run, a blend or an exported model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from numbers import Integral
from pathlib import Path

from ensemble.cascade.fit import FittedCascade
from ensemble.decisions.decision import ABSTAIN_LABEL
from ensemble.decisions.face import RULE_KINDS
from ensemble.decisions.label_decision import AnyDecision
from ensemble.decisions.rows import IMAGE, PERSON
from ensemble.decisions.sets import ANY_IMAGE, LAC
from ensemble.pooling.people import people_rows
from ensemble.prediction.cascade import OFF, cascaded, check_cascade_alone, check_cascade_options
from ensemble.prediction.comparison import count_trained_on, procedure_score, score_of
from ensemble.prediction.decisions import DecisionOptions, check_unit, decision_for
from ensemble.prediction.inputs import images_table
from ensemble.prediction.people import check_people, check_rows, label_of
from ensemble.prediction.predict import Predicted, predict_table
from ensemble.prediction.prediction_formats import EQUAL
from ensemble.prediction.result import NO_PERSONS, PredictedImages
from ensemble.prediction.source import PredictionSource, load_source
from ensemble.prediction.verification import TOLERANCE, computed_as_trained, verify_model, verify_predictions
from folds.data.table import DataSpec, SampleTable
from folds.errors import UsageError
from folds.metrics.tasks import default_metric, metric_for_task
from folds.predictions.files import PredictionMetadata
from folds.predictions.links import kind_of
from folds.predictions.predictions import Predictions
from folds.utils.arguments import FLAG, FOLDS, NAME, PATH, PROGRESS, check_arguments, whole
from folds.utils.bars import log_in_notebook, progress_of
from folds.utils.progress import Progress
from folds.utils.schema import NUMBER, either, named, optional

logger = logging.getLogger(__name__)

_KINDS = {
    "what": PATH,
    "root": PATH,
    "device": named(either(NAME, whole(0)), "auto, cpu, or the numbers of GPUs"),
    "precision": NAME,
    "progress": PROGRESS,
    "cascade": optional(named(either(NAME, NUMBER), "exact, off, or a loss of the score from 0 to 1")),
    "cost": optional(NAME),
    "fold": optional(named(either(NAME, FOLDS), f"{FOLDS.expected}, or 'all'")),
    **dict.fromkeys(("per_person", "skip_unreadable", "verify", "refit"), FLAG),
    **RULE_KINDS,
}
FOLDER = Path("runs/predict")


def predict(
    what: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    spec: DataSpec | None = None,
    fold: int | Sequence[int] | str | None = None,
    refit: bool = False,
    per_person: bool = False,
    metric: str | None = None,
    device: str | int = "auto",
    precision: str = "auto",
    skip_unreadable: bool = False,
    verify: bool = False,
    threshold: str | Sequence[str] | None = None,
    cost_matrix: str | Path | Mapping[str, Mapping[str, float]] | None = None,
    abstain: float | None = None,
    sets: float | None = None,
    sets_for: str = ANY_IMAGE,
    set_score: str = LAC,
    max_width: float | str | Sequence[str] | Mapping[str, float] | None = None,
    confidence: float = 0.9,
    abstain_label: str = ABSTAIN_LABEL,
    cascade: str | float | None = None,
    cost: str | None = None,
    root: str | Path = ".",
    progress: bool | Progress = True,
) -> PredictedImages:
    """Predict new images with a checkpoint, all folds of a run, a blend or an exported model.

    Each image is decoded once for all models of one input size. On the test images of its training, a blend gives its
    own test predictions. An interrupted call continues where it stopped.

    Parameters
    ----------
    what : path of a checkpoint, name of a run, name, folder or ``blend.toml`` of a blend, or path of an exported model.
    images : a folder, a table (CSV, Parquet), an image, a pattern, or a list of images.
    spec : column names of a table (`folds.data.table.DataSpec`), in place of those of the training; its `data` is
        ignored.
    fold : of a run, the folds whose models predict, or ``"all"`` for its model of all people (``kfold`` with
        ``fold="all"``).
    refit : whether each run of a blend predicts with its model of all people instead of the models of its folds.
    per_person : whether to score people instead of images: the mean of the probabilities of a person's images.
    metric : metric of the score, if the table has labels; None for that of the task, macro F1 of classes.
    device : ``auto`` (all GPUs, else the CPU), ``cpu``, or numbers of GPUs: ``0,1``.
    precision : ``auto``: on a CPU the form of the models in float32 that is fastest here, with probabilities equal to
        1e-5, and on a GPU the format of the training; ``fp32``: as the training computed its predictions; ``bf16``; or
        ``fastest``. A reduced format is taken only if the predicted classes of a sample agree.
    skip_unreadable : whether to leave out images that cannot be used.
    verify : whether to compare with the test predictions that the training wrote, for the images that have one; an
        exported model computes its expected probabilities again. Both in the number format of the predictions; the
        result is `PredictedImages.verification`.
    threshold, cost_matrix, abstain, sets, sets_for, set_score, max_width, confidence, abstain_label : decision rules,
        which are fitted to the out-of-fold predictions of `what`, as `ensemble.decide` does; with `per_person` for
        people.
    cascade : skip models that an image does not need: ``exact`` for those that cannot change its decision, or a number,
        the loss of the nested score that is allowed (see ``docs/cascade.md``); ``off`` to use all models of an exported
        model that has a cascade; None for the cascade of the model, if it has one. Not together with decision rules or
        `per_person`.
    cost : cost of one forward pass of each run, ``swin=3,resnet18=1``, for the order of a cascade; by default their
        multiplications.
    root : the folder that holds ``runs/`` and ``checkpoints/``.
    progress : False for no progress output.

    Raises
    ------
    UsageError : options contradict each other, or `per_person` without a column of persons.
    EnsembleError : nothing of this name exists, a checkpoint was replaced, or images cannot be used.

    Examples
    --------
    >>> import ensemble as en
    >>> en.predict("swin", "new/", root="/nowhere")
    Traceback (most recent call last):
    ...
    folds.errors.EnsembleError: expected a checkpoint, a run, a blend or a model, found 'swin'
    """
    given = dict(locals())
    log_in_notebook()
    check_arguments(given, _KINDS)
    rules = DecisionOptions(**{name: given.pop(name) for name in RULE_KINDS})
    return predict_images(given.pop("what"), given.pop("images"), rules, **given)


def predict_images(
    what: str | Path,
    images: str | Path | Sequence[str | Path],
    rules: DecisionOptions,
    *,
    spec: DataSpec | None = None,
    fold: int | Sequence[int] | str | None = None,
    refit: bool = False,
    per_person: bool = False,
    metric: str | None = None,
    device: str | int = "auto",
    precision: str = "auto",
    skip_unreadable: bool = False,
    verify: bool = False,
    cascade: str | float | None = None,
    cost: str | None = None,
    root: str | Path = ".",
    progress: bool | Progress = True,
    keep_work: bool = False,
    check: Callable[[SampleTable, PredictionSource, AnyDecision | None], None] | None = None,
) -> PredictedImages:
    """Predict as `predict` does, for callers that write the result.

    Parameters
    ----------
    rules : the decision rules; the other parameters are those of `predict`.
    keep_work : whether to keep the predictions of each model until `PredictedImages.clear_work`, so that the same call
        has its result at once if it could not be written.
    check : called with the table, the models and the decision rules before an image is predicted; what it raises
        refuses the table.
    """
    root = Path(root)
    check_cascade_options(cascade, cost)
    folds = [int(fold)] if isinstance(fold, Integral) else fold
    fitted: FittedCascade | None = None
    source = load_source(what, root, folds, refit, with_rows=True, with_heads=True)  # type: ignore[arg-type]
    check_people(source, per_person, cascade)
    metric = metric or default_metric(source.task)
    metric_for_task(metric, source.task)
    check_cascade_alone(source, cascade, rules.are_given, per_person)
    _check_verify(source, cascade, verify)
    if cascade is not None:
        with progress_of(progress).step("fitting the cascade"):
            source, fitted = cascaded(source, root, cascade, cost, metric)
    decision = decision_for(source, root, rules, per_person)
    check_unit(decision, per_person, source.name)
    table = images_table(images, source, spec)
    if per_person and table.persons is None:
        raise UsageError(NO_PERSONS, hint="predict a table with a column of persons")
    check_rows(source, table)
    if check is not None:
        check(table, source, decision)
    of_model = verify_model(source, str(device)) if verify and source.kind == "model" else None
    run = partial(
        predict_table,
        source,
        table,
        work=root / ".ensemble" / "predict",
        device=str(device),
        tolerance=TOLERANCE / 2 if verify else EQUAL,
        root=root,
        skip_unreadable=skip_unreadable,
        keep_work=keep_work,
        progress=progress_of(progress),
    )
    describe = partial(_described, source, table, decision, fitted, root, metric, per_person)
    found = run(precision=precision)
    made = describe(found)
    if not verify:
        return made
    if of_model is not None:
        if not computed_as_trained(source, str(device), found.choices):
            of_model = verify_model(source, str(device), found.choices)
        return replace(made, verification=of_model)
    verified = verify_predictions(source, made.predictions, root, str(device), found.choices)
    if not verified.holds and not verified.is_reduced and not found.exact:
        logger.info(f"the fast form differs by {verified.difference:.1e}: computed again as in the training")
        made.clear_work()
        found = run(precision="fp32")
        made = describe(found)
        verified = verify_predictions(source, made.predictions, root, str(device), found.choices)
    return replace(made, verification=verified)


def _check_verify(source: PredictionSource, cascade: str | float | None, verify: bool) -> None:
    """Raise UsageError if the probabilities of a cascade are to be compared with those of all models."""
    if verify and cascade != OFF and not (cascade is None and source.cascade is None):
        raise UsageError(
            "`verify` compares the probabilities of all models, which a cascade does not use",
            hint="leave out `verify`" + (" or `cascade`" if source.cascade is None else ", or add `cascade=off`"),
        )


def _described(
    source: PredictionSource,
    table: SampleTable,
    decision: AnyDecision | None,
    cascade: FittedCascade | None,
    root: Path,
    metric: str,
    per_person: bool,
    found: Predicted,
) -> PredictedImages:
    """Return predictions with their rows, provenance, decisions and score."""
    kept = table if len(found.kept) == len(table) else table.take(found.kept)
    for_people = source.combination.pooling is not None
    rows = (
        people_rows(kept.rows(), source.classes, "new", source.combination.pooling).rows if for_people else kept.rows()
    )
    metadata = PredictionMetadata(
        kind=kind_of(source.task),
        split="test",
        classes=source.classes,
        rows=rows,
        target=source.target,
        class_attributes=source.class_attributes,
        run=source.name,
        arch="blend" if source.kind in ("blend", "model") else source.models[0].checkpoint.architecture.timm_name,
        decision=None if decision is None else decision.to_dict(),
        formats=found.formats,
        cascade=None if source.cascade is None else source.cascade.to_dict(),
        task=source.task,
        exclusive=source.exclusive,
        label_of=None if for_people else label_of(source),
        unit=PERSON if for_people else None,
    )
    predictions = Predictions(found.probabilities, metadata)
    seen = count_trained_on(source, kept.ids.tolist())
    if seen and source.refit and predictions.labels is not None:
        logger.warning(
            f"{seen:,} of {len(kept):,} images have the id of an image that the models were trained on: no "
            "score is given (rename the ids if they are other images)"
        )
    return PredictedImages(
        predictions,
        source,
        found.unreadable,
        found.passes,
        None if seen and source.refit else score_of(predictions, metric, per_person),
        decision=decision,
        unit=PERSON if for_people else IMAGE,
        cascade=cascade,
        procedure=procedure_score(source, root, metric, per_person) if source.refit else None,
        trained_on=seen,
        formats=found.formats,
        work=found.work,
        paths=kept.paths or (),
        spread=found.spread,
    )
