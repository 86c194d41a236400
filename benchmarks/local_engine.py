"""Engine local against the plain way of doing the same: rollouts, policy updates, discriminator scores.

    python benchmarks/local_engine.py [--repeats 5]

On the tiny model of examples/digits (built in a temporary folder), 16 prompts with 16 responses each. Ours and the plain way alternate
in one process, and medians are printed with their ratio. Plain: transformers' `generate`; whole sequences, each with its prompt;
and upstream's scoring, one response a forward and two forwards a response.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")
sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "digits"))

import torch
from scans import draw_pairs, load_scans
from texts import curated_response, draw_task

from model import write_base_model
from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.contract.optim import Sampling
from prism_trainer.data.rows import Prompt
from prism_trainer.discriminator.spans import scored_rows
from prism_trainer.discriminator.upcycle import upcycle
from prism_trainer.engines.local.encoding import PromptEncoder, collate_prompts, pad_right
from prism_trainer.engines.local.models import load_policy, load_processor, quiet_transformers
from prism_trainer.engines.local.rollout import Vocabulary, sample_responses
from prism_trainer.engines.local.scoring import Scorer
from prism_trainer.engines.local.update import score_tokens
from prism_trainer.responses import parse_response
from prism_trainer.seeds import generator_for

CPU = torch.device("cpu")
PROMPTS, GROUP, TOKENS = 16, 16, 40


class Bench:
    """A policy, prompts, and responses of the teacher's length."""

    def __init__(self, folder: Path) -> None:
        quiet_transformers()
        write_base_model(folder, seed=0)
        self.policy = load_policy(folder, CPU).eval()
        self.encoder = PromptEncoder(load_processor(folder), "Answer as caption, think, answer.")
        self.vocabulary = Vocabulary.of(self.encoder.tokenizer, self.policy.config.text_config.vocab_size, CPU)
        rng = random.Random(0)
        pairs = list(draw_pairs(load_scans("rl"), PROMPTS, 0))
        tasks = [draw_task(pair.left, pair.right, rng) for pair in pairs]
        self.prompts = [Prompt(str(i), task.question, (pair.png,)) for i, (pair, task) in enumerate(zip(pairs, tasks, strict=True))]
        self.responses = [parse_response(curated_response(task).text) for task in tasks for _ in range(GROUP)]
        self.rows = torch.arange(PROMPTS).repeat_interleave(GROUP)
        self.batch = self.encoder.collate(self.prompts)
        self.ids, self.mask = pad_right([self.encoder.response_ids(one.text) for one in self.responses], 0)
        config = DiscriminatorConfig()
        model = upcycle(self.policy, config, torch.Generator().manual_seed(0)).eval()
        self.scorer = Scorer(model, self.encoder, 4096, CPU)

    def rollout(self) -> None:
        never = Vocabulary(-1, self.vocabulary.pad_id, self.vocabulary.forbidden)
        sampling = Sampling(max_response_tokens=TOKENS)
        sample_responses(self.policy, self.batch, GROUP, sampling, never, generator_for(0), self.encoder.image_token_id)

    @torch.no_grad()
    def rollout_by_generate(self) -> None:
        repeated = collate_prompts(
            [one for one in self.encoder.encode(self.prompts) for _ in range(GROUP)], self.encoder.tokenizer.pad_token_id
        )
        self.policy.generate(
            input_ids=repeated.token_ids_PT,
            attention_mask=repeated.mask_PT.long(),
            mm_token_type_ids=(repeated.token_ids_PT == self.encoder.image_token_id).int(),
            pixel_values=repeated.pixel_values,
            image_grid_thw=repeated.image_grid_thw,
            do_sample=True,
            top_k=0,
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
        )

    def update(self) -> None:
        self._backward(self.batch, self.rows)

    def update_by_whole_sequences(self) -> None:
        repeated = [one for one in self.encoder.encode(self.prompts) for _ in range(GROUP)]
        self._backward(collate_prompts(repeated, self.encoder.tokenizer.pad_token_id), torch.arange(PROMPTS * GROUP))

    def _backward(self, batch: object, rows: torch.Tensor) -> None:
        scores = score_tokens(self.policy, batch, rows, self.ids, self.mask, 1.0, self.vocabulary, self.encoder.image_token_id)
        scores.log_probs_RT.sum().backward()
        self.policy.zero_grad()

    @torch.no_grad()
    def score(self) -> None:
        self.scorer.score(self.batch, self.rows.tolist(), self.responses)

    @torch.no_grad()
    def score_one_by_one(self) -> None:
        singles = [self.encoder.collate([prompt]) for prompt in self.prompts]
        for row, response in zip(self.rows.tolist(), self.responses, strict=True):
            for part in scored_rows(response, self.encoder.response_ids, cot_sees_caption=False, max_tokens=4096):
                _forward_alone(self.scorer, singles[row], part.token_ids)


def _forward_alone(scorer: Scorer, prompt: object, token_ids: tuple[int, ...]) -> None:
    ids = torch.cat([prompt.token_ids_PT, torch.tensor([token_ids])], dim=1)
    hidden = scorer.model.model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == scorer.encoder.image_token_id).int(),
        pixel_values=prompt.pixel_values,
        image_grid_thw=prompt.image_grid_thw,
    ).last_hidden_state
    scorer.model.read_scores(hidden[:, -1])


def compare(name: str, ours: Callable[[], object], plain: Callable[[], object], repeats: int) -> str:
    """Alternating, after one warm-up each."""
    ours(), plain()
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(repeats):
        for label, action in (("ours", ours), ("plain", plain)):
            started = time.perf_counter()
            action()
            seconds[label].append(time.perf_counter() - started)
    fast, slow = statistics.median(seconds["ours"]), statistics.median(seconds["plain"])
    return f"| {name} | {1000 * fast:.0f} ms | {1000 * slow:.0f} ms | {slow / fast:.1f} x |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        print("| what | ours | plain way | ratio |\n| --- | --- | --- | --- |")
        print(compare("rollout, 256 x 40 tokens", bench.rollout, bench.rollout_by_generate, repeats))
        print(compare("policy update, 256 responses", bench.update, bench.update_by_whole_sequences, repeats))
        print(compare("discriminator, 256 responses", bench.score, bench.score_one_by_one, repeats))


if __name__ == "__main__":
    main()
