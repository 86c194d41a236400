"""What ranks settle among each other."""

from __future__ import annotations

import torch
from torch import distributed


def is_first() -> bool:
    """The one that tells the driver."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def agree(wish: bool, device: torch.device) -> bool:
    """Rank 0's wish: the driver's stop may be seen by one rank a step before another."""
    if not distributed.is_initialized():
        return wish
    flag = torch.tensor([int(wish)], device=device)
    distributed.broadcast(flag, 0)
    return bool(flag.item())


def wait_for_all() -> None:
    """Every rank has written its part."""
    if distributed.is_initialized():
        distributed.barrier()
