"""Loaded by verl in every process (VERL_USE_EXTERNAL_MODULES), before anything else of it is used."""

from __future__ import annotations

import functools
import os
from typing import Any

from prism_trainer.engines.verl.after_import import after_import


def forbid_special_tokens(rollout_utils: Any) -> None:
    """verl has vLLM never sample <|image_pad|> and <|video_pad|>; we add every special token but the terminator, as engine local does."""

    @functools.wraps(rollout_utils.get_vision_placeholder_token_ids)
    def forbidden_token_ids(processor: Any) -> list[int]:
        import torch

        from prism_trainer.engines.local.rollout import Vocabulary

        tokenizer = getattr(processor, "tokenizer", processor)
        forbidden = Vocabulary.of(tokenizer, len(tokenizer), torch.device("cpu")).forbidden
        return [int(token) for token in forbidden.nonzero().squeeze(1)]

    rollout_utils.get_vision_placeholder_token_ids = forbidden_token_ids


after_import("verl.workers.rollout.utils", forbid_special_tokens)
if os.environ.get("VERL_PLATFORM") == "cpu":
    from prism_trainer.engines.verl import cpu_platform

    cpu_platform.install()
