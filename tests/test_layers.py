"""The architecture, held: one arrow between the packages, one order within, and light starts."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A file imports only files before it. docs/architecture.md says what each is for.
FOLDS = """
errors cores files kinds ledger git_state softmax
scores by_person student left_out redrawn intervals class_scores reliability user_code user_metric
csv_table maps samples_file predictions toml_text
samples image_folders mask_layout readers faces portraits people schedule loss_terms contradictions recipe settings_file sweep space trials sources
contents depth decode usable images
strata stratified repair assignment split repeats
duplicates audit contact_sheet
boxes cascades mediapipe_faces detectors background originals preparation prepared_files prepared_images crop_sheet prepare
presets policies augment mixing transform transform_pool preview
sampling losses targets comparison criterion choices devices architectures joined optimise checkpoint inference
job tracking state fold_setup fitting training worker
journal shared task patience lost cluster
run versions beginnings grid plan manager summary tuning trial_task tune importance importance_plot experiment catalogue
""".split()
ENSEMBLE = """
hard_labels found_files scans leaks members copies runs run_files tables class_order attributes alignment
ballots means mean_stream majority ranks marginals given_weights voting scoring
stack combination evaluation
greedy_kernels greedy_counts greedy weights class_weights calibration class_bias remembered stacking fitters auto learned_votes
coalitions shapley diversity worth cost subsets pareto advice
request entries fitted worths details blends blend_recipe blend_files
view_files views view_merges view_weights view_predictions tta view_scores
""".split()


def imported_by(path: Path, package: str) -> set[str]:
    """The modules of `package` that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts[0] == package:
                found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith(f"{package}.")}
    return found


def test_folds_never_imports_ensemble() -> None:
    for path in (ROOT / "folds").rglob("*.py"):
        assert not imported_by(path, "ensemble"), path


@pytest.mark.parametrize(("package", "order"), [("folds", FOLDS), ("ensemble", ENSEMBLE)])
def test_a_file_imports_only_files_above_it(package: str, order: list[str]) -> None:
    files = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    assert files == set(order), "a file that the order does not name, or the reverse"
    for i, name in enumerate(order):
        below = imported_by(ROOT / package / f"{name}.py", package) - set(order[:i]) - {"__version__", name}
        assert not below, f"{package}/{name}.py imports {sorted(below)}, which come after it"


def modules_after(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_packages_import_nothing_heavy() -> None:
    assert not modules_after("import ensemble, folds") & {"torch", "timm", "sklearn", "pandas", "numpy", "scipy"}


def test_help_imports_neither_numpy_nor_typer() -> None:
    code = "from ensemble.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    assert not modules_after(code) & {"torch", "timm", "sklearn", "pandas", "numpy", "scipy", "typer", "rich"}
