"""Which server draws which response, and which tokens none of them may draw."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
import torch
from verl.workers.rollout.router import GlobalRequestLoadBalancer

from prism_trainer.engines.local.models import load_processor
from prism_trainer.engines.local.rollout import Vocabulary
from prism_trainer.engines.verl.rollout_worker import Task, shares_of


def asked(prompts, group_size, servers):
    """By prompt, the server that verl's router gives each of its responses to while all are being drawn."""
    router = GlobalRequestLoadBalancer({str(number): None for number in range(servers)})
    tasks = [Task(None, 100 + number, 7) for number in range(prompts)]
    return [[router.acquire_server(share)[0] for share in names] for names in shares_of(tasks, group_size, servers)]


@pytest.mark.parametrize(
    ("prompts", "group_size", "servers", "most", "least"),
    [
        (4, 16, 8, 8, 8),
        (4, 16, 16, 4, 4),
        (4, 16, 6, 11, 9),
        (4, 16, 7, 10, 4),
        (4, 16, 4, 16, 16),
        (4, 16, 1, 64, 64),
        (32, 16, 8, 64, 64),
        (32, 16, 24, 22, 6),
        (1, 4, 2, 2, 2),
    ],
)
def test_every_server_draws_its_share_of_a_steps_responses(prompts, group_size, servers, most, least):
    drawn = Counter(server for group in asked(prompts, group_size, servers) for server in group)
    assert len(drawn) == servers and max(drawn.values()) == most and min(drawn.values()) == least


@pytest.mark.parametrize(("prompts", "servers", "each"), [(4, 8, 2), (32, 8, 1), (4, 4, 1), (4, 1, 1)])
def test_a_prompt_is_computed_by_no_more_servers_than_it_takes(prompts, servers, each):
    assert [len(set(group)) for group in asked(prompts, 16, servers)] == [each] * prompts


def test_what_is_asked_for_later_goes_where_there_is_least_to_do():
    """Dynamic sampling asks again in the same step."""
    first, second = (shares_of([Task(None, position, 7)], 4, 2)[0] for position in (100, 101))
    assert not set(first) & set(second)


FORBIDDEN = """
import sys
import torch
from transformers import AutoProcessor
from verl.workers.rollout.vllm_rollout import vllm_async_server  # which loads what VERL_USE_EXTERNAL_MODULES names
from verl.workers.rollout.vllm_rollout.utils import monkey_patch_compute_logits

class Model:
    def compute_logits(self, logits):
        return logits

processor, size, file = AutoProcessor.from_pretrained(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
model = Model()
monkey_patch_compute_logits(model, len(processor.tokenizer), vllm_async_server.get_vision_placeholder_token_ids(processor))
torch.save(model.compute_logits(torch.zeros(3, size)).isinf(), file)
"""
"""What verl's `run_server` has a vLLM worker do, in a process that has imported nothing before."""


def test_vllm_never_draws_what_engine_local_never_draws(base_dir, tmp_path):
    """Special tokens but the terminator, and rows of the embedding that no token uses."""
    tokenizer, unused = load_processor(base_dir).tokenizer, 5
    size, file = len(tokenizer) + unused, tmp_path / "forbidden.pt"
    told = subprocess.run([sys.executable, "-c", FORBIDDEN, str(base_dir), str(size), str(file)], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr[-2000:]
    forbidden = Vocabulary.of(tokenizer, size, torch.device("cpu")).forbidden
    assert torch.equal(torch.load(file), forbidden.expand(3, size))
    assert forbidden.sum() > unused + 2 and not forbidden[tokenizer.eos_token_id]
