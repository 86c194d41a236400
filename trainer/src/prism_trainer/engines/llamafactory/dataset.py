"""Our rows as LLaMA-Factory reads them: `dataset_info.json` beside a file of conversations, and the order in which they are trained on.

LLaMA-Factory's own mixing (`interleave`, probabilities) and shuffling are not used: the order is that of engine local, a function of the
seed, so both engines see the same rows in the same step, and a stopped stage goes on with the rows it would have seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prism_trainer.data.dataset import Rows
from prism_trainer.data.images import image_files
from prism_trainer.data.rows import Demonstration
from prism_trainer.data.template import user_turn
from prism_trainer.data.writers import save_image
from prism_trainer.errors import DataError

NAME = "demonstrations"
FILE, INFO, ORDER, IDS = "demonstrations.jsonl", "dataset_info.json", "order.npy", "ids.json"
PLACEHOLDERS = ("<image>", "<video>", "<audio>")
SIGN_EVERY = 256
_INFO = {
    NAME: {
        "file_name": FILE,
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }
}


def write_dataset(folder: Path, rows: Rows[Demonstration], order: np.ndarray, system_prompt: str, sign: Callable[[], None]) -> None:
    """Every row of `order` once, however often it comes. `sign` is called now and then, as a sign of work."""
    folder.mkdir(parents=True, exist_ok=True)
    used, positions = np.unique(order, return_inverse=True)
    with (folder / FILE).open("w", encoding="utf-8") as out:
        for count, number in enumerate(used.tolist()):
            if count % SIGN_EVERY == 0:
                sign()
            out.write(json.dumps(_conversation(folder, rows, number, system_prompt), ensure_ascii=False) + "\n")
    np.save(folder / ORDER, positions.astype(np.int64))
    (folder / IDS).write_text(json.dumps([rows.id(number) for number in used.tolist()]))
    (folder / INFO).write_text(json.dumps(_INFO, indent=2))


def read_order(folder: Path) -> np.ndarray:
    """Row numbers within the written file, in the order of training."""
    order: np.ndarray = np.load(folder / ORDER)
    return order


def require_lengths(folder: Path, lengths: Sequence[int], max_length: int) -> None:
    """`lengths` in tokens, of all rows. LLaMA-Factory drops what it does not understand and cuts what is too long; both are refused."""
    ids = json.loads((folder / IDS).read_text())
    if len(lengths) != len(ids):
        raise DataError(f"LLaMA-Factory took {len(lengths)} of {len(ids)} demonstrations; its log names those it dropped")
    for row, length in zip(ids, lengths, strict=True):
        if length > max_length:
            raise DataError(f"demonstration {row} has {length} tokens, above maxLength {max_length}; raise it or remove the row")


def _conversation(folder: Path, rows: Rows[Demonstration], number: int, system_prompt: str) -> dict[str, Any]:
    row = rows[number]
    for text in (row.prompt.question, row.response):
        found = next((one for one in PLACEHOLDERS if one in text), None)
        if found:
            raise DataError(f"demonstration {row.prompt.id} has '{found}' in its text, for LLaMA-Factory a file; rewrite the row")
    files = image_files(rows.raw(number), "images")
    images = [str(file or (folder / save_image(folder, image)).absolute()) for file, image in zip(files, row.prompt.images, strict=True)]
    turns = [
        {"role": "system", "content": row.prompt.system or system_prompt},
        {"role": "user", "content": user_turn(row.prompt.question, len(images))},
        {"role": "assistant", "content": row.response},
    ]
    return {"messages": turns, "images": images}
