"""Draw the picture of the README from the demo's result, for a light and a dark page.

    ensemble demo --json > docs/images/demo.json      # the second time the demo only prints its table
    ensemble demo --quiet > demo.txt
    python docs/images/draw.py --readme demo.txt      # the pictures, and the README's block of the demo's output

Needs matplotlib (`pip install 'ensemble-folds[docs]'`).
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
README = HERE.parent.parent / "README.md"
BLOCK = re.compile(r"(<!-- demo output: begin -->\n```text\n).*?(```\n<!-- demo output: end -->)", re.DOTALL)
LABELS = {"oof": "OOF (cross-validated), 95% CI over people", "test": "test people, 95% CI"}
THEMES = {
    "light": {"text": "#1f2328", "grid": "#d8dee4", "oof": "#3f51b5", "test": "#c2410c"},
    "dark": {"text": "#e6edf3", "grid": "#30363d", "oof": "#9fa8ff", "test": "#ffa657"},
}


def draw(lines: list[dict[str, Any]], theme: dict[str, str], path: Path) -> None:
    """Write an SVG: a row per line of the demo, its OOF macro F1 with its 95% CI, and the test macro F1 with its own.

    Parameters
    ----------
    lines : `name`, `oof` and `test`, each with `score`, `low` and `high`, as `ensemble demo --json` prints them.
    theme : colors of text, grid and marks; the page shows through.
    """
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "ensemble", "font.size": 11, "font.family": "DejaVu Sans"})
    figure, axes = plt.subplots(figsize=(9.2, 0.4 * len(lines) + 1.3), layout="constrained")
    for row, line in enumerate(lines):
        for split, offset, marker in (("oof", -0.14, "o"), ("test", 0.14, "D")):
            score, color = line[split], theme[split]
            axes.plot([score["low"], score["high"]], [row + offset] * 2, color=color, lw=2, solid_capstyle="round")
            axes.plot(
                score["score"], row + offset, marker, color=color, ms=6, label=LABELS[split] if row == 0 else None
            )
    axes.set_yticks(range(len(lines)), [line["name"] for line in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlabel("macro F1 (18 classes, synthetic faces)", color=theme["text"])
    axes.grid(axis="x", color=theme["grid"], lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=theme["text"])
    for spine in axes.spines.values():
        spine.set_visible(False)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2, frameon=False, labelcolor=theme["text"])
    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def with_output(readme: str, output: str) -> str:
    """Return the README with its block of the demo's output replaced.

    Raises
    ------
    ValueError : the README has no such block.
    """
    if BLOCK.search(readme) is None:
        raise ValueError(f"{README} has no block between the comments 'demo output: begin' and 'demo output: end'")
    table = output.strip("\n")  # the header of the first column is blank
    return BLOCK.sub(lambda found: f"{found[1]}{table}\n{found[2]}", readme)


def main() -> None:
    """Draw both pictures; replace the README's block where a file with the demo's output is given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE / "demo.json", help="output of `ensemble demo --json`")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="output of `ensemble demo --quiet`, for the README")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the pictures are written")
    asked = parser.parse_args()
    lines = json.loads(asked.data.read_text(encoding="utf-8"))["lines"]
    for name, theme in THEMES.items():
        draw(lines, theme, asked.folder / f"demo-{name}.svg")
    if asked.readme is not None:
        text = with_output(README.read_text(encoding="utf-8"), asked.readme.read_text(encoding="utf-8"))
        README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
