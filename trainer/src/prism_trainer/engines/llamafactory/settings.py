"""Our configuration as LLaMA-Factory's arguments (`sft.yaml`) and DeepSpeed's (`zero.json`). Pure.

Left out, because it is done here: mixing and shuffling (`dataset`), the learning-rate schedule and the loss (`training`), cutting
(`cutoff_len`: a row that is longer is refused beforehand).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prism_trainer.contract.configs import SftConfig
from prism_trainer.contract.gpu import SftGpu
from prism_trainer.engines.ranks.shares import divide_batch

UNCUT = 2**30
"""Tokens, as `cutoff_len` while rows are tokenised, so that their true lengths are known."""
LONGEST_WAIT_SECONDS = 7200
"""For a collective operation: rank 0 alone gathers and writes large weights."""
TEMPLATE = "prism_qwen3_vl"


@dataclass(frozen=True)
class Place:
    """What does not stand in the configuration: folders, and what the machines have."""

    policy: Path
    data: Path
    tokens: Path
    output: Path
    resume: Path | None
    zero_file: Path | None
    """None: one process without DeepSpeed."""
    world_size: int
    have_gpus: bool
    flash_attention: bool


def training_arguments(config: SftConfig, place: Place, seed: int, total_steps: int) -> dict[str, Any]:
    """What `llamafactory-cli train` would be given."""
    shares = divide_batch(config.batch_size, config.micro_batch_size, place.world_size)
    optimizer = config.optimizer
    return {
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "model_name_or_path": str(place.policy),
        "trust_remote_code": False,
        "freeze_vision_tower": config.freeze_vision,
        "freeze_multi_modal_projector": config.freeze_projector,
        "freeze_language_model": config.freeze_language,
        "flash_attn": "fa2" if place.flash_attention else "sdpa",
        "disable_gradient_checkpointing": not (place.have_gpus and config.gpu.gradient_checkpointing),
        "use_reentrant_gc": False,
        "template": TEMPLATE,
        "dataset": "demonstrations",
        "dataset_dir": str(place.data),
        "tokenized_path": str(place.tokens),
        "cutoff_len": config.max_length,
        "disable_shuffling": True,
        "output_dir": str(place.output),
        "resume_from_checkpoint": str(place.resume) if place.resume else None,
        "per_device_train_batch_size": shares.micro,
        "gradient_accumulation_steps": shares.accumulation,
        "average_tokens_across_devices": True,
        "max_steps": total_steps,
        "learning_rate": optimizer.learning_rate,
        "lr_scheduler_type": optimizer.schedule,
        "warmup_steps": max(optimizer.warmup_steps, round(optimizer.warmup_ratio * total_steps)),
        "weight_decay": optimizer.weight_decay,
        "adam_beta1": optimizer.beta1,
        "adam_beta2": optimizer.beta2,
        "max_grad_norm": optimizer.grad_clip,
        "optim": "adamw_torch_fused",
        "seed": seed % 2**31,
        "bf16": place.have_gpus,
        "use_cpu": not place.have_gpus and place.zero_file is None,
        "deepspeed": str(place.zero_file) if place.zero_file else None,
        "ddp_timeout": LONGEST_WAIT_SECONDS,
        "save_strategy": "steps",
        "save_steps": config.save_every,
        "save_only_model": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
        "plot_loss": False,
    }


def zero_settings(gpu: SftGpu, *, have_gpus: bool) -> dict[str, Any]:
    """DeepSpeed's. `auto` is filled by transformers from the arguments above, so that no value stands in two places.

    With torch's own AdamW on the host too: DeepSpeed's is compiled when first used and needs CUDA's compiler, which the image has not.
    """
    host = {"device": "cpu", "pin_memory": have_gpus}
    zero: dict[str, Any] = {"stage": gpu.zero_stage, "overlap_comm": have_gpus, "contiguous_gradients": True}
    if gpu.zero_stage == 3:
        zero |= {
            "reduce_bucket_size": "auto",
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if gpu.offload:
        zero["offload_optimizer"] = host
    if gpu.offload and gpu.zero_stage == 3:
        zero["offload_param"] = host
    return {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": have_gpus},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "wall_clock_breakdown": False,
    }
