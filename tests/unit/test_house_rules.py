"""What holds for the repository as a whole."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "operator/src", ROOT / "trainer/src")


def test_the_folder_operator_never_hides_the_standard_librarys_module():
    assert not (ROOT / "operator/__init__.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py")), "test folders are no packages"
    assert not [path for path in (ROOT / "tests").rglob("operator") if path.is_dir()]


def test_no_module_is_named_like_one_of_the_standard_library():
    names = {path.stem if path.is_file() else path.name for source in SOURCES for path in source.rglob("*") if _is_module(path)}
    assert not names & set(sys.stdlib_module_names)


def _is_module(path):
    return (path.suffix == ".py" and not path.name.startswith("__")) or (path.is_dir() and (path / "__init__.py").exists())


@pytest.mark.parametrize(
    "module", ["prism_operator.cli", "prism_operator.validate", "prism_operator.local.runner", "prism_trainer.contract.job"]
)
def test_what_must_be_light_loads_nothing_heavy(module):
    heavy = "{'torch', 'transformers', 'ray', 'verl', 'numpy', 'matplotlib', 'jinja2', 'kubernetes', 'kopf'}"
    code = f"import sys, {module}; sys.exit(', '.join(sorted({heavy} & set(sys.modules))))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""


def test_imports_respect_the_layers():
    lint = subprocess.run([Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert lint.returncode == 0, lint.stdout


@pytest.mark.parametrize("tool", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)], ids=" ".join)
def test_the_code_passes(tool):
    found = subprocess.run([Path(sys.executable).with_name(tool[0]), *tool[1:]], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


def test_modules_and_functions_stay_small():
    assert not [f"{path}: {length} lines" for path in _modules() if (length := len(path.read_text().splitlines())) > 500]


def _modules():
    return [path for source in SOURCES for path in source.rglob("*.py")]
