"""`ensemble blend` as it is typed: what it prints where, what it writes, how it leaves."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ensemble.cli.commands.blend import _may_be_mirrored
from folds.predictions.files import PredictionMetadata, SampleRows, read_sidecar, write_prediction

CLASSES = ("cat", "dog", "emu")
K = 3


def draw(labels: NDArray, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(labels), 3)) + 1.2 * np.eye(3)[labels]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which swin and resnet18 have been trained on three folds of 60 images of 20 people, and tested on
    12.
    """
    monkeypatch.chdir(tmp_path)
    person = np.arange(60) // 3
    labels, test_labels = np.random.default_rng(0).integers(0, 3, 60), np.random.default_rng(1).integers(0, 3, 12)
    names = np.array(CLASSES)
    rows = SampleRows(np.array([f"im{i}" for i in range(60)]), names[labels], np.array([f"p{p}" for p in person]))
    test = SampleRows(np.array([f"t{i}" for i in range(12)]), names[test_labels])
    for seed, run in enumerate(("swin", "resnet18")):
        sidecar = PredictionMetadata("probability", "oof", CLASSES, rows, fold=person % K, run=run, folds_sha="f" * 64)
        write_prediction(tmp_path / "runs" / f"{run}.oof.npy", draw(labels, seed), sidecar, rows)
        for fold in range(K):
            sidecar = PredictionMetadata("probability", "test", CLASSES, test, fold=fold, run=run, folds_sha="f" * 64)
            write_prediction(
                tmp_path / "runs" / f"{run}.fold{fold}.test.npy", draw(test_labels, 10 * seed + fold + 5), sidecar, test
            )
    return tmp_path / "runs"


def arrays(runs: Path, pattern: str) -> list[NDArray]:
    return [np.load(path).astype(float) for path in sorted(runs.glob(pattern))]


def ensemble(folder: Path, *words: object, python: str = "") -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ENSEMBLE_")} | {
        "OMP_NUM_THREADS": "1"
    }
    command = [sys.executable, *(["-c", python] if python else ["-m", "ensemble.cli"]), *map(str, words)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


Call = Callable[..., Any]


def test_a_soft_blend_is_the_mean_and_scikit_learn_agrees(runs: Path, call: Call) -> None:
    from sklearn.metrics import accuracy_score, f1_score

    done = call("blend", *sorted(runs.glob("*.npy")), "--method", "soft", "-o", "both", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    oof, test = np.load(runs / "blends" / "both" / "oof.npy"), np.load(runs / "blends" / "both" / "test.npy")
    np.testing.assert_allclose(oof, np.mean(arrays(runs, "*.oof.npy"), axis=0), atol=1e-6)
    np.testing.assert_allclose(test, np.mean(arrays(runs, "*.test.npy"), axis=0), atol=1e-6)
    for split, values in (("oof", oof), ("test", test)):
        sidecar = read_sidecar(runs / "blends" / "both" / f"{split}.npy")
        assert sidecar is not None
        assert (sidecar.classes, sidecar.split, sidecar.run) == (CLASSES, split, "both")
        assert sidecar.rows.labels is not None
        predicted = np.array(CLASSES)[values.argmax(1)]
        score = record["blend"][split]["score"]
        assert score["macro_f1"]["score"] == pytest.approx(f1_score(sidecar.rows.labels, predicted, average="macro"))
        assert score["accuracy"] == pytest.approx(accuracy_score(sidecar.rows.labels, predicted))
        assert score["macro_f1"]["low"] <= score["macro_f1"]["score"] <= score["macro_f1"]["high"]
    assert record["blend"]["oof"]["score"]["people"] == 20
    assert [run["run"] for run in record["runs"]] == ["resnet18", "swin"]
    assert all(run["oof"]["folds"] == run["test"]["folds"] == [0, 1, 2] for run in record["runs"])


def test_the_same_blend_again_prints_the_same_and_writes_nothing(runs: Path) -> None:
    first = ensemble(runs.parent, "blend", *sorted(path.relative_to(runs.parent) for path in runs.glob("*.npy")))
    assert (first.returncode, "Traceback" in first.stderr) == (0, False), first.stderr
    assert "soft vote" in first.stdout
    assert "next: ensemble" in first.stderr
    written = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in runs.rglob("*") if path.is_file()}
    again = ensemble(runs.parent, "blend", "runs/*.npy", "--method", "soft")  # the pattern as a quoted word
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in runs.rglob("*") if path.is_file()} == written


def test_blend_starts_without_the_heavy_libraries(runs: Path) -> None:
    code = "import sys\nfrom ensemble.cli import main\ntry: main()\nexcept SystemExit as left: print(left.code, *sys.modules, file=sys.stderr)"
    done = ensemble(runs.parent, "blend", runs / "swin.oof.npy", runs / "resnet18.oof.npy", "-q", python=code)
    loaded = done.stderr.split()
    assert loaded[0] == "0", done.stderr
    assert not {"torch", "timm", "sklearn", "pandas", "scipy", "matplotlib", "rich"} & set(loaded)
    assert "numpy" in loaded


def test_another_blend_with_the_same_name_needs_force(runs: Path, call: Call) -> None:
    assert call("blend", runs / "swin.oof.npy", "-o", "final").code == 0
    before = np.load(runs / "blends" / "final" / "oof.npy")
    refused = call("blend", runs / "resnet18.oof.npy", "-o", "final")
    assert refused.code == 1
    assert "holds another blend: soft of swin" in refused.err
    assert np.array_equal(np.load(runs / "blends" / "final" / "oof.npy"), before)
    assert call("blend", runs / "resnet18.oof.npy", "-o", "final", "--force").code == 0
    assert np.array_equal(np.load(runs / "blends" / "final" / "oof.npy"), np.load(runs / "resnet18.oof.npy"))


def test_missing_files_are_rewritten_and_changed_ones_refused(runs: Path, call: Call) -> None:
    call("blend", runs / "swin.oof.npy", "-o", "final")
    path = runs / "blends" / "final" / "oof.npy"
    content = path.read_bytes()
    path.unlink()
    assert call("blend", runs / "swin.oof.npy", "-o", "final").code == 0
    assert path.read_bytes() == content
    np.save(path, np.full((60, 3), 1 / 3, np.float32))
    refused = call("blend", runs / "swin.oof.npy", "-o", "final")
    assert (refused.code, "holds other predictions" in refused.err) == (1, True)


def test_weights_and_runs_are_chosen_by_name(runs: Path, call: Call) -> None:
    done = call("blend", runs / "*.npy", "--weights", "swin=.75,resnet18=.25", "-o", "w", "--json")
    assert json.loads(done.out)["weights"] == {"resnet18": 0.25, "swin": 0.75}
    resnet, swin = arrays(runs, "*.oof.npy")
    np.testing.assert_allclose(np.load(runs / "blends" / "w" / "oof.npy"), 0.25 * resnet + 0.75 * swin, atol=1e-6)
    call("blend", runs / "*.npy", "--run", "swin", "-o", "one")
    assert np.array_equal(np.load(runs / "blends" / "one" / "oof.npy"), np.load(runs / "swin.oof.npy"))
    call("blend", runs / "*.npy", "--weights", "swin=1,resnet18=0", "-o", "zero")
    assert np.array_equal(np.load(runs / "blends" / "zero" / "oof.npy"), np.load(runs / "swin.oof.npy"))


def test_hard_votes_of_csvs_are_counted_by_id_with_ties_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    for team, answers in (("a", "012"), ("b", "010"), ("c", "112"), ("d", "110")):
        lines = [f"x{i}.jpg,{answer}" for i, answer in enumerate(answers)]
        (tmp_path / f"{team}.csv").write_text("\n".join(["ImageID,ans", *(lines if team != "b" else lines[::-1])]))
    done = call("blend", "a.csv", "b.csv", "c.csv", "d.csv", "--method", "hard", "--csv", "out.csv")
    assert done.code == 0, done.err
    assert "2 of 3 test rows were ties" in done.out
    with open("out.csv") as file:
        assert list(csv.reader(file)) == [["ImageID", "ans"], ["x0.jpg", "0"], ["x1.jpg", "1"], ["x2.jpg", "2"]]
    soft = call("blend", "a.csv", "b.csv")
    assert soft.code == 2
    assert "hint: use --method hard" in soft.err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--method", "power", "--power", "3"], lambda a, b: ((a**3 + b**3) / 2) ** (1 / 3)),
        (["--method", "power"], lambda a, b: ((a**2 + b**2) / 2) ** (1 / 2)),
        (["--method", "median"], lambda a, b: (a + b) / 2),
        (["--method", "trimmed", "--trim", ".1", "--weights", "swin=3,resnet18=1"], None),
        (["--method", "max"], np.maximum),
        (["--method", "rank"], None),
        (["--method", "geometric", "--weights", "swin=2,resnet18=1"], lambda a, b: (a * b**2) ** (1 / 3)),
    ],
)
def test_every_method_is_there_with_its_options(
    runs: Path, call: Call, words: list[str], expected: Callable[..., NDArray] | None
) -> None:
    done = call("blend", runs / "*.oof.npy", *words, "-o", "b", "--json")
    assert done.code == 0, done.err
    result = np.load(runs / "blends" / "b" / "oof.npy")
    np.testing.assert_allclose(result.sum(1), 1, atol=1e-6)
    if expected is not None:
        values = expected(*arrays(runs, "*.oof.npy"))
        np.testing.assert_allclose(result, values / values.sum(1, keepdims=True), atol=1e-6)
    again = call("blend", runs / "*.oof.npy", *words, "--json")
    assert json.loads(again.out)["blend"] == json.loads(done.out)["blend"]


def test_options_of_the_method_are_part_of_what_a_blend_is(runs: Path, call: Call) -> None:
    names = [
        json.loads(call("blend", runs / "*.oof.npy", "--method", method, *words, "--json").out)["name"]
        for method, words in (
            ("power", []),
            ("power", ["--power", "2"]),
            ("power", ["--power", "3"]),
            ("trimmed", []),
            ("trimmed", ["--trim", ".1"]),
        )
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 4
    record = json.loads((runs / "blends" / names[2] / "blend.json").read_text())
    assert (record["method"], record["power"], record["by"]) == ("power", 3, "class")


def test_attributes_are_voted_on_apart_where_it_is_asked_for(runs: Path, call: Call) -> None:
    meaning = {
        "cat": {"legs": "4", "fur": "yes"},
        "dog": {"legs": "4", "fur": "short"},
        "emu": {"legs": "2", "fur": "short"},
    }
    refused = call("blend", runs / "*.oof.npy", "--by", "attribute")
    assert refused.code == 2
    assert "no file has class_attributes for all classes" in refused.err
    for run in ("swin", "resnet18"):
        values, sidecar = np.load(runs / f"{run}.oof.npy"), read_sidecar(runs / f"{run}.oof.npy")
        assert sidecar is not None
        write_prediction(runs / f"{run}.oof.npy", values, replace(sidecar, class_attributes=meaning), sidecar.rows)
    done = call("blend", runs / "*.oof.npy", "--by", "attribute", "-o", "apart", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["by"] == "attribute"
    mean = np.mean(arrays(runs, "*.oof.npy"), axis=0)
    product = np.stack(
        [(mean[:, 0] + mean[:, 1]) * mean[:, 0], (mean[:, 0] + mean[:, 1]) * (mean[:, 1] + mean[:, 2])], axis=1
    )
    product = np.column_stack([product, mean[:, 2] * (mean[:, 1] + mean[:, 2])])
    np.testing.assert_allclose(
        np.load(runs / "blends" / "apart" / "oof.npy"), product / product.sum(1, keepdims=True), atol=1e-6
    )
    hard = call("blend", runs / "*.oof.npy", "--by", "attribute", "--method", "hard")
    assert "ties among the attributes of 60 oof rows" in hard.out
    assert call("blend", runs / "*.oof.npy", "--method", "soft", "--json").out != done.out


def test_a_copy_counts_once_unless_it_is_to_vote(runs: Path, call: Call) -> None:
    Path("copy.npy").write_bytes((runs / "swin.oof.npy").read_bytes())
    files = [runs / "swin.oof.npy", runs / "resnet18.oof.npy", "copy.npy"]
    once = call("blend", *files, "-o", "once")
    assert once.code == 0, once.err
    assert "copy.npy has the same content as" in once.err
    resnet, swin = arrays(runs, "*.oof.npy")
    np.testing.assert_allclose(np.load(runs / "blends" / "once" / "oof.npy"), (resnet + swin) / 2, atol=1e-6)
    for more in (files, [*files[:2], files[0]]):
        each = call("blend", *more, "--allow-duplicates", "-o", "each", "--force")
        assert each.code == 0, each.err
        np.testing.assert_allclose(np.load(runs / "blends" / "each" / "oof.npy"), (resnet + 2 * swin) / 3, atol=1e-6)


def test_names_of_files_move_no_cursor(runs: Path, call: Call) -> None:
    name = "e\x1b[31mvil\x9b2J"
    Path(f"{name}.npy").write_bytes((runs / "swin.oof.npy").read_bytes())
    for words in ([f"{name}.npy", runs / "resnet18.oof.npy"], [f"{name}.npy", runs / "swin.oof.npy", "--run", "swni"]):
        done = call("blend", *words)
        assert "e\\x1b[31mvil\\x9b2J" in done.out + done.err
        assert not {"\x1b", "\x9b"} & set(done.out + done.err)
    done = call("blend", f"{name}.npy", runs / "resnet18.oof.npy", "--json")
    assert not {"\x1b", "\x9b"} & set(done.out)
    record = json.loads(done.out)
    assert repr(name) in record["error"]
    assert record["hint"] == "rename the file of predictions whose name has control characters"
    assert not (runs / "blends").exists()


def test_old_submissions_vote_beside_probabilities(runs: Path, call: Call) -> None:
    rows = read_sidecar(runs / "swin.fold0.test.npy")
    assert rows is not None
    ids, rng = rows.rows.ids.tolist(), np.random.default_rng(3)
    codes = rng.integers(0, 3, (2, 12))
    marks = {"a.csv": (";", "\r\n", "utf-8-sig"), "b.csv": ("\t", "\n", "utf-8")}
    for answers, (name, (mark, end, encoding)) in zip(codes, marks.items(), strict=True):
        order = rng.permutation(12)
        lines = [mark.join(["note", "ans", "ImageID"]), *(mark.join(["x", CLASSES[answers[i]], ids[i]]) for i in order)]
        Path(name).write_bytes(end.join(lines).encode(encoding))
    done = call("blend", runs / "swin.fold*.test.npy", "a.csv", "b.csv", "--method", "hard", "--csv", "out.csv")
    assert done.code == 0, done.err
    models = np.stack([values.argmax(1) for values in arrays(runs, "swin.*.test.npy")])
    shares = np.eye(3)[models].mean(0) + np.eye(3)[codes].sum(0)
    mean = np.mean(arrays(runs, "swin.*.test.npy"), axis=0)
    best = shares >= shares.max(1, keepdims=True) - 1e-9
    with open("out.csv") as file:
        decided = [row[1] for row in list(csv.reader(file))[1:]]
    assert decided == [CLASSES[c] for c in np.where(best, mean, -1).argmax(1)]
    assert f"{(best.sum(1) > 1).sum()} of 12 test rows were ties" in done.out
    Path("a.csv").write_text("ImageID,ans\n" + "".join(f"{name},bat\n" for name in ids))
    refused = call("blend", runs / "swin.fold*.test.npy", "a.csv", "--method", "hard")
    assert "'bat' (id 't0') is not one of the 3 classes; did you mean cat" in refused.err


def test_the_csv_has_the_decisions_by_id_and_is_not_overwritten(runs: Path, call: Call) -> None:
    assert call("blend", runs / "*.npy", "--csv", "out.csv").code == 0
    mean = np.mean(arrays(runs, "*.test.npy"), axis=0)
    expected = [["ImageID", "ans"], *([f"t{i}", CLASSES[c]] for i, c in enumerate(mean.argmax(1)))]
    with open("out.csv") as file:
        assert list(csv.reader(file)) == expected
    assert call("blend", runs / "*.npy", "--csv", "out.csv").code == 0, "the same again is no conflict"
    Path("out.csv").write_text("mine")
    assert call("blend", runs / "*.npy", "--csv", "out.csv").code == 1
    assert Path("out.csv").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--csv", "nowhere/out.csv"], 1, "--csv nowhere/out.csv: folder nowhere does not exist"),
        (["--csv", "."], 1, "cannot write .: it is a folder"),
        (["--csv", "runs", "--force"], 1, "cannot write runs: it is a folder"),
        (["--run", ""], 2, "--run names no run"),
        (["--run", " , "], 2, "--run names no run"),
    ],
)
def test_invalid_options_are_refused_before_any_file_is_written(
    runs: Path, call: Call, words: list[str], code: int, message: str
) -> None:
    before = sorted(runs.parent.rglob("*"))
    done = call("blend", "runs/swin.oof.npy", *words)
    assert (done.code, done.err.splitlines()[0]) == (code, f"error: {message}")
    assert done.err.splitlines()[1].startswith("hint: ")
    assert sorted(runs.parent.rglob("*")) == before


def test_a_blend_that_is_refused_writes_no_csv_and_the_reverse(runs: Path, call: Call) -> None:
    assert call("blend", "runs/swin.oof.npy", "-o", "final").code == 0
    assert call("blend", "runs/resnet18.oof.npy", "-o", "final", "--csv", "out.csv").code == 1
    assert not Path("out.csv").exists()
    Path("out.csv").write_text("mine")
    assert call("blend", "runs/resnet18.oof.npy", "-o", "other", "--csv", "out.csv").code == 1
    assert not (runs / "blends" / "other").exists()


def test_per_person_averages_a_persons_images_first(runs: Path, call: Call) -> None:
    from sklearn.metrics import accuracy_score

    # Three images of one class each person, so that a person has one label.
    labels = np.array(CLASSES)[np.arange(60) // 3 % 3]
    Path("labels.csv").write_text(
        "\n".join(["id,label,person", *(f"im{i},{label},p{i // 3}" for i, label in enumerate(labels))])
    )
    done = call(
        "blend", runs / "swin.oof.npy", "--labels", "labels.csv", "--per", "person", "--metric", "accuracy", "--json"
    )
    record = json.loads(done.out)
    mean = np.load(runs / "swin.oof.npy").reshape(20, 3, 3).mean(1)
    score = record["blend"]["oof"]["score"]
    assert score["rows"] == 20
    assert score["accuracy"] == pytest.approx(
        accuracy_score(labels[::3], np.array(CLASSES)[mean.argmax(1)])
    ) or isinstance(score["accuracy"], dict)
    assert any("differ from the labels of the members" in note for note in record["notes"])


def test_bare_arrays_with_labels_are_scored_and_without_are_not(runs: Path, call: Call) -> None:
    values = np.load(runs / "swin.oof.npy")
    np.save("a.npy", values)
    np.save("logits.npy", np.log(values) + 3)
    sidecar = read_sidecar(runs / "swin.oof.npy")
    assert sidecar is not None
    assert sidecar.rows.labels is not None
    Path("labels.csv").write_text(
        "\n".join(
            ["id,label", *(f"{i},{label}" for i, label in zip(sidecar.rows.ids, sidecar.rows.labels, strict=True))]
        )
    )
    scored, logits = (
        json.loads(call("blend", *words, "--labels", "labels.csv", "--json").out)
        for words in (["a.npy"], ["logits.npy", "--from", "logit"])
    )
    assert scored["blend"]["oof"]["score"]["macro_f1"] == logits["blend"]["oof"]["score"]["macro_f1"]
    plain = call("blend", "a.npy", "--json")
    assert json.loads(plain.out)["blend"]["test"]["score"] is None
    assert any("order not checked" in note for note in json.loads(plain.out)["notes"])


def test_a_blend_can_be_a_member_of_another(runs: Path, call: Call) -> None:
    call("blend", runs / "*.npy", "-o", "both")
    done = call("blend", runs / "blends" / "both" / "oof.npy", runs / "swin.oof.npy", "-o", "more")
    assert done.code == 0, done.err
    resnet, swin = arrays(runs, "*.oof.npy")
    np.testing.assert_allclose(np.load(runs / "blends" / "more" / "oof.npy"), 0.25 * resnet + 0.75 * swin, atol=1e-6)


def bad_files(folder: Path) -> None:
    """Bad input of every kind, each under its name."""
    values = np.full((60, 3), 1 / 3, np.float32)
    spoiled = values.copy()
    spoiled[7, 1] = np.nan
    np.save(folder / "nan.npy", spoiled)
    np.save(folder / "logits.npy", values * 9 - 4)
    np.save(folder / "flat.npy", values[:, 0])
    np.save(folder / "object.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    np.save(folder / "short.npy", values[:50])
    (folder / "cut.npy").write_bytes((folder / "short.npy").read_bytes()[:-50])
    (folder / "text.npy").write_text("hello")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nan.npy"], 1, "nan.npy: row 7, column 1 is nan"),
        (["logits.npy"], 1, "hint: add --from logit"),
        (["flat.npy"], 1, "expected a 2-D array"),
        (["object.npy"], 1, "could run code"),
        (["cut.npy"], 1, "cut.npy is not a usable .npy array"),
        (["text.npy"], 1, "text.npy is not a usable .npy array"),
        (["runs/swin.oof.npy", "short.npy"], 1, "short.npy has 50 rows and no sidecar"),
        (["missing.npy"], 1, "file not found: missing.npy"),
        (["nothing/*.npy"], 1, "no file matches nothing/*.npy"),
        (["runs"], 1, "hint: ensemble blend runs/*.npy"),
        ([], 2, "Missing argument"),
        (["runs/swin.oof.npy", "--method", "sofd"], 2, "did you mean soft"),
        (["runs/swin.oof.npy", "--method", "max", "--weights", "1"], 2, "--method max weights all runs equally"),
        (["runs/swin.oof.npy", "--power", "3"], 2, "--method soft takes no --power"),
        (["runs/swin.oof.npy", "--method", "median", "--trim", ".1"], 2, "hint: --method trimmed --trim 0.1"),
        (["runs/swin.oof.npy", "--method", "power", "--power", "nan"], 2, "--power nan: expected a finite number"),
        (["runs/swin.oof.npy", "--method", "trimmed", "--trim", ".5"], 2, "--trim 0.5: expected a share"),
        (["runs/swin.oof.npy", "--by", "mask"], 2, "--by mask: expected class or attribute"),
        (["runs/swin.oof.npy", "runs/resnet18.oof.npy", "--weights", "nan,1"], 2, "found nan"),
        (["runs/swin.oof.npy", "runs/resnet18.oof.npy", "--weights", "0,0"], 2, "the weights sum to 0"),
        (["runs/swin.oof.npy", "--method", "weighted"], 2, "needs --weights"),
        (["runs/swin.oof.npy", "--method", "soft", "--weights", "1"], 2, "--method weighted"),
        (["runs/swin.oof.npy", "--weights", "1,2"], 2, "expected one weight per run, 1 (swin), found 2"),
        (["runs/swin.oof.npy", "--run", "swim"], 2, "did you mean swin"),
        (["runs/swin.oof.npy", "--metric", "f1"], 2, "unknown metric 'f1'"),
        (["runs/*.npy", "--method", "stackin"], 2, "did you mean stacking"),
        (["runs/*.npy", "--method", "greedy", "--weights", "1,2"], 2, "fits its weights"),
        (
            ["runs/*.npy", "--method", "auto", "--calibrate", "after:temperature"],
            2,
            "includes calibrated methods already",
        ),
        (["runs/*.npy", "--method", "hard", "--calibrate", "after:temperature"], 2, "counts decisions"),
        (["runs/*.npy", "--calibrate", "later:temperature"], 2, "place of --calibrate"),
        (["runs/*.npy", "--calibrate", "after:temprature"], 2, "did you mean temperature"),
        (["runs/*.npy", "--method", "greedy", "--by", "attribute"], 2, "--by attribute works only with plain voting"),
        (["runs/*.npy", "--max-members", "0"], 2, "--max-members 0"),
        (["runs/*.npy", "--budget", "0"], 2, "--budget 0"),
        (["runs/*.npy", "--budget", "2"], 2, "needs 3 passes per image"),
        (["runs/*.npy", "--budget", "2", "--weights", "1,2"], 2, "--weights cannot be combined with --calibrate"),
        (["runs/*.npy", "--budget", "9", "--cost", "swim=2"], 2, "did you mean swin"),
        (["runs/*.test.npy", "--method", "greedy"], 1, "is fitted to out-of-fold predictions"),
        (["runs/swin.oof.npy", "--score-by", "image"], 2, "--score-by image: expected person"),
        (["runs/swin.oof.npy", "--from", "odds"], 2, "--from odds: expected probability or logit"),
        (["runs/swin.oof.npy", "-o", "../up"], 2, "-o ../up: expected a name"),
        (
            ["runs/swin.fold0.test.npy", "--per", "person"],
            1,
            "needs the persons of the test samples, which are unknown",
        ),
    ],
)
def test_invalid_input_is_one_error_with_a_hint_and_no_files(
    runs: Path, call: Call, words: list[str], code: int, message: str
) -> None:
    bad_files(runs.parent)
    before = sorted(runs.rglob("*"))
    done = call("blend", *words)
    assert done.code == code, done.err
    assert message in done.err
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert "hint: " in done.err
    assert "Traceback" not in done.err
    assert sorted(runs.rglob("*")) == before


def test_predictions_of_other_samples_are_refused_with_a_hint(runs: Path, call: Call) -> None:
    path = runs / "other.oof.json"
    record = json.loads((runs / "swin.oof.json").read_text())
    sidecar = read_sidecar(runs / "swin.oof.npy")
    assert sidecar is not None
    record = {key: value for key, value in record.items() if key not in ("samples", "samples_sha")} | {"run": "other"}
    path.write_text(
        json.dumps(
            record | {"ids": [f"other{i}" if i < 5 else name for i, name in enumerate(sidecar.rows.ids.tolist())]}
        )
    )
    (runs / "other.oof.npy").write_bytes((runs / "swin.oof.npy").read_bytes())
    done = call("blend", runs / "*.oof.npy")
    assert done.code == 1
    assert "10 ids differ between other and resnet18, swin" in done.err
    assert "hint: --run other" in done.err
    assert call("blend", runs / "*.oof.npy", "--run", "swin,resnet18").code == 0


def test_views_of_an_earlier_training_are_refused_by_name(runs: Path, call: Call) -> None:
    def views_of(sha: str) -> None:
        for name, folds in (("swin.oof", "012"), ("swin.fold0.test", "0")):
            for folder, shown in ((runs, "new"), (runs / "tta", sha)):
                values, sidecar = np.load(runs / f"{name}.npy"), read_sidecar(runs / f"{name}.npy")
                assert sidecar is not None
                shas = {fold: f"{shown}{fold}" for fold in folds}
                views = ("none", "hflip") if folder != runs else ()
                changed = replace(sidecar, checkpoint_sha=shas if "oof" in name else shas["0"], views=views)
                write_prediction(folder / f"{name}.npy", values, changed, changed.rows)

    views_of("new")
    files = ["runs/swin.oof.npy", "runs/swin.fold0.test.npy", "runs/tta/swin.oof.npy", "runs/tta/swin.fold0.test.npy"]
    assert call("blend", *files).code == 0
    views_of("old")
    for given in (files, files[1::2], files[::-2]):
        done = call("blend", *given, "--force")
        assert done.code == 1
        assert (
            "are from different trainings of run 'swin': they name different checkpoints of fold 0 (new0 and old0)"
            in done.err
        )
        assert "runs/tta/swin" in done.err.splitlines()[0]
        assert "hint: ensemble tta swin --force" in done.err


def test_a_user_s_metric_is_printed_and_part_of_the_identity(runs: Path, call: Call) -> None:
    module = runs.parent / "their_cost.py"
    module.write_text(
        "def missed(labels, probabilities): return float((probabilities.argmax(1) != labels).mean())\nmissed.greater_is_better = False\n"
    )
    words = ["blend", *sorted(runs.glob("*.oof.npy")), "--metric", "their_cost:missed", "--json"]
    done = call(*words)
    sys.modules.pop("their_cost", None)
    assert done.code == 0, done.err
    record = json.loads(done.out)
    found = record["blend"]["oof"]["score"]
    assert found["their_cost:missed"]["score"] == pytest.approx(1 - found["accuracy"])
    assert found["their_cost:missed"]["low"] < found["their_cost:missed"]["score"] < found["their_cost:missed"]["high"]
    module.write_text(module.read_text().replace("!=", "=="))
    again = call(*words)
    sys.modules.pop("their_cost", None)
    assert json.loads(again.out)["identity"] != record["identity"]


@pytest.mark.parametrize(
    ("classes", "may"),
    [(["cat", "dog"], True), (["a", "b"], False), (["3", "10"], False), (["left_lung", "right_lung"], False)],
)
def test_mirrored_views_are_proposed_only_where_names_allow_it(classes: list[str], may: bool) -> None:
    assert _may_be_mirrored(classes) is may
