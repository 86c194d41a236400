"""Losses of the discriminator: pairwise preference, score size, load balance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


def bradley_terry(teacher: Tensor, student: Tensor) -> Tensor:
    """-log sigmoid(teacher - student), elementwise."""
    return -functional.logsigmoid(teacher - student)


def pair_accuracy(margin: Tensor) -> float:
    """Share of pairs with the teacher above the student; equal scores, as of equal texts, count half."""
    return ((margin > 0).float() + 0.5 * (margin == 0).float()).mean().item()


@dataclass(frozen=True)
class RouterLoad:
    """What the router of each layer L did with the tokens of each text X: how many of them it sent to each expert E, the sum of its
    probabilities over them, and their number. Loads add up: over texts, passes and processes."""

    sent_XLE: Tensor
    probability_XLE: Tensor
    tokens_X: Tensor

    def gather(self, into_X: Tensor, size: int) -> RouterLoad:
        """The texts added up to `size` new ones, text x into `into_X[x]`."""
        return RouterLoad(*(part.new_zeros(size, *part.shape[1:]).index_add(0, into_X, part) for part in vars(self).values()))

    def balance(self) -> Tensor:
        """Switch load balancing of each text, (X,): E * sum_e f_e p_e, the mean over layers; 0 for a text without tokens.

        f_e is the share of tokens sent to expert e, p_e the mean router probability; `experts_per_token` when perfectly even.
        """
        tokens = self.tokens_X.clamp(min=1).view(-1, 1, 1)
        return self.sent_XLE.shape[-1] * ((self.sent_XLE / tokens) * (self.probability_XLE / tokens)).sum(dim=-1).mean(dim=-1)


def router_load(router_logits: Sequence[Tensor], text_of: Tensor, num_texts: int, experts_per_token: int) -> RouterLoad:
    """`router_logits`: a (tokens, E) tensor a layer; `text_of` (tokens,) names each token's text, -1 is padding.

    Computed from logits that carry gradient (upstream's came from inside a no-grad pass and were a constant, defect B3; transformers 5.9
    leaves the model's own out altogether).
    """
    real = text_of >= 0
    texts = text_of[real]
    sent, probability = [], []
    for logits in router_logits:
        chances = torch.softmax(logits.float()[real], dim=-1)
        chosen = functional.one_hot(chances.topk(experts_per_token, dim=-1).indices, chances.shape[-1]).sum(dim=1).float()
        empty = chances.new_zeros(num_texts, chances.shape[-1])
        sent.append(empty.index_add(0, texts, chosen))
        probability.append(empty.index_add(0, texts, chances))
    tokens = torch.zeros(num_texts, device=text_of.device).index_add(0, texts, torch.ones_like(texts, dtype=torch.float32))
    return RouterLoad(torch.stack(sent, dim=1), torch.stack(probability, dim=1), tokens)
