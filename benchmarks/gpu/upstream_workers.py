"""A rank's policy and discriminator as upstream works with them, on engine verl; `ways.py` puts them in our workers' places.

In a module of its own, because Ray's workers import it by name, and after verl's environment stands. One GPU: nothing is dealt to ranks.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import AbstractContextManager
from typing import Any

import torch
from shapes import Prompts
from upstream import Way, Work, score, update
from verl.experimental.agent_loop.agent_loop import AgentLoopWorker
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils.tensordict_utils import nested_tensor_from_tensor_list
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from prism_trainer.engines.adversary import judge
from prism_trainer.engines.local.rollout import Vocabulary
from prism_trainer.engines.reading import Group, Marks
from prism_trainer.engines.sharding import let_go
from prism_trainer.engines.verl.discriminator_worker import DiscriminatorWorker
from prism_trainer.engines.verl.policy_engine import PolicyEngine
from prism_trainer.engines.verl.policy_worker import PolicyTrainingWorker, PolicyWorker
from prism_trainer.engines.verl.shared_prompts import prompts_of
from prism_trainer.packed.patches import use_linear_patches

PADDED_ENGINE = "upstream_padded"
WAY = Way(conv3d=False)
NEVER = -1e30
"""A logit that nothing is drawn by; an infinite one has no entropy."""


@EngineRegistry.register(model_type=PADDED_ENGINE, backend=["fsdp2"], device=["cuda", "cpu"])
class PaddedEngine(FSDPEngineWithLMHead):  # type: ignore[misc]
    """verl's own: padded rows, a prompt and its image for each of its responses, logits of all tokens.

    As ours: optimizer and schedule, the image's patches by one product, and probabilities over the tokens that are drawn.
    """

    _build_optimizer, _build_lr_scheduler = PolicyEngine._build_optimizer, PolicyEngine._build_lr_scheduler

    def _build_module(self) -> Any:
        self.model_config.model_type = "language_model"
        module: Any = super()._build_module()
        use_linear_patches(module)
        tokenizer = self.model_config.get_processor().tokenizer
        self.forbidden = Vocabulary.of(tokenizer, module.lm_head.weight.shape[0], torch.device("cpu")).forbidden
        return module

    def forward_backward_batch(self, data: Any, loss_function: Any, forward_only: bool = False) -> Any:
        data["position_ids"] = nested_tensor_from_tensor_list(self._positions(data), ragged_idx=2)
        return super().forward_backward_batch(data, loss_function, forward_only)

    def _positions(self, data: Any) -> list[torch.Tensor]:
        """(4, T) of each row, as verl's agent loop has them: of the text, and of time, height and width."""
        found = []
        for ids, prompt in zip(data["input_ids"].unbind(), prompts_of(data), strict=True):
            images = {"mm_token_type_ids": True, **({"image_grid_thw": prompt.image_grid_thw} if len(prompt.image_grid_thw) else {})}
            row = ids.cpu().unsqueeze(0)
            found.append(AgentLoopWorker._compute_position_ids(self.model_config, row, torch.ones_like(row), images)[0].to(ids.device))
        return found

    def prepare_model_outputs(self, output: Any, *given: Any, **named: Any) -> Any:
        output.logits.masked_fill_(self.forbidden.to(output.logits.device), NEVER)
        return super().prepare_model_outputs(output, *given, **named)


class PaddedTrainingWorker(PolicyTrainingWorker):
    def __init__(self, config: Any) -> None:
        super(PolicyTrainingWorker, self).__init__(dataclasses.replace(config, model_type=PADDED_ENGINE))


class PaddedPolicyWorker(PolicyWorker):
    actor_worker_cls = PaddedTrainingWorker


class UpstreamDiscriminator(DiscriminatorWorker):
    """Scores in one phase and learns in another, each with a forward for every span, by `upstream.py`."""

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)  # type: ignore[untyped-decorator]
    def score_and_accumulate(self, groups: list[Group], step: int, *, learns: bool) -> tuple[Marks, float]:
        """Scores alone; a teacher has none yet."""
        began = time.monotonic()
        self._take_out()
        self.groups, self.work = groups, self._work_of(groups)
        with self._autocast():
            students = score(self.model, self.work, WAY)
        let_go(self.model)
        self._put_away()
        return self._marks(torch.zeros(len(groups), 2), students), time.monotonic() - began

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)  # type: ignore[untyped-decorator]
    def step_discriminator(self, num_valid: int) -> dict[str, float]:
        """The update with its own forwards, and what was known only after it."""
        self._take_out()
        with self._autocast():
            marks = self._marks(*update(self.model, self.work, WAY))
        let_go(self.model)
        told = self.optimizer.step()
        self._put_away()
        valid = [one is not None for group in self.groups for one in group.parsed]
        known = judge([marks], valid, self.config).metrics
        return {**told, **{name.removeprefix("critic/"): value for name, value in known.items() if name.startswith("critic/")}}

    def _work_of(self, groups: list[Group]) -> Work:
        shown = self.scorer.collate([group.row.prompt for group in groups])
        prompts = Prompts(shown.token_ids_PT, shown.mask_PT.bool(), shown.pixel_values, shown.image_grid_thw)
        students = [(owner, one) for owner, group in enumerate(groups) for one in group.parsed if one is not None]
        return Work(
            prompts, [self._spans(group.row.teacher) for group in groups], [self._spans(one) for _, one in students],
            [owner for owner, _ in students],
        )  # fmt: skip

    def _spans(self, response: Any) -> tuple[list[int], list[int]]:
        """Up to the token at which the caption is scored, and the cot; the caption is before it where the discriminator sees it there."""
        rows = self.scorer._rows(response)
        caption = next(list(row.token_ids[: row.caption_at + 1]) for row in rows if row.caption_at is not None)
        return caption, next(list(row.token_ids[: row.cot_at + 1]) for row in rows if row.cot_at is not None)

    def _marks(self, teachers: torch.Tensor, students: torch.Tensor) -> Marks:
        size = self.config.rollout.group_size
        places = [group.number * size + index for group in self.groups for index, one in enumerate(group.parsed) if one is not None]
        pairs = [(caption, cot) for caption, cot in students.tolist()]
        of_teachers = {group.number: (caption, cot) for group, (caption, cot) in zip(self.groups, teachers.tolist(), strict=True)}
        return Marks(of_teachers, dict(zip(places, pairs, strict=True)))

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
