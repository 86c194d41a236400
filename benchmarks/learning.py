"""What each part of PRISM is worth on the digits example: whole PrismRuns through `prism run`, several seeds each, one flag a variant.

    python benchmarks/learning.py --grpo --no-discriminator-warm-up --seeds 0 1 2      some of it
    python benchmarks/learning.py --all                                                all of it; hours on two cores

The variants start from examples/digits/baseline.yaml, and each differs from `--prism-grpo` in the one thing that its name says. All
variants of a seed share the sft checkpoint of that seed, as in the paper's ablations. A run that is there is not run again, and one
that was stopped goes on, because `prism run` does so; the data is built once. Writes learning.md, learning.png and learning.json into
the output folder. The paper's rows are its 4B model's averages over seven benchmarks: of another task, so only their order compares.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import yaml

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "digits"
OVERLONG_BUFFER = 16
Spec = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """`policy`: the stage whose policy is the result. `paper`: the average of the paper's nearest row, where it has one."""

    name: str
    says: str
    policy: str
    paper: float | None
    algorithm: str = "grpo"
    backbone: str = "moe"
    warm_up: bool = True
    aligned: bool = True


VARIANTS = (
    Variant("sft", "sft alone", "sft", 56.8),
    Variant("grpo", "sft, then GRPO with as many RL steps in all", "rlvr", 61.8, aligned=False),
    Variant("prism-grpo", "full PRISM with GRPO", "rlvr", 66.2),
    Variant("prism-dapo", "full PRISM with DAPO", "rlvr", 66.3, algorithm="dapo"),
    Variant("prism-gspo", "full PRISM with GSPO", "rlvr", 65.8, algorithm="gspo"),
    Variant("no-discriminator-warm-up", "discriminator without warm-up", "rlvr", None, warm_up=False),
    Variant("dense-discriminator", "dense discriminator", "rlvr", 62.8, backbone="dense"),
    Variant("text-discriminator", "text-only discriminator", "rlvr", 62.3, backbone="text"),
)


def prismrun(variant: Variant, seed: int, out: Path) -> Spec:
    """The PrismRun of a variant; its sft stage is the shared one of the seed."""
    example = yaml.safe_load((EXAMPLE / "prismrun.yaml").read_text())
    stages = {stage["kind"]: stage for stage in example["spec"]["stages"]}
    if variant.name != "sft":
        stages["sft"]["checkpoint"] = {"uri": str(folder_of(out, "sft", seed) / "checkpoints" / "sft")}
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


def carry_out(variant: Variant, seed: int, out: Path) -> float:
    """Held-out accuracy of the variant's policy, after `prism run`, which does only what is not done yet."""
    file = folder_of(out, variant.name, seed).with_suffix(".yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(copy.deepcopy(prismrun(variant, seed, out)), sort_keys=False)
    if not file.exists() or file.read_text() != text:
        file.write_text(text)
    subprocess.run([sys.executable, "-m", "prism_operator", "run", str(file), "--plain"], check=True)
    rows = json.loads((folder_of(out, variant.name, seed) / "results.json").read_text())
    return float(next(row["accuracy"] for row in rows if row["stage"] == variant.policy))


def table(found: dict[str, list[float]]) -> str:
    """One row a variant; the spread is the sample standard deviation over seeds."""
    lines = ["| variant | accuracy, % | spread | seeds | paper, 4B average, % |", "| --- | --- | --- | --- | --- |"]
    for variant in VARIANTS:
        if values := found.get(variant.name):
            spread = f"{100 * statistics.stdev(values):.1f}" if len(values) > 1 else "-"
            paper = "-" if variant.paper is None else f"{variant.paper:.1f}"
            lines.append(f"| {variant.says} | {100 * statistics.mean(values):.1f} | {spread} | {len(values)} | {paper} |")
    return "\n".join(lines) + "\n"


def draw(found: dict[str, list[float]], file: Path) -> None:
    """A bar a variant, a dot a seed, and the paper's average as a line where there is one."""
    shown = [variant for variant in VARIANTS if variant.name in found]
    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(shown) + 1.2), layout="constrained")
    for place, variant in enumerate(reversed(shown)):
        values = [100 * value for value in found[variant.name]]
        axes.barh(place, statistics.mean(values), color="#9ecae1")
        axes.plot(values, [place] * len(values), "o", color="#08519c", markersize=4)
        if variant.paper is not None:
            axes.plot([variant.paper], [place], "|", color="#d94801", markersize=18, markeredgewidth=2)
    axes.set_yticks(range(len(shown)), [variant.says for variant in reversed(shown)])
    axes.set_xlabel("held-out accuracy on digits, %   (orange: the paper's average on its seven benchmarks)")
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def write(found: dict[str, list[float]], out: Path) -> None:
    (out / "learning.json").write_text(json.dumps(found, indent=2))
    (out / "learning.md").write_text(table(found))
    draw(found, out / "learning.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
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
    found: dict[str, list[float]] = {}
    for seed in given.seeds:
        for variant in (VARIANTS[0], *(one for one in chosen if one.name != "sft")):  # the others start from the seed's sft
            found.setdefault(variant.name, []).append(carry_out(variant, seed, out))
            write(found, out)
    print(table(found))


if __name__ == "__main__":
    main()
