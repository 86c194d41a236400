"""Our benchmarks as tasks of lmms-eval, loaded by its own task manager."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml
from lmms_eval import tasks as stock
from lmms_eval.api.model import lmms
from lmms_eval.evaluator import evaluate
from lmms_eval.protocol import ChatMessages
from lmms_eval.tasks import TaskManager, get_task_dict

from benchmark_files import NUM_PROMPTS
from prism_trainer.contract.job import PRISM_SYSTEM_PROMPT
from prism_trainer.engines.lmms import evaluation
from prism_trainer.engines.lmms.task import ProblemTask
from prism_trainer.engines.lmms.task_folder import load_tasks, task_name, write_tasks
from prism_trainer.errors import PrismError
from prism_trainer.evaluation.suite import open_suite

NAMES = {
    "mathvista": "prism_mathvista_testmini",
    "mathverse": "prism_mathverse_testmini",
    "mathvision": "prism_mathvision_testmini",
    "wemath": "prism_wemath_testmini",
    "mmmu": "prism_mmmu_validation",
    "mmmu-pro": "prism_mmmu_pro_test",
    "hallusionbench": "prism_hallusionbench_image",
}
TEXT = "<caption>c</caption><think>t</think><answer>{}</answer>"


@pytest.fixture
def folder_of(job_of, tmp_path):
    def write(*names):
        job = job_of(*names)
        suite = open_suite(job, job.config)
        write_tasks(tmp_path / "tasks", job, job.config, suite)
        return tmp_path / "tasks", [task_name(one, job.config) for one in suite], suite

    return write


def test_each_benchmark_is_a_task_of_a_name_that_no_stock_task_has(folder_of):
    folder, names, _ = folder_of(*NUM_PROMPTS)
    assert names == list(NAMES.values())
    loaded = load_tasks(folder, names)
    assert [len(task.eval_docs) for task in loaded.values()] == [2 * count for count in NUM_PROMPTS.values()]
    texts = [file.read_text(errors="replace") for file in Path(stock.__file__).parent.rglob("*.yaml")]
    assert len(texts) > 1000
    assert not [name for name in names if any(f"task: {name}\n" in text for text in texts)]


def test_a_stock_name_would_be_the_stock_task_whatever_the_folder_says(folder_of):
    """Why the names are ours: what lmms-eval does with a folder that has a task `mathvista_testmini_cot`."""
    folder, (name,), _ = folder_of("mathvista")
    stolen = folder / "stolen.yaml"
    stolen.write_text((folder / f"{name}.yaml").read_text().replace(f"task: {name}", "task: mathvista_testmini_cot"))
    index = TaskManager(include_path=str(folder)).task_index
    assert index[name]["yaml_path"].startswith(str(folder))
    assert not index["mathvista_testmini_cot"]["yaml_path"].startswith(str(folder))


def test_a_task_that_is_not_ours_is_refused(folder_of, tmp_path):
    folder, (name,), _ = folder_of("mathvision")
    other = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}}}
    rest = {"test_split": "test", "output_type": "generate_until", "doc_to_text": "prompt_id", "doc_to_target": "prompt_id"}
    metrics = {"metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]}
    kwargs = {**other, "dataset_kwargs": {**other["dataset_kwargs"], "cache_dir": str(tmp_path / "cache")}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**kwargs, **rest, **metrics}))
    with pytest.raises(PrismError, match=f"took another task for '{name}'"):
        load_tasks(folder, [name])


@pytest.mark.parametrize("name", NUM_PROMPTS)
def test_the_messages_are_our_question_under_our_system_prompt_with_all_images_as_pixels(folder_of, name):
    folder, (task,), (one,) = folder_of(name)
    (loaded,) = load_tasks(folder, [task]).values()
    for doc in loaded.eval_docs:
        problem = one.problems[doc["index"]]
        system, user = loaded.doc_to_messages(doc)
        ChatMessages(messages=[system, user])
        assert system["content"] == [{"type": "text", "text": PRISM_SYSTEM_PROMPT}]
        *images, text = user["content"]
        assert text["text"] == f"\n{problem.prompt.question}\n"
        assert [image["url"].mode for image in images] == ["RGB"] * len(problem.prompt.images)


class Parrot(lmms):
    """A model that is not ours: it gives the right answer to every second question."""

    is_simple = False

    def __init__(self, tasks):
        super().__init__()
        self._tasks = tasks

    def generate_until(self, requests):
        texts = []
        for number, request in enumerate(requests):
            _, messages, *_ = request.args
            task = self._tasks[request.task_name]
            doc = task.dataset["test"][request.doc_id]
            assert messages(doc)[1]["role"] == "user"
            texts.append(TEXT.format(task.doc_to_target(doc) if number % 4 < 2 else "no idea"))
        return texts

    def loglikelihood(self, requests): ...

    def generate_until_multi_round(self, requests): ...


@pytest.mark.parametrize("name", ["mathvista", "hallusionbench"])
def test_the_folder_stands_on_its_own_for_any_chat_model_of_lmms_eval(folder_of, name):
    folder, (task,), _ = folder_of(name)
    tasks = get_task_dict([task], TaskManager(include_path=str(folder), include_defaults=False), "chat")
    assert isinstance(tasks[task], ProblemTask)
    found = evaluate(Parrot(tasks), dict(tasks), bootstrap_iters=0, distributed_executor_backend="torchrun")
    assert (found["results"][task]["accuracy,none"], found["results"][task]["format,none"]) == (0.5, 1.0)


def test_an_environment_without_the_libraries_is_a_sentence(job_of, monkeypatch):
    missing = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("vllm", "lmms_eval") else missing(name))
    job = job_of("mathvision")
    with pytest.raises(PrismError, match="this environment has no lmms_eval and no vllm; take the image prism-eval, or engine local"):
        evaluation.run(job, job.config, None)
