"""What a step of alignment at true size begins with: models with random weights, prompts about random images, and their teachers."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from given_texts import digits, in_format

SIDE = 768
TEACHER_TOKENS = (300, 1200)


def write_models(options: argparse.Namespace) -> None:
    """Random weights, made where they are used, with the example's small tokenizer under a vocabulary of true size."""
    import torch
    from shapes import make_discriminator, make_policy

    from model import make_tokenizer

    tokenizer = make_tokenizer()
    size, device = ("tiny", "cpu") if options.tiny else (options.size, "cuda")
    dtype = torch.float32 if options.tiny else torch.bfloat16
    for name, make, layers in (("policy", make_policy, None), ("discriminator", make_discriminator, options.discriminator_layers)):
        model = make(size, torch.device(device), dtype, layers)
        name_special_tokens(model.config, tokenizer)
        if name == "policy":
            model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.save_pretrained(options.out / name)
        write_processor(tokenizer, options.out / name)
        del model
    if device == "cuda":
        torch.cuda.empty_cache()


def name_special_tokens(config: Any, tokenizer: Any) -> None:
    for name, token in (
        ("image", "<|image_pad|>"),
        ("video", "<|video_pad|>"),
        ("vision_start", "<|vision_start|>"),
        ("vision_end", "<|vision_end|>"),
    ):
        setattr(config, f"{name}_token_id", tokenizer.convert_tokens_to_ids(token))


def write_processor(tokenizer: Any, folder: Path) -> None:
    from model import make_processor

    processor = make_processor(tokenizer)
    processor.image_processor.size = {"shortest_edge": 32 * 32, "longest_edge": SIDE * SIDE}
    processor.save_pretrained(folder)


def write_data(options: argparse.Namespace) -> None:
    from PIL import Image

    rng = random.Random(0)
    scale = 64 if options.tiny else 1
    folder = options.out / "data"
    folder.mkdir(exist_ok=True)
    rows = []
    for number in range(options.prompts):
        Image.frombytes("RGB", (SIDE, SIDE), rng.randbytes(3 * SIDE * SIDE)).resize((64, 64) if options.tiny else (SIDE, SIDE)).save(
            folder / f"{number}.png"
        )
        caption, think = (digits(tokens // scale, rng) for tokens in TEACHER_TOKENS)
        rows.append(
            {
                "prompt": [{"role": "user", "content": "<image>\nWhat is the sum?"}],
                "images": [f"{number}.png"],
                "teacher_caption": caption,
                "teacher_cot": f"<think>\n{think}\n</think>\n<answer>\n7\n</answer>",
                "teacher_response": in_format(caption, think),
            }
        )
    (folder / "alignment.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
