"""When the discriminator always wins, its scores say little: one of the two sides pauses so that the other can catch up.

Off by default, and not in the paper, whose teacher-student gap stays at 4.5, a pair accuracy of 99 %. Pure: the count is an argument,
so that a resumed stage goes on with the one it had.
"""

from __future__ import annotations

from prism_trainer.contract.configs import SaturationGuard


def pauses(guard: SaturationGuard | None, saturated_steps: int, side: str) -> bool:
    """Whether `side` (policy, discriminator) leaves its update out after so many saturated steps in a row."""
    return guard is not None and guard.pause == side and saturated_steps >= guard.steps


def count_saturated(guard: SaturationGuard | None, saturated_steps: int, accuracy: float | None) -> int:
    """The count after a step with this pair accuracy; a step that measured none (no valid response) leaves it as it is.

    After `steps` steps with a pause it starts anew: with the policy paused nothing but chance would bring the accuracy down again, and
    the run would stand still.
    """
    if guard is None or accuracy is None:
        return saturated_steps
    if accuracy <= guard.accuracy or saturated_steps + 1 >= 2 * guard.steps:
        return 0
    return saturated_steps + 1
