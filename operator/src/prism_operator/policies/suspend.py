"""Whether somebody wants the run to pause."""

from __future__ import annotations

from prism_operator.children import StopReason, Wishes


def pause(suspend: bool, wishes: Wishes) -> StopReason | None:
    """The spec's wish stands before the caller's: it outlives him."""
    if suspend:
        return StopReason.SUSPEND
    return StopReason.INTERRUPT if wishes.interrupted else None
