"""Chains of elementwise operations as one kernel, where there is a GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def fused(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, compiled when its first argument lies on a GPU: such chains are bound by memory there, one pass instead of ten.

    Compiled once for all numbers of tokens: a first axis is taken to change from call to call, all else to stay.
    """

    @functools.cache  # the compiler is loaded where it is used
    def compiled() -> Callable[P, R]:
        return torch.compile(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not (isinstance(args[0], Tensor) and args[0].is_cuda):
            return function(*args, **kwargs)
        for argument in args:
            if isinstance(argument, Tensor):
                torch._dynamo.maybe_mark_dynamic(argument, 0)
        return compiled()(*args, **kwargs)

    return call
