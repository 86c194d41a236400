"""Which set of libraries carries a stage out. Their versions exclude each other, so each set is an image, or a Python, of its own."""

from __future__ import annotations

from typing import Literal

from prism_trainer.contract.job import Engine

Environment = Literal["cpu", "sft", "rl", "eval"]

_OF_VERL: dict[str, Environment] = {"sft": "sft", "discriminator": "rl", "alignment": "rl", "rlvr": "rl", "evaluation": "eval"}

LIBRARY: dict[Environment, tuple[str, str]] = {
    "cpu": ("torch", "torch"),
    "sft": ("llamafactory", "LLaMA-Factory"),
    "rl": ("verl", "verl"),
    "eval": ("lmms_eval", "lmms-eval"),
}
"""The module that only this environment has, and its name for people."""

ON_CPU = "PRISM_VERL_ON_CPU"
"""Environment variable of a stage: with 1, engine verl does without GPUs. For tests."""


def environment_of(engine: Engine, kind: str) -> Environment:
    """Engine local has one for everything; engine verl one for each library."""
    return _OF_VERL[kind] if engine == "verl" else "cpu"
