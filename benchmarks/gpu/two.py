"""One update by one rank and by two, on FSDP2: the policy's and the discriminator's are to be the same.

    .venv-verl/bin/python benchmarks/gpu/two.py [--device cuda | cpu]

The tiny model of examples/digits, the workers of engine verl without Ray, in processes that this one starts: over NCCL, rank r on GPU r, or
over gloo on a CPU. The cases are those of the tests (`tests/verl_update.py`, `tests/discriminator_ranks.py`), which compare both worlds
with engine local in float32 on a CPU. Prints how far two ranks are from one, |two - one| / |one|, of loss, gradients, scores and weights
after the update, with what is allowed, and exits with 1 where anything is further apart.

On a GPU the ranks compute in bf16: what is added up in another order differs by its rounding, and where a gradient is about 0 so does the
direction of Adam's first step. Hence the wider tolerances there.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
for folder in (ROOT / "tests", ROOT / "examples" / "digits"):
    sys.path.insert(0, str(folder))

WORLDS = (1, 2)
TOLERANCES = {
    "cpu": {"loss": 1e-4, "scores": 1e-4, "gradients": 1e-3, "weights": 2e-3},
    "cuda": {"loss": 1e-2, "scores": 5e-2, "gradients": 6e-2, "weights": 2e-2},
}


def main() -> int:
    device = read_options().device
    prepare_process(device)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        base_dir = write_models(Path(place))
        found |= policy_distances(base_dir, Path(place), device)
        found |= discriminator_distances(Path(place))
    return report(found, TOLERANCES[device])


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    return parser.parse_args()


def prepare_process(device: str) -> None:
    """verl reads the environment when it is imported; the ranks inherit it."""
    from prism_trainer.engines.verl.cluster import CPU_ENVIRONMENT, ENVIRONMENT, GPU_ENVIRONMENT
    from rank_processes import ON_GPUS

    os.environ |= {**ENVIRONMENT, **(CPU_ENVIRONMENT if device == "cpu" else {**GPU_ENVIRONMENT, ON_GPUS: "1"})}
    del os.environ["TRANSFER_QUEUE_ENABLE"]


def write_models(place: Path) -> Path:
    """`base`, and beside it `discriminator`, upcycled from it with a head that is not near 0."""
    import torch

    from model import write_base_model
    from prism_trainer.contract.configs import DiscriminatorConfig
    from prism_trainer.discriminator.upcycle import make_discriminator
    from prism_trainer.engines.local.models import load_policy, load_processor, save_model

    base_dir = place / "base"
    write_base_model(base_dir, seed=0)
    policy = load_policy(base_dir, torch.device("cpu"))
    model = make_discriminator(policy, DiscriminatorConfig(head_std=0.5), torch.Generator().manual_seed(0))
    save_model(model, load_processor(base_dir), place / "discriminator")
    return base_dir


# ---- the policy


def policy_distances(base_dir: Path, place: Path, device: str) -> dict[str, dict[str, float]]:
    from verl_update import Case, by_engine_verl

    cases = {name: Case(a_config(name), a_batch(), base_dir, base_dir, device=device) for name in ("grpo", "dapo", "gspo")}
    outcomes = {}
    for world in WORLDS:
        folder = place / f"policy-{world}"
        folder.mkdir()
        outcomes[world] = by_engine_verl(cases, folder, world)
    found = {}
    for name in cases:
        one, two = (outcomes[world][name] for world in WORLDS)
        found[f"policy, {name}"] = {
            "loss": apart(one.metrics, two.metrics, ("actor/loss", "actor/entropy")),
            "gradients": distance(one.gradients, two.gradients),
            "weights": distance(one.weights, two.weights),
        }
    return found


def a_config(name: str) -> Any:
    from prism_trainer.contract.configs import RlvrConfig

    algorithm = {"name": name, **({"overlong_buffer_tokens": 8} if name == "dapo" else {})}
    return RlvrConfig(
        steps=5, prompts_per_step=4, algorithm=algorithm, rollout={"group_size": 4, "max_response_tokens": 16},
        gpu={"max_prompt_tokens": 128, "tokens_per_gpu": 512}, optimizer={"learning_rate": 1e-4, "weight_decay": 0.1},
    )  # fmt: skip


def a_batch() -> Any:
    """Four prompts, one without an image, with four responses each, of many lengths."""
    import torch

    from prism_trainer.data.rows import Prompt
    from verl_update import Batch, png

    rng = random.Random(0)
    prompts = [Prompt(f"p:{number}", "What is the sum?" * (number + 1), (png(number),) if number else ()) for number in range(4)]
    token_ids = [[rng.randrange(20, 300) for _ in range(rng.choice((1, 3, 7, 7, 12)))] for _ in range(16)]
    return Batch(prompts, token_ids, torch.linspace(-2, 2, 16))


# ---- the discriminator


def discriminator_distances(place: Path) -> dict[str, dict[str, float]]:
    from discriminator_ranks import by_workers, left_by_workers
    from prism_trainer.contract.configs import AlignmentConfig

    config = AlignmentConfig(steps=5, rollout={"group_size": 4}, micro_batch_size=4, discriminator_optimizer={"learning_rate": 1e-4})
    step, folder = a_step(), place / "discriminator"
    lefts = [left_by_workers(folder, config, [step], [[[0, 1, 2]]], place / f"left-{world}", world)[0] for world in WORLDS]
    ends = [by_workers(folder, config, [step], place / f"end-{world}", world) for world in WORLDS]
    metrics = [{**end.results[0].metrics, **end.told[0]} for end in ends]
    scores = [{"caption": end.results[0].caption_PN, "cot": end.results[0].cot_PN} for end in ends]
    return {
        "discriminator": {
            "loss": apart(*metrics, ("critic/d_loss", "critic/balance_loss")),
            "scores": distance(*scores),
            "gradients": distance(*(left.gradients for left in lefts)),
            "weights": distance(*(end.weights for end in ends)),
        }
    }


def a_step(*, images: bool = False) -> Any:
    """Three prompts, uneven over two ranks, one without an image unless all have `images`; a third of the responses is in the wrong
    format."""
    from discriminator_ranks import Step
    from prism_trainer.data.rows import Prompt, TaughtPrompt
    from verl_update import png

    students = [response("- x " * (n + 1), "because " * (7 - n % 7)) if n % 3 != 1 else None for n in range(12)]
    prompts = [Prompt(f"p:{number}", "What is the sum?", () if number == 1 and not images else (png(number),)) for number in range(3)]
    return Step([TaughtPrompt(prompt, response("- two digits", "3 plus 4 gives 7")) for prompt in prompts], students)


def response(caption: str, think: str) -> Any:
    from prism_trainer.responses import parse_response

    return parse_response(f"<caption>\n{caption}\n</caption>\n<think>\n{think}\n</think>\n<answer>\n7\n</answer>")


# ---- how far apart


def apart(one: Mapping[str, float], two: Mapping[str, float], names: tuple[str, ...]) -> float:
    """The greatest relative difference of the named numbers; of a hundredth where a number is near 0, as a loss of whole groups may be."""
    return max(abs(two[name] - one[name]) / max(abs(one[name]), 1e-2) for name in names)


def distance(one: Mapping[str, Any], two: Mapping[str, Any]) -> float:
    """|two - one| / |one| over all tensors; infinite where they are not the same ones."""
    if one.keys() != two.keys():
        return float("inf")
    difference = sum(float((two[name].double() - tensor.double()).square().sum()) for name, tensor in one.items())
    return (difference / sum(float(tensor.double().square().sum()) for tensor in one.values())) ** 0.5


def report(found: Mapping[str, Mapping[str, float]], allowed: Mapping[str, float]) -> int:
    failed = False
    for case, distances in found.items():
        for what, value in distances.items():
            good = value <= allowed[what]
            failed |= not good
            print(f"{case:16} {what:10} {value:9.2e} of {allowed[what]:.0e} {'ok' if good else 'TOO FAR'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
