"""An audit as one function call, and what `strict` makes of warnings."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folds.auditing.checks import Finding, Occurrence
from folds.auditing.run import audit, audit_decoded, check_strict, load_audited, log_findings
from folds.data.readers import read_data
from folds.data.table import DataSpec
from folds.errors import EnsembleError, UsageError
from folds.images.cache import load_images
from folds.images.duplicates import SIDE
from folds.images.settings import ImageSettings
from folds.splits.kfold import save_folds, split_by_person
from tests.conftest import Logged
from tests.folds.utils.test_progress import Steps

WARNING = Finding(
    "kind", "warning", 2, "pair", "2 pairs are wrong", (Occurrence(detail="this"), Occurrence(detail="that"))
)
NOTE = Finding("altered copies", "note", 9, "image", "altered copies were not looked for among 9 images")


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataSpec:
    """Ten people with two images each; the image of the first person stands under the second, too."""
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    lines = ["path,person,label"]
    for at in range(20):
        coarse = random.integers(0, 255, (6, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((64, 64)).save(tmp_path / f"data/{at}.png")
        lines.append(f"{at}.png,p{at // 2},{'ab'[at % 2]}")
    shutil.copy(tmp_path / "data/0.png", tmp_path / "data/2.png")
    (tmp_path / "data/index.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return DataSpec(tmp_path / "data")


def kinds(findings: list[Finding] | tuple[Finding, ...]) -> set[str]:
    return {finding.kind for finding in findings if finding.severity != "note"}


def test_audit_returns_json_values_and_decodes_into_root(spec: DataSpec, tmp_path: Path) -> None:
    data, assignment = load_audited(spec, None)
    assert assignment is None
    steps = Steps()
    report = audit(data, k=2, root=tmp_path / "here", progress=steps)
    assert kinds(report.findings) == {"identical images, different people"}
    assert report.serious() == []
    assert kinds(tuple(report.serious(strict=True))) == kinds(report.findings)
    record = report.to_dict()
    assert (record["samples"], record["people"], record["folds"], record["counts"]["warning"]) == (20, 10, None, 1)
    assert steps.titles == ["decoding images"]
    assert list((tmp_path / "here/.ensemble/images").glob("*.npy"))
    assert list(Path().iterdir()) == []


def test_errors_come_first_and_other_images_are_audited(spec: DataSpec, tmp_path: Path) -> None:
    (tmp_path / "data/7.png").write_bytes(b"no image")
    report = audit(load_audited(spec, None)[0], k=2, root=tmp_path)
    assert [finding.severity for finding in report.findings][:2] == ["error", "warning"]
    assert [finding.kind for finding in report.serious()] == ["unusable images"]
    assert report.write_sheet(tmp_path / "sheet.png") == 1
    assert (tmp_path / "sheet.png").is_file()


def test_without_images_the_table_alone_is_audited(spec: DataSpec, tmp_path: Path) -> None:
    report = audit(load_audited(spec, None)[0], k=2, images=False, root=tmp_path)
    assert kinds(report.findings) == set()
    assert not (tmp_path / ".ensemble").exists()


def test_a_split_is_audited_by_itself(spec: DataSpec, tmp_path: Path, logged: Logged) -> None:
    split = split_by_person(read_data(spec).train, 2)
    save_folds(tmp_path / "folds.csv", split)
    data, assignment = load_audited(None, tmp_path / "folds.csv")
    assert assignment is not None
    assert audit(data, assignment, folds=tmp_path / "folds.csv").to_dict()["folds"] == str(tmp_path / "folds.csv")
    assert any("only the split is checked" in line for line in logged.notes)
    assert any("only its table is checked" in line for line in logged.notes)
    with pytest.raises(UsageError, match="expected a split or data"):
        load_audited(None, None)


def test_before_a_training_warnings_alone_are_kept(spec: DataSpec, tmp_path: Path) -> None:
    data = read_data(spec)
    images = load_images(data.train.paths or (), ImageSettings(SIDE, SIDE), cache_dir=tmp_path / "cache")
    found = audit_decoded(data, images, None, split_by_person(data.train, 2).fold)
    assert [finding.kind for finding in found] == ["identical images, different people"]


def test_strict_counts_lines_and_findings_and_lets_notes_pass() -> None:
    check_strict([], [NOTE])
    with pytest.raises(
        EnsembleError, match=r"^1 warning about the data or the folds, an error with strict=True"
    ) as one:
        check_strict([], [WARNING, NOTE])
    assert one.value.details == ("2 pairs are wrong", "  this", "  that")
    with pytest.raises(
        EnsembleError, match=r"^2 warnings about the data and the folds, errors with strict=True"
    ) as two:
        check_strict(["fold 0 lacks class a"], [WARNING])
    assert two.value.details[0] == "fold 0 lacks class a"


def test_findings_are_logged_with_their_cases(logged: Logged) -> None:
    log_findings([WARNING, NOTE])
    assert logged.warnings == ["2 pairs are wrong\n  this\n  that"]
    assert logged.notes == [f"{NOTE.message}; ensemble folds check searches for them"]
