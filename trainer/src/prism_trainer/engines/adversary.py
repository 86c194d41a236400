"""The discriminator's side of an alignment step: scores for the policy, and its own update, from one pass (`engines.reading`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prism_trainer.contract.configs import AlignmentConfig
from prism_trainer.data.rows import TaughtPrompt
from prism_trainer.discriminator.losses import bradley_terry, pair_accuracy
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.scoring import Scorer
from prism_trainer.engines.reading import Marks, Pair, groups_of, read_portions
from prism_trainer.responses import ParsedResponse


@dataclass(frozen=True)
class AdversaryResult:
    """Clipped scores before the update and validity, (P, N); 0 where invalid."""

    caption_PN: Tensor
    cot_PN: Tensor
    valid_PN: Tensor
    metrics: dict[str, float]

    @property
    def num_valid(self) -> int:
        return int(self.valid_PN.sum())


def score_and_accumulate(
    scorer: Scorer,
    batch: Sequence[TaughtPrompt],
    parsed: Sequence[ParsedResponse | None],
    config: AlignmentConfig,
    *,
    learns: bool = True,
    seed: int = 0,
) -> AdversaryResult:
    """All of a step in this process; see `read_portions`."""
    marks = read_portions(scorer, groups_of(batch, parsed), config, learns=learns, seed=seed)
    return judge([marks], [one is not None for one in parsed], config)


def step_discriminator(optimizer: StageOptimizer, adversary: AdversaryResult) -> dict[str, float]:
    """The optimizer step for the gradients that `read_portions` left.

    A step without any valid student leaves the discriminator as it is, and reports no accuracy (upstream reports a constant 0.92,
    defect A10).
    """
    if not adversary.num_valid:
        return {}
    return {f"critic/{name}": value for name, value in optimizer.step(adversary.num_valid).items()}


def judge(marks: Sequence[Marks], valid: Sequence[bool], config: AlignmentConfig) -> AdversaryResult:
    """What all processes have read: the policy's reward, clipped, and the step's metrics. Tensors are on the CPU."""
    teachers = dict(sorted(item for one in marks for item in one.teachers.items()))
    students = dict(sorted(item for one in marks for item in one.students.items()))
    shape = (len(teachers), config.rollout.group_size)
    rewards = [
        torch.tensor([students[place][component] if place in students else 0.0 for place in range(len(valid))]) for component in (0, 1)
    ]
    caption, cot = (reward.clamp(-config.score_clip, config.score_clip).view(shape) for reward in rewards)
    metrics = {"critic/valid_ratio": sum(valid) / len(valid)}
    if students:
        metrics["critic/balance_loss"] = sum(one.balance for one in marks) / len(students)
    return AdversaryResult(caption, cot, torch.tensor(valid).view(shape), {**metrics, **_score_metrics(teachers, students, shape[1])})


def _score_metrics(teachers: dict[int, Pair], students: dict[int, Pair], group_size: int) -> dict[str, float]:
    """Names as in upstream's dashboards, with the gap that the paper plots."""
    metrics: dict[str, float] = {}
    losses, accuracies, squares = [], [], []
    for component, (name, short) in enumerate((("caption", "cap"), ("cot", "cot"))):
        metrics[f"critic/teacher_{name}_mean"] = torch.tensor([pair[component] for pair in teachers.values()]).mean().item()
        if not students:
            continue
        student = torch.tensor([pair[component] for pair in students.values()])
        teacher = torch.tensor([teachers[place // group_size][component] for place in students])
        margin = teacher - student
        squares += [teacher.square().mean(), student.square().mean()]
        losses.append(bradley_terry(margin, torch.zeros_like(margin)).mean().item())
        accuracies.append(pair_accuracy(margin))
        metrics |= {
            f"critic/{short}_loss": losses[-1],
            f"critic/{short}_acc": accuracies[-1],
            f"critic/student_{name}_mean": student.mean().item(),
            f"critic/{name}_gap": margin.mean().item(),
            f"reward/{name}_score_mean": student.mean().item(),
            f"reward/{name}_score_std": student.std().item() if len(student) > 1 else 0.0,
        }
    if not students:
        return metrics
    return metrics | {
        "critic/score_reg": torch.stack(squares).mean().item(),
        "critic/d_loss": sum(losses),
        "critic/d_acc": sum(accuracies) / 2,
    }
