"""What ranks run first: the students' responses, each rank its share, and by rank 0 the discriminator, upcycled from the same policy.

Without a word between the ranks: which responses a block of rows gets depends on the seed and the block alone, and no rank waits for
another in an operation that times out. Drawn by engine local's sampler.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from prism_trainer.contract.configs import DiscriminatorConfig
from prism_trainer.data.dataset import Rows, open_taught
from prism_trainer.data.rows import TaughtPrompt
from prism_trainer.discriminator.upcycle import make_discriminator
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_policy, load_processor, save_model
from prism_trainer.engines.local.pairs import Pairs, sample_block, student_blocks, warn_of_long
from prism_trainer.engines.ranks.folder import read_job
from prism_trainer.engines.ranks.messages import Teller
from prism_trainer.responses import ParsedResponse, parse_response
from prism_trainer.seeds import generator_for

STUDENTS = "students.jsonl"
MADE = "discriminator"
POLICY = "policy.path"


def main(folder: Path) -> None:
    """Every rank a part of `students.jsonl`, as `students.<rank>.jsonl`."""
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    job = read_job(folder)
    config = job.config
    assert isinstance(config, DiscriminatorConfig)
    policy_dir = Path((folder / POLICY).read_text())
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
    policy, processor = load_policy(policy_dir, device).eval(), load_processor(policy_dir)
    encoder = PromptEncoder(processor, job.system_prompt)
    taught = open_taught(job.data, known=True)
    teller = Teller(folder)
    with (folder / f"students.{rank}.jsonl").open("w") as out:
        for block in student_blocks(len(taught), config)[rank::world_size]:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                drawn = sample_block(policy, encoder, taught, block, config, job.seed)
            out.writelines(json.dumps({"row": row, "text": student.text if student else None}) + "\n" for row, student in drawn)
            teller.tell("phase", name="sampling")
    if rank == 0:
        teller.tell("phase", name="upcycling")
        model = make_discriminator(policy, config, generator_for(job.seed, job.stage, "upcycle"))
        save_model(model, processor, folder / MADE)


def join_students(folder: Path, world_size: int, config: DiscriminatorConfig) -> None:
    """The parts as one file, in the order of the rows. A student that is too long has no text."""
    lines = [line for rank in range(world_size) for line in (folder / f"students.{rank}.jsonl").read_text().splitlines()]
    lines.sort(key=lambda line: int(json.loads(line)["row"]))
    (folder / STUDENTS).write_text("".join(f"{line}\n" for line in lines))
    warn_of_long(sum(json.loads(line)["text"] is None for line in lines), len(lines), config)


def read_pairs(folder: Path, taught: Rows[TaughtPrompt]) -> Pairs:
    """What `join_students` wrote."""
    return Pairs(taught, [_student(line) for line in (folder / STUDENTS).read_text().splitlines()])


def _student(line: str) -> tuple[int, ParsedResponse | None]:
    found = json.loads(line)
    if found["text"] is None:
        return found["row"], None
    parsed = parse_response(found["text"])
    assert parsed is not None, "only responses in the right format are written"
    return found["row"], parsed
