"""A discriminator over several processes: FSDP2, one unit a layer, weights and optimizer states in float32.

Different from upstream: there its whole discriminator was one unit (defect A14), and each process loaded all of it into its own memory
(A15). Here layers are gathered one at a time, the first process alone reads the files, and tensors are cut along a dimension that divides
evenly: cut along its first one, the experts' of a layer would all lie with the first four of eight processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Shard

from prism_trainer.discriminator.model import DISCRIMINATORS, Discriminator
from prism_trainer.engines.local.models import Processor, load_discriminator
from prism_trainer.engines.local.optimizer import is_first, whole

CPU = torch.device("cpu")


def open_sharded(folder: Path, mesh: DeviceMesh, device: torch.device) -> Discriminator:
    """The discriminator at `folder`, which only the first process reads, sharded over `mesh`. On a GPU it computes in bfloat16."""
    first = is_first()
    model = load_discriminator(folder, CPU) if first else None
    told: list[Any] = [type(model).__name__, model.config] if model else [None, None]
    distributed.broadcast_object_list(told, src=0)
    if model is None:
        with torch.device("meta"):
            model = DISCRIMINATORS[told[0]](told[1])
    weights: dict[str, Any] = dict(model.state_dict()) if first else {}
    _shard(model, mesh, torch.bfloat16 if device.type == "cuda" else None)
    if first:
        move(model, device)
    else:
        model.to_empty(device=device)
    set_model_state_dict(model, weights, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    for _, buffer in sorted(model.named_buffers()):  # rotary frequencies, which no file holds
        distributed.broadcast(buffer, src=0)
    return model


def _shard(model: Discriminator, mesh: DeviceMesh, compute: torch.dtype | None) -> None:
    options: dict[str, Any] = {
        "mesh": mesh,
        "mp_policy": MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32 if compute else None),
        "shard_placement_fn": lambda tensor: Shard(even_dimension(tensor.shape, mesh.size())),
    }
    layers = set(model._no_split_modules or ())
    for module in model.modules():
        if type(module).__name__ in layers:
            fully_shard(module, **options)
    fully_shard(model, **options)


def even_dimension(shape: torch.Size, parts: int) -> int:
    """The first dimension that can be cut into `parts` equal ones; the first of all where none can."""
    return next((number for number, size in enumerate(shape) if size % parts == 0), 0)


def move(model: Discriminator, device: torch.device) -> None:
    """Weights, gradients and all."""
    nn.Module.to(model, device)


def let_go(model: Discriminator) -> None:
    """Give up gathered weights: after a pass without backward the root still holds its own, which an update would make old."""
    assert isinstance(model, FSDPModule)
    model.reshard()


def kind_of(model: Discriminator) -> type[Discriminator]:
    return next(kind for kind in DISCRIMINATORS.values() if isinstance(model, kind))


def gather_weights(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor whole and on the CPU in the first process, nothing in the others; all have to ask."""
    gathered = {}
    for name, tensor in model.state_dict().items():
        one = whole(tensor)
        if is_first():
            gathered[name] = one.to(CPU)
    return gathered


def save_sharded(model: Discriminator, processor: Processor, folder: Path) -> None:
    """The Hugging Face directory that engine local would write, by the first process."""
    let_go(model)
    weights = gather_weights(model)
    if weights:
        with torch.device("meta"):
            plain = kind_of(model)(model.config)  # sharding has given the model a class of its own
        plain.save_pretrained(folder, state_dict=weights)
        processor.save_pretrained(folder)
    distributed.barrier()
