"""How a conversation becomes tokens: as the model's own chat template and processor do it, which engine local and rollouts use.

LLaMA-Factory's `qwen3_vl_nothink` but for two things: the line break after the last `<|im_end|>` is no target, because a rollout ends at
`<|im_end|>`; and an image is not resized before the model's own processor sees it.
"""

from __future__ import annotations

from typing import Any

from llamafactory.data.formatter import StringFormatter
from llamafactory.data.mm_plugin import Qwen3VLPlugin, get_mm_plugin, register_mm_plugin
from llamafactory.data.template import register_template

NAME = "prism_qwen3_vl"


class OwnSizes(Qwen3VLPlugin):  # type: ignore[misc]
    """Leaves an image's size to the model's processor, within its own limits."""

    def _preprocess_image(self, image: Any, **_: object) -> Any:
        return image.convert("RGB")


def register() -> None:
    """Once a process."""
    register_mm_plugin(NAME, OwnSizes)
    register_template(
        name=NAME,
        format_user=StringFormatter(slots=["<|im_start|>user\n{{content}}<|im_end|>\n<|im_start|>assistant\n"]),
        format_assistant=StringFormatter(slots=["{{content}}<|im_end|>"]),
        format_system=StringFormatter(slots=["<|im_start|>system\n{{content}}<|im_end|>\n"]),
        stop_words=["<|im_end|>"],
        replace_eos=True,
        mm_plugin=get_mm_plugin(name=NAME, image_token="<|image_pad|>", video_token="<|video_pad|>"),
    )
