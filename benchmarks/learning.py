"""What each part of PRISM is worth on the digits example: whole PrismRuns through `prism run`, several seeds each, one flag a variant.

    python benchmarks/learning.py --grpo --no-discriminator-warm-up --seeds 0 1 2      some of it
    python benchmarks/learning.py --all                                                all of it; hours on two cores
    python benchmarks/learning.py --all --jobs 8                                       eight runs at once, on a larger machine

The variants start from examples/digits/prismrun.yaml, and each differs from `--prism-grpo` in the one thing that its name says. All
variants of a seed share the sft checkpoint of that seed, as in the paper's ablations, and those that differ only in the algorithm of rlvr
what comes before it. A run that is there is not run again, and one that was stopped goes on, because `prism run` does so; the data is
built once. Writes learning.md, learning.png and learning.json into the output folder: held-out accuracy, the accuracy of the responses
drawn in training step by step, and what may explain the two: how well the discriminator tells pairs apart, the share of groups that the
reward tells apart, entropy. The paper's column is its 4B model's average over seven benchmarks: another task, so only the order compares.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import yaml

matplotlib.use("Agg")
from matplotlib import pyplot

from prism_trainer.contract.paper import paper_results

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "digits"
OVERLONG_BUFFER = 16
SMOOTHED = 5
"""Steps whose mean is a point of a curve."""
RIGHT = "reward/acc_reward/mean"
FACTS = (
    ("pairs told apart, %", "discriminator", "held_out/acc", 100.0, lambda values: values[-1]),
    ("in the online step, %", "alignment", "critic/d_acc", 100.0, statistics.mean),
    ("groups told apart, %", "rlvr", "group/mixed_fraction", 100.0, statistics.mean),
    ("entropy, first", "rlvr", "actor/entropy", 1.0, lambda values: values[0]),
    ("entropy, last", "rlvr", "actor/entropy", 1.0, lambda values: values[-1]),
)
"""What may explain a result: its heading, of which stage which metric, its unit, and which of the steps' values."""
Spec = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """`policy`: the stage whose policy is the result. `row`: the paper's nearest 4B model, where it has one.

    `after`: the variant whose discriminator and alignment it takes, because it differs from it only behind them.
    """

    name: str
    says: str
    policy: str
    row: str | None
    algorithm: str = "grpo"
    backbone: str = "moe"
    warm_up: bool = True
    aligned: bool = True
    after: str = "sft"

    @property
    def paper(self) -> float | None:
        """The average of that row over the paper's seven benchmarks."""
        if self.row is None:
            return None
        return next(one.average for one in paper_results() if (one.size, one.model) == ("4B", self.row))


@dataclass(frozen=True)
class Outcome:
    """Of one run. `curve`: share of right answers among the responses drawn in each step of alignment, then of rlvr."""

    seed: int
    accuracy: float
    curve: list[float]
    facts: dict[str, float]


VARIANTS = (
    Variant("sft", "sft alone", "sft", "SFT"),
    Variant("grpo", "sft, then GRPO with as many RL steps in all", "rlvr", "SFT+GRPO", aligned=False),
    Variant("prism-grpo", "full PRISM with GRPO", "rlvr", "PRISM+GRPO"),
    Variant("prism-dapo", "full PRISM with DAPO", "rlvr", "PRISM+DAPO", algorithm="dapo", after="prism-grpo"),
    Variant("prism-gspo", "full PRISM with GSPO", "rlvr", "PRISM+GSPO", algorithm="gspo", after="prism-grpo"),
    Variant("no-discriminator-warm-up", "discriminator without warm-up", "rlvr", None, warm_up=False),
    Variant("dense-discriminator", "dense discriminator", "rlvr", "dense 4B discriminator", backbone="dense"),
    Variant("text-discriminator", "text-only discriminator", "rlvr", "text-only discriminator", backbone="text"),
)


def prismrun(variant: Variant, seed: int, out: Path) -> Spec:
    """The PrismRun of a variant; its sft stage is the shared one of the seed."""
    example = yaml.safe_load((EXAMPLE / "prismrun.yaml").read_text())
    stages = {stage["kind"]: stage for stage in example["spec"]["stages"]}
    shared = {"sft": ["sft"], "prism-grpo": ["sft", "discriminator", "alignment"]}[variant.after] if variant.name != "sft" else []
    for kind in shared:
        made_by = "sft" if kind == "sft" else variant.after
        stages[kind]["checkpoint"] = {"uri": str(folder_of(out, made_by, seed) / "checkpoints" / kind)}
    kinds = ["sft", "evaluation"] if variant.name == "sft" else ["sft", "discriminator", "alignment", "rlvr", "evaluation"]
    if variant.name != "sft" and not variant.aligned:
        stages["rlvr"]["config"]["steps"] += stages["alignment"]["config"]["steps"]
        kinds = ["sft", "rlvr", "evaluation"]
    _change(stages, variant)
    example["metadata"]["name"] = f"{variant.name}-{seed}"
    example["spec"] |= {"seed": seed, "stages": [stages[kind] for kind in kinds]}
    example["spec"]["model"]["uri"] = str(out / "digits" / "base")
    example["spec"]["storage"] = {"local": {"path": str(folder_of(out, variant.name, seed))}}
    for stage in example["spec"]["stages"]:
        for source in stage["data"]:
            source["uri"] = str(out / "digits" / "data" / Path(source["uri"]).name)
    return dict(example)


def _change(stages: dict[str, Spec], variant: Variant) -> None:
    """The one thing in which the variant differs."""
    stages["rlvr"]["config"]["algorithm"] = {"name": variant.algorithm}
    if variant.algorithm == "dapo":
        stages["rlvr"]["config"]["algorithm"]["overlongBufferTokens"] = OVERLONG_BUFFER
    stages["discriminator"]["config"]["backbone"] = variant.backbone
    if not variant.warm_up:  # a stage has at least one step; at this rate it changes nothing
        stages["discriminator"]["config"] |= {"maxSteps": 1, "optimizer": {"learningRate": 1e-12, "weightDecay": 0.0}}


def folder_of(out: Path, variant: str, seed: int) -> Path:
    return out / "runs" / f"{variant}-{seed}"


def carry_out(out: Path, threads: int, variant: Variant, seed: int) -> Outcome:
    """What came of it, after `prism run`, which does only what is not done yet."""
    folder = folder_of(out, variant.name, seed)
    file = folder.with_suffix(".yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    run = prismrun(variant, seed, out)
    run["spec"]["resources"] = {"cpus": threads}
    text = yaml.safe_dump(copy.deepcopy(run), sort_keys=False)
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
    with file.with_suffix(".log").open("a") as log:
        command = [sys.executable, "-m", "prism_operator", "run", str(file), "--plain"]
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    return read_outcome(out, variant, seed)


def read_outcome(out: Path, variant: Variant, seed: int) -> Outcome:
    folder = folder_of(out, variant.name, seed)
    aligned_in = folder if variant.after == "sft" else folder_of(out, variant.after, seed)
    rows = json.loads((folder / "results.json").read_text())
    accuracy = float(next(row["accuracy"] for row in rows if row["stage"] == variant.policy))
    curve = values_of(aligned_in, "alignment", RIGHT) + values_of(folder, "rlvr", RIGHT)
    told = {
        name: (values_of(folder if stage == "rlvr" else aligned_in, stage, metric), unit, pick) for name, stage, metric, unit, pick in FACTS
    }
    return Outcome(seed, accuracy, curve, {name: unit * pick(values) for name, (values, unit, pick) in told.items() if values})


def values_of(folder: Path, stage: str, metric: str) -> list[float]:
    """By step; of a step that was done twice, the later attempt's."""
    by_step = {}
    for file in sorted(folder.glob(f"stages/{stage}/attempt-*/metrics.jsonl")):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        by_step |= {line["step"]: line["metrics"][metric] for line in lines if metric in line["metrics"]}
    return [by_step[step] for step in sorted(by_step)]


def table(found: dict[str, list[Outcome]]) -> str:
    """One row a variant; the spread is the sample standard deviation over seeds."""
    heads = ["variant", "accuracy, %", "spread", "seeds", "paper, 4B average, %", *(name for name, *_ in FACTS)]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for variant in VARIANTS:
        if outcomes := found.get(variant.name):
            values = [100 * outcome.accuracy for outcome in outcomes]
            spread = f"{statistics.stdev(values):.1f}" if len(values) > 1 else "-"
            paper = "-" if variant.paper is None else f"{variant.paper:.1f}"
            cells = [variant.says, f"{statistics.mean(values):.1f}", spread, str(len(values)), paper, *map(partial(_fact, outcomes), FACTS)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _fact(outcomes: Sequence[Outcome], fact: tuple[str, str, str, float, Callable[[list[float]], float]]) -> str:
    values = [outcome.facts[fact[0]] for outcome in outcomes if fact[0] in outcome.facts]
    return f"{statistics.mean(values):{'.0f' if fact[3] > 1 else '.2f'}}" if values else "-"


def draw(found: dict[str, list[Outcome]], file: Path) -> None:
    """Left a bar a variant, a dot a seed, and the paper's average as a line; right the curves of training."""
    shown = [variant for variant in VARIANTS if variant.name in found]
    figure, (bars, curves) = pyplot.subplots(1, 2, figsize=(14, 0.5 * len(shown) + 1.6), layout="constrained")
    for place, variant in enumerate(reversed(shown)):
        values = [100 * outcome.accuracy for outcome in found[variant.name]]
        bars.barh(place, statistics.mean(values), color="#9ecae1")
        bars.plot(values, [place] * len(values), "o", color="#08519c", markersize=4)
        if variant.paper is not None:
            bars.plot([variant.paper], [place], "|", color="#d94801", markersize=18, markeredgewidth=2)
    bars.set_yticks(range(len(shown)), [variant.says for variant in reversed(shown)])
    bars.set_xlabel("held-out accuracy on digits, %   (orange: the paper's average on its seven benchmarks)")
    for variant in shown:
        if points := mean_curve([outcome.curve for outcome in found[variant.name]]):
            curves.plot(range(1, len(points) + 1), [100 * point for point in points], label=variant.says)
    curves.set_xlabel(f"step of alignment, then of rlvr (mean of {SMOOTHED} steps and of the seeds)")
    curves.set_ylabel("right answers in training, %")
    if curves.lines:
        curves.legend(fontsize=7)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def mean_curve(runs: Sequence[Sequence[float]]) -> list[float]:
    """Over seeds, then over the steps before each."""
    means = [statistics.mean(values) for values in zip(*runs, strict=False)]
    return [statistics.mean(means[max(0, step - SMOOTHED + 1) : step + 1]) for step in range(len(means))]


def write(found: dict[str, list[Outcome]], out: Path) -> None:
    (out / "learning.json").write_text(
        json.dumps({name: [asdict(each) for each in outcomes] for name, outcomes in found.items()}, indent=1)
    )
    (out / "learning.md").write_text(table(found))
    draw(found, out / "learning.png")


def in_turn(chosen: Sequence[Variant]) -> list[list[Variant]]:
    """Those of one list need only those of the lists before."""
    behind = [one for one in chosen if one.after != "sft"]
    needed = {one.after for one in behind}
    first = [one for one in VARIANTS[1:] if one.after == "sft" and (one in chosen or one.name in needed)]
    return [[VARIANTS[0]], first, behind]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs at once; each has its share of the cores")
    parser.add_argument("--all", action="store_true", help="every variant")
    for variant in VARIANTS:
        parser.add_argument(f"--{variant.name}", action="store_true", help=variant.says)
    given = parser.parse_args()
    chosen = [one for one in VARIANTS if given.all or getattr(given, one.name.replace("-", "_"))]
    if not chosen:
        parser.error("name at least one variant, or --all")
    out = given.out.absolute()
    if not (out / "digits" / "base" / "config.json").exists():
        subprocess.run([sys.executable, str(EXAMPLE / "build.py"), str(out / "digits")], check=True)
    run = partial(carry_out, out, max(1, len(os.sched_getaffinity(0)) // given.jobs))
    found: dict[str, list[Outcome]] = {}
    with ThreadPoolExecutor(given.jobs) as pool:
        for variants in in_turn(chosen):
            started = {pool.submit(run, variant, seed): variant for variant in variants for seed in given.seeds}
            for future, variant in started.items():
                found.setdefault(variant.name, []).append(future.result())
                write(found, out)
    print(table(found))


if __name__ == "__main__":
    main()
