"""The discriminator at work: batched scores of many responses to few prompts, in one pass, with or without gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prism_trainer.data.rows import Prompt, TaughtPrompt
from prism_trainer.discriminator.losses import balance_loss
from prism_trainer.discriminator.model import Discriminator
from prism_trainer.discriminator.spans import ScoredRow, scored_rows
from prism_trainer.engines.local.encoding import PromptBatch, PromptEncoder, pad_right
from prism_trainer.engines.local.prefix import Continuation, Prefix, continue_prefix, encode_prefix
from prism_trainer.errors import DataError
from prism_trainer.responses import ParsedResponse


@dataclass(frozen=True)
class Scores:
    """Unclipped scores (R,) of captions and cots, their lengths in tokens, and the router's load-balancing loss over all tokens."""

    caption_R: Tensor
    cot_R: Tensor
    caption_tokens_R: Tensor
    cot_tokens_R: Tensor
    balance: Tensor

    def rows(self, select: slice) -> Scores:
        """Some of the responses; the balance stays that of the whole pass."""
        return Scores(self.caption_R[select], self.cot_R[select], self.caption_tokens_R[select], self.cot_tokens_R[select], self.balance)

    def less_length(self, caption_beta: float, cot_beta: float) -> Scores:
        """Length correction: score - beta * log(1 + tokens), for both components (upstream's dp_critic, off there and here)."""
        caption = self.caption_R - caption_beta * torch.log1p(self.caption_tokens_R)
        cot = self.cot_R - cot_beta * torch.log1p(self.cot_tokens_R)
        return replace(self, caption_R=caption, cot_R=cot)


@dataclass(frozen=True)
class Scorer:
    """A discriminator with the policy's tokenizer and the one way of presenting a response to it."""

    model: Discriminator
    encoder: PromptEncoder
    max_tokens: int
    device: torch.device

    def require_readable(self, rows: Sequence[TaughtPrompt]) -> None:
        """Every teacher's response fits, found out before the first step."""
        for row in rows:
            try:
                self._rows(row.teacher)
            except DataError as error:
                raise DataError(f"teacher of prompt {row.prompt.id}: {error}") from error

    def collate(self, prompts: Sequence[Prompt]) -> PromptBatch:
        """What the discriminator is shown of the prompts: all, or all but the images."""
        if not self.model.sees_images:
            prompts = [replace(prompt, id=f"{prompt.id} without images", images=()) for prompt in prompts]
        return self.encoder.collate(prompts).to(self.device)

    def score(self, prompts: PromptBatch, prompt_of: Sequence[int], responses: Sequence[ParsedResponse]) -> Scores:
        """`prompt_of[r]` is the prompt in the batch that response r answers."""
        rows = [(prompt, row) for prompt, response in zip(prompt_of, responses, strict=True) for row in self._rows(response)]
        prefix = encode_prefix(self.model.model, prompts, self.encoder.image_token_id)
        token_ids, mask = pad_right([row.token_ids for _, row in rows], self.encoder.tokenizer.pad_token_id)
        token_ids, mask = token_ids.to(self.device), mask.to(self.device)
        prompt_rows = torch.tensor([prompt for prompt, _ in rows], device=self.device)
        continuation = continue_prefix(self.model.model, prefix, prompt_rows, token_ids, mask)
        read = [row for _, row in rows]
        return Scores(
            self._read(continuation, [(index, row.caption_at) for index, row in enumerate(read)]),
            self._read(continuation, [(index, row.cot_at) for index, row in enumerate(read)]),
            self._lengths([row.caption_tokens for row in read if row.caption_at is not None]),
            self._lengths([row.cot_tokens for row in read if row.cot_at is not None]),
            self._balance(prefix, continuation, mask),
        )

    def _rows(self, response: ParsedResponse) -> list[ScoredRow]:
        sees = self.model.config.cot_sees_caption
        return scored_rows(response, self.encoder.response_ids, cot_sees_caption=sees, max_tokens=self.max_tokens)

    def _read(self, continuation: Continuation, places: Sequence[tuple[int, int | None]]) -> Tensor:
        rows = torch.tensor([row for row, at in places if at is not None], device=self.device)
        columns = torch.tensor([at for _, at in places if at is not None], device=self.device)
        return self.model.read_scores(continuation.hidden_RTH[rows, columns])

    def _lengths(self, tokens: Sequence[int]) -> Tensor:
        return torch.tensor(tokens, dtype=torch.float32, device=self.device)

    def _balance(self, prefix: Prefix, continuation: Continuation, mask: Tensor) -> Tensor:
        if not prefix.router_logits:  # a dense model has no router
            return torch.zeros((), device=self.device)
        logits = [torch.cat(pair) for pair in zip(prefix.router_logits, continuation.router_logits, strict=True)]
        tokens = torch.cat([prefix.mask_PT.flatten(), mask.flatten()])
        return balance_loss(logits, tokens, self.model.config.text_config.num_experts_per_tok)
