"""Drawing and rewarding the groups of a step of stage 3, from the policy as it is then."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from prism_trainer.contract.configs import Dapo, RlvrConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.data.dataset import Rows
from prism_trainer.data.rows import VerifiablePrompt
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.groups import Groups, draw_mixed
from prism_trainer.engines.local.rollout import Responses, Vocabulary, decode_responses, parse_complete, sample_responses
from prism_trainer.responses import ParsedResponse
from prism_trainer.rewards.verifiable import VerifiableReward, verifiable_reward
from prism_trainer.seeds import generator_for


@dataclass(frozen=True)
class Drawing:
    """What does not change from step to step."""

    job: StageJob
    config: RlvrConfig
    policy: PreTrainedModel
    encoder: PromptEncoder
    vocabulary: Vocabulary
    device: torch.device

    def draw(self, rows: Rows[VerifiablePrompt], step: int, prompts_seen: int) -> tuple[Groups, int, dict[str, float]]:
        """Groups of step `step`, of the prompts that follow the first `prompts_seen` of the stage's order; how many prompts, metrics."""
        algorithm, wanted = self.config.algorithm, self.config.prompts_per_step
        if not isinstance(algorithm, Dapo):
            order = self._order(rows, prompts_seen, wanted)
            return self._answer([rows[index] for index in order], "rollout", step), wanted, {}
        size = wanted * algorithm.oversampling
        order = self._order(rows, prompts_seen, size * algorithm.max_generation_batches)

        def draw_batch(number: int) -> Groups:
            return self._answer([rows[index] for index in order[number * size : (number + 1) * size]], "rollout", step, number)

        drawn = draw_mixed(draw_batch, wanted, algorithm.max_generation_batches)
        metrics = {"group/generation_batches": drawn.num_batches, "group/solved": drawn.solved, "group/failed": drawn.failed}
        return drawn.groups, drawn.num_batches * size, metrics

    def _order(self, rows: Rows[VerifiablePrompt], start: int, count: int) -> list[int]:
        order: list[int] = rows.order(self.job.seed, self.job.stage, start + count)[start:].tolist()
        return order

    def _answer(self, batch: list[VerifiablePrompt], *place: object) -> Groups:
        inputs = self.encoder.collate([row.prompt for row in batch]).to(self.device)
        generator = generator_for(self.job.seed, self.job.stage, *place)
        rollout = self.config.rollout
        responses = sample_responses(
            self.policy, inputs, rollout.group_size, rollout, self.vocabulary, generator, self.encoder.image_token_id
        )
        texts = decode_responses(self.encoder.tokenizer, responses)
        return Groups(batch, responses, texts, score_responses(batch, responses, parse_complete(responses, texts), self.config))


def score_responses(
    batch: list[VerifiablePrompt], responses: Responses, parsed: list[ParsedResponse | None], config: RlvrConfig
) -> list[VerifiableReward]:
    return [
        verifiable_reward(one, batch[row].references, accuracy_weight=config.accuracy_weight, format_weight=config.format_weight)
        for row, one in zip(responses.prompt_R.tolist(), parsed, strict=True)
    ]
