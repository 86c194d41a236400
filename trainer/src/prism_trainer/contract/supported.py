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
        case DiscriminatorConfig() if config.backbone != "moe":
            return [("backbone", f"backbone '{config.backbone}' is not carried out yet; use 'moe'")]
        case AlignmentConfig():
            return _alignment(config)
        case RlvrConfig():
            return _rlvr(config)
        case _:
            return []


def _alignment(config: AlignmentConfig) -> list[tuple[str, str]]:
    found = []
    if config.reward_mode != "default":
        found.append(("rewardMode", f"reward mode '{config.reward_mode}' is not carried out yet; use 'default'"))
    if config.discriminator_update != "before":
        found.append(("discriminatorUpdate", "an update after the policy's is not carried out yet; use 'before'"))
    for path, beta in (("lengthPenaltyCaption", config.length_penalty_caption), ("lengthPenaltyCot", config.length_penalty_cot)):
        if beta:
            found.append((path, "length correction is not carried out yet; set it to 0"))
    if config.saturation_guard is not None:
        found.append(("saturationGuard", "the saturation guard is not carried out yet; leave it out"))
    return found


def _rlvr(config: RlvrConfig) -> list[tuple[str, str]]:
    found = []
    if config.algorithm.name != "grpo":
        found.append(("algorithm.name", f"algorithm '{config.algorithm.name}' is not carried out yet; use 'grpo'"))
    if config.kl_coef:
        found.append(("klCoef", "a KL term is not carried out yet; set it to 0"))
    return found
