"""Stage evaluation: several seeds of sampled responses to held-out prompts and benchmarks, for each checkpoint given (paper section 5).

Reads one or more policies, writes `results/results.json` (a row a checkpoint and benchmark) and `results/samples.jsonl` (a line a
response). As in the paper responses are sampled, at temperature 1.0 and top-p 0.7; unlike there over several seeds, with confidence
intervals and paired tests between checkpoints (defect D4), under one system prompt (D5), every answer extracted and judged by rules
before a judge is asked (D3). Every answer is on disk as soon as it is there, so that an attempt goes on where another ended.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from prism_trainer.contract.checkpoint import CheckpointRef
from prism_trainer.contract.configs import EvaluationConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.engines.local.encoding import PromptEncoder
from prism_trainer.engines.local.models import load_policy, load_processor, pick_device
from prism_trainer.engines.local.rollout import Vocabulary, decode_responses, parse_complete, sample_responses
from prism_trainer.engines.local.session import Session
from prism_trainer.errors import PrismError, Stopped
from prism_trainer.evaluation.judge import Judge
from prism_trainer.evaluation.marking import Response, mark
from prism_trainer.evaluation.problems import Problem
from prism_trainer.evaluation.record import SampleRecord
from prism_trainer.evaluation.suite import ProblemSet, open_suite
from prism_trainer.evaluation.summary import measure, metrics_of, write_results
from prism_trainer.reporting import Reporter
from prism_trainer.rewards.verifiable import symbolic_metrics
from prism_trainer.seeds import generator_for


def run(job: StageJob, config: EvaluationConfig, reporter: Reporter) -> CheckpointRef:
    suite = open_suite(job, config, reporter.fetching)
    session = Session(job.model_copy(update={"data": tuple(source for one in suite for source in one.sources)}), reporter)
    resumed = Path(job.resume_from.uri) / "state" if job.resume_from else None
    record = SampleRecord.open(Path(job.report_dir), session.identity, resumed)
    chunks = [Chunk(stage, one, seed, start) for stage in job.inputs for one in suite for seed, start in _draws(one, config)]
    missing = [chunk for chunk in chunks if not chunk.is_in(record, config)]
    reporter.begin(len(chunks) - len(missing), len(chunks), phase="evaluating")
    found: dict[str, float] = {}
    try:
        with open_judge(job, config, reporter) as judge:
            for stage in job.inputs:
                own = [chunk for chunk in missing if chunk.stage == stage]
                for samples in draw(session, config, own):
                    record.add(mark(stage, samples.chunk.of.name, samples.chunk.seed, samples.problems, samples.responses, judge))
                    reporter.step(reporter.steps_done + 1, found | symbolic_metrics())
                    if reporter.stop_requested and reporter.steps_done < len(chunks):
                        raise Stopped(None)
                found |= {name: value for row in measure(job, config, suite, record, [stage]) for name, value in metrics_of(row)}
    except Stopped as stopped:
        raise Stopped(_save(session, record)) from stopped
    rows = measure(job, config, suite, record, list(job.inputs))
    reporter.step(reporter.steps_done, found | symbolic_metrics())

    payload = {"results": lambda folder: write_results(folder, rows, record)}
    return session.commit(reporter.steps_done, payload, {}, final=True, metrics=found)


@dataclass(frozen=True)
class Chunk:
    """Prompts that one checkpoint answers at once. What is drawn depends on the chunk alone, so a chunk that is drawn again is the same."""

    stage: str
    of: ProblemSet
    seed: int
    start: int

    def is_in(self, record: SampleRecord, config: EvaluationConfig) -> bool:
        ids = self.of.ids[self.start : self.start + config.batch_size]
        return all((self.stage, self.of.name, prompt_id, self.seed) in record for prompt_id in ids)


@dataclass(frozen=True)
class Drawn:
    """A chunk with its responses."""

    chunk: Chunk
    problems: Sequence[Problem]
    responses: Sequence[Response]


def draw(session: Session, config: EvaluationConfig, chunks: Sequence[Chunk]) -> Iterator[Drawn]:
    """The responses of one checkpoint, chunk by chunk; nothing is loaded where nothing is missing."""
    if not chunks:
        return
    device = pick_device(config.device)
    folder = session.input_dir(chunks[0].stage, "policy")
    policy, processor = load_policy(folder, device).eval(), load_processor(folder)
    encoder = PromptEncoder(processor, session.job.system_prompt)
    vocabulary = Vocabulary.of(processor.tokenizer, policy.config.text_config.vocab_size, device)
    for _, group in itertools.groupby(chunks, key=lambda chunk: chunk.of.name):
        own = list(group)
        problems = own[0].of.problems
        for chunk in own:
            rows = problems[chunk.start : chunk.start + config.batch_size]
            batch = encoder.collate([row.prompt for row in rows]).to(device)
            generator = generator_for(session.job.seed, "evaluation", chunk.of.name, chunk.seed, chunk.start)
            responses = sample_responses(policy, batch, 1, config.sampling, vocabulary, generator, encoder.image_token_id)
            texts = decode_responses(processor.tokenizer, responses)
            columns = zip(texts, parse_complete(responses, texts), responses.lengths_R.tolist(), (~responses.ended_R).tolist(), strict=True)
            yield Drawn(chunk, rows, [Response(*column) for column in columns])


def open_judge(job: StageJob, config: EvaluationConfig, reporter: Reporter) -> AbstractContextManager[Judge | None]:
    """Its verdicts lie beside the attempts, so that every attempt finds them."""
    if config.judge is None:
        return nullcontext()
    if config.judge.uri:
        raise PrismError(
            f"stage '{job.stage}': config.judge.uri is served by engine verl alone; give config.judge.baseUrl, or take engine verl"
        )
    folder = Path(config.judge.cache or Path(job.report_dir).parent)
    return Judge(config.judge, folder, lambda: reporter.stop_requested)


def _draws(one: ProblemSet, config: EvaluationConfig) -> list[tuple[int, int]]:
    return [(seed, start) for seed in config.seeds for start in range(0, len(one.ids), config.batch_size)]


def _save(session: Session, record: SampleRecord) -> CheckpointRef | None:
    """The answers so far as a checkpoint to go on from, for where this attempt's folder will not be there; none while there are none."""
    if not len(record):
        return None
    return session.commit(session.reporter.steps_done, {"state": lambda folder: record.save(folder, with_head=True)}, {}, final=False)
