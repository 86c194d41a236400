"""Another forward for one module, without a class of its own: hooks, checkpoints, sharding and saving know the module as before."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from torch import nn


def bind(module: nn.Module, forward: Callable[..., Any]) -> None:
    """`module(...)` is `forward(module, ...)` from now on."""
    module.forward = MethodType(forward, module)  # type: ignore[method-assign]
