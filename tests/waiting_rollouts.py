"""Rollout workers that answer the last prompt of a step only when the discriminator has read another one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from prism_trainer.engines.verl.responses import Answered
from prism_trainer.engines.verl.rollout_worker import RolloutWorker
from streamed_alignment import RECORD, events_of

DEADLINE_SECONDS = 120


class Waiting(RolloutWorker):
    async def answer(self, task: Any, shares: list[str]) -> Answered:
        number = self._job.config.prompts_per_step
        if task.position % number == number - 1:
            await self._until_one_is_read(Path(self._job.report_dir).with_name(RECORD), task.step)
        return await super().answer(task, shares)

    async def _until_one_is_read(self, record: Path, step: int) -> None:
        end = time.monotonic() + DEADLINE_SECONDS
        while not any(event.endswith(" read") for event in events_of(record, step)):
            assert time.monotonic() < end, f"the discriminator has read nothing of step {step} while an answer was outstanding"
            await asyncio.sleep(0.1)
