"""One whole step of alignment on one GPU, at true size, in our way and in upstream's: where its time goes.

    python benchmarks/gpu/step.py --out FOLDER [--way upstream] [--HABIT | --no-HABIT] [--tensor-parallel 2] [--speculative 4] ... [--tiny]

A policy of Qwen3-VL's shape and a discriminator upcycled from it, both with random weights, on engine verl as a user runs it: vLLM draws 4
prompts x 16 responses about a 768 x 768 image, the discriminator scores and learns, the policy learns, its weights go to vLLM. Two things
only are not as in a run, because random weights never end a response and never keep the format: lengths are given (even between the two of
`--lengths`, as in discriminator.py), and each response's text is replaced by one of the same length in the right format.

Upstream's way is the same step with the habits of `ways.py`; each can be taken up or given up alone. What memory allows is computed before
anything starts (`memory.py`): 9 layers of the 2B discriminator on an 80 GB H100 without offload, 18 with, all 28 on an H200. By default
both ways get as many as fit ours without offload, so that they can be compared.

Prints a table of the last steps' phases and writes FOLDER/step.json. The first step warms up and is left out. FOLDERs of both ways with
`--against`: the ratio of whole steps, and how far their losses and gradients are apart in the first step.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parents[1] / "examples" / "digits"))

from given_inputs import write_data, write_models  # noqa: E402
from given_texts import GROUP  # noqa: E402
from ways import HABITS, change_run  # noqa: E402

PHASES = {
    "rollout": "rollout",
    "old_log_prob": "old log-probabilities",
    "score": "discriminator: scores and gradients",
    "discriminator": "discriminator: optimizer",
    "advantages": "advantages",
    "update": "policy: update",
    "sync": "weight sync",
}
"""In upstream's way `score` is scores alone, and `discriminator` has the gradients too."""
COMPARED = ("actor/loss", "actor/grad_norm", "critic/d_loss", "critic/grad_norm", "reward/caption_score_mean", "reward/cot_score_mean")


def main() -> int:
    options = read_options()
    options.discriminator_layers = layers_that_fit(options)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.models == options.out:
        write_models(options)
    write_data(options)
    change_run(options.habits, options.lengths, options.prefix_caching)
    from prism_trainer.__main__ import main as run_stage

    code = run_stage([str(write_job(options))])
    if code:
        return code
    steps = [json.loads(line)["metrics"] for line in (options.out / "report" / "metrics.jsonl").read_text().splitlines()]
    table = tabulate(steps[1:] or steps)
    print_table(table)
    (options.out / "step.json").write_text(
        json.dumps({"options": {k: str(v) for k, v in vars(options).items()}, "table": table, "steps": steps})
    )
    return compare(options, steps, table) if options.against else 0


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--way", default="ours", choices=("ours", "upstream"))
    for habit in HABITS:
        parser.add_argument(f"--{habit}", action=argparse.BooleanOptionalAction, help="upstream's, see ways.py; by default as --way says")
    parser.add_argument("--against", type=Path, help="FOLDER of another run to compare with")
    parser.add_argument("--models", type=Path, help="FOLDER of another run, whose models are taken and not made again")
    parser.add_argument("--size", default="2B", choices=("2B", "4B"))
    parser.add_argument("--discriminator-layers", type=int, help="of its language model; by default what fits")
    parser.add_argument("--lengths", type=int, nargs=2, default=(512, 3488), metavar=("LOW", "HIGH"), help="tokens of a response")
    parser.add_argument("--prompts", type=int, default=4, help="of a step, 16 responses each")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--memory", type=float, default=0.25, help="share of the GPU's memory for vLLM")
    parser.add_argument("--tensor-parallel", type=int, default=1, help="GPUs that draw together")
    parser.add_argument("--speculative", type=int, default=0, help="tokens guessed ahead (n-gram)")
    parser.add_argument("--discriminator-gpus", type=int, default=0, help="GPUs for the discriminator alone, which reads as answers come")
    parser.add_argument("--no-prefix-caching", dest="prefix_caching", action="store_false", help="vLLM reads a prompt for each response")
    parser.add_argument("--eager", action="store_true", help="without vLLM's CUDA graphs")
    parser.add_argument("--tiny", action="store_true", help="a tiny model on the CPU, to see that it runs; lengths 24 to 90 unless given")
    options = parser.parse_args()
    if options.tiny and options.lengths == (512, 3488):
        options.lengths = (24, 90)
    if options.models:
        told = json.loads((options.models / "discriminator" / "config.json").read_text())
        options.discriminator_layers = told["text_config"]["num_hidden_layers"]
    options.models = options.models or options.out
    options.habits = [habit for habit in HABITS if is_kept(options, habit)]
    if options.discriminator_gpus and "plain-discriminator" in options.habits:
        parser.error("--plain-discriminator reads all answers on the one GPU that it shares; leave --discriminator-gpus away")
    return options


def is_kept(options: argparse.Namespace, habit: str) -> bool:
    said = getattr(options, habit.replace("-", "_"))
    return options.way == "upstream" if said is None else bool(said)


def layers_that_fit(options: argparse.Namespace) -> int | None:
    """Of the discriminator. Ends the program where what was asked for does not fit; with several GPUs it is not checked."""
    if options.tiny:
        return options.discriminator_layers  # type: ignore[no-any-return]
    import torch
    from memory import Load, deepest, misfit

    total = torch.cuda.get_device_properties(0).total_memory

    def load(*, offload: bool, padded: bool) -> Load:
        return Load(options.size, offload, options.memory, tuple(options.lengths), padded, GROUP)

    asked = load(offload="offload" in options.habits, padded="padded-policy" in options.habits)
    alike = asked if options.offload else load(offload=False, padded=False)
    layers = options.discriminator_layers or min(deepest(asked, total), deepest(alike, total)) or 1
    if torch.cuda.device_count() == 1 and (sentence := misfit(asked, layers, total)):
        sys.exit(sentence)
    return layers


# ---- the run


def write_job(options: argparse.Namespace) -> Path:
    from prism_trainer.contract.checkpoint import CheckpointRef
    from prism_trainer.contract.job import DataSource, StageJob
    from prism_trainer.contract.schema import digest_of

    longest = max(options.lengths)
    budget = 8192 if "padded-policy" in options.habits else 16384
    config = {
        "kind": "alignment", "device": "cpu" if options.tiny else "cuda", "steps": options.steps, "prompts_per_step": options.prompts,
        "save_every": 1000, "dump_every": 1000, "rollout": {"group_size": GROUP, "max_response_tokens": longest},
        "balance_coef": 0.0, "score_reg_coef": 0.0,
        "gpu": {
            "max_prompt_tokens": 2048, "tokens_per_gpu": max(budget, 2048 + longest), "memory_share": options.memory,
            "offload": "offload" in options.habits, "cuda_graphs": not options.eager, "tensor_parallel": options.tensor_parallel,
            "speculative_tokens": options.speculative, "discriminator_gpus": options.discriminator_gpus,
        },
    }  # fmt: skip
    inputs = {role: CheckpointRef(stage=role, uri=str((options.models / role).absolute())) for role in ("policy", "discriminator")}
    job = StageJob(
        run="step", stage="alignment", attempt=1, engine="verl", seed=0, config=config, config_digest=digest_of(config), inputs=inputs,
        data=(DataSource(uri=str((options.out / "data" / "alignment.jsonl").absolute())),),
        output_uri=str(options.out / "checkpoints"), report_dir=str(options.out / "report"),
    )  # fmt: skip
    file = options.out / "job.json"
    file.write_text(job.model_dump_json())
    return file


# ---- what it took


def tabulate(steps: list[dict[str, float]]) -> dict[str, float]:
    """Seconds of each phase, the mean over steps; what no phase names is `other`."""
    seconds = {label: mean(step.get(f"seconds/{name}", 0.0) for step in steps) for name, label in PHASES.items()}
    whole = mean(step["seconds/step"] + step.get("seconds/sync", 0.0) for step in steps)
    return {**seconds, "other": whole - sum(seconds.values()), "whole step": whole}


def print_table(table: dict[str, float]) -> None:
    for name, seconds in table.items():
        print(f"{name:38} {seconds:8.2f} s {100 * seconds / table['whole step']:6.1f} %")


def compare(options: argparse.Namespace, steps: list[dict[str, float]], table: dict[str, float]) -> int:
    """With the run in `--against`: time, and the first step's mathematics."""
    other: dict[str, Any] = json.loads((options.against / "step.json").read_text())
    print(f"whole step against {options.against}: {other['table']['whole step'] / table['whole step']:.2f} x")
    for name in COMPARED:
        ours, theirs = steps[0][name], other["steps"][0][name]
        print(f"first step's {name:28} {ours:14.7g} {theirs:14.7g}  apart {abs(ours - theirs) / max(abs(theirs), 1e-12):.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
