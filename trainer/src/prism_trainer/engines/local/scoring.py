"""The discriminator at work: batched scores of many responses to few prompts, in one pass, with or without gradient.

On a GPU prompts and responses lie in one packed row (`prism_trainer.packed`), in bf16 with a checkpoint a layer; on a CPU responses are
padded and continue their prompts' cache. Same scores, same gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from prism_trainer.data.rows import Prompt, TaughtPrompt
from prism_trainer.discriminator.losses import RouterLoad, router_load
from prism_trainer.discriminator.model import Discriminator
from prism_trainer.discriminator.spans import ScoredRow, is_readable, scored_rows
from prism_trainer.engines.local.encoding import PromptBatch, PromptEncoder, pad_right
from prism_trainer.engines.local.prefix import continue_prefix, encode_prefix
from prism_trainer.errors import DataError
from prism_trainer.packed.backbone import read_packed, use_packed_kernels
from prism_trainer.responses import ParsedResponse

Rows = Sequence[tuple[int, ScoredRow]]
"""Each with the prompt that it follows."""
Parsed = Sequence[ParsedResponse | None]
"""Students' responses, None for one in the wrong format."""
Places = Sequence[tuple[int, int]]
"""A row, and a position in it."""


@dataclass(frozen=True)
class Read:
    """What a pass over prompts and rows left: hidden states (R, H) where captions and cots are scored, and of all tokens (T,) the router
    logits of each layer and to which prompt, or else row, they belong: prompts come first, -1 is padding."""

    caption_RH: Tensor
    cot_RH: Tensor
    router_logits: Sequence[Tensor]
    text_of_T: Tensor


@dataclass(frozen=True)
class Scores:
    """Unclipped scores (R,) of captions and cots, their lengths in tokens, and the router's load: first of each prompt, then of each
    response."""

    caption_R: Tensor
    cot_R: Tensor
    caption_tokens_R: Tensor
    cot_tokens_R: Tensor
    load: RouterLoad

    @property
    def balance(self) -> Tensor:
        """The router's load-balancing loss over all tokens of the pass."""
        everything = torch.zeros(len(self.load.tokens_X), dtype=torch.long, device=self.load.tokens_X.device)
        return self.load.gather(everything, 1).balance().squeeze(0)

    def rows(self, select: slice) -> Scores:
        """Some of the responses; the load stays that of the whole pass."""
        return Scores(self.caption_R[select], self.cot_R[select], self.caption_tokens_R[select], self.cot_tokens_R[select], self.load)

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
    packed: bool | None = None
    """Whether prompts and responses lie in one packed row; None means where there is a GPU."""
    recompute: bool = True
    """Whether the layers of a packed row are computed again in the backward pass."""

    def __post_init__(self) -> None:
        if self.packed is None:
            object.__setattr__(self, "packed", self.device.type == "cuda")
        if self.packed:
            use_packed_kernels(self.model.model)
            if self.recompute:
                self.model.gradient_checkpointing_enable({"use_reentrant": False})

    def require_readable(self, rows: Sequence[TaughtPrompt]) -> None:
        """Every teacher's response fits, found out before the first step."""
        require_readable(rows, self.encoder, self.max_tokens)

    def collate(self, prompts: Sequence[Prompt]) -> PromptBatch:
        """What the discriminator is shown of the prompts: all, or all but the images."""
        if not self.model.sees_images:
            prompts = [replace(prompt, id=f"{prompt.id} without images", images=()) for prompt in prompts]
        return self.encoder.collate(prompts).to(self.device)

    def score(self, prompts: PromptBatch, prompt_of: Sequence[int], responses: Sequence[ParsedResponse]) -> Scores:
        """`prompt_of[r]` is the prompt in the batch that response r answers."""
        answers = [self._rows(response) for response in responses]
        rows = [(prompt, row) for prompt, own in zip(prompt_of, answers, strict=True) for row in own]
        num_prompts = len(prompts.mask_PT)
        text_of = [*range(num_prompts), *(num_prompts + index for index, own in enumerate(answers) for _ in own)]
        caption, cot, *load = self.model(self._score, prompts, rows, text_of)
        return Scores(
            caption,
            cot,
            self._lengths([row.caption_tokens for _, row in rows if row.caption_at is not None]),
            self._lengths([row.cot_tokens for _, row in rows if row.cot_at is not None]),
            RouterLoad(*load),
        )

    def _score(self, prompts: PromptBatch, rows: Rows, text_of: Sequence[int]) -> tuple[Tensor, ...]:
        """Scores of captions and cots, and the parts of the router's load; `text_of` names the text of each prompt and row."""
        at_caption = [(index, row.caption_at) for index, (_, row) in enumerate(rows) if row.caption_at is not None]
        at_cot = [(index, row.cot_at) for index, (_, row) in enumerate(rows) if row.cot_at is not None]
        read = (self._read_packed if self.packed else self._read_padded)(prompts, rows, at_caption, at_cot)
        load = self._load(read, len(text_of)).gather(self._index(text_of), max(text_of) + 1)
        return self.model.read_scores(read.caption_RH), self.model.read_scores(read.cot_RH), *vars(load).values()

    def _read_padded(self, prompts: PromptBatch, rows: Rows, at_caption: Places, at_cot: Places) -> Read:
        prefix = encode_prefix(self.model.model, prompts, self.encoder.image_token_id)
        token_ids, mask = pad_right([row.token_ids for _, row in rows], self.encoder.tokenizer.pad_token_id)
        token_ids, mask = token_ids.to(self.device), mask.to(self.device)
        prompt_rows = torch.tensor([prompt for prompt, _ in rows], device=self.device)
        continuation = continue_prefix(self.model.model, prefix, prompt_rows, token_ids, mask)
        hidden = continuation.hidden_RTH
        if isinstance(self.model, FSDPModule):
            # a sharded layer gathers its weights for the backward pass when one comes to its output, and nobody reads the prompts' last
            hidden = hidden + 0.0 * prefix.last_hidden_PH.sum()
        caption, cot = (
            hidden[self._index(row for row, _ in places), self._index(at for _, at in places)] for places in (at_caption, at_cot)
        )
        masks = torch.arange(len(prompts.mask_PT), device=self.device), torch.arange(len(rows), device=self.device) + len(prompts.mask_PT)
        text_of = [torch.where(real, texts.unsqueeze(1), -1).flatten() for texts, real in zip(masks, (prefix.mask_PT, mask), strict=True)]
        logits = [torch.cat(pair) for pair in zip(prefix.router_logits, continuation.router_logits, strict=True)]
        return Read(caption, cot, logits, torch.cat(text_of))

    def _read_packed(self, prompts: PromptBatch, rows: Rows, at_caption: Places, at_cot: Places) -> Read:
        """The same from one packed row."""
        order = sorted(range(len(rows)), key=lambda index: rows[index][0])
        ids, prompt_of = [rows[index][1].token_ids for index in order], [rows[index][0] for index in order]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            states = read_packed(self.model.model, prompts, ids, prompt_of, self.encoder.image_token_id)
        layout = states.layout
        start = dict(zip(order, layout.row_starts, strict=True))
        caption, cot = (states.hidden_TH[self._index(start[row] + at for row, at in places)] for places in (at_caption, at_cot))
        texts = [*range(len(layout.prompt_lengths)), *(len(layout.prompt_lengths) + index for index in order)]
        lengths = self._index((*layout.prompt_lengths, *layout.row_lengths))
        return Read(caption, cot, states.router_logits, self._index(texts).repeat_interleave(lengths, output_size=len(states.hidden_TH)))

    def _rows(self, response: ParsedResponse) -> list[ScoredRow]:
        sees = self.model.config.cot_sees_caption
        return scored_rows(response, self.encoder.response_ids, cot_sees_caption=sees, max_tokens=self.max_tokens)

    def _index(self, places: Iterable[int]) -> Tensor:
        return torch.tensor(list(places), device=self.device)

    def _lengths(self, tokens: Sequence[int]) -> Tensor:
        return torch.tensor(tokens, dtype=torch.float32, device=self.device)

    def _load(self, read: Read, num_texts: int) -> RouterLoad:
        if not read.router_logits:  # a dense model has no router
            return RouterLoad(*(torch.zeros(num_texts, *shape, device=self.device) for shape in ((1, 1), (1, 1), ())))
        return router_load(read.router_logits, read.text_of_T, num_texts, self.model.config.text_config.num_experts_per_tok)


def require_readable(rows: Sequence[TaughtPrompt], encoder: PromptEncoder, max_tokens: int) -> None:
    """Every teacher's response is within what a discriminator of `max_tokens` positions reads."""
    for row in rows:
        try:
            scored_rows(row.teacher, encoder.response_ids, cot_sees_caption=True, max_tokens=max_tokens)
        except DataError as error:
            raise DataError(f"teacher of prompt {row.prompt.id}: {error}") from error


def only_readable(parsed: Parsed, encoder: PromptEncoder, max_tokens: int) -> list[ParsedResponse | None]:
    """One above `max_tokens` counts as one in the wrong format."""
    return [one if one is not None and is_readable(one, encoder.response_ids, max_tokens) else None for one in parsed]
