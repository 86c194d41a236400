"""What the stages learn from."""

from __future__ import annotations

from dataclasses import dataclass

from prism_trainer.responses import ParsedResponse


@dataclass(frozen=True)
class Prompt:
    """A question about images. `id` is the source's address and the row: unique within a stage, so that it can stand for the prompt."""

    id: str
    question: str
    images: tuple[bytes, ...]
    system: str | None = None


@dataclass(frozen=True)
class Demonstration:
    """A prompt with the response to imitate (sft)."""

    prompt: Prompt
    response: str


@dataclass(frozen=True)
class TaughtPrompt:
    """A prompt with the teacher's response (discriminator, alignment); `references` only for monitoring.

    A row of a warm-up pair set has the student's response as well.
    """

    prompt: Prompt
    teacher: ParsedResponse
    references: tuple[str, ...] = ()
    student: ParsedResponse | None = None


@dataclass(frozen=True)
class VerifiablePrompt:
    """A prompt with the answers that count as right (rlvr, evaluation)."""

    prompt: Prompt
    references: tuple[str, ...]
    data_source: str | None = None
    """What upstream routes its rewards by; kept, not used."""
