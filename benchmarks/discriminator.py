"""The discriminator at work: responses scored together against one by one, and experts computed together against a loop.

    python benchmarks/discriminator.py [--repeats 5]

On the tiny model of examples/digits (built in a temporary folder). Scoring: 4 prompts with 16 responses each, a step of alignment by the
paper's numbers, and 16 prompts, the example's; one by one is upstream's way, a forward for every component of every response. Experts:
one layer's block of 4 experts of which 2 work on a token, transformers' grouped matrix product against its loop over experts, forward
and backward. Both ways alternate in one process; medians and their ratio are printed.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from local_engine import GROUP, Bench, compare
from torch import Tensor
from transformers import Qwen3VLMoeTextConfig
from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeTextSparseMoeBlock

from prism_trainer.engines.local.models import use_threads

PROMPTS = (4, 16)
SIZES = ((192, 512, 2048), (512, 1536, 2048), (1024, 3072, 1024))
"""Hidden size, expert size, tokens. The first is the tiny model's; the paper's is 2048 by 6144."""


def first_prompts(bench: Bench, count: int) -> Bench:
    """The same with its first prompts and their groups only."""
    part = copy.copy(bench)
    part.prompts = bench.prompts[:count]
    part.rows, part.responses = bench.rows[: count * GROUP], bench.responses[: count * GROUP]
    part.batch = bench.encoder.collate(part.prompts)
    return part


def experts(hidden: int, inner: int, implementation: str) -> Qwen3VLMoeTextSparseMoeBlock:
    """One block with the same weights whichever way it computes."""
    config = Qwen3VLMoeTextConfig(hidden_size=hidden, moe_intermediate_size=inner, num_experts=4, num_experts_per_tok=2)
    config._experts_implementation = implementation
    block = Qwen3VLMoeTextSparseMoeBlock(config)
    generator = torch.Generator().manual_seed(0)
    for parameter in block.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.02
    return block


def both_ways(hidden: int, inner: int, tokens: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Forward and backward, grouped and by the loop; they must agree before they are timed."""
    states = torch.randn(1, tokens, hidden, generator=torch.Generator().manual_seed(1))

    def of(implementation: str) -> Callable[[], Tensor]:
        block = experts(hidden, inner, implementation)

        def forward_and_backward() -> Tensor:
            out: Tensor = block(states)
            out.sum().backward()
            block.zero_grad()
            return out.detach()

        return forward_and_backward

    grouped, loop = of("grouped_mm"), of("eager")
    torch.testing.assert_close(grouped(), loop(), atol=1e-4, rtol=1e-3)
    return grouped, loop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    use_threads(None)
    print("| what | together | one by one | ratio |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for count in PROMPTS:
            step = first_prompts(bench, count)
            print(compare(f"scores of {count} x {GROUP} responses", step.score, step.score_one_by_one, repeats))
    for hidden, inner, tokens in SIZES:
        name = f"4 experts, {hidden} x {inner}, {tokens} tokens"
        print(compare(name, *both_ways(hidden, inner, tokens), repeats))


if __name__ == "__main__":
    main()
