"""Sharded weights and optimizer states as whole tensors in engine local's files, and back onto any number of ranks.

Every rank takes part in gathering; rank 0 keeps what is gathered and writes it. So a checkpoint does not know how many GPUs made it. The
price: rank 0 holds weights, or one optimizer's states, in the node's memory while it writes (4 and 8 bytes a parameter).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.tensor import DTensor, distribute_tensor

from prism_trainer.engines.local.models import load_policy


def write_weights(model: nn.Module, config: Any, processor: Any, folder: Path, device: torch.device) -> None:
    """A Hugging Face directory, as transformers itself would save the model."""
    weights = dict(_gathered(model.state_dict().items(), device))
    if torch.distributed.get_rank() == 0:
        _shell(model, config).save_pretrained(folder, state_dict=weights)
        processor.save_pretrained(folder)
    torch.distributed.barrier()


def write_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int, file: Path, device: torch.device) -> None:
    """As `StageOptimizer.save` of engine local."""
    tensors = dict(_gathered(_entries(model, optimizer), device))
    if torch.distributed.get_rank() == 0:
        save_file(tensors, file, metadata={"steps": str(num_steps)})
    torch.distributed.barrier()


def read_weights(model: nn.Module, folder: Path) -> None:
    """In the place of the model's own, in its own precision: rank 0 reads, every rank gets its shards."""
    full: dict[str, Any] = {}
    if torch.distributed.get_rank() == 0:
        dtype = next(model.parameters()).dtype
        full = {name: tensor.to(dtype) for name, tensor in load_policy(folder, torch.device("cpu")).state_dict().items()}
    on_cpu = next(model.parameters()).device.type == "cpu"
    options = StateDictOptions(full_state_dict=True, cpu_offload=on_cpu, broadcast_from_rank0=True)
    set_model_state_dict(model, full, options=options)


def read_optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer, file: Path, device: torch.device) -> int:
    """Into `optimizer`, each rank its shards; returns how many steps were taken."""
    parameters = dict(model.named_parameters())
    with safe_open(file, "pt") as stored:
        for key in stored.keys():  # noqa: SIM118 - not a dict
            name, _, entry = key.rpartition("/")
            optimizer.state[parameters[name]][entry] = _shard_like(stored.get_tensor(key), parameters[name], device)
        return int(stored.metadata()["steps"])


def _entries(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in model.named_parameters():
        for entry, value in optimizer.state.get(parameter, {}).items():
            yield f"{name}/{entry}", value


def _gathered(tensors: Any, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """On rank 0 all of them, on the CPU; on the others none, one at a time."""
    keeps = torch.distributed.get_rank() == 0
    for name, tensor in tensors:
        moved: Any = tensor.to(device)
        full: Tensor = moved.full_tensor() if isinstance(moved, DTensor) else moved
        if keeps:
            yield name, full.detach().cpu().contiguous().clone()


def _shard_like(full: Tensor, parameter: Tensor, device: torch.device) -> Tensor:
    """The count of steps is a plain number for every parameter; all else has the parameter's shape and is sharded like it."""
    if not isinstance(parameter, DTensor) or full.shape != parameter.shape:
        return full.to(parameter.device, copy=True)
    sharded = distribute_tensor(full.to(device), parameter.device_mesh, parameter.placements)
    return sharded.to(parameter.device)


def _shell(model: nn.Module, config: Any) -> Any:
    """The model's own class without its weights: it knows their names in files, and which are tied."""
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        shell = AutoModelForImageTextToText.from_config(config)
    if getattr(model, "generation_config", None) is not None:
        shell.generation_config = model.generation_config
    return shell
