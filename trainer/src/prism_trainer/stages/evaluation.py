"""Stage evaluation: several seeds of sampled responses to held-out prompts, for each checkpoint given (paper section 5, appendix).

Reads one or more policies, writes `results/results.json` (a row a checkpoint) and `results/samples.jsonl` (a line a response). As in the
paper responses are sampled, at temperature 1.0 and top-p 0.7; unlike there, over several seeds and with a confidence interval:
bootstrap over prompts, because the seeds of one prompt are not independent.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prism_trainer.checkpoints import read_manifest
from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import EvaluationConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.contract.results import EVALUATION_SAMPLES, RESULTS, EvaluationMeasurement, EvaluationSample
from prism_trainer.data.dataset import open_verifiable, require_no_weights
from prism_trainer.data.rows import VerifiablePrompt
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_policy, load_processor, pick_device
from prism_trainer.engines.local.rollout import Vocabulary, decode_responses, parse_complete, sample_responses
from prism_trainer.engines.local.session import Session
from prism_trainer.errors import Stopped
from prism_trainer.reporting import Reporter
from prism_trainer.responses import ParsedResponse
from prism_trainer.rewards.answers import answers_match
from prism_trainer.seeds import generator_for, seed_for

BOOTSTRAP_DRAWS = 2000


def run(job: StageJob, config: EvaluationConfig, reporter: Reporter) -> CheckpointRef:
    session = Session(job, reporter)
    require_no_weights(job.data, job.stage)
    prompts = open_verifiable(job.data)
    chunks = [(seed, start) for seed in config.seeds for start in range(0, len(prompts), config.batch_size)]
    reporter.begin(0, len(job.inputs) * len(chunks), phase="evaluating")
    rows: list[EvaluationMeasurement] = []
    samples: list[EvaluationSample] = []
    found: dict[str, float] = {}
    for number, (stage, ref) in enumerate(job.inputs.items()):
        drawn = _evaluate(session, stage, prompts, chunks, config, reporter, number * len(chunks), found)
        row = summarise(stage, ref, drawn, config, job.seed)
        found |= {f"accuracy/{stage}": row.accuracy, f"format_rate/{stage}": row.format_rate}
        reporter.step((number + 1) * len(chunks), found)
        rows.append(row)
        samples += drawn

    def write(folder: Path) -> None:
        (folder / RESULTS).write_text(json.dumps([row.model_dump() for row in rows], indent=2))
        (folder / EVALUATION_SAMPLES).write_text("".join(sample.model_dump_json() + "\n" for sample in samples))

    return session.commit(reporter.steps_done, {"results": write}, {}, final=True, metrics=found)


def _evaluate(
    session: Session,
    stage: str,
    prompts: Sequence[VerifiablePrompt],
    chunks: Sequence[tuple[int, int]],
    config: EvaluationConfig,
    reporter: Reporter,
    done: int,
    found: dict[str, float],
) -> list[EvaluationSample]:
    """One response to each prompt for each seed; `found` is what earlier checkpoints scored, to be shown meanwhile."""
    device = pick_device(config.device)
    folder = session.input_dir(stage, "policy")
    policy, processor = load_policy(folder, device).eval(), load_processor(folder)
    encoder = PromptEncoder(processor, session.job.system_prompt)
    vocabulary = Vocabulary.of(processor.tokenizer, policy.config.text_config.vocab_size, device)
    samples: list[EvaluationSample] = []
    for number, (seed, start) in enumerate(chunks):
        rows = prompts[start : start + config.batch_size]
        batch = encoder.collate([row.prompt for row in rows]).to(device)
        generator = generator_for(session.job.seed, "evaluation", seed, start)
        responses = sample_responses(policy, batch, 1, config.sampling, vocabulary, generator, encoder.image_token_id)
        texts = decode_responses(processor.tokenizer, responses)
        columns = zip(rows, texts, parse_complete(responses, texts), responses.lengths_R.tolist(), strict=True)
        samples += [judge(stage, row, seed, text, parsed, length) for row, text, parsed, length in columns]
        reporter.step(done + number + 1, found)
        if reporter.stop_requested and done + number + 1 < reporter.total_steps:
            raise Stopped(None)
    return samples


def judge(stage: str, row: VerifiablePrompt, seed: int, text: str, parsed: ParsedResponse | None, num_tokens: int) -> EvaluationSample:
    """One response against the answers that count as right."""
    answer = parsed.answer.of(text).strip() if parsed else None
    return EvaluationSample(
        stage=stage,
        prompt_id=row.prompt.id,
        seed=seed,
        question=row.prompt.question,
        response=text,
        reference=row.references[0],
        answer=answer,
        correct=answer is not None and answers_match(answer, row.references),
        format_valid=parsed is not None,
        num_tokens=num_tokens,
    )


def summarise(
    stage: str, ref: CheckpointRef, samples: Sequence[EvaluationSample], config: EvaluationConfig, seed: int
) -> EvaluationMeasurement:
    """What all responses of one checkpoint come to."""
    by_prompt: dict[str, list[bool]] = {}
    for sample in samples:
        by_prompt.setdefault(sample.prompt_id, []).append(sample.correct)
    low, high = bootstrap_interval([float(np.mean(right)) for right in by_prompt.values()], config.confidence, seed_for(seed, "bootstrap"))
    manifest = read_manifest(Path(ref.uri)) if ref.digest else None
    return EvaluationMeasurement(
        stage=stage,
        steps=manifest.step if manifest else 0,
        accuracy=float(np.mean([sample.correct for sample in samples])),
        ci_low=low,
        ci_high=high,
        format_rate=float(np.mean([sample.format_valid for sample in samples])),
        mean_tokens=float(np.mean([sample.num_tokens for sample in samples])),
        num_prompts=len(by_prompt),
        num_seeds=len(config.seeds),
        manifest=ref.digest or "",
    )


def bootstrap_interval(values: Sequence[float], confidence: float, seed: int) -> tuple[float, float]:
    """Percentile interval of the mean when prompts are drawn anew with replacement."""
    data = np.asarray(values)
    picks = np.random.default_rng(seed).integers(0, len(data), size=(BOOTSTRAP_DRAWS, len(data)))
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(data[picks].mean(axis=1), [tail, 1.0 - tail])
    return float(low), float(high)
