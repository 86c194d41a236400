"""Which tokens the discriminator reads and where it gives its score. Teacher and student, warm-up and alignment all come through here.

A response becomes, after its prompt:

    <caption>...</caption>  <|im_end|> \\n   <think>...</think><answer>...</answer>  <|im_end|> \\n
                                       ^ caption's score                                        ^ cot's score

Each span ends with the same turn end, and its score is read at the newline after it, whoever wrote the text (upstream: defects A2 and
A4). The text is tokenised anew from the parsed sections, so that neither a sampler's unusual token boundaries nor the white space
between sections tells student from teacher; nothing is cut (A1). A causal model gives the caption the same score as if it stood alone;
the cot is scored with its caption before it (A8) unless `cot_sees_caption` is off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prism_trainer.errors import DataError
from prism_trainer.responses import ParsedResponse

Tokenise = Callable[[str], list[int]]
TURN_END = "<|im_end|>\n"
TOKENS_A_BYTE = 3
"""At most: a token is a byte or more, of a text that normalising (NFC) makes up to three times as long."""


@dataclass(frozen=True)
class ScoredRow:
    """Tokens after the prompt, and the position of each score in them; None where the row has no such score."""

    token_ids: tuple[int, ...]
    caption_at: int | None
    cot_at: int | None

    @property
    def caption_tokens(self) -> int:
        """Length of the caption with its turn end."""
        return 0 if self.caption_at is None else self.caption_at + 1

    @property
    def cot_tokens(self) -> int:
        """Length of think and answer with their turn end, without the caption before them."""
        return 0 if self.cot_at is None else self.cot_at + 1 - self.caption_tokens


def scored_rows(response: ParsedResponse, tokenise: Tokenise, *, cot_sees_caption: bool, max_tokens: int) -> list[ScoredRow]:
    """One row with both scores, or two rows with one each."""
    caption, cot = _spans(response, tokenise)
    if len(caption) + len(cot) > max_tokens:
        raise DataError(
            f"a response of {len(caption) + len(cot)} tokens is above the limit of {max_tokens}; nothing is cut, so raise the limit"
        )
    if cot_sees_caption:
        return [ScoredRow((*caption, *cot), len(caption) - 1, len(caption) + len(cot) - 1)]
    return [ScoredRow(tuple(caption), len(caption) - 1, None), ScoredRow(tuple(cot), None, len(cot) - 1)]


def is_readable(response: ParsedResponse, tokenise: Tokenise, max_tokens: int) -> bool:
    """Whether `scored_rows` takes it. A short one is not tokenised to know."""
    if TOKENS_A_BYTE * len((response.text + TURN_END * 2).encode()) < max_tokens:
        return True
    return sum(map(len, _spans(response, tokenise))) <= max_tokens


def _spans(response: ParsedResponse, tokenise: Tokenise) -> tuple[list[int], list[int]]:
    """Tokens of caption and cot, each to its turn end."""
    end = tokenise(TURN_END)
    return [*tokenise(response.caption_block.of(response.text)), *end], [*tokenise(_tidy_cot(response)), *end]


def _tidy_cot(response: ParsedResponse) -> str:
    """White space between think and answer is the writer's habit, not reasoning."""
    think, answer = response.think.of(response.text), response.answer.of(response.text)
    return f"<think>{think}</think>\n<answer>{answer}</answer>"
