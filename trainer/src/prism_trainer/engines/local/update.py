"""One on-policy update of a policy on its own responses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from prism_trainer.algorithms.losses import kl_to_reference, mean_over, surrogate
from prism_trainer.contract.configs import PolicyLoss
from prism_trainer.data.rows import Prompt
from prism_trainer.engines.local.encoding import PromptBatch, PromptEncoder
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.prefix import continue_prefix, encode_prefix
from prism_trainer.engines.local.rollout import Responses, Vocabulary
from prism_trainer.packed.backbone import use_packed_kernels
from prism_trainer.packed.log_probs import chosen_log_probs, states_before


@dataclass(frozen=True)
class TokenScores:
    """Log-probability and entropy (R, T) of each response token under a policy."""

    log_probs_RT: Tensor
    entropy_RT: Tensor


def score_tokens(
    policy: PreTrainedModel,
    prompts: PromptBatch,
    rows_R: Tensor,
    token_ids_RT: Tensor,
    mask_RT: Tensor,
    temperature: float,
    vocabulary: Vocabulary,
    image_token_id: int,
    *,
    packed: bool = False,
) -> TokenScores:
    """The distribution is the one that was sampled from: same temperature, same forbidden tokens. `packed` is the same without padding."""
    states = _states_packed if packed else _states_padded
    before_NH = states(policy, prompts, rows_R, token_ids_RT, mask_RT, image_token_id)
    chosen = token_ids_RT[mask_RT]
    log_probs, entropy = chosen_log_probs(before_NH, policy.lm_head.weight, chosen, temperature, vocabulary.forbidden)
    empty = torch.zeros(mask_RT.shape, device=mask_RT.device)
    return TokenScores(empty.masked_scatter(mask_RT, log_probs), empty.masked_scatter(mask_RT, entropy))


def _states_padded(
    policy: PreTrainedModel, prompts: PromptBatch, rows_R: Tensor, token_ids_RT: Tensor, mask_RT: Tensor, image_token_id: int
) -> Tensor:
    """Hidden states (N, H) from which each of the N response tokens was drawn."""
    prefix = encode_prefix(policy.model, prompts, image_token_id)
    hidden = continue_prefix(policy.model, prefix, rows_R, token_ids_RT, mask_RT).hidden_RTH
    return torch.cat([prefix.last_hidden_PH[rows_R].unsqueeze(1), hidden[:, :-1]], dim=1)[mask_RT]


def _states_packed(
    policy: PreTrainedModel, prompts: PromptBatch, rows_R: Tensor, token_ids_RT: Tensor, mask_RT: Tensor, image_token_id: int
) -> Tensor:
    """The same from one packed row, in bf16 on a GPU."""
    rows = [ids[mask].tolist() for ids, mask in zip(token_ids_RT, mask_RT, strict=True)]
    with torch.autocast(mask_RT.device.type, torch.bfloat16, enabled=mask_RT.is_cuda):
        return states_before(policy.model, prompts, rows, rows_R.tolist(), image_token_id)


@dataclass(frozen=True)
class Chunk:
    """Some responses with the prompts they answer, renumbered."""

    prompts: list[Prompt]
    rows_R: Tensor
    select_R: Tensor


def chunk_responses(prompts: list[Prompt], responses: Responses, size: int) -> Iterator[Chunk]:
    """At most `size` responses at a time, in order, so that groups stay together and share their prompt's prefix."""
    for select in torch.arange(len(responses.prompt_R)).split(size):
        used, rows = responses.prompt_R[select].cpu().unique(return_inverse=True)
        yield Chunk([prompts[index] for index in used.tolist()], rows, select)


@dataclass(frozen=True)
class Reference:
    """The policy that the KL term holds on to, and how tightly."""

    policy: PreTrainedModel
    coefficient: float


def update_policy(
    policy: PreTrainedModel,
    optimizer: StageOptimizer,
    encoder: PromptEncoder,
    prompts: list[Prompt],
    responses: Responses,
    advantages_R: Tensor,
    loss: PolicyLoss,
    *,
    temperature: float,
    vocabulary: Vocabulary,
    micro_batch_size: int,
    reference: Reference | None = None,
) -> dict[str, float]:
    """One optimizer step on the surrogate of `loss`, averaged as it asks over the whole update, plus the KL to the reference if any.

    The batch is used once, right after it was drawn, so the old policy is the present one: its log-probabilities are these, detached,
    and need no pass of their own.
    """
    device = advantages_R.device
    packed = device.type == "cuda"
    if packed:
        for model in (policy, *((reference.policy,) if reference else ())):
            use_packed_kernels(model.model)
    num_tokens, num_responses = int(responses.mask_RT.sum()), len(responses.prompt_R)
    totals = {"actor/loss": 0.0, "actor/entropy": 0.0, "actor/clip_fraction": 0.0} | ({"actor/kl": 0.0} if reference else {})
    for chunk in chunk_responses(prompts, responses, micro_batch_size):
        mask = responses.mask_RT[chunk.select_R]
        longest = int(mask.sum(dim=1).max())
        ids, mask = responses.token_ids_RT[chunk.select_R, :longest], mask[:, :longest]
        batch = encoder.collate(chunk.prompts).to(device)
        inputs = (batch, chunk.rows_R.to(device), ids, mask, temperature, vocabulary, encoder.image_token_id)
        scores = score_tokens(policy, *inputs, packed=packed)
        terms = surrogate(loss, scores.log_probs_RT, scores.log_probs_RT.detach(), advantages_R[chunk.select_R], mask)
        value = mean_over(loss, terms.loss_RT, mask, num_tokens=num_tokens, num_responses=num_responses)
        if reference is not None:
            with torch.no_grad():
                held = score_tokens(reference.policy, *inputs, packed=packed).log_probs_RT
            kl = mean_over(loss, kl_to_reference(scores.log_probs_RT, held), mask, num_tokens=num_tokens, num_responses=num_responses)
            value = value + reference.coefficient * kl
            totals["actor/kl"] += kl.item()
        value.backward()  # type: ignore[no-untyped-call]
        totals["actor/loss"] += value.item()
        totals["actor/entropy"] += scores.entropy_RT.sum().item() / num_tokens
        totals["actor/clip_fraction"] += terms.clip_fraction.item() * mask.sum().item() / num_tokens
    return {**totals, **{f"actor/{name}": value for name, value in optimizer.step().items()}}
