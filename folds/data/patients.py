"""Take the person of DICOM files from their PatientID, where nothing else says whose image a file is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from folds.data.image_paths import DICOM_SUFFIXES
from folds.errors import EnsembleError, combine_errors
from folds.images.content_index import UnreadableImageError, open_regular
from folds.images.stacks import stack_parts
from folds.utils.parallel import map_threads

_LARGE = 0.5  # share of the images of one PatientID that is reported, of three images or more
_HINT = "name the person of each image: `person=COLUMN` of a table, or `person_regex`"


def are_dicom(names: Sequence[str]) -> bool:
    """Return whether all names of files are those of DICOM; False without names."""
    return bool(names) and all(f".{name.rpartition('.')[2].lower()}" in DICOM_SUFFIXES for name in names)


def patients_of(paths: Sequence[Path], locations: Sequence[str], source: str) -> tuple[list[str], list[str], list[str]]:
    """Return the PatientID of each file ("" where it is missing), a note that says so, and warnings.

    Parameters
    ----------
    locations : of the files in a table, for messages.

    Raises
    ------
    EnsembleError : files cannot be read; no file has a PatientID, or all have the same one.
    """
    from folds.images.dicom import patient_id  # here, because it decodes images

    def one(at: int) -> str | UnreadableImageError:
        try:
            with open_regular(stack_parts(paths[at])[0]) as file:
                return patient_id(file)
        except UnreadableImageError as problem:
            return problem

    found = map_threads(one, len(paths), None, None)
    bad = [f"{locations[at]}: {one.reason}" for at, one in enumerate(found) if isinstance(one, UnreadableImageError)]
    if bad:
        raise combine_errors(
            bad, f"of {len(paths):,} DICOM files of {source} have no PatientID that can be read", _HINT
        )
    patients = [one for one in found if isinstance(one, str)]
    counts = Counter(one for one in patients if one)
    if len(counts) < 2:
        what = "is missing in" if not counts else "is the same in"
        raise EnsembleError(
            f"the person of the images of {source} is unknown: PatientID {what} all {len(patients):,} DICOM files"
            f"{', as after a de-identification' if counts else ''}",
            hint=_HINT,
        )
    note = (
        f"{source}: the person of each image is the PatientID of its DICOM file (guessed; {len(counts):,} people, "
        f"{len(patients):,} images): `person` or `person_regex` name another"
    )
    most = max(counts.values())
    warnings = []
    if most > max(2, _LARGE * len(patients)):
        warnings.append(
            f"{most:,} of {len(patients):,} DICOM files of {source} have the same PatientID: it may be that of a "
            "de-identification, and not of one person"
        )
    return patients, [note], warnings
