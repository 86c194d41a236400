"""Which checkpoint folders are no longer needed. Final checkpoints, and whatever has another configuration, are never among them."""

from __future__ import annotations

from prism_operator.api import Retention
from prism_operator.observed import StageObserved


def leftovers(stage: StageObserved, retention: Retention) -> tuple[str, ...]:
    """URIs to delete. A living attempt looks after its own folder, and may still read the checkpoint it goes on from."""
    live = {attempt.number for attempt in stage.attempts if attempt.record.alive}
    in_use = {attempt.record.resume_from for attempt in stage.attempts if attempt.record.alive}
    keep = retention.keep_intermediate_when_done if stage.final else retention.keep_intermediate
    old = stage.intermediate[: len(stage.intermediate) - keep]
    return tuple(c.uri for c in old if c.attempt not in live and c.uri not in in_use) + tuple(
        unfinished.uri for unfinished in stage.unfinished if unfinished.attempt not in live
    )
