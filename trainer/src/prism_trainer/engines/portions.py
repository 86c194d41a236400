"""Who scores what: the prompts of a step and their responses, dealt to the processes that share the discriminator.

A process gets whole prompts with their groups, so that each image and each teacher is read once; only where there are more processes than
prompts does a prompt's group go to several, each of which reads the teacher, and one of which counts it. All processes make the same plan
from the same step, and take part in the same number of passes, because each pass gathers sharded weights from all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Costs = Sequence[Sequence[int | None]]
"""By prompt, the length of each of its responses; None for one that is not scored."""


@dataclass(frozen=True)
class Portion:
    """What one pass reads: prompts with their teachers, some responses, and which of the prompts and teachers count here.

    Responses are numbered over the whole step. A portion that counts nothing and has no responses only keeps others company.
    """

    prompts: tuple[int, ...]
    responses: tuple[int, ...]
    counted: frozenset[int]


def plan_portions(costs: Costs, prompts_at_once: int, num_ranks: int) -> list[list[Portion]]:
    """The portions of each rank, equally many."""
    ranks = _deal_prompts(costs, prompts_at_once, num_ranks) if num_ranks <= len(costs) else _split_groups(costs, num_ranks)
    passes = max(map(len, ranks))
    return [[*portions, *[Portion(portions[0].prompts[:1], (), frozenset())] * (passes - len(portions))] for portions in ranks]


def _deal_prompts(costs: Costs, prompts_at_once: int, num_ranks: int) -> list[list[Portion]]:
    """Whole prompts, about as much to read for each rank."""
    hands = deal([1 + sum(filter(None, group)) for group in costs], num_ranks)
    chunks = [[hand[start : start + prompts_at_once] for start in range(0, len(hand), prompts_at_once)] for hand in hands]
    return [[Portion(tuple(chunk), _responses(costs, chunk), frozenset(chunk)) for chunk in own] for own in chunks]


def _responses(costs: Costs, prompts: Sequence[int]) -> tuple[int, ...]:
    size = len(costs[0])
    return tuple(prompt * size + index for prompt in prompts for index, cost in enumerate(costs[prompt]) if cost is not None)


def _split_groups(costs: Costs, num_ranks: int) -> list[list[Portion]]:
    """One prompt a rank, its group dealt to all ranks of that prompt."""
    dealt: list[list[Portion]] = [[] for _ in range(num_ranks)]
    for prompt in range(len(costs)):
        ranks = range(prompt, num_ranks, len(costs))
        responses = _responses(costs, [prompt])
        hands = deal([cost for cost in costs[prompt] if cost is not None], len(ranks))
        for rank, hand in zip(ranks, hands, strict=True):
            dealt[rank].append(Portion((prompt,), tuple(responses[place] for place in hand), frozenset([prompt] if rank == prompt else [])))
    return dealt


def deal(costs: Sequence[int], hands: int) -> list[list[int]]:
    """Places dealt, longest first, to the hand that holds least and has room; in each hand in order. None holds more than its share."""
    room = -(-len(costs) // hands)
    dealt: list[list[int]] = [[] for _ in range(hands)]
    held = [0] * hands
    for place in sorted(range(len(costs)), key=lambda place: -costs[place]):
        hand = min((hand for hand in range(hands) if len(dealt[hand]) < room), key=lambda hand: (held[hand], len(dealt[hand]), hand))
        dealt[hand].append(place)
        held[hand] += costs[place]
    return [sorted(hand) for hand in dealt]
