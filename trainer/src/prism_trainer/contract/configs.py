"""One configuration per stage kind: every hyperparameter, its default and what it does.

Defaults are the paper's README values (arXiv 2604.28123); where its scripts differ, the field says so.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from prism_trainer.contract.gpu import EvaluationGpu, SftGpu, VerlGpu, WarmupGpu
from prism_trainer.contract.optim import (
    EvaluationSampling,
    Optimizer,
    RlvrRollout,
    Rollout,
    Sampling,
    SftOptimizer,
    WarmupOptimizer,
)
from prism_trainer.contract.schema import Frozen

Device = Literal["auto", "cpu", "cuda"]


class TrainingConfig(Frozen):
    """What every stage that trains has in common."""

    device: Device = Field(
        "auto", description="Where to compute. auto takes a GPU where there is one. Engine verl reads it in alignment and rlvr."
    )
    save_every: int = Field(100, ge=1, description="Steps between checkpoints from which the stage can go on.")


class SftConfig(TrainingConfig):
    """Supervised fine-tuning on teacher demonstrations."""

    kind: Literal["sft"] = "sft"
    epochs: float = Field(1.0, gt=0, description="Passes over the mixture; ignored when maxSteps is given.")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps.")
    batch_size: int = Field(16, ge=1, description="Sequences per optimizer step (README: 2 per device on 8 devices).")
    micro_batch_size: int = Field(2, ge=1, description="Sequences per forward; gradients accumulate up to batchSize.")
    max_length: int = Field(8192, ge=16, description="Longest sequence in tokens; a longer demonstration is refused, not cut.")
    freeze_vision: bool = Field(True, description="Keep the vision tower as it is.")
    freeze_projector: bool = Field(True, description="Keep the merger between vision and language as it is.")
    freeze_language: bool = Field(False, description="Keep the language model as it is.")
    optimizer: SftOptimizer = Field(default_factory=SftOptimizer, description="AdamW.")
    gpu: SftGpu = Field(default_factory=SftGpu, description="Engine verl: how to spread.")

    @model_validator(mode="after")
    def _batches_divide(self) -> SftConfig:
        _require_divisible("batchSize", self.batch_size, "microBatchSize", self.micro_batch_size)
        if self.freeze_vision and self.freeze_projector and self.freeze_language:
            raise ValueError("freezeVision, freezeProjector and freezeLanguage are all true: nothing is left to train; set one to false")
        return self


class DiscriminatorConfig(TrainingConfig):
    """Sparse upcycling of a dense VLM into a mixture of experts with a scalar head, then the pairwise warm-up."""

    kind: Literal["discriminator"] = "discriminator"
    backbone: Literal["moe", "dense", "text"] = Field(
        "moe", description="moe is the paper's; dense (no experts) and text (experts, no images) are its ablations."
    )
    num_experts: int = Field(4, ge=2, description="Experts in each layer's feed-forward block.")
    experts_per_token: int = Field(2, ge=1, description="Experts the router picks for a token.")
    noise_std: float = Field(0.01, ge=0, description="Gaussian noise added to each expert's copy; 0 preserves the dense function.")
    router_std: float = Field(0.02, gt=0, description="Standard deviation of the router's initial weights.")
    head_std: float = Field(0.02, gt=0, description="Standard deviation of the scalar head's initial weights.")
    head_dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout before the head (script: 0.1; teacher and student then see different masks)."
    )
    cot_sees_caption: bool = Field(True, description="Score the reasoning with its own caption before it (script: without).")
    epochs: float = Field(1.0, gt=0, description="Passes over the comparisons; ignored when maxSteps is given.")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps.")
    batch_size: int = Field(128, ge=2, description="Comparisons (caption or cot) per optimizer step; a pair gives two.")
    micro_batch_size: int = Field(32, ge=2, description="Comparisons per forward; gradients accumulate up to batchSize.")
    max_length: int = Field(8192, ge=16, description="Longest response in tokens: a longer teacher is refused, a longer student left out.")
    balance_coef: float = Field(0.01, ge=0, description="Weight of the router's load-balancing loss.")
    held_out_fraction: float = Field(0.05, gt=0, lt=1, description="Share of the prompts kept for the reported pair accuracy.")
    eval_every: int = Field(50, ge=1, description="Steps between measurements on the held-out pairs.")
    students_per_prompt: int = Field(1, ge=1, description="Responses sampled from the policy for a prompt whose row has no student text.")
    student_sampling: Sampling = Field(default_factory=Sampling, description="How those responses are drawn.")
    optimizer: WarmupOptimizer = Field(default_factory=WarmupOptimizer, description="AdamW.")
    gpu: WarmupGpu = Field(default_factory=WarmupGpu, description="Engine verl: how to spread.")

    @model_validator(mode="after")
    def _sizes_fit(self) -> DiscriminatorConfig:
        _require_divisible("batchSize", self.batch_size, "microBatchSize", self.micro_batch_size)
        for name, size in (("batchSize", self.batch_size), ("microBatchSize", self.micro_batch_size)):
            if size % 2:
                raise ValueError(f"{name} is {size}; it counts comparisons and a pair gives two, so it must be even")
        if self.experts_per_token > self.num_experts:
            raise ValueError(f"expertsPerToken is {self.experts_per_token}, above numExperts {self.num_experts}; lower it")
        return self


class PolicyLoss(Frozen):
    """The clipped surrogate, PPO with the dual clip."""

    clip_low: float = Field(0.2, gt=0, lt=1, description="The ratio is clipped below at 1 - clipLow.")
    clip_high: float = Field(0.2, gt=0, description="The ratio is clipped above at 1 + clipHigh.")
    dual_clip: float = Field(3.0, gt=1, description="Bound on the loss of a negative advantage.")


class VerifiableTerms(Frozen):
    """How the reward modes other than default weigh their terms; upstream's defaults. See `algorithms.reward_modes`."""

    alignment_weight: float = Field(1.0, ge=0, description="Weight of the discriminator's advantage.")
    wrong_penalty: float = Field(1.0, ge=0, description="Taken off a wrong answer in the right format.")
    accuracy_weight: float = Field(1.0, ge=0, description="Verifiable reward of a right answer.")
    format_weight: float = Field(1.0, ge=0, description="Verifiable reward of the right format.")


class SaturationGuard(Frozen):
    """When the discriminator has told teacher from student too well for `steps` steps, one of the two pauses, for at most as many."""

    accuracy: float = Field(gt=0.5, le=1, description="Pair accuracy above which a step counts.")
    steps: int = Field(10, ge=1, description="Such steps in a row before a pause, and the longest pause.")
    pause: Literal["policy", "discriminator"] = Field("discriminator", description="Whose updates are left out.")


class AlignmentConfig(TrainingConfig):
    """On-policy adversarial distillation: GRPO whose reward is the online discriminator."""

    kind: Literal["alignment"] = "alignment"
    steps: int = Field(500, ge=1, description="Policy updates (README 500; the script says 1500).")
    prompts_per_step: int = Field(4, ge=1, description="Prompts per update; each gets rollout.groupSize responses.")
    micro_batch_size: int = Field(
        16,
        ge=1,
        description="Responses per forward of an update; the discriminator takes whole groups. Engine verl's policy: gpu.tokensPerGpu.",
    )
    rollout: Rollout = Field(default_factory=Rollout, description="How responses are drawn.")
    alpha: float = Field(0.5, ge=0, le=1, description="Weight of the caption's advantage; the cot's has 1 - alpha.")
    advantage: Literal["normalise-then-combine", "combine-then-normalise"] = Field(
        "normalise-then-combine", description="The script's order; the paper's equations 1 and 3 combine first."
    )
    format_penalty: float = Field(1.5, ge=0, description="Subtracted from the advantage of a response in the wrong format.")
    reward_mode: Literal["default", "acc-gating", "gated", "rlvr", "rlvr-v2", "sign-align"] = Field(
        "default", description="How a verifiable reward enters; default: not at all."
    )
    verifiable: VerifiableTerms = Field(default_factory=VerifiableTerms, description="Weights of the other reward modes.")
    score_clip: float = Field(10.0, gt=0, description="Discriminator scores are clamped to [-scoreClip, scoreClip].")
    score_reg_coef: float = Field(0.001, ge=0, description="L2 on the four mean squared scores in the discriminator's update.")
    balance_coef: float = Field(0.01, ge=0, description="Load-balancing loss in the online update (script: none).")
    length_penalty_caption: float = Field(0.0, ge=0, description="beta in score - beta * log(1 + tokens), for captions.")
    length_penalty_cot: float = Field(0.0, ge=0, description="The same for think and answer.")
    discriminator_update: Literal["before", "after"] = Field(
        "before", description="Before or after the policy's update of the same step; the scores that reward it are older than both."
    )
    discriminator_only_steps: int = Field(0, ge=0, description="First steps that update the discriminator alone.")
    saturation_guard: SaturationGuard | None = Field(None, description="Pause one side while the discriminator wins; off by default.")
    dump_every: int = Field(10, ge=1, description="Steps between dumps of every sample with its scores.")
    loss: PolicyLoss = Field(default_factory=PolicyLoss, description="The policy's loss, averaged over tokens.")
    optimizer: Optimizer = Field(default_factory=Optimizer, description="The policy's AdamW.")
    discriminator_optimizer: Optimizer = Field(default_factory=Optimizer, description="The discriminator's AdamW.")
    gpu: VerlGpu = Field(default_factory=VerlGpu, description="Engine verl: how the stage spreads over GPUs.")


class Grpo(PolicyLoss):
    """Group-relative advantages, symmetric clip, token mean."""

    name: Literal["grpo"] = "grpo"


class Dapo(PolicyLoss):
    """GRPO with clip-higher, dynamic sampling and overlong shaping."""

    name: Literal["dapo"] = "dapo"
    clip_high: float = Field(0.28, gt=0, description="The ratio is clipped above at 1 + clipHigh.")
    dual_clip: float = Field(10.0, gt=1, description="Bound on the loss of a negative advantage.")
    oversampling: int = Field(3, ge=1, description="Prompts drawn in a batch, as a multiple of promptsPerStep (script: 96 for 32).")
    max_generation_batches: int = Field(10, ge=1, description="Batches drawn to fill one update with mixed groups before it stops.")
    overlong_buffer_tokens: int = Field(4096, ge=1, description="Length of the ramp before maxResponseTokens over which a penalty grows.")
    overlong_penalty: float = Field(1.0, ge=0, description="Penalty at full length.")


class Gspo(PolicyLoss):
    """Sequence-level ratio; sequence mean of token means."""

    name: Literal["gspo"] = "gspo"
    clip_low: float = Field(0.0003, gt=0, lt=1, description="The ratio is clipped below at 1 - clipLow.")
    clip_high: float = Field(0.0004, gt=0, description="The ratio is clipped above at 1 + clipHigh.")


class RlvrConfig(TrainingConfig):
    """Reinforcement learning with a verifiable reward."""

    kind: Literal["rlvr"] = "rlvr"
    algorithm: Annotated[Grpo | Dapo | Gspo, Field(discriminator="name")] = Field(default_factory=Grpo, description="Which policy loss.")
    steps: int = Field(1500, ge=1, description="Policy updates.")
    prompts_per_step: int = Field(32, ge=1, description="Prompts per update; each gets rollout.groupSize responses.")
    micro_batch_size: int = Field(16, ge=1, description="Responses per forward of an update; engine verl reads gpu.tokensPerGpu.")
    rollout: RlvrRollout = Field(default_factory=RlvrRollout, description="How responses are drawn.")
    accuracy_weight: float = Field(0.8, ge=0, description="Reward of a right answer in the right format.")
    format_weight: float = Field(0.2, ge=0, description="Reward of the right format.")
    kl_coef: float = Field(
        0.0, ge=0, description="Weight of the KL to the stage's starting policy, kept as reference (off in all three scripts)."
    )
    dump_every: int = Field(10, ge=1, description="Steps between dumps of every sample with its reward.")
    optimizer: Optimizer = Field(default_factory=Optimizer, description="AdamW.")
    gpu: VerlGpu = Field(default_factory=VerlGpu, description="Engine verl: how the stage spreads over GPUs.")

    @model_validator(mode="after")
    def _ramp_fits(self) -> RlvrConfig:
        longest = self.rollout.max_response_tokens
        if isinstance(self.algorithm, Dapo) and self.algorithm.overlong_buffer_tokens > longest:
            buffer = self.algorithm.overlong_buffer_tokens
            raise ValueError(
                f"algorithm.overlongBufferTokens is {buffer}, above rollout.maxResponseTokens {longest}: every response would "
                f"be penalised; give at most {longest}"
            )
        return self


JUDGE_KEY = "PRISM_JUDGE_API_KEY"


class Judge(Frozen):
    """A model that sees the extracted answer only, after the rules said no: on an OpenAI-compatible server, or served by the stage."""

    model: str = Field(description="Model name the server knows.")
    base_url: str | None = Field(None, pattern=r"^https?://", description="Base address of the server's API, as http://judge:8000/v1.")
    uri: str | None = Field(None, description="Engine verl: in its place, a model folder to serve.")
    api_key_env: str = Field(JUDGE_KEY, description="Environment variable with the key, if there is one; secrets.judge sets the default.")
    timeout_seconds: float = Field(60.0, gt=0, description="For one answer; then it is asked again.")
    concurrency: int = Field(8, ge=1, le=256, description="Questions under way at once.")
    cache: str | None = Field(None, description="Folder of verdicts, to share between runs; by default the stage's.")

    @model_validator(mode="after")
    def _one_place(self) -> Judge:
        if (self.base_url is None) == (self.uri is None):
            found = "neither" if self.uri is None else "both"
            raise ValueError(f"judge has {found} of baseUrl and uri; give one: the address of a server, or the folder of a model to serve")
        return self


Benchmark = Literal["mathvista", "mathverse", "mathvision", "wemath", "mmmu", "mmmu-pro", "hallusionbench"]


class BenchmarkChoice(Frozen):
    """A benchmark, and where its data lies."""

    name: Benchmark = Field(description="Which.")
    uri: str | None = Field(
        None, max_length=1024, description="Folder laid out as the public data set, or hf://datasets/OWNER/NAME; by default the public one."
    )
    revision: str | None = Field(None, description="Revision, for hf://.")
    split: Literal["testmini", "test", "validation", "image"] | None = Field(
        None, description="By default the one the paper's scripts use."
    )


class EvaluationConfig(Frozen):
    """Accuracy, format and length of one or more checkpoints on held-out prompts."""

    kind: Literal["evaluation"] = "evaluation"
    device: Device = Field("auto", description="Engine local: where to compute. auto takes a GPU where there is one.")
    benchmarks: tuple[BenchmarkChoice, ...] = Field((), max_length=7, description="Named benchmarks, beside the stage's own data.")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="Each seed draws one response to every prompt.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of the reported interval.")
    batch_size: int = Field(64, ge=1, description="Responses drawn at once.")
    sampling: EvaluationSampling = Field(default_factory=EvaluationSampling, description="How responses are drawn.")
    judge: Judge | None = Field(None, description="Asked when the rules say no; none by default.")
    gpu: EvaluationGpu = Field(default_factory=EvaluationGpu, description="Engine verl: vLLM.")

    @model_validator(mode="after")
    def _each_once(self) -> EvaluationConfig:
        for what, given in (("benchmarks", [one.name for one in self.benchmarks]), ("seeds", [str(seed) for seed in self.seeds])):
            again = [one for one in dict.fromkeys(given) if list(given).count(one) > 1]
            if again:
                raise ValueError(f"{what} has {again[0]} more than once; give each once")
        return self


StageConfig = Annotated[SftConfig | DiscriminatorConfig | AlignmentConfig | RlvrConfig | EvaluationConfig, Field(discriminator="kind")]


def _require_divisible(name: str, value: int, divisor_name: str, divisor: int) -> None:
    if value % divisor:
        raise ValueError(f"{name} is {value}, not a multiple of {divisor_name} {divisor}; change one of them")
