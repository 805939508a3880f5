"""Define the settings of a command besides the recipe: table, folds, models and names of runs, each described once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from folds.config.presets import PRESETS
from folds.config.setting import DATA, FOLDS, MODEL, RUN, TRAINING, setting
from folds.metrics.task_names import UNCERTAIN


@dataclass(frozen=True)
class Settings:
    """The settings of `ensemble kfold` besides the recipe; None if not given."""

    data: Path | None = setting(
        None,
        "a CSV, class folders, or the mask-competition layout",
        DATA,
        shown="./data, else synthetic faces",
        metavar="PATH",
    )
    test: Path | None = setting(
        None, "further images to predict: a CSV or a folder, with or without labels", DATA, metavar="PATH"
    )
    path: str = setting(
        "path", "CSV column of the image path", DATA, shown="path, a known name, or the id", metavar="COL"
    )
    label: str = setting(
        "label",
        "CSV column of the class; A,B,C: one-hot columns, several labels or numbers",
        DATA,
        shown="label, or a known name: target, class, dx",
        metavar="COL",
    )
    person: str = setting(
        "person",
        "CSV column of the person (group): its images are never split over folds; auto-copies: groups of copies",
        DATA,
        aliases=("group",),
        shown="person, or a known name: patient_id, subject",
        metavar="COL",
    )
    id: str | None = setting(
        None, "CSV column of the sample id", DATA, shown="id, or a known name: image_id; else the path", metavar="COL"
    )
    split: str | None = setting(None, "CSV column whose value 'test' holds a row out of the folds", DATA, metavar="COL")
    images: tuple[str, ...] | None = setting(
        None,
        "folder of the images that a CSV names; suffixes may be missing there",
        DATA,
        shown="the CSV's own",
        metavar="DIR[,DIR]",
    )
    test_images: tuple[str, ...] | None = setting(
        None, "the same for the images of the test table", DATA, shown="as for images", metavar="DIR[,DIR]"
    )
    stack: tuple[str, ...] | None = setting(
        None,
        "CSV columns of the files of one sample, each of which is one channel, e.g. t1,t2,flair; in place of path",
        DATA,
        metavar="COL,COL[,…]",
    )
    test_labels: bool | None = setting(
        None,
        "whether the labels of the test table are labels, not the placeholder of a sample submission",
        DATA,
        shown="yes, unless all are equal",
    )
    missing_persons: str | None = setting(
        None,
        "images whose person is empty, unknown, -1, …: own (each is its own person) or keep (a person of that name)",
        DATA,
        shown="an error",
        metavar="HOW",
        choices=("own", "keep"),
    )
    label_of: str | None = setting(
        None,
        "person: only persons are labeled; every image takes the label of its person, and scores are by person",
        DATA,
        shown="image",
        metavar="person",
        choices=("person",),
    )
    uncertain: str | None = setting(
        None,
        "what -1, an uncertain one of several labels, is read as: unknown (an empty cell), absent (0) or present (1)",
        DATA,
        shown="an error",
        metavar="HOW",
        choices=UNCERTAIN,
    )
    merge_spellings: bool | None = setting(
        None, "treat spellings of one name (12 and 12.0, Cat and cat) as one person, one class", DATA, shown="no"
    )
    skip_unusable: bool | None = setting(
        None, "leave out images that cannot be decoded, and name them", DATA, shown="no: an error"
    )
    max_pixels: int | None = setting(
        None,
        "largest image that is decoded; a larger one counts as a decompression bomb",
        DATA,
        shown="178956970",
        metavar="N",
        minimum=1,
        unit="pixels",
    )
    person_regex: str | None = setting(
        None,
        "regular expression that finds the person in the image path",
        DATA,
        aliases=("group_regex",),
        metavar="REGEX",
    )
    k: int = setting(
        5,
        "number of folds",
        FOLDS,
        short="-k",
        minimum=2,
        hint="one fold leaves no validation data; `holdout=.2` trains one model",
    )
    folds: Path | None = setting(
        None,
        "use this split, e.g. of ensemble folds -o FILE",
        FOLDS,
        shown="kfold: ./folds.csv, if it fits the table and k",
        metavar="FILE",
    )
    fold_column: str | None = setting(
        None, "use the folds in this column of the table, 0 to k-1 or 1 to k", FOLDS, metavar="COL"
    )
    holdout: float | None = setting(
        None,
        "one model: hold out this share of the persons instead of k folds",
        FOLDS,
        metavar="SHARE",
        above=0,
        below=1,
    )
    stratify: tuple[str, ...] = setting(
        (),
        "balance these columns over the folds too, e.g. gender,source; the label always is",
        FOLDS,
        metavar="COL[,COL]",
    )
    group_within: str | None = setting(
        None,
        "balance this column (site, camera) over the folds too; persons stay whole",
        FOLDS,
        metavar="COL",
    )
    leave_out: str | None = setting(
        None,
        "one fold for each value of this column (site, camera): what a new one would see; persons stay whole",
        FOLDS,
        metavar="COL",
    )
    repeats: int = setting(
        1,
        "independent splits into k folds, one run each: NAME, NAME-r1, …",
        FOLDS,
        metavar="R",
        minimum=1,
        maximum=1000,
    )
    repair: bool = setting(True, "move persons where scikit-learn's split lacks a class or is unbalanced", FOLDS)
    seeds: int = setting(
        1,
        "training seeds on the same folds, one run each: NAME, NAME-s1, …",
        FOLDS,
        metavar="N",
        minimum=1,
        maximum=1000,
    )
    arch: tuple[str, ...] = setting(
        ("swin",), "models, by short name or timm id: swin,resnet18", MODEL, metavar="A[,B]"
    )
    name: str | None = setting(None, "name of the run", RUN, shown="the architecture")
    preset: str | None = setting(
        None,
        "how much time a training may take: quick, good or best; it decides settings that you do not give",
        TRAINING,
        choices=tuple(PRESETS),
    )
