"""Who carries a stage out: the module whose `run(job, config, reporter)` is called, by engine and kind.

Engine local is torch and transformers in this process. Engine verl is a library for each kind, each in an image of its own, because their
versions exclude each other: LLaMA-Factory (image sft), DeepSpeed and verl (image rl), lmms-eval (image eval).
"""

from __future__ import annotations

from prism_trainer.contract.job import Engine

VERL = {
    "sft": "prism_trainer.engines.llamafactory.sft",
    "discriminator": "prism_trainer.engines.deepspeed.warmup",
    "alignment": "prism_trainer.engines.verl.alignment",
    "rlvr": "prism_trainer.engines.verl.rlvr",
    "evaluation": "prism_trainer.engines.lmms.evaluation",
}


def carrier_of(engine: Engine, kind: str) -> str:
    """Name of the module, which is imported only then: it may need what this environment has not."""
    return VERL[kind] if engine == "verl" else f"prism_trainer.stages.{kind}"
