"""What a stage of `correctness.py` must have shown; each function returns sentences about what it has not."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

import torch

from prism_trainer.checkpoints import read_manifest
from prism_trainer.engines.local.models import load_discriminator, load_policy

Lines = list[dict[str, Any]]
"""Of metrics.jsonl."""

CPU = torch.device("cpu")
POLICY = ("actor/loss", "actor/grad_norm", "actor/entropy", "actor/rollout_gap", "seconds/step", "seconds/rollout", "seconds/update")
REQUIRED = {
    "alignment": (*POLICY, "critic/d_loss", "critic/d_acc", "critic/grad_norm", "critic/valid_ratio", "reward/caption_score_mean"),
    "rlvr": (*POLICY, "reward/mean", "reward/acc_reward/mean", "reward/format_reward/mean", "group/mixed_fraction"),
    "discriminator": ("loss", "pair_acc", "balance_loss", "grad_norm"),
}
"""By kind of stage. A reporter leaves out what is not finite, so that a name which is missing is all that tells of it."""
EXPORTED = {
    "alignment": {"policy": load_policy, "discriminator": load_discriminator},
    "rlvr": {"policy": load_policy},
    "discriminator": {"discriminator": load_discriminator},
}


def steps_taken(lines: Lines, first: int, last: int) -> list[str]:
    steps = [line["step"] for line in lines if took_a_step(line)]
    return [] if steps == list(range(first, last + 1)) else [f"took steps {steps}, expected {first} to {last}"]


def finite_metrics(kind: str, lines: Lines) -> list[str]:
    return [
        f"step {line['step']} has no finite {name}"
        for line in lines
        if took_a_step(line)
        for name in REQUIRED[kind]
        if name not in line["metrics"]
    ]


def took_a_step(line: dict[str, Any]) -> bool:
    """Not only a measurement of what a start begins with."""
    return not all(name.startswith(("held_out/", "students/")) for name in line["metrics"])


def accuracy_rises(lines: Lines) -> list[str]:
    """Of the discriminator, as mean of the last two steps against the first."""
    found = [line["metrics"].get("critic/d_acc") for line in lines]
    if len(found) < 3 or None in found:
        return [f"critic/d_acc is {found}, expected a number in each of three steps or more"]
    if mean(found[-2:]) <= found[0]:
        return [f"critic/d_acc does not rise: {[round(one, 3) for one in found]}"]
    return []


def export_loads(kind: str, folder: Path) -> list[str]:
    """The final checkpoint is there, and every model in it loads with finite weights."""
    manifest = read_manifest(folder)
    if manifest is None or not manifest.final:
        return [f"{folder} is no final checkpoint"]
    problems = []
    for role, load in EXPORTED[kind].items():
        try:
            model = load(folder / role, CPU)
        except Exception as error:  # whatever it is, it is the finding
            problems.append(f"{role} of {folder.name} does not load: {error}")
        else:
            broken = [name for name, one in model.named_parameters() if not bool(one.isfinite().all())]
            problems += [f"{role} of {folder.name} has weights that are not finite: {broken[0]}"] if broken else []
    return problems
