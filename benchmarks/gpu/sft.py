"""A step of sft at true size on one GPU: tokens a second and the share of the chip's arithmetic.

    python benchmarks/gpu/sft.py [PART ...] [--out FILE] [--tiny]

Qwen3-VL-4B, random weights, bf16. Packed rows of 8,192 tokens: 8 samples of 1,024, each with a 512 x 512 image (256 tokens), of which
the rest is learned. float32 master weights and Adam states of 4.4 billion parameters are 53 GB and do not fit beside weights, gradients
and activations in 80 GB. So weights, gradients and both AdamW states are bf16 here, and everything is trained, vision tower included;
what an optimizer of another precision adds is a pass over memory of some tens of milliseconds. Sharded over GPUs by ZeRO-3, engine
verl's sft keeps float32 states. Parts:

step      what both engines' sft stages run: `stages.sft.accumulate` on a policy that `learn_packed` was given to, a checkpoint a layer
wide      as `step`, in one row of 16,384 tokens
kept      as `step`, without checkpoints: no layer is computed twice
wide-kept both
padded    the same stage as on a CPU: rows padded, logits of targets all at once
plain     transformers' own forward and loss: rows padded, all logits in float32
profile   where the time of `step` goes
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from discriminator import profile, report
from measure import Log, arguments, pick_device
from shapes import causal, make_policy, make_prompts, text_flops, vision_flops

from prism_trainer.engines.local.sequences import TrainingBatch
from prism_trainer.packed.learning import learn_packed
from prism_trainer.packed.patches import use_linear_patches
from prism_trainer.stages.sft import accumulate

PARTS = ("step", "wide", "kept", "wide-kept", "padded", "plain", "profile")
SAMPLES, SAMPLE_TOKENS, ROWS = 8, 1024, 2


class Bench:
    def __init__(self, log: Log, tiny: bool) -> None:
        self.log, self.tiny, self.device = log, tiny, log.device
        size, self.side, self.tokens = ("tiny", 64, 64) if tiny else ("4B", 512, SAMPLE_TOKENS)
        self.model: Any = make_policy(size, self.device, torch.float32 if tiny else torch.bfloat16).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6, fused=True)
        self.rows = [self._batch(size, SAMPLES, row) for row in range(ROWS)]
        self.wide = [self._batch(size, ROWS * SAMPLES, 0)]
        self.batches = self.rows

    def _batch(self, size: str, samples: int, row: int) -> TrainingBatch:
        """As the stage collates demonstrations."""
        prompts = make_prompts(size, [12 if self.tiny else 100] * samples, self.side, self.device)
        answer = self.tokens - prompts.token_ids_PT.shape[1]
        answers = torch.randint(0, 250, (samples, answer), generator=torch.Generator().manual_seed(3 + row)).to(self.device)
        ids = torch.cat([prompts.token_ids_PT, answers], dim=1)
        learnt = torch.arange(ids.shape[1], device=self.device).expand_as(ids) >= prompts.token_ids_PT.shape[1]
        types = (ids == self.model.config.image_token_id).int()
        return TrainingBatch(ids, torch.ones_like(learnt), learnt, types, prompts.pixel_values, prompts.image_grid_thw)

    def flops(self) -> tuple[float, float]:
        """Of one row forward: the language model with its head, and the vision tower."""
        text = self.model.config.text_config
        head = 2.0 * text.hidden_size * text.vocab_size * int(self.rows[0].target_RT.sum())
        language = text_flops(self.model, SAMPLES * self.tokens, SAMPLES * causal(self.tokens)) + head
        return language, vision_flops(self.model, SAMPLES, self.side)

    def gradients(self, part: str) -> float:
        """Of one optimizer step, one of the ways; the mean loss."""
        if part == "plain":
            return plain_gradients(self.model, self.batches)
        return accumulate(self.model, self.batches, packed=part != "padded")[0]

    def step(self, part: str) -> None:
        self.gradients(part)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def take(self, part: str) -> None:
        """The forwards of one way."""
        for module in self.model.modules():
            module.__dict__.pop("forward", None)
        self.batches = self.wide if "wide" in part else self.rows
        if "kept" in part:
            self.model.gradient_checkpointing_disable()
        else:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        if part == "padded":
            use_linear_patches(self.model)
        elif part != "plain":
            learn_packed(self.model)


def plain_gradients(model: Any, batches: Sequence[TrainingBatch]) -> float:
    """Each row's mean by transformers, whose rows have equally many targets here."""
    total = 0.0
    for batch in batches:
        labels = batch.token_ids_RT.masked_fill(~batch.target_RT, -100)
        loss = model(**batch.model_inputs(), labels=labels).loss / len(batches)
        loss.backward()
        total += loss.item()
    return total


def measure(bench: Bench, part: str) -> None:
    bench.take(part)

    def run() -> None:
        bench.step(part)

    if part == "profile":
        profile(bench, run)  # type: ignore[arg-type]
        return
    timed = bench.log.time(run, warm=2, repeats=3)
    language, vision = bench.flops()
    tokens = ROWS * SAMPLES * bench.tokens
    report(bench.log, "sft", 3 * ROWS * language, tokens, timed, way=part, vision_flops_share=vision / (language + vision))


def main() -> None:
    given = arguments(__doc__, PARTS)
    bench = Bench(Log(given.out, pick_device(given.tiny)), given.tiny)
    bench.log.write("sft loss", **{part: loss_of(bench, part) for part in ("step", "padded", "plain")})
    failed = []
    for part in given.parts:
        try:
            measure(bench, part)
        except Exception:  # what the other parts measure is worth having
            traceback.print_exc()
            failed.append(part)
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


def loss_of(bench: Bench, part: str) -> float:
    bench.take(part)
    loss = bench.gradients(part)
    bench.optimizer.zero_grad()
    return loss


if __name__ == "__main__":
    main()
