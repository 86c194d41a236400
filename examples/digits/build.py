"""Build the digits example: base model and data sets.  python examples/digits/build.py FOLDER [--seed N]

    FOLDER/base/                 a tiny Qwen3-VL that knows nothing
    FOLDER/data/curated.json     teacher demonstrations (sft)
    FOLDER/data/public.json      a larger, looser set with slips (sft)
    FOLDER/data/alignment.parquet   prompts with teacher responses, fresh scans (discriminator, alignment)
    FOLDER/data/rlvr.parquet     prompts with answers, fresh scans (rlvr)
    FOLDER/data/test.parquet     held-out scans (evaluation)

What is there already is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from scans import Pair, draw_pairs, load_scans
from texts import Response, Task, curated_response, draw_task, public_response

COUNTS = {"curated": 2400, "public": 4800, "alignment": 1200, "rlvr": 1200, "test": 300}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    build(arguments.folder, arguments.seed)


def build(folder: Path, seed: int) -> None:
    done = folder / "built.json"
    recipe = {"counts": COUNTS, "seed": seed, "sources": _digest_of_sources()}
    if done.is_file() and json.loads(done.read_text()) == recipe:
        print(f"{folder}: base model and data are there already")
        return
    data = folder / "data"
    (data / "images").mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    _write_demonstrations(data, "curated", seed + 1, lambda task: curated_response(task))
    _write_demonstrations(data, "public", seed + 2, lambda task: public_response(task, rng))
    _write_parquet(data / "alignment.parquet", "rl", COUNTS["alignment"], seed + 3, teacher=True)
    _write_parquet(data / "rlvr.parquet", "rl", COUNTS["rlvr"], seed + 4, teacher=False)
    _write_parquet(data / "test.parquet", "test", COUNTS["test"], seed + 5, teacher=False)
    from model import write_base_model

    parameters = write_base_model(folder / "base", seed)
    done.write_text(json.dumps(recipe))
    if (folder / "checkpoints").exists():
        print(f"{folder}: model and data are new, but checkpoints made with the old ones are there; remove {folder} to start over")
    print(f"{folder}: base model of {parameters / 1e6:.1f} M parameters, {sum(COUNTS.values())} questions about 1,797 scans")


def _digest_of_sources() -> str:
    """A changed example is built anew."""
    sources = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(sources).hexdigest()


def questions(split: str, count: int, seed: int) -> list[tuple[Pair, Task]]:
    rng = random.Random(f"tasks {seed}")
    return [(pair, draw_task(pair.left, pair.right, rng)) for pair in draw_pairs(load_scans(split), count, seed)]


def _write_demonstrations(data: Path, name: str, seed: int, respond) -> None:
    """LLaMA-Factory's sharegpt-multimodal form: messages, and images by path beside the file."""
    rows = []
    for number, (pair, task) in enumerate(questions("sft", COUNTS[name], seed)):
        image = f"images/{name}-{number:05d}.png"
        (data / image).write_bytes(pair.png)
        messages = [
            {"role": "user", "content": f"<image>\n{task.question}\n"},
            {"role": "assistant", "content": respond(task).text},
        ]
        rows.append({"messages": messages, "images": [image]})
    (data / f"{name}.json").write_text(json.dumps(rows))


def _write_parquet(file: Path, split: str, count: int, seed: int, *, teacher: bool) -> None:
    """The paper's stage-2 columns, or without the teacher's its stage-3 columns."""
    rows = [_row(pair, task, curated_response(task) if teacher else None) for pair, task in questions(split, count, seed)]
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=256)


def _row(pair: Pair, task: Task, teacher: Response | None) -> dict[str, object]:
    row: dict[str, object] = {
        "data_source": "mm_gad",
        "prompt": [{"role": "user", "content": f"<image>\n{task.question}\n"}],
        "images": [{"bytes": pair.png, "path": None}],
        "answer": str(task.answer),
        "reward_model": {"ground_truth": str(task.answer), "style": "rule"},
    }
    if teacher:
        row |= {"teacher_caption": teacher.caption, "teacher_cot": teacher.cot, "teacher_response": teacher.text}
    return row


if __name__ == "__main__":
    main()
