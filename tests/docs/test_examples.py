"""Commands and Python in README, docs/ and --help are those of today: all parse, those marked with `run` run on small
data.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Called
from tests.docs.pages import PAGES, Block, blocks, commands_of, inline_code, name_of

GLOBAL = {"--help", "--json", "--quiet", "--wide", "--debug", "--version"}  # of every command: `main` takes them
# Options of other programs that the docs mention by themselves.
FOREIGN = {"--force-reinstall", "--device", "--quick", "--minutes"}
ALL_BLOCKS = [block for page in PAGES for block in blocks(page)]
EXAMPLES = [(block, command) for block in ALL_BLOCKS for command in commands_of(block)]
MARKED = [block for block in ALL_BLOCKS if block.run is not None and block.language != "python"]
PYTHON = [block for block in ALL_BLOCKS if block.language == "python"]
# What makes an example small enough for the suite: tiny models, which ensemble.toml trains for one epoch at 32 px.
SMALL = {r"(?<![\w-])swin(?![\w-])": "test_resnet", r"(?<![\w-])resnet18(?![\w-])": "test_vit", "--k 5": "--k 2"}
SMALL_SETTINGS = "epochs = 1\nimg_size = 32\npretrained = false\nbatch_size = 16\n"


def place_of(block: Block) -> str:
    return f"{block.page}:{block.line}"


def example_id(example: object) -> str:
    return example if isinstance(example, str) else place_of(example) if isinstance(example, Block) else str(example)


def parse(parsers: Mapping[str, Any], command: str) -> None:
    """Parse a line as `ensemble` would, without doing anything; an error says what does not exist."""
    _, name, *words = shlex.split(command, comments=True)
    words = words[: words.index(">")] if ">" in words else words
    if words and f"{name} {words[0]}" in parsers:
        name, words = f"{name} {words[0]}", words[1:]
    parsers[name].make_context(f"ensemble {name}", [word for word in words if word not in GLOBAL])


def options_of(parsers: Mapping[str, Any]) -> set[str]:
    found = {opt for one in parsers.values() for p in one.params for opt in (*p.opts, *p.secondary_opts)}
    return {option for option in found if option.startswith("--")}


@pytest.mark.parametrize(("block", "command"), EXAMPLES, ids=example_id)
def test_every_command_of_the_docs_parses(block: Block, command: str, parsers: Mapping[str, Any]) -> None:
    parse(parsers, command)


@pytest.mark.parametrize("command", ["ensemble kfold --archh swin", "ensemble blend", "ensemble kfold --epochs x"])
def test_a_command_that_does_not_exist_fails_to_parse(command: str, parsers: Mapping[str, Any]) -> None:
    with pytest.raises(Exception, match=r"(?i)no such option|missing (argument|parameter)|not a valid"):
        parse(parsers, command)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_inline_commands_and_options_of_a_page_exist(page: Path, parsers: Mapping[str, Any]) -> None:
    known = options_of(parsers) | GLOBAL
    unknown = []
    for code in inline_code(page):
        words = code.split()
        if words[0] == "ensemble" and len(words) > 1 and words[1].isalpha() and words[1].islower():
            own = {name: parser for name, parser in parsers.items() if name.split()[0] == words[1]}
            options = options_of(own) | GLOBAL if own else set()
            unknown += [code for word in words[1:2] if word not in parsers]
            unknown += [code for word in words[2:] if word.startswith("--") and word.partition("=")[0] not in options]
        elif words[0].startswith("--"):
            unknown += [code for word in words if word.startswith("--") and word not in known | FOREIGN]
    assert unknown == []


def test_settings_in_toml_of_the_docs_are_known() -> None:
    import tomllib

    from folds.config.lookup import key_of

    files = [block for block in ALL_BLOCKS if block.language == "toml"]
    assert files
    for block in files:
        values = tomllib.loads(block.text)
        space = values.pop("space", {})
        values.pop("tune", None)
        assert {key for key in (*values, *space) if key_of(key) is None} == set(), place_of(block)


@pytest.mark.parametrize(
    "name",
    [
        *["", "demo", "prepare", "folds", "kfold", "tune", "blend", "tta", "explain", "decide"],
        *["distill", "predict", "export", "push", "serve", "soup", "report", "costs", "runs", "doctor"],
    ],
)
def test_commands_and_options_that_help_mentions_exist(
    name: str, call: Callable[..., Called], parsers: Mapping[str, Any]
) -> None:
    shown = call(*[name] if name else [], "--help").out
    commands = set(re.findall(r"\bensemble ([a-z]+)\b", shown)) - {"COMMAND"}
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", shown))
    assert commands <= set(parsers)
    assert options - options_of(parsers) - GLOBAL == set()


@pytest.mark.parametrize("block", MARKED, ids=place_of)
def test_marked_commands_run(block: Block, call: Callable[..., Called], places: Callable[[str], Path]) -> None:
    assert block.run is not None
    folder = places(block.run)
    (folder / "ensemble.toml").write_text(SMALL_SETTINGS)
    for command in commands_of(block):
        done = call(*_matched(shlex.split(_small(command), comments=True)[1:]))
        assert done.code == 0, f"{place_of(block)}: {command}\n{done.out}\n{done.err}"


def _small(command: str) -> str:
    for pattern, smaller in SMALL.items():
        command = re.sub(pattern, smaller, command)
    return command


def _matched(words: list[str]) -> list[str]:
    """The words with patterns of files replaced by the files, as a shell does."""
    found = [sorted(map(str, Path().glob(word))) if "*" in word and "/" in word else [word] for word in words]
    return [word for part in found for word in part]


def test_the_examples_that_run_cover_the_work() -> None:
    ran = {command.split()[1] for block in MARKED for command in commands_of(block)}
    assert {"folds", "kfold", "blend", "tta", "runs"} <= ran


@pytest.mark.parametrize("block", PYTHON, ids=place_of)
def test_python_of_the_docs_is_valid(block: Block) -> None:
    compile(block.text, place_of(block), "exec")


def test_names_of_the_python_interface_in_the_docs_exist() -> None:
    import ensemble

    used = {name for block in PYTHON for name in re.findall(r"\ben\.(\w+)", block.text)}
    assert {"kfold", "blend", "score"} <= used
    if not hasattr(ensemble, "__getattr__"):
        pytest.skip("the lazy Python interface is not built yet")
    assert {name for name in used if not hasattr(ensemble, name)} == set()


def test_python_of_the_docs_runs_on_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    import ensemble

    if not hasattr(ensemble, "__getattr__"):
        pytest.skip("the lazy Python interface is not built yet")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(40), 5)
    y = np.repeat(rng.integers(0, 2, 40), 5)
    a, b = (_guesses(rng, y) for _ in range(2))
    names = {"X": np.zeros((200, 1)), "y": y, "person": person, "a": a, "b": b, "a_test": a, "b_test": b}
    names |= {"proba": a, "proba_a": a, "proba_b": b}
    for block in PYTHON:
        # These need a training, a network or a server.
        needs = ("photos.csv", "en.predict(", "en.export(", "en.from_hub(", 'en.load("', "en.serve(", "urlopen(")
        if not any(word in block.text for word in needs):
            exec(compile(block.text, place_of(block), "exec"), dict(names))  # noqa: S102


def _guesses(rng: Any, y: Any) -> Any:
    import numpy as np

    right = rng.uniform(0.3, 0.9, len(y))
    return np.where(y[:, None] == np.arange(2), right[:, None], 1 - right[:, None])
