"""What a step of alignment tells beside what it optimised, whichever engine took it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from prism_trainer.algorithms.advantages import alignment_advantages
from prism_trainer.contract.configs import AlignmentConfig


def assert_tells_what_it_optimises(metrics: dict[str, float], samples: list[dict[str, Any]], config: AlignmentConfig) -> None:
    """The dumped advantages are those of the dumped scores by their weights, the loss is that of these advantages, and nothing is the
    plain sum of caption and cot, which upstream reports as its score (defect A13)."""
    tokens, advantages = (torch.tensor([float(one[name]) for one in samples]) for name in ("num_tokens", "advantage"))
    caption, cot = (torch.tensor([float(one[name] or 0) for one in samples]) for name in ("caption_score", "cot_score"))
    valid = torch.tensor([one["format_valid"] for one in samples])

    def weighted(alpha: float) -> torch.Tensor:
        groups = [part.view(-1, config.rollout.group_size) for part in (caption, cot, valid)]
        return alignment_advantages(*groups, alpha=alpha, format_penalty=config.format_penalty, order=config.advantage).flatten()

    torch.testing.assert_close(advantages, weighted(config.alpha), atol=1e-5, rtol=1e-5)
    assert (advantages - weighted(0.5)).abs().max() > 0.1, "with other weights it would be another step"
    assert metrics["actor/loss"] == pytest.approx(-(advantages * tokens).sum().item() / tokens.sum().item(), abs=1e-4)
    plain = caption + cot
    for total in (plain.mean().item(), plain[valid].mean().item()):
        assert [name for name, value in metrics.items() if value == pytest.approx(total, rel=1e-4)] == []
    assert not [name for name in samples[0] if all(one[name] == each.item() for one, each in zip(samples, plain, strict=True))]
