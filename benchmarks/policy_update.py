"""The policy's update in engine verl against verl's own on the same rows: one packed row a micro-batch, and padded sequences.

    .venv-verl/bin/python benchmarks/policy_update.py [--prompt-tokens 400] [--lengths 16 128] [--repeats 5]

On the tiny model of examples/digits (made in a temporary folder), one process on the CPU with one thread, 4 prompts about an image of
256 x 256 with 8 responses each. Both engines are verl's on FSDP2 with engine local's optimizer, update in turns, and start from the same
weights; medians of the process's CPU time are printed with their ratio, beside the tokens that each reads. verl's own without padding
wants flash-attn.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
for folder in (HERE.parent / "examples" / "digits", HERE / "gpu"):
    sys.path.insert(0, str(folder))

PROMPTS, GROUP, SIDE = 4, 8, 256
SYSTEM = "Answer as caption, think, answer."


def main() -> None:
    options = read_options()
    prepare_process(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        verl = compose(folder, options)
        rows, tokens = make_rows(verl, options)
        workers = {"packed": worker_on(verl, packed_worker()), "padded": worker_on(verl, padded_worker())}
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        losses = {}
        for _ in range(options.repeats + 1):
            for name, worker in workers.items():
                began = time.process_time()
                losses[name] = update(worker, rows)
                seconds[name].append(time.process_time() - began)
    medians = {name: statistics.median(each[1:]) for name, each in seconds.items()}
    for name, median in medians.items():
        print(f"{name}: {median:6.2f} CPU s an update, {tokens[name]} tokens, loss {losses[name]:.6f}")
    print(f"ratio {medians['padded'] / medians['packed']:.1f}, of tokens {tokens['padded'] / tokens['packed']:.1f}")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt-tokens", type=int, default=400)
    parser.add_argument("--lengths", type=int, nargs=2, default=(16, 128), metavar=("LOW", "HIGH"), help="tokens of a response")
    parser.add_argument("--budget", type=int, default=2048, help="tokens in a micro-batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def prepare_process(threads: int) -> None:
    """verl and torch.distributed read the environment when they are imported."""
    from prism_trainer.engines.verl.cluster import CPU_ENVIRONMENT, ENVIRONMENT

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {**ENVIRONMENT, **CPU_ENVIRONMENT, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    del os.environ["TRANSFER_QUEUE_ENABLE"]
    import torch

    torch.set_num_threads(threads)


def write_model(folder: Path) -> None:
    from model import write_base_model

    write_base_model(folder, seed=0)


def compose(folder: str, options: argparse.Namespace) -> Any:
    from prism_trainer.contract.configs import RlvrConfig
    from prism_trainer.contract.job import StageJob
    from prism_trainer.engines.verl.composition import compose_verl
    from prism_trainer.engines.verl.overrides import Site, rlvr_overrides

    config = RlvrConfig(
        steps=100, prompts_per_step=PROMPTS, rollout={"group_size": GROUP, "max_response_tokens": max(options.lengths)},
        gpu={"max_prompt_tokens": options.prompt_tokens + 64, "tokens_per_gpu": options.budget}, optimizer={"learning_rate": 1e-9},
    )  # fmt: skip
    job = StageJob(
        run="benchmark",
        stage="rlvr",
        attempt=1,
        engine="verl",
        seed=0,
        config=config,
        config_digest="",
        output_uri=folder,
        report_dir=folder,
    )
    return compose_verl(rlvr_overrides(job, config, Site("cpu", 1, 1, folder)))


def make_rows(verl: Any, options: argparse.Namespace) -> tuple[Any, dict[str, int]]:
    """The batch as it comes from TransferQueue, and how many tokens each way reads, padding left out."""
    import torch
    from PIL import Image
    from verl.utils import tensordict_utils
    from verl.utils.config import omega_conf_to_dataclass

    from prism_trainer.data.rows import Prompt
    from prism_trainer.engines.local.encoding import PromptEncoder
    from prism_trainer.engines.verl.rollout_worker import response_tensors

    rng = random.Random(0)
    processor = omega_conf_to_dataclass(verl.actor_rollout_ref.model).processor
    encoder = PromptEncoder(processor, SYSTEM)

    low, high = options.lengths
    rows, once = [], 0
    for number in range(PROMPTS):
        buffer = io.BytesIO()
        Image.frombytes("RGB", (SIDE, SIDE), rng.randbytes(3 * SIDE * SIDE)).save(buffer, "PNG")
        prompt = Prompt(str(number), "", (buffer.getvalue(),))
        bare = len(encoder.encode([prompt])[0].token_ids)
        question = "".join(rng.choices("0123456789", k=max(1, options.prompt_tokens - bare)))  # a token each
        encoded = encoder.encode([Prompt(f"{number} asked", question, prompt.images)])[0]
        once += len(encoded.token_ids)
        for index in range(GROUP):
            ids = [rng.randrange(20, 300) for _ in range(low + (high - low) * index // (GROUP - 1))]
            row = response_tensors(encoded, ids, None)
            rows.append({**row, "advantages": torch.tensor([rng.uniform(-1, 1)])})
    responses = sum(len(row["responses"]) for row in rows)
    padded = sum(len(row["input_ids"]) for row in rows)
    batch = tensordict_utils.list_of_dict_to_tensordict(rows)
    batch["prompts"] = torch.nested.as_nested_tensor([row["prompts"] for row in rows], layout=torch.jagged)  # also where all are as long
    return batch, {"packed": once + responses, "padded": padded}


def packed_worker() -> type:
    from prism_trainer.engines.verl.policy_worker import PolicyWorker

    return PolicyWorker


def padded_worker() -> type:
    """verl's own, but for the optimizer and for the patch embedding, whose convolution is slow by itself."""
    from upstream_workers import PaddedPolicyWorker

    return PaddedPolicyWorker


def worker_on(verl: Any, kind: type) -> Any:
    from functools import partial

    from prism_trainer.contract.configs import RlvrConfig
    from prism_trainer.engines.verl.losses import policy_loss

    worker = kind(verl.actor_rollout_ref, role="actor")
    worker.init_model()
    worker.set_loss_fn(partial(policy_loss, loss=RlvrConfig().algorithm, kl_coef=0.0))
    return worker


def update(worker: Any, rows: Any) -> float:
    """The loss."""
    from verl.utils import tensordict_utils

    data = rows.clone()
    tensordict_utils.assign_non_tensor(
        data, calculate_entropy=True, global_batch_size=PROMPTS * GROUP, mini_batch_size=PROMPTS * GROUP, epochs=1, seed=0,
        dataloader_kwargs={"shuffle": False}, temperature=1.0,
    )  # fmt: skip
    return float(tensordict_utils.get(worker.update_actor(data), "metrics")["loss"][0])


if __name__ == "__main__":
    main()
