"""What vLLM is told, for the replicas of a policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prism_trainer.contract.configs import EvaluationConfig

EVERYWHERE = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",  # it is compiled at the engine's start, by a CUDA compiler that the image has not
}
ENVIRONMENT = {
    **EVERYWHERE,
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process an actor: what ends the actor ends the engine, and the GPU is free
    "VLLM_CPU_KVCACHE_SPACE": "1",
}
"""Of a replica."""
IMAGE_CACHE_GIB = 1


def engine_arguments(folder: Path, config: EvaluationConfig, *, on_gpu: bool) -> dict[str, Any]:
    """bfloat16 on a GPU. The model's own settings of generation are left out: what is drawn, and how, stands in the configuration."""
    gpu = config.gpu
    return {
        "model": str(folder),
        "dtype": "bfloat16" if on_gpu else "float32",
        "max_model_len": min(num_positions(folder), gpu.max_prompt_tokens + config.sampling.max_response_tokens),
        "max_num_seqs": config.batch_size,
        "tensor_parallel_size": gpu.tensor_parallel if on_gpu else 1,
        "distributed_executor_backend": "mp" if on_gpu and gpu.tensor_parallel > 1 else "uni",
        "gpu_memory_utilization": gpu.memory_share,
        "enforce_eager": not on_gpu,
        "generation_config": "vllm",
        "limit_mm_per_prompt": {"video": 0},
        "mm_processor_cache_gb": IMAGE_CACHE_GIB,
        "disable_log_stats": True,
        "seed": 0,
    }


def sampling_arguments(config: EvaluationConfig) -> dict[str, Any]:
    """Text is made from the tokens here, in one way for both engines."""
    sampling = config.sampling
    return {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_response_tokens, "detokenize": False}


def num_positions(folder: Path) -> int:
    """The longest sequence that the model knows."""
    settings = json.loads((folder / "config.json").read_text())
    return int(settings.get("text_config", settings)["max_position_embeddings"])
