"""Loading and saving models as Hugging Face directories, safetensors only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel
from transformers.utils import logging

from prism_trainer.contract.configs import Device, SftConfig
from prism_trainer.discriminator.model import DISCRIMINATORS, Discriminator
from prism_trainer.discriminator.released import is_released, read_released
from prism_trainer.errors import ModelError
from prism_trainer.packed.patches import use_linear_patches

Processor = Any
"""A transformers processor; the library gives it no useful static type."""


POLICIES = ("Qwen3VLForConditionalGeneration", "Qwen3VLMoeForConditionalGeneration")


def pick_device(asked: Device) -> torch.device:
    if asked == "cuda" and not torch.cuda.is_available():
        raise ModelError("config.device is 'cuda' but this machine has no usable GPU; set it to 'cpu' or 'auto'")
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(asked)


def use_threads(threads: int | None) -> None:
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))


def quiet_transformers() -> None:
    """Its bars and advice would bury the stage's own lines."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_policy(folder: Path, device: torch.device) -> PreTrainedModel:
    """A vision-language model in float32."""
    require_policy(folder)
    return _load(AutoModelForImageTextToText, folder).to(device)


def require_policy(folder: Path) -> str:
    """By its configuration alone; the architecture."""
    architecture = architecture_of(folder)
    if architecture in DISCRIMINATORS or is_released(folder, architecture):
        raise ModelError(f"'{folder}' holds a discriminator, expected a policy; correct the stage's policy or checkpoint")
    if architecture not in POLICIES:
        raise ModelError(f"'{folder}' holds a {architecture}, expected one of {', '.join(POLICIES)}; give a Qwen3-VL model")
    return architecture


def load_discriminator(folder: Path, device: torch.device) -> Discriminator:
    """A scalar-head discriminator in float32: one of ours, or the paper's in the layout it was released in."""
    architecture = architecture_of(folder)
    if is_released(folder, architecture):
        return read_released(folder).to(device)  # type: ignore[arg-type]
    if architecture not in DISCRIMINATORS:
        raise ModelError(
            f"'{folder}' holds a {architecture}, expected a {' or '.join(DISCRIMINATORS)}; correct the stage's discriminator or checkpoint"
        )
    model: Discriminator = _load(DISCRIMINATORS[architecture], folder).to(device)
    return model


def load_processor(folder: Path) -> Processor:
    try:
        return AutoProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"'{folder}' has no usable processor ({_first_line(error)}); save the processor beside the model") from error


def save_model(model: PreTrainedModel, processor: Processor, folder: Path) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def require_same_vocabulary(policy: PreTrainedModel, discriminator: Discriminator) -> None:
    """The discriminator reads the policy's tokens, so both must have the same ones."""
    require_same_tokens(policy.config, discriminator.config)


def require_same_tokens(policy: Any, discriminator: Any) -> None:
    """The same of their configurations."""
    ours, theirs = policy.text_config.vocab_size, discriminator.text_config.vocab_size
    if ours != theirs:
        raise ModelError(
            f"policy has a vocabulary of {ours} tokens, discriminator of {theirs}; use a discriminator made from this policy's family"
        )


def apply_freezes(policy: Any, config: SftConfig) -> None:
    """The merger and deepstack mergers are the projector; the rest of `visual` is the vision tower."""
    visual = policy.model.visual
    for name, parameter in visual.named_parameters():
        is_projector = name.startswith(("merger", "deepstack_merger_list"))
        parameter.requires_grad_(not (config.freeze_projector if is_projector else config.freeze_vision))
    if config.freeze_language:
        freeze(policy.model.language_model)
        freeze(policy.lm_head)


def freeze(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def architecture_of(folder: Path) -> str:
    file = folder / "config.json"
    try:
        return str(json.loads(file.read_text())["architectures"][0])
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ModelError(f"'{folder.absolute()}' is not a model directory ({_first_line(error)}); correct the uri") from error


def _load(kind: Any, folder: Path) -> Any:
    """Every weight must come from the files: by itself transformers fills what is missing with random numbers and goes on."""
    try:
        model, loaded = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"'{folder}' cannot be loaded as {kind.__name__}: {_first_line(error)}; give a directory that transformers saved"
        ) from error
    absent = sorted(loaded["missing_keys"])
    if absent:
        raise ModelError(f"'{folder}' lacks {len(absent)} weights of a {type(model).__name__}, such as '{absent[0]}'; restore the files")
    realign(model)
    use_linear_patches(model)
    return model


def realign(model: nn.Module) -> None:
    """Copy every tensor into memory of its own.

    What safetensors loads lies in the file's mapping at whatever offset the header left, and matrix kernels round differently at different
    offsets: a model that was loaded would train to other bits than the same model that was made.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
