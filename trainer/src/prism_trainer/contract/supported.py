"""What engine `local` does not carry out yet. Asked for, it is refused with a sentence; it is never ignored."""

from __future__ import annotations

from prism_trainer.contract.configs import (
    AlignmentConfig,
    DiscriminatorConfig,
    EvaluationConfig,
    RlvrConfig,
    SftConfig,
)

AnyConfig = SftConfig | DiscriminatorConfig | AlignmentConfig | RlvrConfig | EvaluationConfig


def unsupported_locally(config: AnyConfig) -> list[tuple[str, str]]:
    """(field path, sentence) for every option of `config` that engine local would have to ignore."""
    match config:
        case EvaluationConfig():
            return _evaluation(config)
        case _:
            return []


def _evaluation(config: EvaluationConfig) -> list[tuple[str, str]]:
    found = []
    if config.benchmarks:
        found.append(("benchmarks", "named benchmarks are not carried out yet; give the stage's data instead"))
    if config.judge:
        found.append(("judge", "a judge is not carried out yet; leave it out, rules decide"))
    return found
