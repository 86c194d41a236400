"""The answers of one checkpoint: what the record lacks is drawn by replicas, marked by rules and recorded as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from prism_trainer.contract.configs import EvaluationConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.engines.lmms.arguments import ENVIRONMENT, engine_arguments, sampling_arguments
from prism_trainer.engines.lmms.cluster import Cluster
from prism_trainer.engines.lmms.engine import Answer, Question, VllmEngine
from prism_trainer.engines.lmms.progress import Progress
from prism_trainer.engines.lmms.replicas import Replicas
from prism_trainer.engines.lmms.task import Document
from prism_trainer.engines.local.encoding import render_prompt
from prism_trainer.engines.local.models import Processor, load_processor, require_policy
from prism_trainer.errors import DataError
from prism_trainer.evaluation.marking import Response, mark
from prism_trainer.evaluation.problems import Problem
from prism_trainer.evaluation.record import SampleRecord
from prism_trainer.evaluation.suite import ProblemSet
from prism_trainer.responses import parse_response
from prism_trainer.seeds import seed_for


@dataclass(frozen=True)
class Drawing:
    """One checkpoint's."""

    job: StageJob
    config: EvaluationConfig
    stage: str
    folder: Path
    record: SampleRecord
    cluster: Cluster
    progress: Progress

    def draw(self, documents: Sequence[Document], suite: Mapping[str, ProblemSet]) -> None:
        """Nothing is loaded where nothing is missing."""
        missing = [one for one in documents if (self.stage, one.benchmark, one.prompt_id, one.seed) not in self.record]
        if not missing:
            return
        require_policy(self.folder)
        processor = load_processor(self.folder)
        under_way: dict[int, tuple[Document, Problem]] = {}
        with closing(self._replicas(len(missing))) as replicas:
            with self.progress.during("starting"):
                replicas.wait_until_ready(f"policy '{self.folder}' of stage '{self.stage}'")
            self.progress.begin()
            for answers in replicas.answers(self._questions(missing, suite, processor, under_way)):
                for answer in answers:
                    self._record(*under_way.pop(answer.number), answer, processor)

    def _replicas(self, num_answers: int) -> Replicas:
        config, gpus = self.config, self.config.gpu.tensor_parallel if self.cluster.has_gpus else 0
        engine, sampling = engine_arguments(self.folder, config, on_gpu=self.cluster.has_gpus), sampling_arguments(config)
        count = min(self.cluster.replicas(config.gpu.tensor_parallel), num_answers)
        return Replicas(lambda: start_engine(engine, sampling, gpus), count, config.batch_size, self.progress.go_on)

    def _questions(
        self,
        missing: Sequence[Document],
        suite: Mapping[str, ProblemSet],
        processor: Processor,
        under_way: dict[int, tuple[Document, Problem]],
    ) -> Iterator[Question]:
        """Read one after the other when a replica has a place: only the images of those under way are in memory."""
        for number, document in enumerate(missing):
            problem = suite[document.benchmark].problems[document.index]
            under_way[number] = document, replace(problem, prompt=replace(problem.prompt, images=()))
            text = render_prompt(processor, problem.prompt, self.job.system_prompt)
            seed = seed_for(self.job.seed, "evaluation", document.benchmark, document.seed, document.prompt_id)
            yield Question(number, text, problem.prompt.images, seed)

    def _record(self, document: Document, problem: Problem, answer: Answer, processor: Processor) -> None:
        if answer.refusal:
            raise DataError(
                f"prompt {document.prompt_id} cannot be asked: {answer.refusal}; raise config.gpu.maxPromptTokens where the model takes "
                "more, make its images smaller, or remove the row"
            )
        self.record.add(mark(self.stage, document.benchmark, document.seed, [problem], [response_of(answer, processor.tokenizer)]))


def start_engine(engine: dict[str, Any], sampling: dict[str, Any], gpus: int) -> Any:
    """A Ray actor of `VllmEngine`."""
    return ray.remote(VllmEngine).options(num_cpus=1, num_gpus=gpus, runtime_env={"env_vars": ENVIRONMENT}).remote(engine, sampling)


def response_of(answer: Answer, tokenizer: Any) -> Response:
    """A response that was cut at the length limit is invalid, however it reads. The terminator counts as a token and is no text."""
    text = str(tokenizer.decode(answer.token_ids[:-1] if answer.ended else answer.token_ids, skip_special_tokens=False))
    return Response(text, parse_response(text) if answer.ended else None, len(answer.token_ids), not answer.ended)
