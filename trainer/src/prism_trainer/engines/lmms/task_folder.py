"""The folder that lmms-eval finds our tasks in: a YAML and a list of documents for each benchmark.

Every name begins with `prism_`: lmms-eval merges its own tasks over those of a folder, so that a name that it has too would silently be
its own task (defect D1).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from lmms_eval.tasks import TaskManager, get_task_dict

from prism_trainer.contract.configs import EvaluationConfig
from prism_trainer.contract.job import StageJob
from prism_trainer.engines.lmms.task import ACCURACY, FORMAT, SPLIT, ProblemTask
from prism_trainer.errors import PrismError
from prism_trainer.evaluation.suite import ProblemSet

PREFIX = "prism_"
TASK_CLASS = f"{ProblemTask.__module__}.{ProblemTask.__name__}"


def task_name(one: ProblemSet, config: EvaluationConfig) -> str:
    """`prism_mathvista_testmini`; `prism_held_out` for the stage's own data."""
    if one.task is None:
        return f"{PREFIX}held_out"
    (choice,) = (choice for choice in config.benchmarks if choice.name == one.name)
    return f"{PREFIX}{one.name}_{choice.split or one.task.default_split}".replace("-", "_")


def write_tasks(folder: Path, job: StageJob, config: EvaluationConfig, suite: Sequence[ProblemSet]) -> None:
    """The seeds of a prompt stand beside each other, so that its image is encoded once."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in suite:
        name = task_name(one, config)
        documents = folder / f"{name}.jsonl"
        with documents.open("w") as file:
            for index, prompt_id in enumerate(one.ids):
                file.writelines(json.dumps({"prompt_id": prompt_id, "index": index, "seed": seed}) + "\n" for seed in config.seeds)
        text = yaml.safe_dump(_settings(name, documents, one, job, config), sort_keys=False, allow_unicode=True)
        (folder / f"{name}.yaml").write_text(f"{text}class: !function {TASK_CLASS}\n")


def load_tasks(folder: Path, names: Sequence[str]) -> dict[str, ProblemTask]:
    """Through lmms-eval's own task manager, without its own tasks: indexing those takes seconds."""
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    tasks = get_task_dict(list(names), manager, "chat")
    for name in names:
        if not isinstance(tasks.get(name), ProblemTask):
            raise PrismError(f"lmms-eval took another task for '{name}' than that of '{folder}'; leave lmms-eval as it is published")
    return {name: tasks[name] for name in names}


def _settings(name: str, documents: Path, one: ProblemSet, job: StageJob, config: EvaluationConfig) -> dict[str, Any]:
    sampling = config.sampling
    return {
        "task": name,
        "output_type": "generate_until",
        "test_split": SPLIT,
        "num_fewshot": 0,
        "generation_kwargs": {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_new_tokens": sampling.max_response_tokens,
            "do_sample": True,
        },
        "metric_list": [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in (ACCURACY, FORMAT)],
        "metadata": {
            "version": 1.0,
            "documents": str(documents.absolute()),
            "benchmark": one.name,
            "sources": [str(Path(source.uri).absolute()) for source in one.sources],
            "system_prompt": job.system_prompt,
        },
    }
