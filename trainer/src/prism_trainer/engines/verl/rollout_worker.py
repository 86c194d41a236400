"""Groups of responses to prompts: sampled on vLLM, parsed and rewarded where they arrive, their tensors left in TransferQueue.

In the place of verl's agent loop and reward loop. Those encode a prompt's images three times for each of its responses, and score on a
thread of yet another process; here a prompt is encoded once for its whole group.
"""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch
import transfer_queue
from PIL import Image
from verl.experimental.agent_loop import AgentLoopManager
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from prism_trainer.contract.job import StageJob
from prism_trainer.engines.local.encoding import EncodedPrompt, PromptEncoder
from prism_trainer.engines.verl.responses import Answered, Response, reward_of
from prism_trainer.errors import DataError
from prism_trainer.responses import parse_response
from prism_trainer.rewards.verifiable import symbolic_metrics
from prism_trainer.seeds import seed_for

PARTITION = "train"


@dataclass(frozen=True)
class Task:
    """One prompt to answer. `position` counts the prompts of the stage, so that it names the draw and its seeds for ever."""

    row: Any
    position: int
    step: int

    @property
    def uid(self) -> str:
        return f"{self.step}-{self.position}"


class RolloutWorker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):  # type: ignore[misc]
    """Asynchronous: `answer` is called for many prompts at once. A failure is the caller's exception, not a line in a log."""

    def __init__(self, config: Any, *handles: Any) -> None:
        super().__init__(config, *handles)
        self._job = StageJob.model_validate_json(config.prism.job)
        self._encoder = PromptEncoder(self.processor, self._job.system_prompt)

    async def answer(self, task: Task, shares: list[str]) -> Answered:
        """`shares` names for each response the share that it belongs to: one server draws a share."""
        loop = asyncio.get_running_loop()
        prompt = await loop.run_in_executor(None, self._encode, task)
        images = [Image.open(io.BytesIO(image)).convert("RGB") for image in task.row.prompt.images]
        drawn = await asyncio.gather(*(self._draw(task, number, share, prompt, images) for number, share in enumerate(shares)))
        responses, fields = [one for one, _ in drawn], [tensors for _, tensors in drawn]
        keys = [f"{task.uid}_{number}_0" for number in range(len(shares))]
        await transfer_queue.async_kv_batch_put(
            keys=keys, fields=list_of_dict_to_tensordict(fields), tags=[{"seq_len": len(one["input_ids"])} for one in fields],
            partition_id=PARTITION,
        )  # fmt: skip
        return Answered(task.uid, task.row, keys, [len(one["input_ids"]) for one in fields], responses)

    async def judged(self) -> dict[str, float]:
        """Counts of the symbolic judge in this process."""
        return symbolic_metrics()

    def _encode(self, task: Task) -> EncodedPrompt:
        encoded = self._encoder.encode([task.row.prompt])[0]
        length, longest = len(encoded.token_ids), self.rollout_config.prompt_length
        if length > longest:
            raise DataError(
                f"prompt {task.row.prompt.id} has {length} tokens, above gpu.maxPromptTokens {longest}; raise it or remove the row"
            )
        return encoded

    async def _draw(self, task: Task, number: int, share: str, prompt: EncodedPrompt, images: list[Any]) -> tuple[Response, dict[str, Any]]:
        output = await self.llm_client.generate(
            request_id=share, prompt_ids=prompt.token_ids.tolist(), sampling_params=self._sampling(task, number), image_data=images or None
        )
        response = await asyncio.get_running_loop().run_in_executor(None, self._judge, task, output.token_ids)
        return response, response_tensors(prompt, output.token_ids, output.log_probs)

    def _sampling(self, task: Task, number: int) -> dict[str, Any]:
        """vLLM's parameters; the seed is of the response, wherever it is drawn."""
        sampling = self._job.config.rollout
        seed = seed_for(self._job.seed, self._job.stage, "rollout", task.position, number)
        return {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": -1, "logprobs": True, "seed": seed}

    def _judge(self, task: Task, token_ids: list[int]) -> Response:
        tokenizer = self.tokenizer
        ended = bool(token_ids) and token_ids[-1] == tokenizer.eos_token_id
        text = tokenizer.decode(token_ids[: len(token_ids) - ended], skip_special_tokens=False)
        parsed = parse_response(text) if ended else None
        return Response(text, len(token_ids), parsed is not None, reward_of(self._job.config, task.row, parsed))


def response_tensors(prompt: EncodedPrompt, token_ids: list[int], log_probs: list[float] | None) -> dict[str, Any]:
    """A response's row in TransferQueue, without padding."""
    response = torch.tensor(token_ids, dtype=torch.long)
    ids, mask = torch.cat([prompt.token_ids, response]), torch.ones_like(response)
    images = {"pixel_values": prompt.pixel_values, "image_grid_thw": prompt.image_grid_thw} if len(prompt.image_grid_thw) else {}
    return {
        "prompts": prompt.token_ids,
        "responses": response,
        "response_mask": mask,
        "loss_mask": mask,
        "input_ids": ids,
        "multi_modal_inputs": images,
        "rollout_log_probs": torch.tensor(log_probs or [0.0] * len(token_ids), dtype=torch.float32),
    }


class Rollouts(AgentLoopManager):  # type: ignore[misc]
    """The rollout workers, spread over the nodes; prompts go round them in turn."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.agent_loop_workers_class = ray.remote(RolloutWorker)
        super().__init__(*args, **options)

    def submit(self, tasks: list[Task]) -> list[ray.ObjectRef]:
        workers, rollout = self.agent_loop_workers, self.config.actor_rollout_ref.rollout
        num_servers = self.config.trainer.nnodes * self.config.trainer.n_gpus_per_node // rollout.tensor_model_parallel_size
        shares = shares_of(tasks, rollout.n, num_servers)
        return [workers[task.position % len(workers)].answer.remote(task, names) for task, names in zip(tasks, shares, strict=True)]

    def judged(self) -> dict[str, float]:
        """Summed over the workers."""
        counts: list[dict[str, float]] = ray.get([worker.judged.remote() for worker in self.agent_loop_workers])
        return {name: sum(one[name] for one in counts) for name in counts[0]}


def shares_of(tasks: Sequence[Task], group_size: int, num_servers: int) -> list[list[str]]:
    """By prompt, the share that each of its responses belongs to. What is asked for at once makes one equal share for each server.

    verl's router keeps a name with the server that it gave it to, and gives a new one to the server with the fewest requests. With a name
    a prompt, servers beyond the number of prompts would have nothing to do. A share is of consecutive responses: a server computes a prompt
    once, and only a prompt on the border of two shares is computed by two.
    """
    size = math.ceil(len(tasks) * group_size / num_servers)
    names = [f"{tasks[0].uid}/{number // size}" for number in range(len(tasks) * group_size)]
    return [names[start : start + group_size] for start in range(0, len(names), group_size)]
