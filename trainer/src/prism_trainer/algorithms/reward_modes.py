"""How a verifiable reward may enter stage 2 beside the discriminator: upstream's five modes, all off by default (its core_algos).

With F for a response in the wrong format, W for a wrong answer in the right one, A for `advantages.combine_components`, GN for
`advantages.group_normalise`, and the weights of `VerifiableTerms` and `formatPenalty`:

    default     A - format_penalty F
    acc-gating  w_align A                - wrong_penalty W - format_penalty F
    gated       w_align A (1 - F)(1 - W) - wrong_penalty W - format_penalty F
    rlvr        GN(r) + w_align A (1 - F)(1 - W)       r = w_acc acc + w_fmt (1 - F)
    rlvr-v2     GN(r) + w_align A (1 - F)(1 - W)       r = w_acc acc + w_fmt (1 - F) - wrong_penalty W - format_penalty F
    sign-align  GN(r) + w_align A (1 - F)(1 - 2 W)     r as in rlvr-v2

Different from upstream: a group without a valid response gets 0 (defect A9), and accuracy is 0 where the format is wrong, which makes the
reward of its sign-align mode that of rlvr-v2; what differs between the two is the sign. A mode that needs an accuracy and has none is
refused where the rows are read; upstream counts every answer as right then.
"""

from __future__ import annotations

from torch import Tensor

from prism_trainer.algorithms.advantages import alignment_advantages, combine_components, group_normalise, spare_hopeless_groups
from prism_trainer.contract.configs import AlignmentConfig


def stage_advantages(config: AlignmentConfig, caption_PN: Tensor, cot_PN: Tensor, valid_PN: Tensor, correct_PN: Tensor | None) -> Tensor:
    """Advantages (P, N) in the configured mode. `correct_PN` (bool) says whose answer is right; only mode default does without."""
    if config.reward_mode == "default":
        return alignment_advantages(
            caption_PN, cot_PN, valid_PN, alpha=config.alpha, format_penalty=config.format_penalty, order=config.advantage
        )
    assert correct_PN is not None, "rows without references are refused before"
    terms = config.verifiable
    aligned = terms.alignment_weight * combine_components(caption_PN, cot_PN, valid_PN, alpha=config.alpha, order=config.advantage)
    valid = valid_PN.to(aligned.dtype)
    right = (valid_PN & correct_PN).to(aligned.dtype)
    wrong = valid - right
    penalties = terms.wrong_penalty * wrong + config.format_penalty * (1 - valid)
    reward = terms.accuracy_weight * right + terms.format_weight * valid
    match config.reward_mode:
        case "acc-gating":
            advantages = aligned - penalties
        case "gated":
            advantages = aligned * right - penalties
        case "rlvr":
            advantages = group_normalise(reward) + aligned * right
        case "rlvr-v2":
            advantages = group_normalise(reward - penalties) + aligned * right
        case _:  # sign-align
            advantages = group_normalise(reward - penalties) + aligned * (right - wrong)
    return spare_hopeless_groups(advantages, valid_PN)
