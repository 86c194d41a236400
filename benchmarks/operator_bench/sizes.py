"""How much of everything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Numbers of objects, and seconds."""

    singles: int = 100
    """PrismRuns, and as many RayJobs, one at a time."""
    paced: int = 300
    jobs: int = 300
    """RayJobs in a burst."""
    runs: int = 1000
    idle_seconds: float = 330.0
    """Longer than anything the operator does now and then."""
    unasked_seconds: float = 30.0
    missed: int = 50
    """Stages that end while the operator is dead."""
    transitions: int = 500
    bare: int = 200


FULL = Sizes()
QUICK = Sizes(singles=15, paced=60, jobs=40, runs=100, idle_seconds=20.0, unasked_seconds=10.0, missed=10, transitions=50, bare=60)
PACE = 30.0
"""PrismRuns a second, at which the queue must stay short."""
TRANSITIONS_A_SECOND = 10.0
APART_SECONDS = 0.1
"""Between objects that come one at a time, so that the pods of the one before are placed and started."""
