"""What the Trainer saved, as a checkpoint of ours: weights into `policy/`, what is needed to go on into `state/`.

Configuration, tokenizer and processor in `policy/` are those of the model the stage began with, byte for byte but for the weights' type:
training changes none of them, and the same files written anew by this image's transformers (5.6) differ from what 5.9 writes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors import safe_open

from prism_trainer.checkpoints import Writer
from prism_trainer.engines.ranks.shares import require_same_ranks, write_ranks

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
STATE = ("optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state*.pth", "global_step*", "latest")
COMPANIONS = ("*.json", "*.jinja", "*.txt", "*.model")


def policy_writer(saved: Path, began_with: Path) -> Writer:
    """Moves the weights: they may be large, and lie on the same volume."""

    def write(folder: Path) -> None:
        for file in _matching(began_with, COMPANIONS):
            if not file.name.endswith(".safetensors.index.json"):
                shutil.copyfile(file, folder / file.name)
        for file in _matching(saved, WEIGHTS):
            shutil.move(file, folder / file.name)
        _tell_type(folder)

    return write


def state_writer(saved: Path, world_size: int) -> Writer:
    def write(folder: Path) -> None:
        for entry in _matching(saved, STATE):
            shutil.move(entry, folder / entry.name)
        write_ranks(folder, world_size)

    return write


def lay_out_resume(checkpoint: Path, folder: Path, world_size: int) -> None:
    """The checkpoint as the Trainer left it: links into `policy/` and `state/`."""
    require_same_ranks(checkpoint / "state", world_size)
    folder.mkdir(parents=True)
    for entry in (*_matching(checkpoint / "policy", (*WEIGHTS, "config.json")), *_matching(checkpoint / "state", STATE)):
        (folder / entry.name).symlink_to(entry.absolute())


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern)})


def _tell_type(folder: Path) -> None:
    """vLLM takes the type from the configuration, and the weights may have another than those the stage began with."""
    with safe_open(next(iter(_matching(folder, ("*.safetensors",)))), "pt") as stored:
        name = next(iter(stored.keys()))
        kind = str(stored.get_tensor(name).dtype).removeprefix("torch.")
    file = folder / "config.json"
    config = json.loads(file.read_text())
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for field in ("dtype", "torch_dtype"):
            if field in part:
                part[field] = kind
    config.setdefault("dtype", kind)
    file.write_text(json.dumps(config, indent=2) + "\n")
