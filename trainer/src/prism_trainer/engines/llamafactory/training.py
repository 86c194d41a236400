"""What every rank runs: LLaMA-Factory's model, data and Trainer, with the loss, the schedule and the order of engine local.

LLaMA-Factory averages the loss of a vision-language model over each micro-batch, and then over those; here it is the mean over all target
tokens of the step, wherever they are. Its schedule begins with a rate of 0; ours with 1/W of the peak. It makes all logits of padded rows,
where ours packs the micro-batch and makes those of targets, some at a time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from llamafactory.data import SFTDataCollatorWith4DAttentionMask, get_dataset, get_template_and_fix_tokenizer
from llamafactory.extras.constants import IGNORE_INDEX
from llamafactory.hparams import get_train_args
from llamafactory.model import load_model, load_tokenizer
from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer
from torch import Tensor, nn

from prism_trainer.algorithms.schedules import learning_rate
from prism_trainer.contract.configs import SftConfig
from prism_trainer.contract.optim import Optimizer
from prism_trainer.engines.llamafactory import template
from prism_trainer.engines.llamafactory.boundary import Boundary
from prism_trainer.engines.llamafactory.dataset import read_order
from prism_trainer.engines.llamafactory.scratch import Scratch
from prism_trainer.engines.local.models import apply_freezes
from prism_trainer.engines.ranks.folder import read_job
from prism_trainer.engines.ranks.messages import Teller
from prism_trainer.packed.learning import learn_packed

LOADER_PROCESSES = 8


def main(folder: Path) -> None:
    scratch = Scratch(folder)
    config = read_job(folder).config
    assert isinstance(config, SftConfig)
    template.register()
    trainer = _make_trainer(scratch, config)
    boundary = Boundary(Teller(folder), trainer.args.max_steps, trainer.count_targets)
    trainer.add_callback(boundary)
    trainer.train(resume_from_checkpoint=trainer.args.resume_from_checkpoint)
    if not boundary.stopped:
        final = scratch.output / "final"
        trainer.save_model(str(final))
        boundary.tell_saved(trainer.args.max_steps, final, is_final=True)


def _make_trainer(scratch: Scratch, config: SftConfig) -> SftTrainer:
    model_args, data_args, training_args, finetuning_args, generating_args = get_train_args(scratch.read_arguments() | _loader())
    modules = load_tokenizer(model_args)
    chosen = get_template_and_fix_tokenizer(modules["tokenizer"], data_args)
    rows = get_dataset(chosen, model_args, data_args, training_args, stage="sft", **modules)["train_dataset"]
    model = load_model(modules["tokenizer"], model_args, finetuning_args, is_trainable=True)
    apply_freezes(model, config)
    if training_args.use_cpu and not training_args.deepspeed:
        model.float()
    learn_packed(model)
    collator = SFTDataCollatorWith4DAttentionMask(
        template=chosen,
        model=model,
        pad_to_multiple_of=8,
        label_pad_token_id=IGNORE_INDEX,
        attn_implementation=model.config._attn_implementation,
        compute_dtype=model_args.compute_dtype,
        **modules,
    )
    return SftTrainer(
        config.optimizer,
        model=model,
        args=training_args,
        finetuning_args=finetuning_args,
        data_collator=collator,
        train_dataset=rows.select(read_order(scratch.data)),
        gen_kwargs=generating_args.to_dict(),
        **modules,
    )


def _loader() -> dict[str, Any]:
    """Images are decoded beside the training where there is a GPU to wait for them."""
    if not torch.cuda.is_available():
        return {"dataloader_num_workers": 0}
    share = len(os.sched_getaffinity(0)) // int(os.environ["LOCAL_WORLD_SIZE"])
    return {"dataloader_num_workers": max(1, min(LOADER_PROCESSES, share))}


class SftTrainer(CustomSeq2SeqTrainer):  # type: ignore[misc]
    """Checked against LLaMA-Factory 0.9.5 on transformers 5.6.0."""

    def __init__(self, optimizer: Optimizer, **given: Any) -> None:
        super().__init__(**given)
        self._optimizer_config = optimizer
        self._targets = torch.zeros(())
        self._image_token_id = self.model.config.image_token_id
        self.model_accepts_loss_kwargs = True  # the Trainer then counts the targets of the whole step, on all ranks

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        """This micro-batch's share of the step's mean, of one packed row.

        Times the number of ranks, because gradients are averaged over them. Where no row has an image the collator has added a blank one
        behind the mask of the first: it is read with that row, after all that is learnt of it, so that every rank runs its vision tower.
        """
        assert num_items_in_batch is not None
        self._targets = num_items_in_batch
        ids = inputs["input_ids"]
        shown = inputs["attention_mask"].bool() | (ids == self._image_token_id)
        total = model(ids, shown, inputs["labels"] != IGNORE_INDEX, inputs["pixel_values"], inputs["image_grid_thw"])
        return total * self.accelerator.num_processes / num_items_in_batch

    def count_targets(self) -> int:
        """Of the step that was computed last."""
        return int(self._targets)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        if self.lr_scheduler is None:  # type: ignore[has-type]
            config = self._optimizer_config
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer or self.optimizer, lambda step: learning_rate(config, step, num_training_steps) / config.learning_rate
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Matrices, as in engine local; ZeRO-3 keeps a shard's true shape aside."""
        return [name for name, parameter in model.named_parameters() if len(getattr(parameter, "ds_shape", parameter.shape)) > 1]
