from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from folds.experiments.ledger import append, read_ledger
from tests.conftest import ROOT, Called
from tests.folds.ledger_lines import against, line, scores

Call = Callable[..., Called]
LEDGER = Path("runs/ledger.jsonl")


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs and a note in the ledger; their files are deleted."""
    monkeypatch.chdir(tmp_path)
    append(LEDGER, "run", line("swin-ce", oof=scores(0.5)))
    settings = line()["settings"] | {"loss": "focal"}
    baseline = against("swin-ce", loss=["ce", "focal"])
    later = {
        "time": "2026-02-01T00:00:00+00:00",
        "hypothesis": "rare | classes\ngain",
        "stated_after": 1,
        "oof": scores(0.6),
    }
    append(LEDGER, "run", line("swin-focal", settings=settings, baseline=baseline, **later))
    append(LEDGER, "note", {"run": "swin-focal", "time": "now", "text": "only <b>class 5</b> gains"})
    return tmp_path


def test_an_empty_folder_has_no_runs_and_a_next_command(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    called = call("runs")
    assert (called.code, called.out) == (0, "no runs\n")
    assert "next: ensemble kfold" in called.err
    assert json.loads(call("runs", "--json").out) == {"runs": [], "passed_over": {"damaged": [], "newer": []}}
    assert not (tmp_path / "runs").exists()


def test_the_list_shows_scores_differences_and_flags_by_date(call: Call, ledger: Path) -> None:
    called = call("runs")
    assert called.code == 0, called.err
    lines = called.out.splitlines()
    assert "test macro F1" not in lines[0]
    assert [row.split()[0] for row in lines[2:]] == ["swin-ce", "swin-focal"]
    assert "swin-ce" in lines[3][10:]
    assert "+0.100  [+0.050, +0.150]          yes" in lines[3]
    assert lines[3].endswith("files deleted")
    assert called.err.rstrip().endswith("next: ensemble runs diff swin-ce swin-focal")


def test_the_list_is_filtered_sorted_and_cut_to_columns(call: Call, ledger: Path) -> None:
    called = call("runs", "--sort", "score", "--columns", "run,loss,macro_f1")
    assert called.out.split() == [
        "run",
        "loss",
        "OOF",
        "macro",
        "F1",
        "----------",
        "-----",
        "------------",
        *"swin-focal focal 0.600 swin-ce ce 0.500".split(),
    ]
    only = call("runs", "--filter", "loss=focal", "--json")
    assert [run["run"] for run in json.loads(only.out)["runs"]] == ["swin-focal"]
    assert "1 of 2 runs" in only.err
    assert call("runs", "--filter", "run~resnet").out == "no runs\n"


def test_json_has_the_lines_with_remarks_and_marks(call: Call, ledger: Path) -> None:
    runs = json.loads(call("runs", "--json").out)["runs"]
    assert runs[1]["hypothesis"] == "rare | classes\ngain"
    assert (runs[1]["notes"], runs[1]["marks"]) == (["only <b>class 5</b> gains"], ["files deleted"])
    assert runs[0]["oof"] == scores(0.5)


def test_markdown_has_a_table_and_a_section_per_run(call: Call, ledger: Path) -> None:
    out = call("runs", "--markdown").out
    table, *sections = out.split("\n### ")
    rows = table.strip().splitlines()
    assert len(rows) == 4
    assert len({row.replace("\\|", "").count("|") for row in rows}) == 1
    assert set(rows[1]) <= set("| -")
    assert len(sections) == 1  # of swin-ce nobody has said anything
    assert sections[0].splitlines() == [
        "swin-focal",
        "",
        "- hypothesis: rare \\| classes gain (stated when 1 of 2 folds were trained)",
        "- changed from swin-ce: loss ce → focal",
        "- unchanged: data, 1 more",
        "- measured: OOF macro F1 0.600 [0.500, 0.700] on 70 images of 10 people, 2 of 2 folds",
        "- difference: +0.100 [+0.050, +0.150], paired; significant: yes",
        "- note: files deleted",
        "- conclusion: only \\<b>class 5\\</b> gains",
    ]
    assert "###" not in call("runs", "--markdown", "--columns", "run,loss").out


def test_a_remark_is_appended_and_shown(call: Call, ledger: Path) -> None:
    called = call("runs", "note", "swin-ce", "the", "first  one")
    assert (called.code, called.out) == (0, "swin-ce: the first one\n")
    assert read_ledger(LEDGER).notes_of("swin-ce") == ["the first one"]
    assert "the first one" in call("runs", "--columns", "run,notes").out
    assert "conclusion: the first one" in call("runs", "--markdown").out


def test_lines_that_cannot_be_read_are_said_and_the_others_shown(call: Call, ledger: Path) -> None:
    LEDGER.write_bytes(b'{"torn": \n' + LEDGER.read_bytes())
    called = call("runs")
    assert (called.code, called.out.count("swin-")) == (0, 3)
    assert "warning: runs/ledger.jsonl: line 1 is damaged and skipped" in called.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["dif", "a", "b"], 2, "unknown word 'dif'; did you mean diff?"),
        (["diff", "swin-ce"], 2, "expected two runs"),
        (["note", "swin-ce"], 2, "expected a run and a text"),
        (["note", "swin-ce", "  "], 2, "the text is empty"),
        (["note", "swin-fcal", "x"], 2, "unknown run 'swin-fcal'; did you mean swin-focal"),
        (
            ["diff", "swin-ce", "swin-focal"],
            1,
            "the predictions of swin-ce are deleted, only its line in the ledger is left",
        ),
        (["diff", "swin-c", "swin-d"], 2, "unknown run 'swin-c'"),
        (["--sort", "scroe"], 2, "unknown --sort 'scroe'; did you mean score?"),
        (["--filter", "loss"], 2, "expected KEY=VALUE"),
        (["--columns", "run,los"], 2, "unknown column 'los'; did you mean loss"),
        (["--score-by", "image"], 2, "--score-by image: expected person"),
        (["--per", "person"], 2, "--score-by applies only to diff"),
        (["diff", "a", "b", "--markdown"], 2, "apply only to the list of runs"),
    ],
)
def test_wrong_usage_is_one_error_and_one_hint(
    call: Call, ledger: Path, words: list[str], code: int, said: str
) -> None:
    called = call("runs", *words)
    assert (called.code, called.out) == (code, "")
    assert said in called.err
    assert [one.split(":")[0] for one in called.err.splitlines()] == ["error", "hint"]


def test_two_runs_are_compared_by_their_files(grid: Path, call: Call) -> None:
    called = call("runs", "diff", "test_resnet", "test_vit")
    assert called.code == 0, called.err
    settings, measured = (part.splitlines() for part in called.out.strip().split("\n\n"))
    assert settings[2].split() == ["arch", "test_resnet", "test_vit"]
    assert measured[0].startswith("on 210 images")
    assert [row.split()[1] for row in measured[2:]] == ["macro", "accuracy", "log"]
    assert "same in both: " in called.err
    assert "not between training seeds" in called.err
    record = json.loads(call("runs", "diff", "test_resnet", "test_vit", "--json").out)
    assert record["varied"] == {"arch": ["test_resnet", "test_vit"]}
    accuracy = record["differences"]["accuracy"]
    entries = read_ledger(LEDGER).latest()
    expected = entries["test_vit"]["oof"]["accuracy"]["score"] - entries["test_resnet"]["oof"]["accuracy"]["score"]
    assert accuracy["difference"] == pytest.approx(expected)
    assert accuracy["low"] <= expected <= accuracy["high"]
    assert set(record["distinguishable"]) == {"macro_f1", "accuracy", "log_loss"}
    by_person = json.loads(call("runs", "diff", "test_resnet", "test_vit", "--per", "person", "--json").out)
    assert (by_person["rows"], by_person["people"]) == (30, 30)
    assert "on 30 people" in call("runs", "diff", "test_resnet", "test_vit", "--per", "person").out


def test_a_run_compared_with_itself_differs_in_nothing(grid: Path, call: Call) -> None:
    out = call("runs", "diff", "test_vit", "test_vit").out
    assert out.startswith("no settings differ\n")
    assert out.count("no: no sample is decided otherwise") == 3


def test_a_run_that_is_not_in_the_ledger_says_how_it_gets_there(grid: Path, call: Call) -> None:
    LEDGER.unlink()
    called = call("runs")
    assert called.out.count("not in the ledger") == 2
    assert "not in the ledger: run the same command with --resume to add it" in called.err


def test_the_list_imports_neither_torch_nor_pandas(ledger: Path) -> None:
    import subprocess
    import sys

    code = "import sys\nfrom ensemble.cli import main\ntry: main(['runs'])\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )
    assert "swin-focal" in done.stdout
    assert not set(done.stderr.split()) & {"torch", "timm", "sklearn", "pandas", "scipy"}
