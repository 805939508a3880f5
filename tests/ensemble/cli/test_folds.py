"""`ensemble folds` as it is typed: what it prints where, what it writes, how it leaves."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ensemble import cli
from ensemble.cli.terminal import console
from folds.data.synthetic import people
from folds.splits.kfold import read_folds
from tests.folds.skewed import skewed_people


def table(folder: Path) -> Path:
    rows = [f"{p}-{i}.jpg,{'ab'[p % 2]},p{p},{'ns'[p % 3 == 0]}" for p in range(12) for i in range(3)]
    path = folder / "index.csv"
    path.write_text("\n".join(["path,label,person,site", *rows]) + "\n")
    return path


def ensemble(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ENSEMBLE_")}
    command = [sys.executable, "-m", "ensemble.cli", *map(str, words)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder as the working directory, for commands run in this process (a subprocess costs 2 s)."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ENSEMBLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(console, "as_json", False)
    monkeypatch.setattr(console, "quiet", False)
    return tmp_path


def typed(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        cli.main(list(map(str, words)))
    return int(left.value.code or 0)


def test_the_folds_are_written_and_the_table_is_on_stdout(tmp_path):
    table(tmp_path)
    done = ensemble(tmp_path, "folds", "--data", "index.csv", "--k", 3, "-o", "my folds.csv")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["class", "fold", "0", "fold", "1", "fold", "2", "all", "people"]
    assert lines[2].split() == ["a", "6", "6", "6", "18", "6"]
    assert lines[3].split() == ["b", "6", "6", "6", "18", "6"]
    assert lines[4].split() == ["images", "12", "12", "12", "36"]
    assert lines[5].split() == ["people", "4", "4", "4", "12", "12"]
    assert done.stderr.splitlines()[0] == "data: index.csv"
    assert done.stderr.splitlines()[-1] == "next: ensemble kfold --folds 'my folds.csv' --data index.csv"
    assert (tmp_path / "my folds.csv").read_text().startswith("id,label,person,fold\n")
    assert json.loads((tmp_path / "my folds.json").read_text())["k"] == 3


def test_a_broken_split_exits_with_1_and_names_the_person(tmp_path):
    (tmp_path / "theirs.csv").write_text("id,label,person,fold\n1,a,p,0\n2,b,p,1\n3,a,q,1\n")
    done = ensemble(tmp_path, "folds", "check", "theirs.csv")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "error: 1 of 2 people are in more than one fold" in done.stderr
    assert "  p: fold 0 (1 sample), fold 1 (1 sample)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_repeated_command_is_equal_and_other_folds_need_force(here, capsys):
    words = ("folds", "--data", table(here), "--k", 3)
    assert typed(*words) == 0
    first = (here / "folds.csv").read_bytes()
    assert typed(*words) == 0
    assert (here / "folds.csv").read_bytes() == first
    capsys.readouterr()
    assert typed("folds", "--data", table(here), "--k", 4) == 1
    assert "folds.csv exists and holds other folds" in capsys.readouterr().err
    assert (here / "folds.csv").read_bytes() == first
    assert typed("folds", "--data", table(here), "--k", 4, "--force") == 0
    assert (here / "folds.csv").read_bytes() != first


@pytest.mark.parametrize("content", ['{"mine": 1}', "not JSON", "[1]"])
def test_a_json_that_is_no_record_of_folds_is_kept(here, capsys, content):
    (here / "ann.json").write_text(content)
    assert typed("folds", "--data", table(here), "--k", 3, "-o", "ann.csv") == 1
    assert "ann.json exists and is not a record of folds" in capsys.readouterr().err
    assert (here / "ann.json").read_text() == content
    assert not (here / "ann.csv").exists()
    assert typed("folds", "--data", table(here), "--k", 3, "-o", "ann.csv", "--force") == 0
    assert json.loads((here / "ann.json").read_text())["k"] == 3


def test_folds_without_ids_take_the_paths_and_say_so(here, capsys):
    (here / "theirs.csv").write_text("path,label,person,fold\n1.jpg,a,p,0\n2.jpg,b,q,1\n")
    assert typed("folds", "check", "theirs.csv") == 0
    assert "theirs.csv: label = label, person = person, fold = fold, id = path" in capsys.readouterr().err


def test_folds_without_anything_like_ids_say_what_ids_are(here, capsys):
    (here / "theirs.csv").write_text("label,person,fold\na,p,0\nb,q,1\n")
    assert typed("folds", "check", "theirs.csv") == 1
    err = capsys.readouterr().err
    assert "theirs.csv has no column 'id'" in err
    assert "its paths are the ids" in err


def test_the_column_options_hold_for_the_file_that_is_checked(here, capsys):
    (here / "theirs.csv").write_text("a,b,c,d\n1.jpg,x,p,0\n2.jpg,y,p,1\n3.jpg,x,q,0\n")
    assert typed("folds", "check", "theirs.csv") == 1
    assert "no column 'id'" in capsys.readouterr().err
    words = ["--id", "a", "--label", "b", "--person", "c", "--fold-column", "d"]
    assert typed("folds", "check", "theirs.csv", *words) == 1
    assert "1 of 2 people are in more than one fold" in capsys.readouterr().err


def test_spellings_of_one_person_are_warned_of_or_merged(here, capsys):
    rows = [f"{i}.jpg,{'xy'[i % 2]},{p}" for i, p in enumerate(["12", "12.0", "7", "8", "9", "12"])]
    (here / "t.csv").write_text("path,label,person\n" + "\n".join(rows) + "\n")
    assert typed("folds", "--data", "t.csv", "--k", 2, "--strict") == 1
    assert not (here / "folds.csv").exists()
    assert "'12' and '12.0' (2 and 1 images)" in capsys.readouterr().err
    assert typed("folds", "check", "--data", "t.csv", "--no-images", "--strict") == 1
    assert typed("folds", "--data", "t.csv", "--k", 2, "--merge-spellings", "--strict") == 0
    assert "--merge-spellings" in capsys.readouterr().err.splitlines()[-1]
    persons = [line.split(",")[2] for line in (here / "folds.csv").read_text().splitlines()[1:]]
    assert persons == ["12", "12", "7", "8", "9", "12"]


def test_the_folds_of_a_column_are_used_and_checked(here, capsys):
    rows = [f"{i}.jpg,{'xy'[i // 2 % 2]},p{i % 3},{i % 3 + 1}.0" for i in range(12)]
    (here / "t.csv").write_text("path,label,person,kfold\n" + "\n".join(rows) + "\n")
    assert typed("folds", "--data", "t.csv", "--k", 3) == 0
    assert "has a column 'kfold', which is not used: --fold-column kfold uses its folds" in capsys.readouterr().err
    assert typed("folds", "--data", "t.csv", "--fold-column", "kfold", "-o", "theirs.csv") == 0
    folds = [line.split(",")[3] for line in (here / "theirs.csv").read_text().splitlines()[1:]]
    assert folds == [str(i % 3) for i in range(12)]
    overlapping = (here / "t.csv").read_text().replace("11.jpg,y,p2,3.0", "11.jpg,y,p1,3.0")
    (here / "t.csv").write_text(overlapping)
    assert typed("folds", "--data", "t.csv", "--fold-column", "kfold", "-o", "other.csv") == 1
    assert "1 of 3 people are in more than one fold" in capsys.readouterr().err
    assert typed("folds", "--data", "t.csv", "--fold-column", "kfold", "--holdout", ".2") == 2


def test_json_is_one_object_with_the_counts(here, capsys):
    assert typed("folds", "--data", table(here), "--k", 3, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["classes"] == ["a", "b"]
    assert record["images"] == [[6, 6, 6], [6, 6, 6]]
    assert record["people"] == [4, 4, 4]
    assert record["people_per_class"] == [6, 6]
    assert (record["k"], record["seed"], record["warnings"]) == (3, 0, [])


def test_a_class_that_cannot_be_in_every_fold_is_a_warning(here, capsys):
    path = table(here)
    path.write_text(path.read_text() + "x.jpg,rare,p99,n\n")
    assert typed("folds", "--data", path, "--k", 3, "-q") == 0
    out, err = capsys.readouterr()
    assert "rare" in out
    assert [line.split(":")[1] for line in err.splitlines()] == [" class rare"]
    assert "1 person for 3 folds: absent from validation of folds" in err


def test_check_with_a_table_lines_up_by_id(here, capsys):
    path = table(here)
    assert typed("folds", "--data", path, "--k", 3) == 0
    assert typed("folds", "check", "folds.csv", "--data", path) == 0
    assert "no person is in two folds" in capsys.readouterr().out
    path.write_text(path.read_text().replace("\n0-0.jpg", "\nnew.jpg"))
    assert typed("folds", "check", "folds.csv", "--data", path) == 1
    assert "1 of 36 samples of" in capsys.readouterr().err


def test_check_writes_nothing(here, capsys):
    (here / "theirs.csv").write_text("id,label,person,fold\n1,a,p,0\n2,b,q,1\n3,a,r,1\n4,b,s,0\n")
    assert typed("folds", "check", "theirs.csv") == 0
    assert [path.name for path in here.iterdir()] == ["theirs.csv"]
    assert capsys.readouterr().err.splitlines()[-1] == "next: ensemble kfold --folds theirs.csv"


def test_stratify_spreads_the_columns_named(here, capsys):
    assert typed("folds", "--data", table(here), "--k", 4, "--stratify", "site") == 0
    persons = {row.split(",")[2]: row.split(",")[3] for row in (here / "folds.csv").read_text().splitlines()[1:]}
    assert sorted(persons[f"p{p}"] for p in (0, 3, 6, 9)) == ["0", "1", "2", "3"]
    assert typed("folds", "--data", table(here), "--stratify", "label,sit") == 2
    assert "unknown column 'sit'; did you mean site" in capsys.readouterr().err


def test_each_site_is_a_fold_or_is_balanced_and_its_images_are_counted(here, capsys):
    assert typed("folds", "--data", table(here), "--leave-out", "site") == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].split() == "class fold 0: n fold 1: s all people".split()
    assert "folds.csv: no person is in two folds, and no site either" in shown.out
    assert ["n", "24", "0", "24"] in [line.split() for line in shown.out.splitlines()]
    assert json.loads((here / "folds.json").read_text())["names"] == ["n", "s"]
    assert typed("--json", "folds", "--data", table(here), "--group-within", "site", "--k", 4, "-o", "w.csv") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["group_within"], record["sites"]) == ("site", {"n": [6, 6, 6, 6], "s": [3, 3, 3, 3]})
    assert typed("folds", "--data", table(here), "--leave-out", "site", "--k", 2) == 2
    assert "--leave-out and --k contradict each other" in capsys.readouterr().err


def test_stratify_is_recorded_and_can_be_in_the_settings_file(here, capsys):
    (here / "ensemble.toml").write_text("stratify = ['site']\nrepeats = 2\nk = 4\n")
    assert typed("folds", "--data", table(here)) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("folds.csv, folds.repeat1.csv: ")
    assert json.loads((here / "folds.json").read_text())["stratify"] == ["site"]
    assert read_folds(here / "folds.csv").stratify == ("site",)
    first = (here / "folds.csv").read_bytes()
    assert typed("folds", "--data", table(here), "--stratify", "site", "--repeats", 1, "-o", "typed.csv") == 0
    assert (here / "typed.csv").read_bytes() == first
    assert typed("folds", "--data", table(here), "--holdout", ".25", "-o", "part.csv") == 0
    assert json.loads((here / "part.json").read_text())["k"] == 1


@pytest.mark.parametrize(
    ("k", "code", "message"),
    [(1, 2, "--k must be 2 or more"), (13, 1, "13 folds need at least 13 people"), ("x", 2, "--k")],
)
def test_an_impossible_k_leaves_with_its_code_and_writes_nothing(here, capsys, k, code, message):
    assert typed("folds", "--data", table(here), "--k", k) == code
    assert message in capsys.readouterr().err
    assert not (here / "folds.csv").exists()


def test_flags_take_precedence_over_the_settings_file(here, capsys):
    path = table(here)
    path.write_text(path.read_text().replace("path,label,person", "file,finding,patient"))
    (here / "ensemble.toml").write_text(
        'data = "index.csv"\npath = "file"\nlabel = "finding"\nperson = "patient"\nk = 3\nseed = 4\n'
    )
    assert typed("folds", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["k"], record["seed"], record["classes"]) == (3, 4, ["a", "b"])
    assert typed("folds", "--k", 2, "-o", "two.csv") == 0
    assert json.loads((here / "two.json").read_text())["k"] == 2
    assert capsys.readouterr().err.splitlines()[-1] == "next: ensemble kfold --folds two.csv"
    (here / "ensemble.toml").write_text("persn = 'patient'")
    assert typed("folds", "--data", path) == 1
    assert "ensemble.toml: unknown key 'persn'; did you mean person" in capsys.readouterr().err


def test_the_hint_for_duplicate_ids_names_an_option_that_works(here, capsys):
    rows = [f"{p % 2},{p}.jpg,n{p},{'ab'[p % 2]},p{p}" for p in range(8)]
    (here / "index.csv").write_text("\n".join(["id,path,name,label,person", *rows]))
    assert typed("folds", "--data", "index.csv", "--k", 2) == 1
    assert "name another column with --id" in capsys.readouterr().err
    assert typed("folds", "--data", "index.csv", "--k", 2, "--id", "name") == 0
    assert (here / "folds.csv").read_text().splitlines()[1].startswith("n0,")
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "next: ensemble kfold --folds folds.csv --data index.csv --id name"


def test_without_an_option_the_folder_data_is_used_and_named(here, capsys):
    (here / "data").mkdir()
    table(here / "data")
    assert typed("folds", "--k", 2) == 0
    assert capsys.readouterr().err.splitlines()[0] == "data: ./data (no --data given)"


def test_without_any_data_synthetic_people_are_used(here, capsys, monkeypatch):
    monkeypatch.setattr(
        people, "generate_people", functools.partial(people.generate_people, people=12, test_people=1)
    )  # fewer: quicker
    assert typed("folds", "--k", 3, "--json") == 0
    out, err = capsys.readouterr()
    assert err.splitlines()[0].startswith("data: synthetic faces in .ensemble/people")
    assert json.loads(out)["classes"] == [str(i) for i in range(18)]


def test_no_images_are_needed_to_split(here, capsys):
    assert typed("folds", "--data", table(here), "--k", 2) == 0
    assert not list(here.glob("*.jpg"))


def test_the_columns_named_are_handed_on_to_the_next_command(here, capsys):
    path = table(here)
    path.write_text(path.read_text().replace("label,person", "finding,patient"))
    assert typed("folds", "--data", path, "--k", 2, "--label", "finding", "--person", "patient") == 0
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"--data {path} --label finding --person patient")


def skewed_table(folder: Path) -> Path:
    labels, persons = skewed_people(0)
    path = folder / "skewed.csv"
    path.write_text(
        "path,label,person\n"
        + "".join(f"{i}.jpg,{label},p{person}\n" for i, (label, person) in enumerate(zip(labels, persons)))
    )
    return path


def test_the_repair_is_reported_and_can_be_turned_off(here, capsys):
    path = skewed_table(here)
    assert typed("folds", "--data", path, "--no-repair", "-o", "plain.csv") == 0
    err = capsys.readouterr().err
    assert "absent from validation" in err
    assert "repair:" not in err
    assert typed("folds", "--data", path, "--json") == 0
    out, err = capsys.readouterr()
    assert "repair: " in err
    assert "absent from validation" not in err
    record = json.loads(out)
    assert record["repair"]["after"]["absent"] == 0 < record["repair"]["before"]["absent"]
    assert json.loads((here / "folds.json").read_text())["repair"] == record["repair"]
    assert json.loads((here / "plain.json").read_text())["repair"] is None


def test_repeats_are_written_and_their_difference_is_reported(here, capsys):
    assert typed("folds", "--data", table(here), "--k", 3, "--repeats", 3, "-o", "f.csv") == 0
    out, err = capsys.readouterr()
    assert "adjusted Rand index of any two is at most" in err
    assert out.splitlines()[-1] == "f.csv, f.repeat1.csv, f.repeat2.csv: no person is in two folds"
    assert [json.loads((here / f"f{name}.json").read_text())["repeat"] for name in ("", ".repeat1", ".repeat2")] == [
        0,
        1,
        2,
    ]
    assert len({(here / f"f{name}.csv").read_text() for name in ("", ".repeat1", ".repeat2")}) == 3
    assert read_folds(here / "f.repeat2.csv").repeat == 2


def test_repeats_that_are_the_same_are_warned_about(here, capsys):
    assert typed("folds", "--data", skewed_table(here), "--repeats", 2, "--no-repair") == 0
    assert "equal or nearly equal; with repair they are independent" in capsys.readouterr().err


def test_one_part_is_held_out_and_shown_beside_the_training_part(here, capsys):
    assert typed("folds", "--data", table(here), "--holdout", ".25", "-o", "h.csv") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["class", "held", "out", "training", "all", "people"]
    assert lines[4].split() == ["images", "9", "27", "36"]
    assert lines[-1] == "h.csv: no person is in both parts"
    assert {row.split(",")[3] for row in (here / "h.csv").read_text().splitlines()[1:]} == {"0", "-1"}


@pytest.mark.parametrize(
    "words",
    [["--holdout", ".1", "--k", "3"], ["--holdout", ".1", "--repeats", "2"], ["--holdout", "1.5"], ["--repeats", "0"]],
)
def test_what_contradicts_or_cannot_be_is_wrong_usage(here, capsys, words):
    assert typed("folds", "--data", table(here), *words) == 2
    assert words[0] in capsys.readouterr().err
    assert not (here / "folds.csv").exists()
