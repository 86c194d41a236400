"""The policy on FSDP2: verl's engine with engine local's optimizer and schedule, and without padding.

verl's own way without padding wants flash-attn, which no lock has, and reads a prompt once for each of its responses. Here a micro-batch is
one packed row (`prism_trainer.packed`), in which each prompt and its images are read once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import MethodType
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, distributed, nn
from verl.utils import tensordict_utils
from verl.utils.device import get_device_id, get_device_name
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.engine.utils import detach_tree, postprocess_batch_func

from prism_trainer.data.rows import Prompt
from prism_trainer.engines.local.encoding import EncodedPrompt, PromptBatch, PromptEncoder, collate_prompts
from prism_trainer.engines.local.rollout import Vocabulary
from prism_trainer.engines.reading import blank_image
from prism_trainer.engines.verl.micro_batches import Row, cut, num_micro_batches
from prism_trainer.engines.verl.optimizer import read_optimizer, scheduler, sharded_adamw
from prism_trainer.engines.verl.shared_prompts import number_prompts, prompts_of
from prism_trainer.packed.backbone import use_packed_kernels
from prism_trainer.packed.log_probs import chosen_log_probs, states_before

POLICY_ENGINE = "prism_policy"


@EngineRegistry.register(model_type=POLICY_ENGINE, backend=["fsdp2"], device=["cuda", "cpu"])
class PolicyEngine(FSDPEngineWithLMHead):  # type: ignore[misc]
    """verl 0.9.1 builds module, optimizer and schedule in three private methods; each is overridden or wrapped here.

    So are two public ones: `forward_backward_batch`, for micro-batches that keep a prompt's responses together, and `forward_step`, for
    what is computed of one. Whatever surrounds them is verl's: modes, offloading, gradients' way over the ranks, the optimizer step.
    """

    def _build_module(self) -> nn.Module:
        self.model_config.model_type = "language_model"
        module: Any = super()._build_module()
        use_packed_kernels(module.model)
        for part in (module, module.lm_head):
            lend(part)
        processor = self.model_config.get_processor()
        self.forbidden = Vocabulary.of(processor.tokenizer, module.lm_head.weight.shape[0], torch.device("cpu")).forbidden
        self.blank = PromptEncoder(processor, "").encode([Prompt("a blank image", "", (blank_image(),))])[0]
        return module

    def _build_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        return sharded_adamw(module, read_optimizer(self.optimizer_config))

    def _build_lr_scheduler(self, optimizer: torch.optim.Optimizer) -> Any:
        return scheduler(optimizer, read_optimizer(self.optimizer_config), self.optimizer_config.total_training_steps)

    def forward_backward_batch(self, data: TensorDict, loss_function: Callable[..., Any] | None, forward_only: bool = False) -> Any:
        """As verl's, with other micro-batches."""
        num_tokens = self._over_ranks([int(data["loss_mask"].sum())], distributed.ReduceOp.SUM)[0]
        tensordict_utils.assign_non_tensor(data, batch_num_tokens=num_tokens, dp_size=self.get_data_parallel_size())
        micro_batches, places = self._micro_batches(data)
        outputs = []
        for micro_batch in micro_batches:
            last = micro_batch is micro_batches[-1]
            with torch.no_grad() if forward_only else self._gradient_sync_context(is_last_micro_batch=last):
                loss, output = self.forward_step(micro_batch, loss_function, forward_only)
                if not forward_only:
                    loss.backward()
                    del output["model_output"]
            outputs.append(output)
        return postprocess_batch_func(outputs, places, data)

    def _micro_batches(self, data: TensorDict) -> tuple[list[TensorDict], list[list[int]]]:
        """Equally many on all ranks, and of which rows they are.

        Each row knows the number of its prompt, and each micro-batch whether it has to show an image: where none of its prompts has one
        and another rank's has, a blank one that nobody answers, because the vision tower's weights are gathered from all ranks or none.
        """
        prompts = prompts_of(data)
        numbers = number_prompts(prompts)
        responses = data["responses"].unbind()
        rows = [Row(*row) for row in zip(numbers, (len(one.token_ids) for one in prompts), map(len, responses), strict=True)]
        budget = tensordict_utils.get(data, "max_token_len_per_gpu")
        count = self._over_ranks([num_micro_batches(rows, budget)], distributed.ReduceOp.MAX)[0]
        places = cut(rows, budget, count)
        data["prompt_number"] = torch.tensor(numbers)
        micro_batches = [tensordict_utils.index_select_tensor_dict(data, part) for part in places]
        seen = [any(len(prompts[row].image_grid_thw) for row in part) for part in places]
        for micro_batch, shows in zip(micro_batches, self._over_ranks(seen, distributed.ReduceOp.MAX), strict=True):
            tensordict_utils.assign_non_tensor(micro_batch, shows_images=bool(shows))
        return micro_batches, places

    def _over_ranks(self, numbers: Sequence[int], operation: Any) -> list[int]:
        tensor = torch.tensor(numbers, dtype=torch.long, device=get_device_id())
        distributed.all_reduce(tensor, operation, group=self.get_data_parallel_group())
        return tensor.tolist()

    def forward_step(self, micro_batch: TensorDict, loss_function: Callable[..., Any] | None, forward_only: bool) -> tuple[Tensor, Any]:
        """Log-probabilities and entropies of one packed row, where verl has them: a token's at the token before it, (B, ragged)."""
        prompts, prompt_of = self._prompts(micro_batch)
        rows = [row.tolist() for row in micro_batch["responses"].unbind()]
        data = micro_batch.to(get_device_id())
        score = partial(
            score_rows, prompts=prompts, rows=rows, prompt_of=prompt_of, forbidden=self.forbidden.to(get_device_id()),
            temperature=tensordict_utils.get(data, "temperature"),
        )  # fmt: skip
        with self._autocast():
            scores = dict(zip(("log_probs", "entropy"), self.module(score), strict=True))
            if not tensordict_utils.get(data, "calculate_entropy", False):
                del scores["entropy"]
            scores = {name: where_verl_has_them(values, data) for name, values in scores.items()}
            loss, metrics = torch.ones(()), {}
            if loss_function is not None:
                loss, metrics = loss_function(model_output=scores, data=data, dp_group=self.get_data_parallel_group())
        return loss, {"model_output": detach_tree(scores), "loss": loss.item(), "metrics": metrics}

    def _prompts(self, micro_batch: TensorDict) -> tuple[PromptBatch, list[int]]:
        """Each prompt once, and which of them each row answers."""
        numbers = micro_batch["prompt_number"].tolist()
        own = dict(zip(numbers, prompts_of(micro_batch), strict=True))
        places = {number: place for place, number in enumerate(own)}
        shown: list[EncodedPrompt] = list(own.values())
        if tensordict_utils.get(micro_batch, "shows_images") and not any(len(one.image_grid_thw) for one in shown):
            shown.append(self.blank)
        batch = collate_prompts(shown, self.model_config.tokenizer.pad_token_id)
        return batch.to(torch.device(get_device_id())), [places[number] for number in numbers]

    def _autocast(self) -> AbstractContextManager[Any]:
        dtype = self._autocast_dtype
        return nullcontext() if dtype == torch.float32 else torch.autocast(get_device_name(), dtype)


def lend(module: nn.Module) -> None:
    """`module` is called with a function, and what else it is to be given; the function uses the module as it likes.

    Through the module's own call, because there FSDP2 gathers its weights, and sends their gradients on.
    """
    module.forward = MethodType(lambda self, use, *given: use(self, *given), module)  # type: ignore[method-assign]


def score_rows(
    policy: Any, *, prompts: PromptBatch, rows: list[list[int]], prompt_of: list[int], temperature: float, forbidden: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of all rows' tokens, row after row: of the distribution that was sampled from, as engine local's
    `score_tokens`."""
    before_NH = states_before(policy.model, prompts, rows, prompt_of, policy.config.image_token_id)
    chosen_N = torch.tensor([token for row in rows for token in row], device=before_NH.device)
    return policy.lm_head(_read_head, before_NH, chosen_N, temperature, forbidden)  # type: ignore[no-any-return]


def _read_head(head: nn.Linear, before_NH: Tensor, chosen_N: Tensor, temperature: float, forbidden_V: Tensor) -> tuple[Tensor, Tensor]:
    return chosen_log_probs(before_NH, head.weight, chosen_N, temperature, forbidden_V)


def where_verl_has_them(values_N: Tensor, data: TensorDict) -> Tensor:
    """One value a response token, laid where verl's `no_padding_2_padding` looks for it: (B, ragged), 0 elsewhere."""
    offsets = data["input_ids"].offsets()
    lengths = [len(row) for row in data["responses"].unbind()]
    places = [end - length - 1 + step for end, length in zip(offsets[1:].tolist(), lengths, strict=True) for step in range(length)]
    laid = values_N.new_zeros(int(offsets[-1])).index_copy(0, torch.tensor(places, device=values_N.device), values_N)
    return torch.nested.nested_tensor_from_jagged(laid, offsets)
