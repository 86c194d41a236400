"""The warmed-up discriminator as the paper's authors released it (Qwen3-VL-2B-4X-Moe-warmup-120k), read as ours.

    python -m prism_trainer.discriminator.released RELEASED_FOLDER NEW_FOLDER     writes it once in our layout

What differs there, from upstream's moe/value_head.py and transformers 4.57:

- the configuration is that of `Qwen3VLMoeForConditionalGeneration`, which has no scalar head; `lm_head` is stored and never used
- the head is `v_head.1.weight` among the safetensors, and once more, as `v_head.summary.weight`, in `value_head.pt`
- experts are stored (E, H, 2I) and (E, I, H); transformers 5 computes with (E, 2I, H) and (E, H, I)

A stage reads safetensors only, so the head comes from there. A copy that lost it there but kept `value_head.pt` is converted by the
command above, the only place that opens it, and only as plain tensors (`weights_only`). The released model was warmed up on reasoning
without the caption before it, and is shown it so here (`cot_sees_caption` off); its head's dropout stays off (defect A6).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoConfig, AutoProcessor, Qwen3VLMoeConfig
from transformers.initialization import no_init_weights

from prism_trainer.discriminator.model import Qwen3VLMoeDiscriminator
from prism_trainer.errors import ModelError

ARCHITECTURE = "Qwen3VLMoeForConditionalGeneration"
HEAD, HEAD_FILE, HEAD_IN_FILE = "v_head.1.weight", "value_head.pt", "v_head.summary.weight"
TRANSPOSED = (".mlp.experts.gate_up_proj", ".mlp.experts.down_proj")
UNUSED = ("lm_head.weight", HEAD)


def is_released(folder: Path, architecture: str) -> bool:
    """Whether `folder` holds a discriminator in the released layout, and not a policy of the same architecture."""
    return architecture == ARCHITECTURE and (HEAD in stored_names(folder) or (folder / HEAD_FILE).is_file())


def stored_names(folder: Path) -> dict[str, Path]:
    """Each tensor's name and the safetensors file that holds it."""
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as stored:
            found |= dict.fromkeys(stored.keys(), file)
    return found


def read_released(folder: Path, head: Tensor | None = None) -> Qwen3VLMoeDiscriminator:
    """The released discriminator in float32. `head` (1, H) takes the place of a head that is not among the safetensors."""
    names = stored_names(folder)
    if head is None and HEAD not in names:
        raise ModelError(
            f"'{folder}' has its scalar head in {HEAD_FILE} only, and stages read safetensors only; convert it once with "
            f"`python -m prism_trainer.discriminator.released {folder} NEW_FOLDER` and give the new folder"
        )
    with no_init_weights():
        model = Qwen3VLMoeDiscriminator(_configuration(folder)).float()
    expected = {_released_name(name): (name, tensor) for name, tensor in model.state_dict().items()}
    surplus = sorted(names.keys() - expected.keys() - set(UNUSED))
    if surplus:
        raise ModelError(
            f"'{folder}' has a tensor '{surplus[0]}' that the released layout does not know; give the released files as they are"
        )
    with torch.no_grad():
        for stored, (name, place) in expected.items():
            place.copy_(head if stored == HEAD and head is not None else _read(folder, names, stored, name, place))
    return model


def _configuration(folder: Path) -> Qwen3VLMoeConfig:
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    config.architectures = [Qwen3VLMoeDiscriminator.__name__]
    config.head_dropout, config.cot_sees_caption = 0.0, False
    return config  # type: ignore[no-any-return]


def _released_name(name: str) -> str:
    return HEAD if name == "score.weight" else name


def _read(folder: Path, names: dict[str, Path], stored: str, name: str, place: Tensor) -> Tensor:
    """Always turned, never by comparing shapes: where H is I or 2I both layouts have the same."""
    if stored not in names:
        raise ModelError(f"'{folder}' lacks the tensor '{stored}' of a released discriminator; restore the files")
    with safe_open(names[stored], "pt") as file:
        tensor = file.get_tensor(stored)
    turned = tensor.transpose(1, 2) if name.endswith(TRANSPOSED) else tensor
    if turned.shape != place.shape:
        raise ModelError(f"'{folder}': tensor '{stored}' has shape {tuple(turned.shape)} when read as ours, expected {tuple(place.shape)}")
    return turned


def read_head_file(folder: Path) -> Tensor:
    """The head (1, H) in `value_head.pt`; a pickle, of which nothing but tensors is built."""
    try:
        stored = torch.load(folder / HEAD_FILE, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ModelError(f"'{folder / HEAD_FILE}' holds more than tensors and is not opened; give the released file") from error
    if HEAD_IN_FILE not in stored:
        raise ModelError(
            f"'{folder / HEAD_FILE}' has no '{HEAD_IN_FILE}' but {', '.join(sorted(stored)) or 'nothing'}; give the released file"
        )
    return stored[HEAD_IN_FILE]  # type: ignore[no-any-return]


def convert(folder: Path, target: Path) -> None:
    """Write the discriminator at `folder` to `target` in our layout: safetensors, with its processor."""
    model = read_released(folder, None if HEAD in stored_names(folder) else read_head_file(folder))
    model.save_pretrained(target)
    AutoProcessor.from_pretrained(folder, local_files_only=True).save_pretrained(target)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the released discriminator in the layout of this project.")
    parser.add_argument("released", type=Path)
    parser.add_argument("target", type=Path)
    given = parser.parse_args()
    convert(given.released, given.target)


if __name__ == "__main__":
    main()
