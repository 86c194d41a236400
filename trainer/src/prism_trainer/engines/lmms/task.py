"""A benchmark as a task of lmms-eval: documents are places in our own data, prompt and marking are `prism_trainer.evaluation`.

Stock tasks of the same benchmarks ask in other words and judge with other rules (defects D1, D2). The task stands on its own: lmms-eval's
command runs it too, with any model that takes chat messages: `--include_path FOLDER --tasks prism_mathvista_testmini`.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from lmms_eval.api.task import ConfigurableMessagesTask
from PIL import Image

from prism_trainer.contract.job import DataSource
from prism_trainer.contract.results import EvaluationSample
from prism_trainer.engines.local.encoding import messages_of
from prism_trainer.evaluation.marking import Response, mark
from prism_trainer.evaluation.problems import Problem
from prism_trainer.evaluation.suite import ProblemSet
from prism_trainer.evaluation.tasks import TASKS
from prism_trainer.responses import parse_response

SPLIT = "test"
ACCURACY, FORMAT = "accuracy", "format"
BY_THIS_CLASS = "process_results"
"""Where there is nothing, lmms-eval wants metrics of its own; a method would be copied with all that it belongs to."""


@dataclass(frozen=True)
class Document:
    """One question asked with one seed: `index` is its place in the benchmark."""

    benchmark: str
    prompt_id: str
    index: int
    seed: int


class ProblemTask(ConfigurableMessagesTask):  # type: ignore[misc]
    """Made from the YAML that `task_folder` writes."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._marked: Callable[[Document], EvaluationSample] | None = None
        settings = {name: value for name, value in config.items() if name != "class"}
        super().__init__(config=settings | {"process_results": BY_THIS_CLASS})

    def carry(self, of: ProblemSet, marked: Callable[[Document], EvaluationSample]) -> None:
        """For a stage: its own open data, and marks that stand in its record already."""
        self.__dict__["of"], self._marked = of, marked

    @cached_property
    def of(self) -> ProblemSet:
        metadata = self.config.metadata
        sources = tuple(DataSource(uri=uri) for uri in metadata["sources"])
        return ProblemSet(metadata["benchmark"], sources, TASKS.get(metadata["benchmark"]))

    def document(self, doc: dict[str, Any]) -> Document:
        return Document(self.config.metadata["benchmark"], doc["prompt_id"], doc["index"], doc["seed"])

    def problem(self, document: Document) -> Problem:
        return self.of.problems[document.index]

    def download(self, dataset_kwargs: Any = None) -> None:
        """No image is in it, so nothing has to be left out for the passes without media."""
        with Path(self.config.metadata["documents"]).open() as lines:
            self.dataset = DatasetDict({SPLIT: Dataset.from_list([json.loads(line) for line in lines])})
        self.dataset_no_image = self.dataset

    def doc_to_messages(self, doc: dict[str, Any], **_: Any) -> list[dict[str, Any]]:
        """System and user turn with the images; only called for models that are not ours, which read the problem themselves."""
        prompt = self.problem(self.document(doc)).prompt
        system, user = messages_of(prompt, self.config.metadata["system_prompt"])
        images = [{"type": "image", "url": Image.open(io.BytesIO(image)).convert("RGB")} for image in prompt.images]
        return [
            {"role": "system", "content": [{"type": "text", "text": system["content"]}]},
            {"role": "user", "content": [*images, user["content"][-1]]},
        ]

    def doc_to_text(self, doc: dict[str, Any]) -> str:
        """Chat models do not read it, and the question would have to be read with its images."""
        return str(doc["prompt_id"])

    def fewshot_context(self, doc: dict[str, Any], *_: Any, **__: Any) -> str:
        """No examples."""
        return self.doc_to_text(doc)

    def doc_to_target(self, doc: dict[str, Any]) -> str:
        return self.problem(self.document(doc)).references[0]

    def process_results(self, doc: dict[str, Any], results: list[str], **_: Any) -> dict[str, float]:
        """By rules; whether a response was cut is known to our own models alone."""
        document = self.document(doc)
        if self._marked is not None:
            sample = self._marked(document)
        else:
            response = Response(results[0], parse_response(results[0]), 0, was_cut=False)
            (sample,) = mark("", document.benchmark, document.seed, [self.problem(document)], [response])
        return {ACCURACY: float(sample.correct and sample.judge is None), FORMAT: float(sample.format_valid)}
