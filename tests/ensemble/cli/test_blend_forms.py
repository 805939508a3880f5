"""`ensemble blend` with files of other programs: what is read is stated, what is doubtful is asked or warned of."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ensemble.blending.face import blend
from folds.errors import EnsembleError, UsageError
from tests.conftest import ROOT

Call = Callable[..., Any]
N = 60
RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 2, N)
IDS = [f"im{i}" for i in range(N)]


def draw(seed: int, classes: int = 2) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(N, classes)) + 2 * np.eye(classes)[TRUTH]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def accuracy(probabilities: np.ndarray) -> float:
    return float((probabilities.argmax(1) == TRUTH).mean())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    table = {"image_name": IDS, "patient_id": [f"p{i // 3}" for i in range(N)], "sex": "f", "target": TRUTH}
    pd.DataFrame(table).to_csv("train.csv", index=False)
    return tmp_path


def written(split: str = "oof") -> np.ndarray:
    return np.load(next(Path("runs/blends").glob("*")) / f"{split}.npy")


def test_submissions_of_one_probability_are_averaged(folder: Path, call: Call) -> None:
    for seed in (1, 2):
        order = np.random.default_rng(seed).permutation(N)
        column = draw(seed)[order, 1]
        pd.DataFrame({"image_name": np.array(IDS)[order], "target": column}).to_csv(f"sub{seed}.csv", index=False)
    done = call("blend", "sub1.csv", "sub2.csv", "--csv", "out.csv")
    assert done.code == 0, done.err
    assert "probability of the positive class = target" in done.out
    assert "probability of class 1 against 0" in done.out
    mean = dict(zip(pd.read_csv("sub1.csv").image_name, written("test")[:, 1], strict=True))
    expected = dict(zip(IDS, ((draw(1) + draw(2)) / 2)[:, 1], strict=True))
    assert mean == pytest.approx(expected, abs=1e-6)


def test_truth_beside_predictions_scores_them(folder: Path, call: Call) -> None:
    answers = np.where(np.arange(N) % 3 == 0, 1 - TRUTH, TRUTH)
    pd.DataFrame({"id": IDS, "label": TRUTH, "prediction": answers}).to_csv("oof.csv", index=False)
    record = json.loads(call("blend", "oof.csv", "--method", "hard", "--json").out)
    assert record["blend"]["oof"]["score"]["accuracy"] == pytest.approx(2 / 3)
    assert "answers = prediction, label = label; the predictions vote, the labels score them" in record["notes"][0]


def test_the_table_of_the_competition_is_the_labels(folder: Path, call: Call) -> None:
    np.save("m.npy", draw(1))
    done = call("blend", "m.npy", "--labels", "train.csv", "--json")
    record = json.loads(done.out)
    score = record["blend"]["oof"]["score"]
    assert (score["people"], score["accuracy"]) == (20, pytest.approx(accuracy(draw(1))))
    assert "labels train.csv: id = image_name, label = target, person = patient_id; not used: sex" in record["notes"]
    unknown = call("blend", "m.npy", "--labels", "train.csv", "--label", "taget")
    assert (unknown.code, "--label taget: no table has a column 'taget'; did you mean 'target'" in unknown.err) == (
        2,
        True,
    )


def test_weights_of_oof_arrays_go_to_the_test_arrays(folder: Path, call: Call) -> None:
    Path("t.txt").write_text("\n".join(f"t{i}" for i in range(20)))
    for seed, name in enumerate("ab"):
        np.save(f"{name}.oof.npy", draw(seed + 1))
        np.save(f"{name}.test.npy", draw(seed + 5)[:20])
    files = [f"{name}.{split}.npy" for name in "ab" for split in ("oof", "test")]
    done = call("blend", *files, "--labels", "train.csv", "--ids", "t.txt", "--method", "greedy", "--json")
    record = json.loads(done.out)
    mean = record["weights"]["a"] * draw(5)[:20] + record["weights"]["b"] * draw(6)[:20]
    np.testing.assert_allclose(written("test"), mean, atol=1e-6)
    sidecar = json.loads((Path(record["folder"]) / "test.json").read_text())
    assert "rows in the order of t.txt" in str(record["notes"])
    assert sidecar["split"] == "test"


def test_check_says_how_files_are_read_and_writes_nothing(folder: Path, call: Call) -> None:
    pd.DataFrame({"id": IDS, "p_0": draw(1)[:, 0], "p_1": draw(1)[:, 1]}).to_csv("a.csv", index=False)
    np.save("b.npy", draw(2)[:, 1])
    before = sorted(folder.rglob("*"))
    done = call("blend", "a.csv", "b.npy", "--check")
    assert done.code == 0, done.err
    assert "would blend: test: soft of a, b over 60 rows and 2 classes (0, 1), not scored (no labels)" in done.out
    record = json.loads(call("blend", "a.csv", "b.npy", "--check", "--json").out)
    table, array = record["files"]
    assert (table["form"], table["ids"], table["classes"], table["split"]) == (
        "probabilities",
        "id",
        ["0", "1"],
        "test",
    )
    assert (array["form"], array["order"]) == ("array of one column: probabilities", "a.csv")
    np.save("c.npy", draw(3)[:40])
    refused = call("blend", "a.csv", "c.npy", "--check", "--json")
    assert refused.code == 1
    assert "c.npy has 40 rows" in json.loads(refused.out)["error"]
    assert [one["rows"] for one in json.loads(refused.out)["files"]] == [60, 40]
    assert sorted(folder.rglob("*")) == sorted([*before, folder / "c.npy"])


def test_doubts_are_warnings_and_part_of_the_record(folder: Path, call: Call) -> None:
    np.save("a.npy", draw(1))
    np.save("b.npy", draw(2)[::-1])
    done = call("blend", "a.npy", "b.npy", "--labels", "train.csv", "--json")
    (warning,) = json.loads(done.out)["warnings"]
    assert "if its rows were in the order of the reversed ids" in warning
    assert f"warning: {warning.split(';')[0]}" in done.err


def test_python_reads_the_same(folder: Path) -> None:
    np.save("flat.npy", draw(1)[:, 1])
    by_file = blend("flat.npy", labels="train.csv", progress=False)
    by_array = blend({"flat": draw(1)[:, 1]}, y=TRUTH, progress=False)
    wide = blend({"flat": draw(1)}, y=TRUTH, progress=False)
    for made in (by_file, by_array, wide):
        assert made.oof is not None
        np.testing.assert_allclose(made.oof.probabilities, draw(1), atol=1e-6)
    names = np.array(["well", "ill"])[TRUTH]
    with pytest.raises(UsageError, match="unknown which of ill and well"):
        blend({"flat": draw(1)[:, 1]}, y=names, progress=False)
    named = blend({"flat": draw(1)[:, 1:]}, y=names, classes=["well", "ill"], progress=False)
    assert named.oof is not None
    np.testing.assert_allclose(named.oof.probabilities, draw(1), atol=1e-6)
    with pytest.raises(UsageError, match="found one column and 0 classes"):
        blend({"ones": np.ones((N, 1))}, progress=False)
    by_name = blend("flat.npy", labels="train.csv", columns={"label": "sex", "id": "image_name"}, classes=["m", "f"])
    assert "label = sex" in by_name.notes[0]


def fuzz() -> ModuleType:
    """Return the benchmark that draws members."""
    spec = importlib.util.spec_from_file_location("fuzz_members", ROOT / "benchmarks" / "fuzz_members.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["fuzz_members"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


def test_drawn_members_are_right_refused_or_doubted() -> None:
    run = fuzz().run
    found = {seed: run(seed) for seed in range(60)}
    counts = Counter(outcome for outcome, _ in found.values())
    assert {seed: text for seed, (outcome, text) in found.items() if outcome == "wrong"} == {}
    assert counts["equal"] > 20
    assert counts["refused"] > 5
    assert counts["warned"] > 2


def test_folds_of_labels_are_refused_because_they_are_not_used(folder: Path, call: Call) -> None:
    pd.DataFrame({"id": IDS, "p_0": draw(1)[:, 0], "p_1": draw(1)[:, 1]}).to_csv("a.csv", index=False)
    pd.read_csv("train.csv").assign(part=[i % 3 for i in range(N)]).to_csv("folds.csv", index=False)
    called = call("blend", "a.csv", "--labels", "folds.csv", "--fold-column", "part")
    assert called.code == 2
    assert "--fold-column part: only folds.csv has this column, and the folds of labels are not used" in called.err


def test_the_csv_of_a_blend_is_like_the_sample_submission(folder: Path, call: Call) -> None:
    for seed in (1, 2):
        pd.DataFrame({"id": IDS, "prob_0": draw(seed)[:, 0], "prob_1": draw(seed)[:, 1]}).to_csv(
            f"m{seed}.csv", index=False
        )
    order = np.random.default_rng(0).permutation(N)[:50]
    pd.DataFrame({"image_name": [f"{IDS[i]}.jpg" for i in order], "target": 0.5}).to_csv("sample.csv", index=False)
    done = call("blend", "m1.csv", "m2.csv", "--csv", "out.csv", "--like", "sample.csv")
    assert done.code == 0, done.err
    made = pd.read_csv("out.csv")
    assert list(made.columns) == ["image_name", "target"]
    assert made.image_name.tolist() == [f"{IDS[i]}.jpg" for i in order]
    assert made.target.to_numpy() == pytest.approx(((draw(1) + draw(2)) / 2)[order, 1], abs=1e-6)
    assert "the other 10 of 60 predicted samples are not in the CSV" in done.err
    assert call("blend", "m1.csv", "--csv", "p.csv", "--form", "probabilities", "--columns", "ImageId,a,b").code == 0
    assert pd.read_csv("p.csv")["b"].to_numpy() == pytest.approx(draw(1)[:, 1], abs=1e-6)
    assert call("blend", "m1.csv", "--like", "sample.csv").err.startswith("error: --form, --columns and --like")


def test_a_csv_of_numbered_rows_is_doubted_and_ids_name_them(folder: Path, call: Call) -> None:
    np.save("a.test.npy", draw(1))
    done = call("blend", "a.test.npy", "--csv", "out.csv")
    assert "warning: no file names the samples: the ids of the CSV are the numbers of the rows, from 0" in done.err
    assert "--ids FILE" in done.err
    pd.DataFrame({"id": range(N), "target": 0}).to_csv("sample.csv", index=False)
    refused = call("blend", "a.test.npy", "--csv", "like.csv", "--like", "sample.csv")
    assert (refused.code, Path("like.csv").exists()) == (2, False)
    named = call("blend", "a.test.npy", "--ids", "sample.csv", "--csv", "like.csv", "--like", "sample.csv")
    assert (named.code, "numbers of the rows" in named.err) == (0, False)
    assert pd.read_csv("like.csv").target.tolist() == draw(1).argmax(1).tolist()


def test_python_names_the_key_of_a_column(folder: Path) -> None:
    table = {"file": IDS, "image_name": IDS, "prob_0": draw(1)[:, 0], "prob_1": draw(1)[:, 1]}
    pd.DataFrame(table).to_csv("m.csv", index=False)
    with pytest.raises(EnsembleError) as error:
        blend("m.csv", progress=False)
    assert "columns={'id': 'file'}" in error.value.lines()[-1]
    assert blend("m.csv", columns={"id": "file"}, progress=False).test is not None


@pytest.mark.parametrize(
    ("cell", "said", "row"),
    [("0,5", "the probability of class 1 (--form label: the class)", "b,0.75"), ("0", "the predicted class (", "b,1")],
)
def test_what_a_sample_of_one_column_gets_is_printed(folder: Path, call: Call, cell: str, said: str, row: str) -> None:
    for name, (low, high) in {"p1": (0.2, 0.8), "p2": (0.3, 0.7)}.items():
        Path(f"{name}.csv").write_text(f"id,target\na,{low}\nb,{high}\n")
    Path("like.csv").write_text(f"id;target\na;{cell}\nb;{cell}\n")
    done = call("blend", "p1.csv", "p2.csv", "--csv", "out.csv", "--like", "like.csv")
    assert f"like.csv: column 'target' gets {said}" in done.err
    assert Path("out.csv").read_text().splitlines()[2] == row


def test_one_name_for_labels_and_probabilities(folder: Path, call: Call) -> None:
    for seed in (1, 2):
        pd.DataFrame({"id": IDS, "risk": draw(seed)[:, 1]}).to_csv(f"r_{seed}.csv", index=False)
    pd.DataFrame({"id": IDS, "risk": TRUTH}).to_csv("t01.csv", index=False)
    words = ["blend", "r_1.csv", "r_2.csv", "--labels", "t01.csv", "--label", "risk", "--json"]
    done = call(*words)
    assert done.code == 0, done.err
    expected = accuracy((draw(1) + draw(2)) / 2)
    assert json.loads(done.out)["blend"]["oof"]["score"]["accuracy"] == pytest.approx(expected)
    refused = call("blend", "r_1.csv", "r_2.csv", "--labels", "t01.csv", "--label", "risk", "--prediction", "risk")
    assert refused.code == 1
    assert "if these are probabilities, --probabilities COLUMN" in refused.err


def test_missing_coefficients_are_written_again(folder: Path, call: Call) -> None:
    truth = np.arange(240) % 60
    for seed in (1, 2):
        logits = np.random.default_rng(seed).normal(size=(240, 60)) + 3 * np.eye(60)[truth]
        np.save(f"m{seed}.npy", np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    names = [f"c{i:02}" for i in range(60)]
    table = {"id": range(240), "label": [names[i] for i in truth], "person": np.arange(240) // 2}
    pd.DataFrame(table).to_csv("y.csv", index=False)
    words = ["blend", "m1.npy", "m2.npy", "--labels", "y.csv", "--method", "stacking", "-o", "s"]
    done = call(*words)
    assert done.code == 0, done.err
    assert "holds this blend already" in call(*words).err
    for name in ("blend.npy.gz", "blend.toml"):
        path = Path("runs/blends/s", name)
        before = path.read_bytes()
        path.unlink()
        assert "s is written" in call(*words).err
        assert path.read_bytes() == before
    Path("runs/blends/s/blend.npy.gz").write_bytes(b"damaged")
    assert "s is written" in call(*words).err
    assert "holds this blend already" in call(*words).err
