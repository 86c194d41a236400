"""What a discriminator of the digits example tells apart: a loose way of answering, or a wrong one.

    python benchmarks/wrong_captions.py runs/digits [learning/runs/text-discriminator-0 ...]

Of each run the discriminator after its warm-up and the one after alignment read the teacher's response to 300 questions about scans that
nothing was trained on, and beside it two others:

    loose   the other style of sft's data: vague words, no digits in the caption
    wrong   the teacher's own words for another digit: fluent, and only the image shows that they are false

Told apart is the share of pairs whose teacher has the higher score; 50 % is guessing. The answer is the right one in every loose response,
so that the style alone differs.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples" / "digits"))

from build import questions  # noqa: E402  the example is a folder of scripts, not a package
from texts import SYSTEM_PROMPT, Response, Task, curated_response, public_response  # noqa: E402

from prism_trainer.data.rows import Prompt, TaughtPrompt  # noqa: E402
from prism_trainer.engines.comparisons import gap_metrics, pair_gaps  # noqa: E402
from prism_trainer.engines.local.encoding import PromptEncoder  # noqa: E402
from prism_trainer.engines.local.models import load_discriminator, load_processor, quiet_transformers  # noqa: E402
from prism_trainer.engines.local.pairs import Pair  # noqa: E402
from prism_trainer.engines.local.scoring import Scorer  # noqa: E402
from prism_trainer.responses import ParsedResponse, parse_response  # noqa: E402

COUNT, AT_ONCE, SEED = 300, 50, 77


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="FOLDER", help="of runs of the digits example")
    runs = parser.parse_args().runs
    quiet_transformers()
    print("| run | discriminator of | loose caption | loose reasoning | wrong caption | wrong reasoning |")
    print("| --- | --- | --- | --- | --- | --- |")
    for run in runs:
        for stage, folder in discriminators(run):
            loose, wrong = (told_apart(folder, pairs) for pairs in (loose_pairs(), wrong_pairs()))
            print(f"| {run.name} | {stage} | {' | '.join(f'{value:.1f} %' for value in (*loose, *wrong))} |", flush=True)


def discriminators(run: Path) -> Iterator[tuple[str, Path]]:
    """Each stage's last, with its folder."""
    for stage in ("discriminator", "alignment"):
        found = sorted((run / "checkpoints" / stage).glob("attempt-*/step-*/discriminator"), key=lambda folder: folder.parent.name)
        if found:
            yield stage, found[-1]


@torch.no_grad()
def told_apart(folder: Path, pairs: list[Pair]) -> tuple[float, float]:
    """Captions and reasonings, in percent."""
    device = torch.device("cpu")
    encoder = PromptEncoder(load_processor(folder), SYSTEM_PROMPT)
    metrics = gap_metrics(pair_gaps(Scorer(load_discriminator(folder, device), encoder, 8192, device), pairs, AT_ONCE))
    return 100 * metrics["held_out/caption_acc"], 100 * metrics["held_out/cot_acc"]


def loose_pairs() -> list[Pair]:
    rng = random.Random(SEED)
    return [Pair(taught(png, task), parsed(public_response(task, rng, slip_rate=0.0))) for png, task in held_out()]


def wrong_pairs() -> list[Pair]:
    """One of the two digits is another one, and the reasoning follows from it."""
    rng = random.Random(SEED)
    return [Pair(taught(png, task), parsed(curated_response(misread(task, rng)))) for png, task in held_out()]


def held_out() -> Iterator[tuple[bytes, Task]]:
    for pair, task in questions("test", COUNT, SEED):
        yield pair.png, task


def misread(task: Task, rng: random.Random) -> Task:
    side, answer = (
        rng.choice(("left", "right")),
        {"plus": lambda a, b: a + b, "against": lambda a, b: abs(a - b), "beside": max}[task.symbol],
    )
    read = replace(task, **{side: rng.choice([digit for digit in range(10) if digit != getattr(task, side)])})
    return replace(read, answer=answer(read.left, read.right))


def taught(png: bytes, task: Task) -> TaughtPrompt:
    return TaughtPrompt(
        Prompt(f"{task.question} {task.left} {task.right} {hash(png)}", task.question, (png,)), parsed(curated_response(task))
    )


def parsed(response: Response) -> ParsedResponse:
    return parse_response(response.text)


if __name__ == "__main__":
    main()
