"""A run folder as a real run leaves it, with made-up numbers: for tests of what reads such folders.

`FakeRun(tmp_path).finished()` writes sft, discriminator, alignment (interrupted once and resumed), rlvr and evaluation;
`.with_baseline()` adds sft -> rlvr. Every file goes through the contract's models, so that a change of the contract shows here.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from prism_operator.api import AttemptStatus, Condition, PrismRun, PrismRunStatus, StageStatus
from prism_operator.api.run import Metadata, RunSpec
from prism_operator.api.settings import LocalStorage, Model, Storage
from prism_trainer.contract.checkpoint import CheckpointManifest, CheckpointRef, FileEntry, Parent, Provenance
from prism_trainer.contract.configs import StageConfig
from prism_trainer.contract.job import DataSource, StageJob
from prism_trainer.contract.report import MetricsLine, Progress, StageResult
from prism_trainer.contract.results import Comparison, EvaluationRow, EvaluationSample, Score
from prism_trainer.contract.schema import digest_of

TIME = "2026-11-23T04:{minute:02d}:{second:02d}Z"
STEPS = {"sft": 180, "discriminator": 60, "alignment": 40, "rlvr": 60, "rlvr-baseline": 100}
KINDS = {"rlvr-baseline": "rlvr"}
SECONDS = {"sft": 64.0, "discriminator": 41.0, "alignment": 118.0, "rlvr": 143.0, "rlvr-baseline": 231.0, "evaluation": 37.0}
INPUTS = {
    "sft": {"policy": "model"},
    "discriminator": {"policy": "sft"},
    "alignment": {"policy": "sft", "discriminator": "discriminator"},
    "rlvr": {"policy": "alignment"},
    "rlvr-baseline": {"policy": "sft"},
}
MEASURED = {
    "sft": (0.435, 0.962, 49.1),
    "alignment": (0.512, 0.985, 43.0),
    "rlvr": (0.598, 0.997, 41.5),
    "rlvr-baseline": (0.571, 0.994, 47.9),
}
CONFIGS: dict[str, dict[str, object]] = {
    "sft": {"maxSteps": 180, "batchSize": 32, "microBatchSize": 32, "freezeVision": False, "optimizer": {"learningRate": 1e-3}},
    "discriminator": {"maxSteps": 60, "batchSize": 64, "optimizer": {"learningRate": 3e-4}},
    "alignment": {"steps": 40, "promptsPerStep": 24, "rollout": {"maxResponseTokens": 96}, "optimizer": {"learningRate": 5e-5}},
    "rlvr": {"steps": 60, "promptsPerStep": 24, "rollout": {"maxResponseTokens": 96}},
    "evaluation": {"seeds": [0, 1, 2], "sampling": {"maxResponseTokens": 96}},
}


@dataclass
class FakeRun:
    """Writes under `folder`."""

    folder: Path
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    digests: dict[str, str] = field(default_factory=lambda: {"model": digest_of("base model")})
    stages: list[str] = field(default_factory=list)
    benchmarks: tuple[str, ...] = ()

    def finished(self) -> FakeRun:
        for stage in ("sft", "discriminator", "alignment", "rlvr"):
            self.trained(stage)
        self.evaluated()
        return self.with_status("Succeeded")

    def with_baseline(self) -> FakeRun:
        self.trained("rlvr-baseline")
        self.evaluated()
        return self.with_status("Succeeded")

    def trained(self, stage: str) -> FakeRun:
        """A stage that is done; alignment lost its first attempt and went on from step 20."""
        steps = STEPS[stage]
        interrupted = stage == "alignment"
        if interrupted:
            self.attempt(stage, 1, 1, 26)
            self.commit(stage, 1, 20, final=False)
        self.attempt(stage, 1 + interrupted, 21 if interrupted else 1, steps, done=True)
        self.commit(stage, 1 + interrupted, steps, final=True)
        self.stages.append(stage)
        return self

    def running(self, stage: str, step: int) -> FakeRun:
        """A stage under way."""
        self.attempt(stage, 1, 1, step)
        self.stages.append(stage)
        return self

    def attempt(self, stage: str, number: int, first: int, last: int, done: bool = False) -> None:
        folder = self.folder / "stages" / stage / f"attempt-{number}"
        folder.mkdir(parents=True)
        resumed = CheckpointRef(stage=stage, uri="resumed", digest=self.digests.get(stage), step=first - 1) if first > 1 else None
        (folder / "job.json").write_text(self.job(stage, number, resumed).model_dump_json(exclude_none=True))
        lines = [
            MetricsLine(step=step, attempt=number, time=_time(step), metrics=metrics_of(_kind(stage), step / STEPS[stage], step, self.rng))
            for step in range(first, last + 1)
        ]
        (folder / "metrics.jsonl").write_text("".join(line.model_dump_json() + "\n" for line in lines))
        progress = Progress(
            stage=stage,
            attempt=number,
            step=last,
            total_steps=STEPS[stage],
            advanced_at=_time(last),
            updated_at=_time(last),
            eta_seconds=0.0,
        )
        (folder / "progress.json").write_text(progress.model_dump_json())
        if done:
            self.result(folder, stage, number)

    def result(self, folder: Path, stage: str, number: int) -> None:
        result = StageResult(stage=stage, attempt=number, outcome="Succeeded", seconds=SECONDS[stage])
        (folder / "result.json").write_text(result.to_message())

    def job(self, stage: str, number: int, resume_from: CheckpointRef | None = None) -> StageJob:
        inputs = INPUTS.get(stage) or {name: name for name in self.stages if name in MEASURED}
        return StageJob(
            run="digits",
            stage=stage,
            attempt=number,
            engine="local",
            seed=1,
            config=_config(_kind(stage)),
            config_digest=digest_of(stage),
            inputs={
                role: CheckpointRef(stage=name, uri=f"checkpoints/{name}", digest=self.digests.get(name)) for role, name in inputs.items()
            },
            data=(DataSource(uri=f"runs/digits/data/{stage}.parquet"),),
            output_uri=f"checkpoints/{stage}/attempt-{number}",
            resume_from=resume_from,
            report_dir=f"stages/{stage}/attempt-{number}",
        )

    def commit(self, stage: str, number: int, step: int, final: bool) -> Path:
        folder = self.folder / "checkpoints" / stage / f"attempt-{number}" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        inputs = INPUTS.get(stage) or {name: name for name in self.stages if name in MEASURED}
        role = "results" if stage == "evaluation" else "discriminator" if stage == "discriminator" else "policy"
        manifest = CheckpointManifest(
            run="digits",
            stage=stage,
            kind=_kind(stage),
            step=step,
            final=final,
            config_digest=digest_of(stage),
            seed=1,
            parents=tuple(Parent(stage=name, digest=self.digests[name]) for name in inputs.values()),
            files=(FileEntry(path=f"{role}/model.safetensors", size=8_412_160, sha256=digest_of(f"{stage}{step}")[7:]),),
            architectures={role: "Qwen3VLForConditionalGeneration"},
            provenance=Provenance(
                attempt=number,
                created_at=_time(step),
                seconds=SECONDS[stage],
                versions={"torch": "2.11.0", "transformers": "5.9.0", "prism-trainer": "0.1.0", "python": "3.11.7"},
            ),
        )
        (folder / "manifest.json").write_text(json.dumps(manifest.to_file()))
        self.digests[stage] = manifest.digest
        return folder

    def evaluated(self) -> FakeRun:
        """Every policy so far on 120 prompts with 3 seeds."""
        number = len(list((self.folder / "stages" / "evaluation").glob("attempt-*"))) + 1
        folder = self.folder / "stages" / "evaluation" / f"attempt-{number}"
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(self.job("evaluation", number).model_dump_json(exclude_none=True))
        self.result(folder, "evaluation", number)
        checkpoint = self.commit("evaluation", number, 0, final=True)
        (checkpoint / "results").mkdir()
        policies = [stage for stage in self.stages if stage in MEASURED]
        samples = [sample for stage in policies for sample in samples_of(stage, self.rng)]
        (checkpoint / "results" / "samples.jsonl").write_text("".join(sample.model_dump_json() + "\n" for sample in samples))
        rows = compared([row_of(stage, self.digests[stage]) for stage in policies])
        for name in self.benchmarks:
            rows += compared([on_benchmark(row_of(stage, self.digests[stage]), name) for stage in policies])
        (self.folder / "results.json").write_text(json.dumps([row.model_dump() for row in rows]))
        if "evaluation" not in self.stages:
            self.stages.append("evaluation")
        return self

    def with_status(self, summary: str) -> FakeRun:
        (self.folder / "status.json").write_text(self.object(summary).model_dump_json(exclude_none=True))
        return self

    def object(self, summary: str) -> PrismRun:
        """The PrismRun with its status."""
        spec = {"model": Model(uri="runs/digits/base"), "storage": Storage(local=LocalStorage(path="runs/digits")), "seed": 1}
        stages = [{"kind": _kind(stage), "name": stage, "config": _config(_kind(stage))} for stage in self.stages]
        return PrismRun(
            api_version="prism.dev/v1alpha1",
            kind="PrismRun",
            metadata=Metadata(name="digits"),
            spec=RunSpec.model_validate({**spec, "stages": stages}),
            status=self.status(summary),
        )

    def status(self, summary: str) -> PrismRunStatus:
        done = summary == "Succeeded"
        conditions = [
            Condition(type="Accepted", status="True", reason="Valid", message="The spec is valid.", last_transition_time=_time(0)),
            *(
                Condition(
                    type=f"{stage.capitalize()}Succeeded",
                    status="True" if done else "Unknown",
                    reason="Verified" if done else "Running",
                    message=f"Stage {stage} is verified." if done else f"Stage {stage} is running.",
                    last_transition_time=_time(7 * index),
                )
                for index, stage in enumerate(self.stages)
            ),
        ]
        return PrismRunStatus.model_validate(
            {
                "summary": summary,
                "message": "All stages are verified." if done else "Stage alignment is at step 12 of 40.",
                "startedAt": _time(0),
                "finishedAt": "2026-11-23T04:11:52Z" if done else None,
                "conditions": conditions,
                "stages": [
                    StageStatus(
                        name=stage,
                        kind=_kind(stage),
                        state="Succeeded" if done else "Running",
                        config_digest=digest_of(stage),
                        attempts=(AttemptStatus(number=1, outcome="Succeeded"),),
                        total_steps=STEPS.get(stage, 0),
                        step=STEPS.get(stage, 0),
                    )
                    for stage in self.stages
                ],
            }
        )


def _kind(stage: str) -> str:
    return KINDS.get(stage, stage)


def _config(kind: str) -> StageConfig:
    adapter: TypeAdapter[StageConfig] = TypeAdapter(StageConfig)
    return adapter.validate_python({"kind": kind, **CONFIGS[kind]})


def _time(second: int) -> str:
    return TIME.format(minute=second // 60 % 60, second=second % 60)


def _toward(start: float, end: float, rate: float) -> Callable[[float], float]:
    return lambda t: end + (start - end) * math.exp(-rate * t)


def metrics_of(kind: str, t: float, step: int, rng: random.Random) -> dict[str, float]:
    """What a stage logs at a step, `t` being the share of its steps done."""
    noisy: Callable[[float, float], float] = lambda value, noise: value + rng.gauss(0, noise)  # noqa: E731
    match kind:
        case "sft":
            return {
                "loss": noisy(_toward(4.2, 0.21, 6)(t), 0.05),
                "lr": 1e-3 * (1 - t),
                "grad_norm": noisy(1.2, 0.1),
                "tokens_per_second": noisy(5200, 90),
            }
        case "discriminator":
            logged = {"loss": noisy(_toward(0.7, 0.06, 4)(t), 0.02), "pair_acc": _share(noisy(_toward(0.5, 0.97, 5)(t), 0.03)), "lr": 3e-4}
            if step % 10 == 0 or step == 1:
                logged |= {
                    "held_out/caption_acc": _share(_toward(0.5, 0.99, 5)(t)),
                    "held_out/cot_acc": _share(_toward(0.52, 0.95, 4)(t)),
                    "held_out/caption_gap": noisy(_toward(0.05, 5.4, 3)(t), 0.1),
                    "held_out/cot_gap": noisy(_toward(0.1, 3.9, 3)(t), 0.1),
                }
            return logged
        case "alignment":
            caption, cot = noisy(_toward(5.3, 1.9, 2.5)(t), 0.3), noisy(_toward(3.8, 1.6, 2)(t), 0.3)
            return {
                "reward/caption_score_mean": noisy(-1.5 + t, 0.2),
                "reward/acc_reward/mean": _share(noisy(0.40 + 0.08 * t, 0.025)),
                "reward/format_valid_ratio": _share(noisy(0.95 + 0.03 * t, 0.008)),
                "critic/caption_gap": caption,
                "critic/cot_gap": cot,
                "critic/cap_acc": _share(noisy(0.97 - 0.12 * t, 0.01)),
                "critic/cot_acc": _share(noisy(0.93 - 0.10 * t, 0.01)),
                "critic/teacher_caption_mean": noisy(2.6 - t, 0.1),
                "critic/teacher_cot_mean": noisy(1.9 - 0.8 * t, 0.1),
                "critic/student_caption_mean": 2.6 - t - caption,
                "critic/student_cot_mean": 1.9 - 0.8 * t - cot,
                "actor/entropy": noisy(_toward(0.42, 0.3, 2)(t), 0.008),
                "actor/grad_norm": noisy(0.8, 0.06),
                "response_length/mean": noisy(49 - 6 * t, 0.5),
            }
        case _:
            accuracy = _share(noisy(0.47 + 0.09 * t, 0.02))
            return {
                "reward/mean": 0.8 * accuracy + 0.198,
                "reward/acc_reward/mean": accuracy,
                "reward/format_reward/mean": _share(noisy(0.985 + 0.01 * t, 0.003)),
                "actor/entropy": noisy(_toward(0.3, 0.22, 2)(t), 0.006),
                "actor/grad_norm": noisy(0.9, 0.06),
                "response_length/mean": noisy(43 - 2 * t, 0.4),
                "group/mixed_fraction": _share(noisy(0.7, 0.04)),
            }


def _share(value: float) -> float:
    return min(1.0, max(0.0, value))


def row_of(stage: str, manifest: str) -> EvaluationRow:
    accuracy, format_rate, mean_tokens = MEASURED[stage]
    return EvaluationRow(
        stage=stage,
        steps=STEPS[stage],
        seconds=SECONDS[stage],
        accuracy=accuracy,
        ci_low=accuracy - 0.021,
        ci_high=accuracy + 0.022,
        format_rate=format_rate,
        mean_tokens=mean_tokens,
        num_prompts=120,
        num_seeds=3,
        manifest=manifest,
    )


def on_benchmark(row: EvaluationRow, name: str) -> EvaluationRow:
    """The same on a benchmark, a tenth lower, with a sub-score."""
    lower = {key: getattr(row, key) - 0.1 for key in ("accuracy", "ci_low", "ci_high")}
    sub = Score(value=row.accuracy, ci_low=row.ci_low, ci_high=row.ci_high)
    return row.model_copy(update={**lower, "benchmark": name, "scores": {"version/<Text & Lite>": sub}, "rule_accuracy": 0.2})


def compared(rows: list[EvaluationRow]) -> list[EvaluationRow]:
    """Each with all before it."""
    return [row.model_copy(update={"compared": tuple(_against(other, row) for other in rows[:index])}) for index, row in enumerate(rows)]


def _against(before: EvaluationRow, after: EvaluationRow) -> Comparison:
    change = after.accuracy - before.accuracy
    return Comparison(against=before.stage, difference=change, ci_low=change - 0.02, ci_high=change + 0.02, p_value=0.0004)


def samples_of(stage: str, rng: random.Random) -> list[EvaluationSample]:
    return [_sample(stage, index, seed, rng) for index in range(120) for seed in range(3)]


def _sample(stage: str, index: int, seed: int, rng: random.Random) -> EvaluationSample:
    left, right = index % 10, index // 10 % 10
    accuracy, format_rate, _ = MEASURED[stage]
    valid = rng.random() < format_rate
    correct = valid and rng.random() < accuracy
    answer = left + right + (0 if correct else rng.choice((-2, -1, 1, 3)))
    response = f"<caption>\n- left digit {left}\n- right digit {right}\n</caption>\n<think>\n{left} plus {right} gives {answer}\n</think>\n"
    response += f"<answer>\n{answer}\n</answer>" if valid else "<answer>\n<b>well & so on"
    return EvaluationSample(
        stage=stage,
        prompt_id=f"test-{index:03d}",
        seed=seed,
        question="What is the sum of the two digits?",
        response=response,
        reference=str(left + right),
        answer=str(answer) if valid else None,
        correct=correct,
        format_valid=valid,
        num_tokens=41 + len(response) % 9,
    )
