"""Say for the methods of a paper which models were trained, how, how they predicted, and how they were combined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ensemble.learning.registry import FITTERS
from ensemble.report.evidence.evidence import SOFT_VOTE, RunRecord
from ensemble.report.method import method_runs as records
from ensemble.report.method.column_facts import answers_of
from ensemble.report.method.method_runs import Reader, by_run, listed, sentence, setting, to_state
from ensemble.report.method.method_source import MethodSource
from ensemble.voting.vote import METHODS
from folds.utils.text import counted

MAX_SENTENCES = 4  # about models that differ
# Versions in environment.json that a paper names.
_SOFTWARE = {
    "ensemble": "ensemble",
    "python": "Python",
    "torch": "PyTorch",
    "timm": "timm",
    "torchvision": "torchvision",
    "numpy": "NumPy",
    "scikit-learn": "scikit-learn",
}

_DEVICES = {"cpu": "CPU", "cuda": "GPU (CUDA)"}


@dataclass(frozen=True, eq=False)
class ModelFacts(MethodSource):
    """Sentences about the models and their predictions."""

    def models(self) -> str:
        """Return which models were trained, on inputs of which size, from which weights."""
        if not self.runs:
            return self.unknown or to_state("architecture, input size and initial weights of the models")
        lines = [f"{counted(len(self.runs), 'model was', 'models were')} trained."] if len(self.runs) > 1 else []
        lines += grouped(self.runs, _model_text, "were", "architecture, input size and initial weights")
        targets = [run for run in self.runs if records.target(run)]
        if targets:
            lines.append(
                f"Attributes were predicted by one head each ({by_run(targets, records.target, 'attributes')}); the "
                "probability of a class is the product of those of its values."
            )
        return self._with_unknown(" ".join(lines))

    def _with_unknown(self, text: str) -> str:
        return f"{text} {self.unknown}".strip()

    def preprocessing(self) -> str:
        """Return how images become inputs."""
        if not self.runs:
            return to_state("preprocessing of the images")
        return self._with_unknown(
            sentence("Images were {}.", by_run(self.runs, records.preprocessing, "preprocessing of the images"))
        )

    def initial_weights(self) -> str:
        """Return what the training starts from."""
        if not self.runs:
            return to_state("initial weights")
        return self._with_unknown(
            sentence("Training started from {}.", by_run(self.runs, records.initialization, "initial weights"))
        )

    def training(self) -> str:
        """Return how the models were trained."""
        if not self.runs:
            return to_state("training: epochs, optimizer, learning rate, batch size, loss, augmentation")
        return self._with_unknown(" ".join(grouped(self.runs, _training_text, "were", "settings of the training")))

    def selection(self) -> str:
        """Return how the final weights and the suggested model were chosen."""
        lines = []
        trained = [run for run in self.runs if not records.is_frozen(run)]
        if trained or not self.runs:
            kept = by_run(trained, records.selection, "which epoch was kept") if trained else ""
            lines.append(sentence("The weights were those of {}.", kept or to_state("which epoch was kept")))
        part = self.evidence.oof
        if part is not None and self.member is not None and len(part.members) > 1:
            lines.append(
                f"`{self.member.name}` was one of {len(part.members)} candidates "
                f"{to_state('whether it was chosen before the scores were seen')}."
            )
        lines.append(to_state("how settings were chosen"))
        return " ".join(lines)

    def prediction(self) -> str:
        """Return which models predict an image."""
        lines = []
        if self.evidence.oof is not None and self.evidence.oof.fold is not None:
            lines.append(
                "Each image was predicted by the model that was not trained on its fold, and these out-of-fold "
                "predictions were pooled."
                if self.all_recorded
                else to_state("whether each image was predicted by a model that was not trained on it")
            )
        if self.evidence.test is not None:
            numbers = {len(run.tested) for run in self.runs}
            if not self.all_recorded:
                lines.append(to_state("which models predicted the test images"))
            elif len(numbers) == 1 and min(numbers) > 1:
                lines.append(
                    f"Test images were predicted by the mean {answers_of(self.evidence.task)} of the models of "
                    f"{min(numbers)} folds."
                )
            elif numbers == {1}:
                lines.append("Test images were predicted by the model of one fold.")
            else:
                lines.append(to_state("which models predicted the test images"))
        if self.member is not None and self.member.kind == "tta":
            lines.append(f"Test-time augmentation: `{self.member.name}`, the mean over several views of each image.")
        if (pooled := self.evidence.pooled) is not None:
            how = "chosen by its nested score" if pooled.chosen else to_state("why this rule was chosen")
            lines.append(
                f"The predictions of the images of each person by a model were pooled by the rule `{pooled.rule}`, "
                f"{how}; what followed was fitted and scored for people."
            )
        return " ".join(lines)

    def ensembling(self) -> str:
        """Return how predictions of several models were combined, and how that was scored."""
        member = self.member
        if member is None:
            return ""
        if member.kind != "blend":
            return (
                "Different models were not combined."
                if self.all_recorded
                else to_state("whether predictions of several models were combined")
            )
        if member.name == SOFT_VOTE:
            what = answers_of(self.evidence.task)
            return f"The models were combined by the mean of their {what}, without fitting anything."
        if self.blend is None:
            return f"`{member.name}` combines several models {to_state('how')}."
        weights = ", ".join(f"`{name}` {weight:.3f}" for name, weight in list(self.weights.items())[:12])
        fitted = self.blend.get("fitted")
        if not isinstance(fitted, Mapping):
            method = records.text(self.blend.get("method"))
            given = weights or to_state("weights")
            return f"The models were combined by {_title(method, {})}, weights {given}; nothing was fitted."
        chosen, parts = records.text(fitted.get("chosen")), fitted.get("parts")
        lines = [
            f"The models were combined by {_title(chosen, fitted)}" + (f" (weights: {weights})." if weights else ".")
        ]
        nested = f"the people of each of {parts} outer folds" if type(parts) is int else "people"
        lines.append(
            "This was fitted to the out-of-fold predictions and scored by nested cross-validation: "
            f"{nested} were predicted by a fit without them."
        )
        again = fitted.get("chosen_without_each_part")
        if isinstance(again, list) and again:
            lines.append("The method was chosen by its nested score; this choice was repeated without each outer fold.")
        return " ".join(lines)

    def software(self) -> str:
        """Return versions and hardware."""
        environments = [run.environment for run in self.runs]
        if not any(environments):
            return to_state("software and its versions, hardware")
        found = []
        for key, name in _SOFTWARE.items():
            versions = sorted({str(one[key]) for one in environments if records.text(one.get(key))})
            found += [f"{name} {' and '.join(versions)}"] if versions else []
        devices = by_run(self.runs, lambda run: records.text(records.resolved(run).get("device")), "hardware")
        verb = "was" if len(found) == 1 and " and " not in found[0] else "were"
        used = f"{listed(found, 12)} {verb} used." if found else to_state("software and its versions")
        return f"{used} {sentence('Device: {}.', _DEVICES.get(devices, devices))}"


def grouped(runs: Sequence[RunRecord], describe: Callable[[RunRecord], str], verb: str, what: str) -> list[str]:
    """Return a sentence for the runs of each description, whose first word is `was`; if there are more than
    `MAX_SENTENCES`, one that refers to the table of the settings.
    """
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(describe(run), []).append(f"`{run.name}`")
    if len(found) > MAX_SENTENCES:
        return [f"The models differ in their {what} (table of the settings)."]
    return [
        f"{listed(names, 12)} {verb if len(names) > 1 else 'was'} {words.removeprefix('was ')}"
        for words, names in found.items()
    ]


def _value(run: RunRecord, read: Reader, what: str) -> str:
    return read(run) or to_state(what)


def _model_text(run: RunRecord) -> str:
    if records.model(run) is None:
        return f"was a model of {to_state('architecture, input size and initial weights')}."
    size = _value(run, records.size, "input size")
    return (
        f"was timm's {_value(run, records.model, 'architecture')}, with inputs of {size} pixels, initialized with "
        f"{_value(run, records.initialization, 'initial weights')}."
    )


def _training_text(run: RunRecord) -> str:
    if records.is_frozen(run):
        views = _value(run, setting("feature_views"), "views of a training image")
        return (
            f"was not trained as a whole: {_value(run, records.head, 'head')} was fitted to features of the training "
            f"images (views {views})."
        )
    if not any(read(run) for read in (setting("epochs"), setting("lr"), records.optimizer, records.loss)):
        return f"was trained with {to_state('settings of the training')}."
    epochs = _value(run, setting("epochs"), "epochs")
    rate, decay = _value(run, setting("lr"), "learning rate"), _value(run, setting("weight_decay"), "weight decay")
    batch, seed = _value(run, setting("batch_size"), "batch size"), _value(run, setting("seed"), "seed")
    parts = (
        f"was trained for {epochs} epoch{'' if epochs == '1' else 's'} with "
        f"{_value(run, records.optimizer, 'optimizer')} (peak learning rate {rate}, weight decay {decay}, "
        f"batches of {batch} images, learning rate schedule: {_value(run, records.schedule, 'schedule')})",
        f"loss: {_value(run, records.loss, 'loss')}",
        f"augmentation: {_value(run, records.augmentation, 'augmentation')}",
        _value(run, records.precision, "number format"),
        f"seed {seed}",
        *records.further(run),
    )
    return f"{'; '.join(parts)}."


def _title(method: str | None, fitted: Mapping[str, Any]) -> str:
    methods = fitted.get("methods")
    for one in methods if isinstance(methods, list) else ():
        if isinstance(one, Mapping) and one.get("method") == method and records.text(one.get("title")):
            return str(one["title"])
    if method is not None and (method in FITTERS or method in METHODS):
        return FITTERS[method].title if method in FITTERS else METHODS[method].title
    return to_state("the method") if method is None else method


def balance_text(facts: MethodSource) -> str:
    """Return what was done about classes of different sizes."""
    found = {words: None for run in facts.runs for words in records.balances(run)}
    if found:
        return f"{'; '.join(found)}."
    recorded = facts.runs and all(records.text(run.config.get("sampler")) and records.loss(run) for run in facts.runs)
    return (
        "Classes were not weighted or sampled differently." if recorded else to_state("whether classes were balanced")
    )
