"""Drawing responses from a policy: batched, cached prompt prefix, one preallocated key-value buffer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from prism_trainer.contract.optim import Sampling
from prism_trainer.engines.local.encoding import PromptBatch
from prism_trainer.engines.local.prefix import Prefix, encode_prefix
from prism_trainer.responses import ParsedResponse, parse_response

PLACEHOLDERS = ("<|image_pad|>", "<|video_pad|>", "<|vision_pad|>", "<|vision_start|>", "<|vision_end|>")


@dataclass(frozen=True)
class Responses:
    """Responses in rows: ids and mask (R, T), the prompt each answers (R,), and whether it ended by itself (R,).

    The terminator is part of the response and of the mask.
    """

    token_ids_RT: Tensor
    mask_RT: Tensor
    prompt_R: Tensor
    ended_R: Tensor

    @property
    def lengths_R(self) -> Tensor:
        return self.mask_RT.sum(dim=1)


@dataclass(frozen=True)
class Vocabulary:
    """Which tokens end a response, pad it, or may not be sampled at all."""

    end_id: int
    pad_id: int
    forbidden: Tensor

    @classmethod
    def of(cls, tokenizer: Any, size: int, device: torch.device) -> Vocabulary:
        """Special tokens other than the terminator are forbidden, and rows of the embedding that no token uses.

        A sampled vision placeholder has no image behind it, and the next forward fails on the count.
        """
        forbidden = torch.zeros(size, dtype=torch.bool, device=device)
        forbidden[len(tokenizer) :] = True
        ids = {*tokenizer.all_special_ids, *tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS))} - {tokenizer.eos_token_id, None}
        forbidden[sorted(ids)] = True
        return cls(tokenizer.eos_token_id, tokenizer.pad_token_id, forbidden)


@torch.no_grad()
def sample_responses(
    policy: PreTrainedModel,
    prompts: PromptBatch,
    group_size: int,
    sampling: Sampling,
    vocabulary: Vocabulary,
    generator: torch.Generator,
    image_token_id: int,
) -> Responses:
    """`group_size` responses to each prompt, grouped: row r answers prompt r // group_size."""
    device = prompts.token_ids_PT.device
    prefix = encode_prefix(policy.model, prompts, image_token_id)
    rows = torch.arange(len(prompts.token_ids_PT), device=device).repeat_interleave(group_size)
    decoder = _Decoder(policy, prefix, rows, sampling.max_response_tokens)
    logits = policy.lm_head(prefix.last_hidden_PH[rows])
    tokens, ended = [], torch.zeros(len(rows), dtype=torch.bool, device=device)
    for step in range(sampling.max_response_tokens):
        token = draw_token(logits.masked_fill(vocabulary.forbidden, -torch.inf), sampling, generator)
        token = torch.where(ended, vocabulary.pad_id, token)
        tokens.append(token)
        ended = ended | (token == vocabulary.end_id)
        if bool(ended.all()) or step + 1 == sampling.max_response_tokens:
            break
        logits = decoder.next_logits(token, step)
    token_ids = torch.stack(tokens, dim=1)
    return Responses(token_ids, _through_end(token_ids, vocabulary.end_id), rows, ended)


def draw_token(logits_RV: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """One token a row from softmax(logits / temperature), restricted to the nucleus of mass `top_p`; (R,)."""
    probabilities = torch.softmax(logits_RV.float() / sampling.temperature, dim=-1)
    if sampling.top_p < 1.0:
        probabilities = keep_nucleus(probabilities, sampling.top_p)
    noise = torch.rand(len(probabilities), 1, generator=generator).to(probabilities.device)
    cumulative = probabilities.cumsum(dim=-1)
    return torch.searchsorted(cumulative, noise * cumulative[:, -1:], right=True).squeeze(1).clamp(max=logits_RV.shape[1] - 1)


def keep_nucleus(probabilities_RV: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of most likely tokens whose mass reaches `top_p`; the most likely one always stays."""
    ordered, index = probabilities_RV.sort(dim=-1, descending=True)
    outside = ordered.cumsum(dim=-1) - ordered >= top_p
    return probabilities_RV.scatter(1, index, ordered.masked_fill(outside, 0.0))


class _Decoder:
    """Token by token after a prefix."""

    def __init__(self, policy: PreTrainedModel, prefix: Prefix, rows_R: Tensor, max_tokens: int) -> None:
        self._policy = policy
        self._cache = _preallocate(prefix.cache, rows_R, max_tokens)
        self._mask = torch.nn.functional.pad(prefix.mask_PT[rows_R].long(), (0, max_tokens), value=1)
        self._prompt_length = prefix.mask_PT.shape[1]
        self._position = prefix.next_position_P[rows_R]

    def next_logits(self, token_R: Tensor, step: int) -> Tensor:
        out = self._policy.model(
            input_ids=token_R.unsqueeze(1),
            attention_mask=self._mask[:, : self._prompt_length + step + 1],
            position_ids=(self._position + step).view(1, -1, 1).expand(3, -1, 1),
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = self._policy.lm_head(out.last_hidden_state[:, -1])
        return logits


class _PreallocatedLayer(DynamicLayer):
    """A key-value buffer that is written in place; the stock layer copies the whole cache at every token."""

    def __init__(self, keys: Tensor, values: Tensor, capacity: int) -> None:
        super().__init__()
        rows, heads, self._length, size = keys.shape
        self._key_buffer = keys.new_empty(rows, heads, self._length + capacity, size)
        self._value_buffer = torch.empty_like(self._key_buffer)
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._write(keys, values, 0)

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        self._write(key_states, value_states, self._length)
        return self._key_buffer[:, :, : self._length], self._value_buffer[:, :, : self._length]

    def get_seq_length(self) -> int:
        return self._length

    def _write(self, keys: Tensor, values: Tensor, start: int) -> None:
        self._length = start + keys.shape[2]
        self._key_buffer[:, :, start : self._length] = keys
        self._value_buffer[:, :, start : self._length] = values
        self.keys, self.values = self._key_buffer[:, :, : self._length], self._value_buffer[:, :, : self._length]


def _preallocate(cache: DynamicCache, rows_R: Tensor, capacity: int) -> DynamicCache:
    selected = DynamicCache()
    selected.layers = [_PreallocatedLayer(layer.keys[rows_R], layer.values[rows_R], capacity) for layer in cache.layers]
    return selected


def _through_end(token_ids_RT: Tensor, end_id: int) -> Tensor:
    """True up to and with the first terminator."""
    is_end = (token_ids_RT == end_id).long()
    return is_end.cumsum(dim=1) - is_end == 0


def decode_responses(tokenizer: Any, responses: Responses) -> list[str]:
    """Text of each response without its terminator; anything else that was sampled stays visible."""
    lengths = (responses.lengths_R - responses.ended_R.long()).tolist()
    rows = [ids[:length] for ids, length in zip(responses.token_ids_RT.tolist(), lengths, strict=True)]
    return [str(text) for text in tokenizer.batch_decode(rows, skip_special_tokens=False)]


def parse_complete(responses: Responses, texts: Sequence[str]) -> list[ParsedResponse | None]:
    """A response that was cut at the length limit is invalid, however it reads."""
    return [parse_response(text) if ended else None for text, ended in zip(texts, responses.ended_R.tolist(), strict=True)]
