"""What the discriminator reads of a step of alignment: prompts with their teacher and students, scored and learnt from in one pass.

One process, or many: each reads its portions (`engines.portions`) of the groups it is given. The groups of a step may come in one call or
one by one, in any order: the loss is a mean over the valid students of the step, so its gradients are added up as sums, and divided by
their number before the optimizer step. Scores and gradients do not depend on how many processes there are, on how much each reads at once,
or on when.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor

from prism_trainer.contract.configs import AlignmentConfig
from prism_trainer.data.rows import Prompt, TaughtPrompt
from prism_trainer.discriminator.losses import bradley_terry
from prism_trainer.engines.local.scoring import Scorer, Scores
from prism_trainer.engines.portions import Portion, plan_portions
from prism_trainer.responses import ParsedResponse
from prism_trainer.seeds import seed_for

Pair = tuple[float, float]
"""Scores of a caption and of its cot."""


@dataclass(frozen=True)
class Ranks:
    """Which process this is of those that share the discriminator, and the sum of a tensor over all of them."""

    rank: int = 0
    size: int = 1
    add_up: Callable[[Tensor], Tensor] = lambda tensor: tensor


ALONE = Ranks()


@dataclass(frozen=True)
class Group:
    """A prompt and its responses, None for those in the wrong format. `number` is its place among the prompts of the step."""

    number: int
    row: TaughtPrompt
    parsed: Sequence[ParsedResponse | None]

    @property
    def num_valid(self) -> int:
        return sum(one is not None for one in self.parsed)


def groups_of(batch: Sequence[TaughtPrompt], parsed: Sequence[ParsedResponse | None]) -> list[Group]:
    """All of a step, whose responses lie prompt by prompt."""
    size = len(parsed) // len(batch)
    return [Group(number, row, parsed[number * size : (number + 1) * size]) for number, row in enumerate(batch)]


@dataclass(frozen=True)
class Marks:
    """What one process has read: scores less length, not clipped, of teachers by prompt and of valid students by response, both numbered
    over the step.

    `balance` is its part of the router's load-balancing loss, a sum over valid students.
    """

    teachers: dict[int, Pair] = field(default_factory=dict)
    students: dict[int, Pair] = field(default_factory=dict)
    balance: float = 0.0


def read_portions(
    scorer: Scorer, groups: Sequence[Group], config: AlignmentConfig, *, learns: bool = True, ranks: Ranks = ALONE, seed: int = 0
) -> Marks:
    """Score this process's portions of `groups`, some or all of a step's, and, if the discriminator `learns`, add to its gradients.

    Loss, the mean over the valid students s of the whole step, each with the teacher t of its prompt:
        -log sigmoid(t_cap - s_cap) - log sigmoid(t_cot - s_cot) + reg * (t_cap^2 + t_cot^2 + s_cap^2 + s_cot^2) / 4 + balance
    where balance is that of all tokens of the prompt, its teacher and its students. In every term a prompt weighs what its valid students
    weigh, and what is added to the gradients are sums, which `step_discriminator` divides by the number of students.
    The returned scores are not clipped, nor are those in the loss, as a clipped score would have no gradient to come back by (upstream
    clips there too). With several processes the gradients are times their number: sharded ones are averaged over them.
    Dropout is drawn by the step's `seed` and by the prompts that are read together, so that the order of passes does not matter.
    """
    costs = [[len(one.text) if one else None for one in group.parsed] for group in groups]
    plan = plan_portions(costs, max(1, config.micro_batch_size // config.rollout.group_size), ranks.size)
    reading = _Reading(scorer, groups, config, ranks, seed, split=ranks.size > len(groups))
    scorer.model.train()
    with torch.set_grad_enabled(learns and any(group.num_valid for group in groups)):
        return _together(reading.score(portion, [own[index] for own in plan]) for index, portion in enumerate(plan[ranks.rank]))


def _together(read: Iterable[Marks]) -> Marks:
    teachers: dict[int, Pair] = {}
    students: dict[int, Pair] = {}
    balance = 0.0
    for one in read:
        teachers, students, balance = teachers | one.teachers, students | one.students, balance + one.balance
    return Marks(teachers, students, balance)


@dataclass(frozen=True)
class _Reading:
    """Groups under way. Prompts and responses are numbered over them here, and over the step in what is returned."""

    scorer: Scorer
    groups: Sequence[Group]
    config: AlignmentConfig
    ranks: Ranks
    seed: int
    split: bool
    """Whether a prompt's responses may be read by several processes."""

    def score(self, portion: Portion, beside: Sequence[Portion]) -> Marks:
        """Scores of one portion, and its gradients unless they are switched off; `beside` is what all processes read in this pass."""
        config, device = self.config, self.scorer.device
        size = config.rollout.group_size
        groups = [self.groups[prompt] for prompt in portion.prompts]
        row_of = [portion.prompts.index(response // size) for response in portion.responses]
        students = [self.groups[response // size].parsed[response % size] for response in portion.responses]
        shown = self._shown([group.row.prompt for group in groups], beside)
        torch.manual_seed(seed_for(self.seed, *(group.number for group in groups)))
        scores = self.scorer.score(
            self.scorer.collate(shown),
            [*range(len(groups)), *row_of],
            [one for one in (*(group.row.teacher for group in groups), *students) if one is not None],
        ).less_length(config.length_penalty_caption, config.length_penalty_cot)
        teacher, student = scores.rows(slice(len(groups))), scores.rows(slice(len(groups), None))
        balance = self._balance(scores, portion, row_of, len(shown))
        if torch.is_grad_enabled():
            loss = self._preference(teacher, student, torch.tensor(row_of, dtype=torch.long, device=device)) + config.balance_coef * balance
            (loss * self.ranks.size).backward()  # type: ignore[no-untyped-call]
        read = zip(portion.prompts, _pairs(teacher), strict=True)
        return Marks(
            {self.groups[prompt].number: pair for prompt, pair in read if prompt in portion.counted},
            {
                self.groups[place // size].number * size + place % size: pair
                for place, pair in zip(portion.responses, _pairs(student), strict=True)
            },
            balance.item(),
        )

    def _shown(self, prompts: list[Prompt], beside: Sequence[Portion]) -> list[Prompt]:
        """A process whose prompts have no image shows a blank one, which nobody answers, where another's have: the vision tower's
        weights are gathered from all of them or from none."""
        seen = any(self.groups[prompt].row.prompt.images for portion in beside for prompt in portion.prompts)
        if not seen or any(prompt.images for prompt in prompts):
            return prompts
        return [*prompts, Prompt("a blank image", "", (blank_image(),))]

    def _preference(self, teacher: Scores, student: Scores, rows_S: Tensor) -> Tensor:
        """Summed over students. Without any it is 0, and still reaches every weight that the pass has gathered."""
        total = torch.zeros((), device=rows_S.device)
        for name in ("caption_R", "cot_R"):
            teachers_S, students_S = getattr(teacher, name).index_select(0, rows_S), getattr(student, name)
            total = total + bradley_terry(teachers_S, students_S).sum()
            total = total + self.config.score_reg_coef * (teachers_S.square() + students_S.square()).sum() / 4
        return total

    def _balance(self, scores: Scores, portion: Portion, row_of: Sequence[int], num_shown: int) -> Tensor:
        """The part of these tokens in the sum over valid students. What several processes read of a prompt is added up first."""
        device, count = self.scorer.device, len(self.groups)
        nobody = [-1] * (num_shown - len(portion.prompts))
        owners = [prompt if prompt in portion.counted else -1 for prompt in (*portion.prompts, *nobody, *portion.prompts)] + [
            portion.prompts[row] for row in row_of
        ]
        place = torch.tensor([count if owner < 0 else owner for owner in owners], device=device)
        load = scores.load.gather(place, count + 1)
        if self.split:
            load = replace(load, sent_XLE=self.ranks.add_up(load.sent_XLE), tokens_X=self.ranks.add_up(load.tokens_X))
        valid_P = torch.tensor([float(group.num_valid) for group in self.groups], device=device)
        return (load.balance()[:count] * valid_P).sum()


@functools.cache
def blank_image() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    return buffer.getvalue()


def _pairs(scores: Scores) -> list[Pair]:
    return list(zip(scores.caption_R.tolist(), scores.cot_R.tolist(), strict=True))
