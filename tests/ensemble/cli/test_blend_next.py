"""The next command that `ensemble blend` names."""

from __future__ import annotations

from pathlib import Path

from ensemble.cli.commands.blend import sees_one_image


def test_views_are_not_named_for_heads_that_see_a_person(tmp_path: Path) -> None:
    for head in ("attention", "attention-person", "relative"):
        (tmp_path / "config.toml").write_text(f'head = "{head}"\n')
        assert not sees_one_image(tmp_path)
    (tmp_path / "config.toml").write_text('head = "linear"\n')
    assert sees_one_image(tmp_path)
    (tmp_path / "config.toml").write_text("head = [[[\n")
    assert sees_one_image(tmp_path)
    assert sees_one_image(tmp_path / "absent")
