"""What happens at a step's end: rank 0 tells the driver, and all ranks agree whether to save and stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prism_trainer.engines.ranks.agreement import agree, is_first, wait_for_all
from prism_trainer.engines.ranks.messages import Teller
from prism_trainer.errors import PrismError


class Boundary(TrainerCallback):
    """Of one rank."""

    stopped = False
    """Asked to, before the last step; what is needed to go on is saved."""

    def __init__(self, teller: Teller, total_steps: int, count_targets: Callable[[], int]) -> None:
        """`count_targets` of the step that has just ended, on all ranks."""
        self._teller, self._total_steps, self._count_targets = teller, total_steps, count_targets
        self._is_first = is_first()
        self._started = 0.0
        self._latest: dict[str, float] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._tell("begin", first_step=state.global_step, total_steps=self._total_steps)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._started = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The last step is saved by who called the training, as a model without state."""
        if state.global_step >= self._total_steps:
            control.should_save = False
        elif agree(self._teller.stop_requested, args.device):
            control.should_save = control.should_training_stop = self.stopped = True

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        logs: dict[str, float] = given["logs"]
        if "loss" not in logs:
            return  # the Trainer's summary at its end
        norm = float(logs["grad_norm"])
        if not (math.isfinite(logs["loss"]) and math.isfinite(norm)):
            raise PrismError(
                f"the loss of step {state.global_step} is {logs['loss']} and its gradient's norm {norm}; what was committed before is "
                "sound: lower optimizer.learningRate, and look at the step's rows"
            )
        speed = self._count_targets() / (time.monotonic() - self._started)
        self._latest = {"loss": logs["loss"], "grad_norm": norm, "lr": logs["learning_rate"], "tokens_per_second": speed}
        self._tell("step", step=state.global_step, metrics=self._latest)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.tell_saved(state.global_step, Path(str(args.output_dir)) / f"checkpoint-{state.global_step}", is_final=False)

    def tell_saved(self, step: int, folder: Path, *, is_final: bool) -> None:
        """After every rank has written its part."""
        wait_for_all()
        self._tell("saved", step=step, folder=str(folder), is_final=is_final, metrics=self._latest if is_final else None)

    def _tell(self, what: str, **fields: Any) -> None:
        if self._is_first:
            self._teller.tell(what, **fields)
