"""The discriminator's side of an alignment step: scores for the policy, and the gradients of its own update, from one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prism_trainer.contract.configs import AlignmentConfig
from prism_trainer.data.rows import TaughtPrompt
from prism_trainer.discriminator.losses import bradley_terry, pair_accuracy
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.scoring import Scorer, Scores
from prism_trainer.responses import ParsedResponse


@dataclass(frozen=True)
class AdversaryResult:
    """Clipped scores before the update and validity, (P, N); 0 where invalid."""

    caption_PN: Tensor
    cot_PN: Tensor
    valid_PN: Tensor
    metrics: dict[str, float]


@dataclass(frozen=True)
class _Chunk:
    """Consecutive prompts with their groups, scored together: their teachers and their valid students."""

    teacher: Scores
    student: Scores
    prompt_of_student: Tensor

    def margin(self, name: str) -> Tensor:
        """Teacher over student of component `name`, one a student."""
        teacher: Tensor = getattr(self.teacher, f"{name}_R")
        student: Tensor = getattr(self.student, f"{name}_R")
        return teacher.index_select(0, self.prompt_of_student) - student


def score_and_accumulate(
    scorer: Scorer,
    batch: Sequence[TaughtPrompt],
    parsed: Sequence[ParsedResponse | None],
    config: AlignmentConfig,
    *,
    learns: bool = True,
) -> AdversaryResult:
    """Score every valid response and, if the discriminator `learns`, leave the gradients of its loss, teacher over student.

    Loss, with V the valid students of the whole step (not of a micro-batch or rank) and t the teacher of student s's prompt:
        sum_V [-log s(t_cap - s_cap)] / |V|  +  sum_V [-log s(t_cot - s_cot)] / |V|  +  reg * mean of squared scores  +  balance
    The returned scores are clipped; the loss is of the unclipped ones, as a clipped score would have no gradient to come back by
    (upstream clips there too).
    """
    size = config.rollout.group_size
    valid = torch.tensor([one is not None for one in parsed], device=scorer.device)
    num_valid = int(valid.sum())
    caption, cot = torch.zeros(len(parsed), device=scorer.device), torch.zeros(len(parsed), device=scorer.device)
    scorer.model.train()
    chunks = []
    prompts_at_once = max(1, config.micro_batch_size // size)
    with torch.set_grad_enabled(learns and num_valid > 0):
        for start in range(0, len(batch), prompts_at_once):
            rows = batch[start : start + prompts_at_once]
            group = slice(start * size, (start + len(rows)) * size)
            chunk = _score_chunk(scorer, rows, parsed[group], config)
            if torch.is_grad_enabled():
                _loss(chunk, num_valid, len(batch), config).backward()  # type: ignore[no-untyped-call]
            places = valid[group].nonzero().squeeze(1) + group.start
            caption[places], cot[places] = chunk.student.caption_R.detach(), chunk.student.cot_R.detach()
            chunks.append(chunk)
    clip = config.score_clip
    shape = (len(batch), size)
    metrics = _metrics(chunks, num_valid, len(parsed))
    return AdversaryResult(caption.clamp(-clip, clip).view(shape), cot.clamp(-clip, clip).view(shape), valid.view(shape), metrics)


def step_discriminator(optimizer: StageOptimizer, adversary: AdversaryResult) -> dict[str, float]:
    """The optimizer step for the gradients that `score_and_accumulate` left.

    A step without any valid student leaves the discriminator as it is, and reports no accuracy (upstream reports a constant 0.92,
    defect A10).
    """
    if not adversary.valid_PN.any():
        return {}
    return {f"critic/{name}": value for name, value in optimizer.step().items()}


def _score_chunk(scorer: Scorer, rows: Sequence[TaughtPrompt], parsed: Sequence[ParsedResponse | None], config: AlignmentConfig) -> _Chunk:
    students = [(index // config.rollout.group_size, one) for index, one in enumerate(parsed) if one is not None]
    prompt_of = [*range(len(rows)), *(row for row, _ in students)]
    scores = scorer.score(
        scorer.collate([row.prompt for row in rows]), prompt_of, [*(row.teacher for row in rows), *(one for _, one in students)]
    ).less_length(config.length_penalty_caption, config.length_penalty_cot)
    prompt_of_student = torch.tensor([row for row, _ in students], dtype=torch.long, device=scorer.device)
    return _Chunk(scores.rows(slice(len(rows))), scores.rows(slice(len(rows), None)), prompt_of_student)


def _loss(chunk: _Chunk, num_valid: int, num_prompts: int, config: AlignmentConfig) -> Tensor:
    margins = torch.cat([chunk.margin("caption"), chunk.margin("cot")])
    pairs = bradley_terry(margins, torch.zeros_like(margins)).sum()
    teachers = (chunk.teacher.caption_R.square() + chunk.teacher.cot_R.square()).sum() / (2 * num_prompts)
    students = (chunk.student.caption_R.square() + chunk.student.cot_R.square()).sum() / (2 * num_valid)
    share = len(chunk.teacher.caption_R) / num_prompts
    return pairs / num_valid + config.score_reg_coef * (teachers + students) / 2 + config.balance_coef * chunk.student.balance * share


@torch.no_grad()
def _metrics(chunks: Sequence[_Chunk], num_valid: int, num_responses: int) -> dict[str, float]:
    """Names as in upstream's dashboards, with the gap that the paper plots."""
    metrics = {"critic/valid_ratio": num_valid / num_responses}
    teacher = {name: torch.cat([getattr(chunk.teacher, f"{name}_R") for chunk in chunks]) for name in ("caption", "cot")}
    for name, scores in teacher.items():
        metrics[f"critic/teacher_{name}_mean"] = scores.mean().item()
    metrics["critic/balance_loss"] = sum(chunk.student.balance.item() for chunk in chunks) / len(chunks)
    if not num_valid:
        return metrics
    losses, accuracies, squares = [], [], [scores.square().mean() for scores in teacher.values()]
    for name, short in (("caption", "cap"), ("cot", "cot")):
        student = torch.cat([getattr(chunk.student, f"{name}_R") for chunk in chunks])
        margin = torch.cat([chunk.margin(name) for chunk in chunks])
        squares.append(student.square().mean())
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
    metrics["critic/score_reg"] = torch.stack(squares).mean().item()
    return {**metrics, "critic/d_loss": sum(losses), "critic/d_acc": sum(accuracies) / 2}
