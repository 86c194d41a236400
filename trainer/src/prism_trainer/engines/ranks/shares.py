"""How a step's rows are divided among ranks, and that a stage goes on with as many as it began with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from prism_trainer.contract.fitting import uneven_batch
from prism_trainer.errors import PrismError

RANKS = "ranks.json"


@dataclass(frozen=True)
class Shares:
    """`micro` rows a forward on each rank, `accumulation` forwards on each rank."""

    micro: int
    accumulation: int


def divide_batch(batch_size: int, micro_batch_size: int, world_size: int) -> Shares:
    """Each rank its equal share; where that is less than a micro-batch, or no multiple of it, the micro-batch is the largest that fits."""
    for _, sentence in uneven_batch(batch_size, world_size):
        raise PrismError(sentence)
    share = batch_size // world_size
    micro = max(size for size in range(1, min(share, micro_batch_size) + 1) if share % size == 0)
    return Shares(micro, share // micro)


def write_ranks(state: Path, world_size: int) -> None:
    (state / RANKS).write_text(json.dumps({"world_size": world_size}))


def require_same_ranks(state: Path, world_size: int) -> None:
    """DeepSpeed's shards of an optimizer fit the number of ranks they were saved by, and no other."""
    saved_by = int(json.loads((state / RANKS).read_text())["world_size"])
    if saved_by != world_size:
        raise PrismError(
            f"checkpoint '{state.parent}' was saved by {saved_by} GPUs, and its optimizer's shards fit no other number; the stage has "
            f"{world_size}: give it {saved_by}, or remove the checkpoint to start the stage over"
        )
