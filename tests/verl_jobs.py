"""Jobs of stages rlvr and alignment for engine verl on a CPU: a policy that keeps the format by chance, its prompts, and the process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from prism_trainer.checkpoints import read_manifest
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import AlignmentConfig, DiscriminatorConfig, RlvrConfig
from prism_trainer.contract.job import DataSource, StageJob
from prism_trainer.contract.optim import Optimizer
from prism_trainer.data.rows import Demonstration, Prompt
from prism_trainer.discriminator.upcycle import make_discriminator
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_policy, load_processor, save_model
from prism_trainer.engines.local.optimizer import StageOptimizer
from prism_trainer.engines.local.sequences import collate_demonstrations
from verl_update import SYSTEM, png

QUESTION = "Which digit is it?"
CHOICES = ("1", "2", "3")
NUM_PROMPTS = 12
DEADLINE_SECONDS = 900
NO_CHANGE: Mapping[str, int] = MappingProxyType({})


def teach_format(base_dir: Path, folder: Path, steps: int = 120) -> None:
    """A policy that answers in a few tokens, in the right format, with one of three digits at random."""
    torch.manual_seed(0)
    policy, processor = load_policy(base_dir, torch.device("cpu")).train(), load_processor(base_dir)
    encoder = PromptEncoder(processor, SYSTEM)
    optimizer = StageOptimizer(policy, Optimizer(learning_rate=1e-3), steps)
    prompts = [Prompt(f"p:{number}", QUESTION, (png(number),)) for number in range(3)]
    for step in range(steps):
        texts = [f"<caption>\na\n</caption>\n<think>\nb\n</think>\n<answer>\n{CHOICES[(step + n) % 3]}\n</answer>" for n in range(3)]
        rows = [Demonstration(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        batch = collate_demonstrations(encoder, rows, 512)
        logits = policy(**batch.model_inputs()).logits[:, :-1].float()
        targets = torch.where(batch.target_RT, batch.token_ids_RT, -100)[:, 1:]
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
    save_model(policy, processor, folder)


def write_data(folder: Path) -> Path:
    """Each prompt about an image of its own; the answers go round."""
    rows = []
    for number in range(NUM_PROMPTS):
        (folder / f"{number}.png").write_bytes(png(number))
        turns = [{"role": "user", "content": f"<image>\n{QUESTION}\n"}]
        answer = CHOICES[number % 3]
        teacher = f"<caption>\na digit\n</caption>\n<think>\nit is {answer}\n</think>\n<answer>\n{answer}\n</answer>"
        row = {"prompt": turns, "images": [f"{number}.png"], "reward_model": {"ground_truth": answer}}
        rows.append({**row, "teacher_response": teacher})
    file = folder / "rows.json"
    file.write_text(json.dumps(rows))
    return file


@dataclass(frozen=True)
class Attempt:
    """One attempt of a stage, as a process."""

    folder: Path
    job: StageJob

    def start(self, program: Sequence[str] = ("-m", "prism_trainer"), *options: str) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "job.json"
        file.write_text(self.job.model_dump_json(by_alias=True))
        log = (self.folder / "log").open("wb")
        return subprocess.Popen([sys.executable, *program, str(file), *options], stdout=log, stderr=log, start_new_session=True)

    def finish(self, process: subprocess.Popen[bytes] | None = None) -> dict[str, Any]:
        """result.json, once the process has ended."""
        process = process or self.start()
        try:
            process.wait(DEADLINE_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert (self.folder / "report/result.json").exists(), self.log
        return json.loads((self.folder / "report/result.json").read_text())

    def stop_after(self, step: int) -> dict[str, Any]:
        """SIGTERM as soon as `step` steps are done."""
        process = self.start()
        end = time.monotonic() + DEADLINE_SECONDS
        while len(self.metrics) < step and process.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        process.terminate()
        return self.finish(process)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        file = self.folder / "report/metrics.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()[-4000:]

    def samples(self, step: int) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / f"report/samples/step-{step:06d}.jsonl").read_text().splitlines()]

    def after(self, folder: Path, checkpoint: dict[str, Any], engine: str = "verl", gpu: Mapping[str, int] = NO_CHANGE) -> Attempt:
        """The next attempt, that goes on from `checkpoint`; `gpu` is what it has otherwise of its GPUs."""
        config = self.job.config.model_copy(update={"gpu": self.job.config.gpu.model_copy(update=gpu)})
        again = {"attempt": 2, "resume_from": CheckpointRef(**checkpoint), "engine": engine, "config": config}
        places = {"output_uri": str(folder / "checkpoints"), "report_dir": str(folder / "report")}
        return Attempt(folder, self.job.model_copy(update={**again, **places}))


def rlvr_attempt(folder: Path, policy_dir: Path, data: Path, **fields: Any) -> Attempt:
    """Three prompts with four answers each a step."""
    settings: dict[str, Any] = {
        "prompts_per_step": 3,
        "rollout": {"group_size": 4, "max_response_tokens": 40},
        "optimizer": {"learning_rate": 1e-4},
        "gpu": {"max_prompt_tokens": 128, "tokens_per_gpu": 512, "rollout_sequences": 32},
        "dump_every": 1,
        "save_every": 10,
    }
    job = StageJob(
        run="r",
        stage="rlvr",
        attempt=1,
        engine="verl",
        seed=0,
        system_prompt=SYSTEM,
        config=RlvrConfig(**{**settings, **fields}),
        config_digest="d",
        inputs={"policy": CheckpointRef(stage="model", uri=str(policy_dir))},
        data=(DataSource(uri=str(data)),),
        output_uri=str(folder / "checkpoints"),
        report_dir=str(folder / "report"),
    )
    return Attempt(folder, job)


def write_discriminator(policy_dir: Path, folder: Path) -> None:
    """Upcycled from the policy, with a head that no warm-up has trained yet: what it learns it learns in the stage."""
    policy, processor = load_policy(policy_dir, torch.device("cpu")), load_processor(policy_dir)
    save_model(make_discriminator(policy, DiscriminatorConfig(), torch.Generator().manual_seed(0)), processor, folder)


def alignment_attempt(folder: Path, policy_dir: Path, discriminator_dir: Path, data: Path, **fields: Any) -> Attempt:
    """As `rlvr_attempt`, beside a discriminator that learns fast."""
    like = rlvr_attempt(folder, policy_dir, data, steps=1)
    shared = like.job.config.model_dump(include={"prompts_per_step", "rollout", "optimizer", "gpu", "dump_every", "save_every"})
    settings = {**shared, "micro_batch_size": 8, "discriminator_optimizer": {"learning_rate": 1e-3}, **fields}
    inputs = {**like.job.inputs, "discriminator": CheckpointRef(stage="discriminator", uri=str(discriminator_dir))}
    return Attempt(folder, like.job.model_copy(update={"stage": "alignment", "config": AlignmentConfig(**settings), "inputs": inputs}))


def manifest_of(checkpoint: dict[str, Any]) -> Any:
    return read_manifest(Path(checkpoint["uri"]))
