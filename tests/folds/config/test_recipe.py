from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folds.augmentation.presets import PRESETS
from folds.config.checks import check
from folds.config.command_settings import Settings
from folds.config.files import load_settings, read_record, to_toml
from folds.config.lookup import all_settings, default_of, spelling_of
from folds.config.recipe import KEEP, NORMALISE, Recipe
from folds.errors import EnsembleError, UsageError, without_marks
from folds.images.settings import FITS, parse_size
from folds.models.precision import AMP
from folds.optim.loss_spec import parse_loss
from folds.optim.schedules import SCHEDULES


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config(text: str, name: str = "given.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def test_without_anything_all_is_at_its_default() -> None:
    assert load_settings({}) == (Settings(), Recipe(), {})
    assert load_settings({"epochs": None, "k": None}) == (Settings(), Recipe(), {})


def test_precedence_is_flag_environment_file_folder_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config("epochs = 2\nk = 2\nloss = 'folder'\nclip = 2\n", "ensemble.toml")
    given = config("epochs = 3\nk = 3\nloss = 'given'\n")
    monkeypatch.setenv("ENSEMBLE_EPOCHS", "4")
    monkeypatch.setenv("ENSEMBLE_K", "4")
    settings, recipe, origins = load_settings({"epochs": 5}, given)
    assert (recipe.epochs, settings.k, recipe.loss, recipe.clip, recipe.weight_decay) == (5, 4, "given", 2.0, None)
    assert origins == {"epochs": "flag", "k": "environment", "loss": "given.toml", "clip": "ensemble.toml"}


def test_a_file_that_is_not_there_is_an_error_that_names_it() -> None:
    with pytest.raises(EnsembleError, match=r"there is no settings file missing\.toml"):
        load_settings({}, Path("missing.toml"))


@pytest.mark.parametrize(
    ("key", "meant"), [("epoch", "epochs"), ("batchsize", "batch_size"), ("weight-decey", "weight_decay")]
)
def test_an_unknown_key_is_an_error_with_the_nearest_known_one(key: str, meant: str) -> None:
    path = config(f"{key} = 1\n")
    with pytest.raises(EnsembleError) as error:
        load_settings({}, path)
    assert type(error.value) is EnsembleError
    assert error.value.message.startswith(f"given.toml: unknown key '{key}'; did you mean {meant}")
    assert "label_smoothing" in str(error.value.hint)


def test_an_unknown_key_in_the_folders_file_is_an_error_too() -> None:
    config("zzzz = 1\n", "ensemble.toml")
    with pytest.raises(EnsembleError, match=r"^ensemble\.toml: unknown key 'zzzz'$"):
        load_settings({})


def test_keys_are_read_with_hyphens_as_with_underscores() -> None:
    _, recipe, origins = load_settings({}, config("batch-size = 8\nimg-size = 96\nchannels-last = true\n"))
    assert (recipe.batch_size, recipe.img_size, recipe.channels_last) == (8, "96", True)
    assert set(origins) == {"batch_size", "img_size", "channels_last"}


@pytest.mark.parametrize("content", ["epochs = \n", "epochs 3", "[", "epochs = 1\nepochs = 2"])
def test_a_file_that_is_not_toml_is_named_with_the_line(content: str) -> None:
    with pytest.raises(EnsembleError, match=r"given\.toml is not TOML: .*(line \d|end of document)"):
        load_settings({}, config(content))


def test_a_file_that_is_not_text_is_an_error_that_names_it() -> None:
    Path("given.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(EnsembleError, match=r"given\.toml is not TOML"):
        load_settings({}, Path("given.toml"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("epochs = 'many'", "a whole number"),
        ("epochs = 2.5", "a whole number"),
        ("epochs = true", "a whole number"),
        ("epochs = [3]", "a whole number"),
        ("epochs = ''", "a whole number"),
        ("lr = 'high'", "a number"),
        ("lr = false", "a number"),
        ("pretrained = 'maybe'", "true or false"),
        ("pretrained = 2", "true or false"),
        ("arch = 5", "a name or a list of names"),
        ("label = ['a']", "text"),
        ("loss = {a = 1}", "text"),
        ("name = true", "text"),
        ("data = 5", "a path"),
        ("model_args = 'x'", "a table of names and values"),
        ("model_args = [1]", "a table of names and values"),
    ],
)
def test_a_wrong_type_is_refused_naming_key_value_file_and_type(line: str, expected: str) -> None:
    key = line.split(" = ")[0]
    with pytest.raises(UsageError) as error:
        load_settings({}, config(line))
    assert error.value.message.startswith(f"{key} = ")
    assert error.value.message.endswith(f" (from given.toml): expected {expected}")


def test_a_wrong_value_in_the_environment_names_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENSEMBLE_EPOCHS", "many")
    with pytest.raises(UsageError, match=r"^epochs = 'many' \(from environment\): expected a whole number$"):
        load_settings({})


def test_a_wrong_flag_says_no_origin() -> None:
    with pytest.raises(UsageError, match=r"^epochs = 'many': expected a whole number$"):
        load_settings({"epochs": "many"})


def test_text_from_the_environment_becomes_the_type_of_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "EPOCHS": "3",
        "LR": "1e-3",
        "PRETRAINED": "yes",
        "CHANNELS_LAST": "1",
        "ARCH": "swin, resnet18,",
        "INIT": "w.pt",
        "SEED": "7",
    }
    for name, value in {**texts, "MODEL_ARGS": '{"depth": 3}', "IMG_SIZE": "64x96"}.items():
        monkeypatch.setenv(f"ENSEMBLE_{name}", value)
    settings, recipe, _ = load_settings({})
    assert (recipe.epochs, recipe.lr, recipe.pretrained, recipe.channels_last, recipe.seed) == (3, 1e-3, True, True, 7)
    assert (settings.arch, recipe.init, recipe.model_args, recipe.size()) == (
        ("swin", "resnet18"),
        Path("w.pt"),
        {"depth": 3},
        (64, 96),
    )


@pytest.mark.parametrize(
    ("text", "truth"),
    [("true", True), ("True", True), ("1", True), ("yes", True), ("false", False), ("0", False), ("NO", False)],
)
def test_yes_and_no_are_read_in_their_usual_spellings(monkeypatch: pytest.MonkeyPatch, text: str, truth: bool) -> None:
    monkeypatch.setenv("ENSEMBLE_PRETRAINED", text)
    assert load_settings({})[1].pretrained is truth


def test_an_empty_text_unsets_an_optional_setting_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    config("lr = 0.1\n", "ensemble.toml")
    monkeypatch.setenv("ENSEMBLE_LR", "")
    assert load_settings({})[1].lr is None


def test_integers_may_be_floats_and_sizes_may_be_numbers() -> None:
    _, recipe, _ = load_settings({}, config("epochs = 3.0\nlr = 1\nimg_size = 224\n"))
    assert (recipe.epochs, type(recipe.epochs), recipe.lr, recipe.img_size) == (3, int, 1.0, "224")


@pytest.mark.parametrize(
    ("key", "bad", "good"),
    [
        ("epochs", [0, -1], [1]),
        ("batch_size", [1, 0], [2]),
        ("lr", [0.0, -1.0, float("inf"), float("nan")], [1e-9]),
        ("weight_decay", [-0.1, float("inf"), float("nan")], [0.0]),
        ("warmup", [-1.0, float("nan")], [0.0]),
        ("label_smoothing", [-0.1, 1.0, float("nan")], [0.0, 0.99]),
        ("ema", [-0.1, 1.0], [0.0, 0.999]),
        ("clip", [-1.0, float("inf")], [0.0]),
        ("seed", [-1, 2**32], [0, 2**32 - 1]),
        ("k", [1, 0], [2]),
        ("repeats", [0, -1], [1, 3]),
        ("seeds", [0, -1], [1, 3]),
    ],
)
def test_a_value_out_of_range_names_setting_range_and_value(key: str, bad: list[Any], good: list[Any]) -> None:
    for value in bad:
        with pytest.raises(UsageError) as error:
            load_settings({key: value})
        assert str(error.value).startswith(f"{key} must be ")
        assert error.value.message.startswith(f"`{key}` must be ")
        assert str(error.value).endswith(f", found {value}")
    for value in good:
        settings, recipe, _ = load_settings({key: value})
        assert getattr(settings if hasattr(settings, key) else recipe, key) == value


def test_one_fold_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError) as error:
        load_settings({"k": 1})
    assert "validation data" in str(error.value.hint)


CHOICES = {
    "fit": FITS,
    "keep": KEEP,
    "normalise": NORMALISE,
    "augment": tuple(PRESETS),
    "amp": AMP,
    "schedule": tuple(SCHEDULES),
}


@pytest.mark.parametrize(("key", "choices"), CHOICES.items())
def test_a_choice_that_is_none_offers_the_nearest(key: str, choices: tuple[str, ...]) -> None:
    if key != "fit":
        assert all_settings()[key].choices == choices
    for choice in choices:
        assert getattr(load_settings({key: choice})[1], key) == choice
    with pytest.raises(UsageError, match=rf"unknown {spelling_of(key)} '{choices[0]}e'; did you mean"):
        load_settings({key: choices[0] + "e"})


def test_init_weights_and_no_pretrained_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="init_weights=FILE and pretrained=False contradict"):
        load_settings({"init": "w.pt", "pretrained": False})
    assert load_settings({"init": "w.pt"})[1].init == Path("w.pt")


def test_the_record_of_a_run_from_given_weights_can_be_given_again() -> None:
    """It says both that the weights are those of a file and that they are not timm's."""
    record = Path("config.toml")
    record.write_text('init = "w.pt"\npretrained = false\n\n[resolved]\n')
    again = load_settings({}, record)[1]
    assert (again.init, again.pretrained) == (Path("w.pt"), None)
    record.write_text('init = "w.pt"\npretrained = false\n')
    with pytest.raises(UsageError, match="contradict"):
        load_settings({}, record)


@pytest.mark.parametrize("arch", ["", ",", ()])
def test_no_architecture_at_all_is_wrong_usage(arch: Any) -> None:
    with pytest.raises(UsageError, match=r"^arch names no architecture"):
        load_settings({"arch": arch})


@pytest.mark.parametrize(("text", "size"), [("224", (224, 224)), ("288x384", (288, 384)), ("8X4096", (8, 4096))])
def test_a_size_is_a_number_or_height_by_width(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size
    assert Recipe(img_size=text).size() == size


@pytest.mark.parametrize(
    "text", ["7", "4097", "0", "-64", "64x", "x64", "64x64x3", "64,64", "64 x 64", "1e2", "large", "22²", ""]
)
def test_a_size_that_is_none_is_wrong_usage_that_shows_how(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_size(text)
    assert str(error.value).startswith(f"img_size={text}: expected a number of pixels")
    assert "`img_size=288x384`" in str(error.value.hint)


@pytest.mark.parametrize(
    ("text", "window"), [("0,4095", (0.0, 4095.0)), ("-1000, 400", (-1000.0, 400.0)), ("0.5,1e3", (0.5, 1000.0))]
)
def test_a_window_is_two_numbers_from_black_to_white(text: str, window: tuple[float, float]) -> None:
    assert Recipe(window=text).value_window() == window
    assert load_settings({"window": text})[1].value_window() == window


@pytest.mark.parametrize("text", ["1", "1,2,3", "a,b", "2,1", "1,1", "nan,1", "0,inf", ","])
def test_a_window_that_is_none_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match=f"window={text}: "):
        load_settings({"window": text})


def test_without_size_and_window_model_and_file_decide() -> None:
    assert (Recipe().size(), Recipe().value_window()) == (None, None)


@pytest.mark.parametrize(
    ("recipe", "own", "rate", "why"),
    [
        (Recipe(lr=0.5, pretrained=True), {"lr": 0.1}, 0.5, "as asked"),
        (Recipe(pretrained=True), {}, 2e-4, "from pretrained weights"),
        (Recipe(init=Path("w.pt")), {}, 2e-4, "from pretrained weights"),
        (Recipe(pretrained=False), {}, 1e-3, "from random weights"),
        (Recipe(), {}, 1e-3, "from random weights"),
        (Recipe(), {"lr": 0.1}, 0.1, "suits this small model"),
        (Recipe(batch_size=128), {}, 2e-3, "from random weights, ×2.00 for batches of 128"),
        (Recipe(batch_size=32), {"lr": 0.1, "batch_size": 8}, 0.2, "suits this small model, ×2.00 for batches of 32"),
        (Recipe(opt="sgd"), {"lr": 0.1}, 0.05, "from random weights, ×50 for sgd"),
    ],
)
def test_the_default_learning_rate_depends_on_weights_and_model(
    recipe: Recipe, own: dict[str, Any], rate: float, why: str
) -> None:
    completed, reason = recipe.completed(own)
    assert (completed.lr, reason) == (rate, why)


def test_open_settings_come_from_the_model_then_from_defaults() -> None:
    decided = {"lr": 1.0, "warmup": 1.0, "weight_decay": 0.05, "label_smoothing": 0.1, "ema": 0.0, "layer_decay": 1.0}
    decided |= {"head": "linear"}
    assert Recipe(lr=1.0).completed({})[0] == Recipe(batch_size=32, augment="standard", **decided)
    assert Recipe(lr=1.0).completed({"batch_size": 8, "augment": "light"})[0] == Recipe(
        batch_size=8, augment="light", **decided
    )
    for opt, decay in (("sgd", 1e-4), ("adam", 0.0), ("lion", 0.05)):
        assert Recipe(opt=opt).completed({})[0].weight_decay == decay
    given = Recipe(
        lr=1.0,
        batch_size=4,
        augment="none",
        warmup=0.0,
        weight_decay=0.2,
        label_smoothing=0.3,
        ema=0.5,
        layer_decay=0.5,
        head="cosine",
    )
    assert given.completed({"lr": 2.0, "batch_size": 8, "augment": "light"})[0] == given


@pytest.mark.parametrize(
    ("loss", "smoothing"),
    [
        ("wce+f1", 0.1),
        ("focal", 0.0),
        ("ldam:drw=.5", 0.0),
        ("bce+f1", 0.0),
        ("logit_adjusted", 0.0),
        ("ce+focal", None),
    ],
)
def test_only_cross_entropy_is_smoothed_unless_asked(loss: str, smoothing: float | None) -> None:
    completed = Recipe(loss=loss).completed({})[0]
    assert completed.label_smoothing == smoothing
    terms = parse_loss(loss, completed.label_smoothing).terms
    assert [one.smoothing for one in terms if one.name != "f1"] == [
        0.1 if one.name in ("ce", "wce") else 0.0 for one in terms if one.name != "f1"
    ]
    assert Recipe(loss=loss, label_smoothing=0.2).completed({})[0].label_smoothing == 0.2


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"average_last": 3, "ema": 0.9}, "average_last and ema contradict"),
        ({"average_last": 3, "patience": 2}, "average_last and patience contradict"),
        ({"average_last": 3, "keep": "best"}, "average_last and select=best contradict"),
        ({"average_last": 1}, "from 2 to the number of epochs"),
        ({"average_last": 16}, "from 2 to the number of epochs"),
        ({"ema_warmup": 1.0}, "ema_warmup needs ema"),
        ({"pseudo_weight": 1.0}, "pseudo_weight needs pseudo"),
        ({"pseudo_soft": True}, "pseudo_soft needs pseudo"),
        ({"soft_columns": "p_", "soft_labels": Path("x.npy")}, "soft_labels and soft_columns contradict"),
        ({"drop_path": 0.1, "model_args": {"drop_path_rate": 0.2}}, "drop_path and drop_path_rate"),
    ],
)
def test_settings_that_exclude_or_need_each_other(recipe: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        check(Settings(), Recipe(**recipe))
    assert said in without_marks(error.value.message)


words = st.text(st.characters(codec="utf-8"), max_size=10)
floats = st.floats(1e-12, 1e12)
plain = st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | words
recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 10**6),
    batch_size=st.integers(2, 10**6),
    lr=st.none() | floats,
    weight_decay=st.just(0.0) | floats,
    label_smoothing=st.floats(0, 0.99),
    loss=words,
    amp=st.sampled_from(AMP),
    channels_last=st.none() | st.booleans(),
    img_size=st.sampled_from([None, "64", "64x96"]),
    window=st.sampled_from([None, "0,4095"]),
    pretrained=st.sampled_from([None, True]),
    init=st.none() | words.filter(lambda text: "\0" not in text and text).map(Path),
    model_args=st.dictionaries(
        words, plain | st.lists(plain, max_size=3) | st.dictionaries(words, plain, max_size=2), max_size=3
    ),
    seed=st.integers(0, 2**32 - 1),
)
given_settings = st.builds(
    Settings,
    data=st.none() | st.just(Path("some/folder with 'quotes\"")),
    label=words,
    person=words,
    split=st.none() | words.filter(bool),
    k=st.integers(2, 100),
    stratify=st.lists(st.text("abc_123", min_size=1, max_size=8), max_size=3).map(tuple),
    repeats=st.integers(1, 9),
    arch=st.lists(st.text("abc_123.-", min_size=1, max_size=8), min_size=1, max_size=3).map(tuple),
    name=st.none() | words.filter(lambda text: text and text[0] != "." and not set("/\\") & set(text)),
)


@settings(max_examples=50, deadline=None)
@given(given_settings, recipes)
def test_a_record_given_again_is_the_same_training(chosen: Settings, recipe: Recipe) -> None:
    record = Path("config.toml")
    record.write_text(
        to_toml(chosen, recipe, {"lr": 1e-3, "reason": "small sibling", "none": None, "sizes": [1, 2]}),
        encoding="utf-8",
    )
    parsed = tomllib.loads(record.read_text(encoding="utf-8"))
    assert parsed["resolved"] == {"lr": 1e-3, "reason": "small sibling", "sizes": [1, 2]}
    assert parsed["epochs"] == recipe.epochs
    assert ("lr" in parsed) == (recipe.lr is not None)
    assert read_record(record) == parsed
    again_settings, again_recipe, origins = load_settings({}, record)
    assert (again_settings, again_recipe) == (chosen, recipe)
    assert set(origins.values()) == {"config.toml"}


def test_a_missing_or_damaged_record_is_an_error_with_a_remedy() -> None:
    for content in (None, "epochs = ", b"\xff"):
        if content is not None:
            Path("config.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(EnsembleError, match=r"config\.toml cannot be read") as error:
            read_record(Path("config.toml"))
        assert "`name=NEW`" in str(error.value.hint)


def test_help_texts_show_the_defaults_that_are_used() -> None:
    assert (default_of("epochs"), default_of("k"), default_of("arch")) == (
        Recipe().epochs,
        Settings().k,
        Settings().arch,
    )
    assert (default_of("model_args"), default_of("no such key")) == (None, None)


def test_the_defaults_pass_their_own_check() -> None:
    check(Settings(), Recipe())


def test_holdout_is_between_0_and_1_and_excludes_folds() -> None:
    assert load_settings({"holdout": 0.1})[0].holdout == 0.1
    assert load_settings({})[0].repair is True
    with pytest.raises(UsageError, match=r"^holdout must be above 0 and below 1, found 2"):
        load_settings({"holdout": 2.0})
    with pytest.raises(UsageError, match=r"^folds and holdout contradict each other"):
        load_settings({"holdout": 0.1, "folds": Path("folds.csv")})


def test_the_record_of_a_holdout_run_can_be_given_again(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("k = 1\nholdout = 0.1\n")
    assert load_settings({}, tmp_path / "config.toml")[0].holdout == 0.1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"folds": "f.csv"}, {"holdout": 0.1}),
        ({"folds": "f.csv"}, {"stratify": "site"}),
        ({"folds": "f.csv"}, {"repeats": 2}),
        ({"holdout": 0.1}, {"repeats": 2}),
    ],
)
def test_two_ways_to_split_contradict_in_one_place_only(one: dict[str, Any], other: dict[str, Any]) -> None:
    (first,), (second,) = one, other
    with pytest.raises(UsageError, match=f"^{first} and {second} contradict each other"):
        load_settings({**one, **other})
    for given_here, in_file in ((one, other), (other, one)):
        config("".join(f"{key} = {value!r}\n" for key, value in in_file.items()), "ensemble.toml")
        settings, _, origins = load_settings(given_here)
        (kept,), (gone,) = given_here, in_file
        assert origins == {kept: "flag"}
        assert getattr(settings, gone) == getattr(Settings(), gone)


def test_k_as_a_flag_has_precedence_over_holdout_in_a_file() -> None:
    config("holdout = 0.1\n", "ensemble.toml")
    assert load_settings({"k": 3})[0].holdout is None
    assert load_settings({})[0].holdout == 0.1
    assert load_settings({}, config("k = 1\nholdout = 0.2\n"))[0].holdout == 0.2


def test_columns_to_spread_are_read_as_text_and_as_a_list() -> None:
    assert load_settings({"stratify": "gender, source"})[0].stratify == ("gender", "source")
    assert load_settings({}, config("stratify = ['gender', 'source']\n"))[0].stratify == ("gender", "source")


def test_seeds_that_count_beyond_the_last_one_are_refused() -> None:
    assert load_settings({"seed": 2**32 - 3, "seeds": 3})[0].seeds == 3
    with pytest.raises(UsageError, match="seeds=3 from seed=4294967294 on go beyond"):
        load_settings({"seed": 2**32 - 2, "seeds": 3})


@pytest.mark.parametrize(
    ("schedule", "warmup"), [("cosine", 1.0), ("plateau", 1.0), ("onecycle", 0.0), ("cyclic", 0.0)]
)
def test_a_schedule_that_begins_low_has_no_warm_up_of_its_own(schedule: str, warmup: float) -> None:
    assert Recipe(schedule=schedule).completed({})[0].warmup == warmup
    assert Recipe(schedule=schedule, warmup=2.0).completed({})[0].warmup == 2.0


def test_a_batch_is_not_cut_into_more_parts_than_it_has_images() -> None:
    with pytest.raises(UsageError, match=r"^grad_accum must not exceed batch_size \(32\), found 64"):
        load_settings({"accumulate": 64, "batch_size": 32})
    load_settings({"accumulate": 32, "batch_size": 32})
