"""A stage of engine verl beside others on one GPU: vLLM is told the bytes of its cache.

    python benchmarks/gpu/beside.py JOB

Otherwise it measures what is free, which the others change while it looks. Everything else is as `python -m prism_trainer JOB`.
"""

from __future__ import annotations

import sys
from typing import Any

CACHE_BYTES = 4 * 2**30
KEY = "actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes"


def tell_cache(module: Any, name: str) -> None:
    ours = getattr(module, name)
    setattr(module, name, lambda *given: {**ours(*given), KEY: CACHE_BYTES})


def know_key(composition: Any) -> None:
    composition.ADDED |= {KEY}


if __name__ == "__main__":
    from prism_trainer.__main__ import main
    from prism_trainer.engines.verl.after_import import after_import

    after_import("prism_trainer.engines.verl.composition", know_key)
    after_import("prism_trainer.engines.verl.alignment", lambda module: tell_cache(module, "alignment_overrides"))
    after_import("prism_trainer.engines.verl.rlvr", lambda module: tell_cache(module, "rlvr_overrides"))
    sys.exit(main(sys.argv[1:]))
