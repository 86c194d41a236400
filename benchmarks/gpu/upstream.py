"""The discriminator as upstream runs it: one sample a forward, a forward for every span, nothing shared. A baseline and nothing else.

Scoring runs in eval mode, in which transformers 4.57 repeats the tokens and computes every expert for every token; training loops over
the experts. Attention gets its dense mask. Each of these can be turned off, so that what it costs is measured alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from shapes import Prompts
from torch import Tensor
from torch.nn import functional
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from prism_trainer.discriminator.losses import bradley_terry
from prism_trainer.packed.patches import use_linear_patches


@dataclass(frozen=True)
class Work:
    """Token ids: of each prompt's teacher and of each response, a caption and a cot; `prompt_of[r]` is the prompt of response r."""

    prompts: Prompts
    teachers: Sequence[tuple[list[int], list[int]]]
    responses: Sequence[tuple[list[int], list[int]]]
    prompt_of: Sequence[int]

    def of(self, prompt: int) -> Work:
        """One prompt's share."""
        mine = [one for one, owner in zip(self.responses, self.prompt_of, strict=True) if owner == prompt]
        return Work(self.prompts.one(prompt), [self.teachers[prompt]], mine, [0] * len(mine))


@dataclass(frozen=True)
class Way:
    """Which of upstream's habits are kept."""

    scores_apart: bool = True
    """A scoring pass before the update's own."""
    teacher_each: bool = True
    """The teacher once more for every response."""
    vision_each: bool = True
    """The image once more for every forward."""
    masked: bool = True
    """A dense attention mask in place of a causal kernel."""
    conv3d: bool = True
    """torch's convolution for the image's patches, which is slow in torch 2.11, in place of one product."""
    train_experts: str = "eager"
    score_experts: str = "every_expert"

    def but(self, **changes: Any) -> Way:
        return replace(self, **changes)


def every_expert(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """All experts for all tokens, then the router's weights: 0 for those not chosen (the eval path of transformers 4.57)."""
    weights = torch.zeros(len(hidden_states), self.num_experts, dtype=top_k_weights.dtype, device=hidden_states.device)
    weights.scatter_(1, top_k_index, top_k_weights)
    repeated = hidden_states.repeat(self.num_experts, 1).view(self.num_experts, -1, hidden_states.shape[1])
    gate, up = torch.bmm(repeated, self.gate_up_proj.transpose(1, 2)).chunk(2, dim=-1)
    out = torch.bmm(functional.silu(gate) * up, self.down_proj.transpose(1, 2))
    return (out * weights.T.unsqueeze(-1)).sum(dim=0)


ALL_EXPERTS_FUNCTIONS.register("every_expert", every_expert)


def use_plain_kernels(model: Any, experts: str, conv3d: bool = True) -> None:
    """transformers' own forwards, with this way of computing the experts."""
    for module in model.modules():
        module.__dict__.pop("forward", None)
    if not conv3d:
        use_linear_patches(model)
    model.config.text_config._experts_implementation = experts


def score_alone(model: Any, prompt: Prompts, span: list[int], features: Any, masked: bool) -> Tensor:
    """The score at the end of one span after its prompt; `features` are the image's, or None to compute them."""
    return model(_score_alone, model, prompt, span, features, masked)  # through its own call, which gathers weights that are sharded


def _score_alone(model: Any, prompt: Prompts, span: list[int], features: Any, masked: bool) -> Tensor:
    device = prompt.token_ids_PT.device
    ids = torch.cat([prompt.token_ids_PT, torch.tensor([span], device=device)], dim=1)
    backbone, image_id = model.model, model.config.image_token_id
    image = ids == image_id
    found = features or backbone.get_image_features(prompt.pixel_values, prompt.image_grid_thw, return_dict=True)
    embedded = backbone.get_input_embeddings()(ids)
    embedded = embedded.masked_scatter(image.unsqueeze(-1), torch.cat(tuple(found.pooler_output)).to(embedded.dtype))
    positions, _ = backbone.get_rope_index(ids, mm_token_type_ids=image.int(), image_grid_thw=prompt.image_grid_thw)
    tokens = ids.shape[1]
    mask = torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()[None, None] if masked else None
    out = backbone.language_model(
        inputs_embeds=embedded,
        position_ids=positions,
        attention_mask=mask,
        use_cache=False,
        visual_pos_masks=image,
        deepstack_visual_embeds=found.deepstack_features,
    )
    return model.read_scores(out.last_hidden_state[0, -1])


class _Features:
    """An image's features, computed once; gradients gather on them and go into the vision tower at the end."""

    def __init__(self, model: Any, prompt: Prompts) -> None:
        self.found = model.model.get_image_features(prompt.pixel_values, prompt.image_grid_thw, return_dict=True)
        self.made = [*self.found.pooler_output, *self.found.deepstack_features]
        self.leaves = [one.detach().requires_grad_(one.requires_grad) for one in self.made]
        count = len(self.found.pooler_output)
        self.pooler_output, self.deepstack_features = self.leaves[:count], self.leaves[count:]

    def backward(self) -> None:
        torch.autograd.backward(self.made, [leaf.grad for leaf in self.leaves])


@torch.no_grad()
def score(model: Any, work: Work, way: Way) -> Tensor:
    """(R, 2) scores."""
    use_plain_kernels(model, way.score_experts, way.conv3d)
    model.eval()
    scores = []
    for prompt in range(len(work.teachers)):
        part = work.of(prompt)
        features = None if way.vision_each else _Features(model, part.prompts)
        scores += [torch.stack([score_alone(model, part.prompts, span, features, way.masked) for span in one]) for one in part.responses]
    model.train()
    return torch.stack(scores)


def update(model: Any, work: Work, way: Way) -> tuple[Tensor, Tensor]:
    """(P, 2) and (R, 2) scores of teachers and responses; leaves the gradients of the preference loss."""
    use_plain_kernels(model, way.train_experts, way.conv3d)
    model.train()
    teachers, scores = [], []
    for prompt in range(len(work.teachers)):
        part = work.of(prompt)
        features = None if way.vision_each else _Features(model, part.prompts)

        def alone(span: list[int], part: Work = part, features: Any = features) -> Tensor:
            return score_alone(model, part.prompts, span, features, way.masked)

        kept = None if way.teacher_each else torch.stack([alone(span) for span in part.teachers[0]])
        level = None if kept is None else kept.detach().requires_grad_()
        for response in part.responses:
            teacher = torch.stack([alone(span) for span in part.teachers[0]]) if level is None else level
            student = torch.stack([alone(span) for span in response])
            (bradley_terry(teacher, student).sum() / len(work.responses)).backward()
            scores.append(student.detach())
        teachers.append(teacher.detach())
        if kept is not None and level is not None:
            kept.backward(level.grad)
        if features is not None:
            features.backward()
    return torch.stack(teachers), torch.stack(scores)


def score_and_update(model: Any, work: Work, way: Way) -> Tensor:
    if not way.scores_apart:
        return update(model, work, way)[1]
    before = score(model, work, way)
    update(model, work, way)
    return before
