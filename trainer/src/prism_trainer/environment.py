"""What each environment must have: `python -m prism_trainer.environment rl` imports it and all of ours, and compares versions.

The last step of an image's build, so that a broken one is not built; the tests' environments are held against the same lists. Exit code
1 and a line for each thing that is missing or of another version.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import get_args

from prism_trainer.carriers import VERL
from prism_trainer.contract.environments import Environment, environment_of

PINS: dict[Environment, dict[str, str]] = {
    "cpu": {"torch": "2.11.0", "transformers": "5.9.0", "ray": "2.60.0", "math-verify": "0.9.0"},
    "sft": {"torch": "2.11.0", "transformers": "5.6.0", "llamafactory": "0.9.5", "deepspeed": "0.19.8", "ray": "2.60.0"},
    "rl": {
        **{"torch": "2.11.0", "transformers": "5.9.0", "verl": "0.9.1", "vllm": "0.24.0", "ray": "2.60.0", "tensordict": "0.10.0"},
        **{"TransferQueue": "0.1.11", "deepspeed": "0.19.8", "accelerate": "1.15.0", "math-verify": "0.9.0"},
    },
    "eval": {"torch": "2.11.0", "transformers": "5.9.0", "lmms-eval": "0.7.3", "vllm": "0.24.0", "ray": "2.60.0", "math-verify": "0.9.0"},
}
"""By distribution. A local part, as in `0.24.0+cpu`, is not compared."""

_EVERYWHERE = ("torch", "torchvision", "transformers", "ray", "safetensors", "numpy", "PIL", "pyarrow", "pydantic", "psutil", "filelock")
MODULES: dict[Environment, tuple[str, ...]] = {
    "cpu": (*_EVERYWHERE, "math_verify", "httpx"),
    "sft": (*_EVERYWHERE, "llamafactory.train.tuner", "deepspeed", "accelerate", "datasets", "peft"),
    "rl": (
        *_EVERYWHERE,
        *("verl.trainer.ppo.ray_trainer", "verl.workers.engine_workers", "vllm", "tensordict", "transfer_queue", "hydra"),
        *("deepspeed", "accelerate", "peft", "math_verify", "qwen_vl_utils", "av"),
    ),
    "eval": (*_EVERYWHERE, "lmms_eval.evaluator", "vllm", "math_verify", "qwen_vl_utils", "httpx"),
}
"""What the engines import; av and qwen_vl_utils are asked for by verl at the first image only, hours after the start."""
IN_IMAGES = ("s3fs",)
"""Beside them: object storage is read in pods alone."""
OBJECT_STORAGE = "prism_trainer.stores"
GPU_KERNELS = "prism_trainer.packed.triton_kernels"
"""Triton comes with torch's build for GPUs."""


def installed_versions(environment: Environment) -> dict[str, str]:
    """Of the pinned distributions, without local parts; those that are missing are left out."""
    found: dict[str, str] = {}
    for name in PINS[environment]:
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return found


def problems(environment: Environment, in_image: bool) -> Iterator[str]:
    """A sentence for each thing that is not as it must be."""
    yield from wrong_versions(environment, installed_versions(environment))
    if in_image and environment != "cpu":
        yield from compiler_problems(Path(sysconfig.get_path("include")))
    for module in (*MODULES[environment], *(IN_IMAGES if in_image else ()), *own_modules(environment, in_image)):
        try:
            importlib.import_module(module)
        except Exception as error:  # an import may fail in any way
            yield f"{module} cannot be imported: {type(error).__name__}: {error}"


def wrong_versions(environment: Environment, installed: dict[str, str]) -> Iterator[str]:
    """Held against the pin."""
    for name, pinned in PINS[environment].items():
        found = installed.get(name)
        if found is None:
            yield f"{name} is not installed; expected {pinned}"
        elif found != pinned:
            yield f"{name} is {found}; expected {pinned}"


def compiler_problems(headers: Path, compiler: str = "g++") -> Iterator[str]:
    """Triton compiles a launcher for each kernel when it first runs, against Python's headers; nothing else would tell before."""
    if shutil.which(compiler) is None:
        yield f"{compiler} is not there, and Triton and torch.compile need it; install it"
    if not (headers / "Python.h").is_file():
        yield f"'{headers}' has no Python.h, against which Triton compiles; take a base image with Python's headers, or install them"


def own_modules(environment: Environment, in_image: bool) -> list[str]:
    """Ours, each by itself: who carries a stage out imports most of its package only when it runs."""
    left_out = {module.rpartition(".")[0] for kind, module in VERL.items() if environment_of("verl", kind) != environment}
    if not in_image:
        left_out.add(OBJECT_STORAGE)
    if importlib.util.find_spec("triton") is None:
        left_out.add(GPU_KERNELS)
    root = Path(__file__).parent
    found = sorted(".".join((root.name, *file.relative_to(root).with_suffix("").parts)) for file in root.rglob("*.py"))
    names = [name.removesuffix(".__init__") for name in found]
    return [name for name in names if not any(f"{name}.".startswith(f"{one}.") for one in left_out)]


def carriers(environment: Environment) -> list[str]:
    """Our own modules that carry stages out with these libraries."""
    return sorted(module for kind, module in VERL.items() if environment_of("verl", kind) == environment)


def main(arguments: list[str]) -> int:
    known = get_args(Environment)
    if len(arguments) != 1 or arguments[0] not in known:
        print(f"usage: python -m prism_trainer.environment {{{','.join(known)}}}", file=sys.stderr)
        return 2
    environment: Environment = arguments[0]  # type: ignore[assignment]
    found = list(problems(environment, in_image=True))
    for sentence in found:
        print(sentence, file=sys.stderr)
    if not found:
        print(f"environment {environment}: {', '.join(f'{name} {version}' for name, version in PINS[environment].items())}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
