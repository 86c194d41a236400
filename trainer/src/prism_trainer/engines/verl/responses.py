"""What a rollout worker tells the stage about a group: all that is decided on, and none of the tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prism_trainer.contract.configs import RlvrConfig
from prism_trainer.data.rows import TaughtPrompt, VerifiablePrompt
from prism_trainer.responses import ParsedResponse
from prism_trainer.rewards.verifiable import VerifiableReward, verifiable_reward


@dataclass(frozen=True)
class Response:
    """One response: its text without the terminator, its length with it, and whether it ended by itself in the right format."""

    text: str
    num_tokens: int
    valid: bool
    reward: VerifiableReward


@dataclass(frozen=True)
class Answered:
    """A prompt's group. `keys` name its tensors in TransferQueue, `lengths` are those of prompt and response together."""

    uid: str
    row: Any
    keys: list[str]
    lengths: list[int]
    responses: list[Response]


def reward_of(config: Any, row: TaughtPrompt | VerifiablePrompt, parsed: ParsedResponse | None) -> VerifiableReward:
    """Alignment only watches it, at rlvr's weights, where a row has references at all."""
    if not isinstance(config, RlvrConfig):
        return verifiable_reward(parsed, row.references)
    return verifiable_reward(parsed, row.references, accuracy_weight=config.accuracy_weight, format_weight=config.format_weight)
