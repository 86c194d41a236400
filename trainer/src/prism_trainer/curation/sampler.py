"""Responses of a policy to rows of a data set, the same whenever they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prism_trainer.checkpoints import digest_plain_model
from prism_trainer.contract.configs import Device
from prism_trainer.contract.optim import Sampling
from prism_trainer.data.rows import Prompt
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_policy, load_processor, pick_device
from prism_trainer.engines.local.rollout import Vocabulary, decode_responses, parse_complete, sample_responses
from prism_trainer.responses import ParsedResponse
from prism_trainer.seeds import generator_for

LEARNT_ELSEWHERE = "if the model learnt under a system prompt of its own (a run's systemPrompt), give that by --system-prompt"


@dataclass(frozen=True)
class Drawing:
    """How responses are drawn: `count` to each prompt, about `at_once` in a batch."""

    count: int
    at_once: int
    sampling: Sampling
    seed: int
    system_prompt: str

    @property
    def rows_at_once(self) -> int:
        return max(1, self.at_once // self.count)


class Sampler:
    """A policy that answers."""

    def __init__(self, folder: Path, drawing: Drawing, device: Device) -> None:
        self._drawing = drawing
        model_dir = policy_dir(folder)
        self._device = pick_device(device)
        self._policy = load_policy(model_dir, self._device).eval()
        self._encoder = PromptEncoder(load_processor(model_dir), drawing.system_prompt, cache_bytes=0)
        self._vocabulary = Vocabulary.of(self._encoder.tokenizer, self._policy.config.text_config.vocab_size, self._device)

    def draw(self, prompts: Sequence[Prompt], first: int) -> list[list[ParsedResponse | None]]:
        """`count` responses to each prompt, None for one in the wrong format; `first` is the first prompt's row, which seeds them."""
        drawing = self._drawing
        inputs = self._encoder.collate(prompts).to(self._device)
        responses = sample_responses(
            self._policy, inputs, drawing.count, drawing.sampling, self._vocabulary,
            generator_for(drawing.seed, "curation", first), self._encoder.image_token_id,
        )  # fmt: skip
        parsed = parse_complete(responses, decode_responses(self._encoder.tokenizer, responses))
        return [parsed[start : start + drawing.count] for start in range(0, len(parsed), drawing.count)]


def policy_dir(folder: Path) -> Path:
    """The policy of a checkpoint, or the folder itself."""
    return folder / "policy" if (folder / "policy" / "config.json").is_file() else folder


def describe_drawing(folder: Path, drawing: Drawing) -> dict[str, object]:
    """All that determines the responses but the rows."""
    return {
        "policy": digest_plain_model(policy_dir(folder)),
        "samples": drawing.count,
        "atOnce": drawing.rows_at_once,
        **drawing.sampling.model_dump(),
        "seed": drawing.seed,
        "systemPrompt": drawing.system_prompt,
    }
