"""Groups of responses with their rewards: what a step of stage 3 learns from, and DAPO's drawing of more until enough groups are mixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from prism_trainer.algorithms.shaping import mixed_groups, rlvr_rewards_and_advantages
from prism_trainer.contract.configs import RlvrConfig
from prism_trainer.data.rows import VerifiablePrompt
from prism_trainer.engines.local.rollout import Responses
from prism_trainer.errors import DataError
from prism_trainer.rewards.verifiable import VerifiableReward


@dataclass(frozen=True)
class Groups:
    """P prompts with N responses each, in rows of the same order, and what each response earned."""

    prompts: list[VerifiablePrompt]
    responses: Responses
    texts: list[str]
    rewards: list[VerifiableReward]

    @property
    def correct_PN(self) -> Tensor:
        return torch.tensor([reward.accuracy > 0 for reward in self.rewards]).view(len(self.prompts), -1)

    def rewards_and_advantages(self, config: RlvrConfig) -> tuple[Tensor, Tensor]:
        """(P, N) each."""
        lengths = self.responses.lengths_R
        scores = torch.tensor([reward.score for reward in self.rewards], device=lengths.device)
        shape = len(self.prompts), -1
        return rlvr_rewards_and_advantages(scores.view(shape), lengths.view(shape), config)

    def select(self, chosen: Sequence[int]) -> Groups:
        """Some of the groups, in the order given."""
        size = len(self.texts) // len(self.prompts)
        rows = [group * size + index for group in chosen for index in range(size)]
        take = torch.tensor(rows, dtype=torch.long, device=self.responses.prompt_R.device)
        answered = torch.arange(len(chosen), device=take.device).repeat_interleave(size)
        drawn = self.responses
        return Groups(
            [self.prompts[group] for group in chosen],
            Responses(drawn.token_ids_RT[take], drawn.mask_RT[take], answered, drawn.ended_R[take]),
            [self.texts[row] for row in rows],
            [self.rewards[row] for row in rows],
        )


def join_groups(parts: Sequence[Groups]) -> Groups:
    """All groups of several draws; shorter responses are padded to the longest."""
    longest = max(part.responses.token_ids_RT.shape[1] for part in parts)
    starts = [sum(len(before.prompts) for before in parts[:number]) for number in range(len(parts))]

    def padded(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([functional.pad(tensor, (0, longest - tensor.shape[1])) for tensor in tensors])

    return Groups(
        [prompt for part in parts for prompt in part.prompts],
        Responses(
            padded([part.responses.token_ids_RT for part in parts]),
            padded([part.responses.mask_RT for part in parts]),
            torch.cat([part.responses.prompt_R + start for part, start in zip(parts, starts, strict=True)]),
            torch.cat([part.responses.ended_R for part in parts]),
        ),
        [text for part in parts for text in part.texts],
        [reward for part in parts for reward in part.rewards],
    )


@dataclass(frozen=True)
class MixedDraw:
    """Enough mixed groups for an update, and what it took: batches, and the shares of groups with all answers right, and all wrong."""

    groups: Groups
    num_batches: int
    solved: float
    failed: float


def draw_mixed(draw: Callable[[int], Groups], wanted: int, max_batches: int) -> MixedDraw:
    """DAPO's dynamic sampling: `draw(number)` batches until `wanted` groups are mixed, keeping the first ones.

    Upstream's `filter_groups` on `acc_reward`. `max_batches` bounds it: on prompts that are all solved, or all out of reach, it would
    draw for ever.

    Raises:
        DataError: with what was found, after `max_batches`.
    """
    kept: list[Groups] = []
    num_kept = seen = solved = failed = 0
    for number in range(max_batches):
        groups = draw(number)
        correct = groups.correct_PN
        seen += len(correct)
        solved += int(correct.all(dim=1).sum())
        failed += int((~correct.any(dim=1)).sum())
        mixed = mixed_groups(correct).nonzero().squeeze(1).tolist()
        if mixed:
            kept.append(groups.select(mixed[: wanted - num_kept]))
            num_kept += len(kept[-1].prompts)
        if num_kept == wanted:
            return MixedDraw(join_groups(kept), number + 1, solved / seen, failed / seen)
    raise no_mixed_groups(num_kept, wanted, max_batches, seen, solved, failed)


def no_mixed_groups(num_kept: int, wanted: int, max_batches: int, seen: int, solved: int, failed: int) -> DataError:
    """What was found, and the way out."""
    return DataError(
        f"dynamic sampling found {num_kept} of the {wanted} mixed groups of an update in {max_batches} batches: of {seen} groups {solved} "
        f"had all answers right and {failed} all wrong; {_way_out(solved, failed, seen)}"
    )


def _way_out(solved: int, failed: int, seen: int) -> str:
    if solved == seen:
        return "the data is solved: give harder prompts, or end the stage here with fewer steps"
    if failed == seen:
        return "the data is out of reach: give easier prompts, or train the earlier stages longer"
    return "give prompts of a pass rate between 0.2 and 0.8, raise maxGenerationBatches or rollout.groupSize, or use algorithm grpo"
