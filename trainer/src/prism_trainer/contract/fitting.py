"""What of a stage's configuration does not fit engine verl or its machines: known before anything starts, by whoever looks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prism_trainer.contract.configs import AlignmentConfig, DiscriminatorConfig, EvaluationConfig, RlvrConfig, SftConfig, StageConfig
from prism_trainer.contract.environments import ON_CPU

Misfit = tuple[str, str]
"""Path of a field within the configuration, and a sentence."""

CPUS_PER_GPU = 3
"""verl reserves that many of Ray's CPUs with each GPU, in placement groups that wait without a word where there are fewer."""
CPUS_BESIDE_GPUS = 4
"""Of a node: TransferQueue's controller and store, and what counts only while it is placed: vLLM's servers, rollout workers."""


def cpus_needed(gpus: int) -> int:
    """Of a machine with so many GPUs, that verl may work on it."""
    return CPUS_PER_GPU * gpus + CPUS_BESIDE_GPUS


@dataclass(frozen=True)
class GpuNodes:
    """Nodes of equally many GPUs, or ranks where there are none."""

    num_nodes: int
    gpus_per_node: int

    @property
    def num_gpus(self) -> int:
        return self.num_nodes * self.gpus_per_node

    def __str__(self) -> str:
        return f"{self.num_nodes} node{'s' * (self.num_nodes > 1)} of {self.gpus_per_node} GPU{'s' * (self.gpus_per_node > 1)}"


def misfits(config: StageConfig, nodes: GpuNodes, *, on_cpu: bool = False) -> Iterator[Misfit]:
    """Of one stage; one machine with one GPU stands for none at all. `on_cpu`: its environment has it do without them."""
    match config:
        case SftConfig():
            yield from unheard_device(config, on_cpu)
            yield from uneven_batch(config.batch_size, nodes.num_gpus)
        case DiscriminatorConfig():
            yield from unheard_device(config, on_cpu)
            yield from uneven_batch(config.batch_size // 2, nodes.num_gpus)
        case EvaluationConfig():
            yield from unheard_device(config, on_cpu)
            if not on_cpu:
                yield from unspread_judgement(config, nodes)
        case AlignmentConfig() | RlvrConfig():
            yield from misfits_on_policy(config, nodes)


def unheard_device(config: SftConfig | DiscriminatorConfig | EvaluationConfig, on_cpu: bool) -> Iterator[Misfit]:
    """Their processes take the GPUs that they find; only the environment, which all of them share, keeps them from it."""
    if config.device == "cpu" and not on_cpu:
        yield "device", f"config.device is cpu, and with engine verl a stage of this kind does without GPUs where {ON_CPU} is 1; set that"


def uneven_batch(rows: int, num_gpus: int) -> Iterator[Misfit]:
    """Each GPU takes its equal share of a step's rows, or pairs."""
    if rows % num_gpus:
        sentence = f"a step has {rows} rows (config.batchSize), the stage {num_gpus} GPUs"
        yield "batchSize", f"{sentence}; give a multiple of {num_gpus}, or fewer GPUs"


def unspread_judgement(config: EvaluationConfig, nodes: GpuNodes) -> Iterator[Misfit]:
    """No engine of an evaluation spreads over nodes."""
    size = config.gpu.tensor_parallel
    if size > nodes.gpus_per_node:
        yield "gpu.tensorParallel", f"gpu.tensorParallel is {size}, and no machine has as many GPUs ({nodes.gpus_per_node}); lower it"


def misfits_on_policy(config: AlignmentConfig | RlvrConfig, nodes: GpuNodes) -> Iterator[Misfit]:
    """Of `nodes`, those of the discriminator included."""
    policys = policys_nodes(config, nodes)
    if policys is None:
        yield "gpu.discriminatorGpus", _no_room(config, nodes)
    else:
        yield from unspread_engines(config, policys)
        yield from uneven_responses(config, policys.num_gpus)
    gpu, rollout = config.gpu, config.rollout
    longest = gpu.max_prompt_tokens + rollout.max_response_tokens
    if gpu.tokens_per_gpu < longest:
        yield (
            "gpu.tokensPerGpu",
            f"gpu.tokensPerGpu is {gpu.tokens_per_gpu}, and gpu.maxPromptTokens {gpu.max_prompt_tokens} + rollout.maxResponseTokens "
            f"{rollout.max_response_tokens} make sequences of up to {longest}; give at least {longest}, or lower one of the two",
        )
    if rollout.top_p < 1:
        yield (
            "rollout.topP",
            f"rollout.topP is {rollout.top_p}: the loss scores the whole distribution, so engine verl draws from the whole; give 1",
        )


def policys_nodes(config: AlignmentConfig | RlvrConfig, nodes: GpuNodes) -> GpuNodes | None:
    """Without what the discriminator has for itself: whole nodes, or of one node some GPUs. None where that cannot be."""
    alone = config.gpu.discriminator_gpus
    if not alone:
        return nodes
    if isinstance(config, RlvrConfig):
        return None
    if nodes.num_nodes == 1 and alone < nodes.gpus_per_node:
        return GpuNodes(1, nodes.gpus_per_node - alone)
    whole, rest = divmod(alone, nodes.gpus_per_node)
    return None if rest or whole >= nodes.num_nodes else GpuNodes(nodes.num_nodes - whole, nodes.gpus_per_node)


def _no_room(config: AlignmentConfig | RlvrConfig, nodes: GpuNodes) -> str:
    found = f"gpu.discriminatorGpus is {config.gpu.discriminator_gpus}"
    if isinstance(config, RlvrConfig):
        return f"{found}, and stage rlvr has no discriminator; leave it out"
    return (
        f"{found}, and the stage has {nodes}: give whole nodes, or on one node some of its GPUs, and leave at least one GPU to the policy"
    )


def unspread_engines(config: AlignmentConfig | RlvrConfig, policys: GpuNodes) -> Iterator[Misfit]:
    """verl deals the ranks out to vLLM's engines in their order, and starts an engine's processes node by node."""
    size, each = config.gpu.tensor_parallel, policys.gpus_per_node
    if each % size and (size % each or policys.num_gpus % size):
        yield (
            "gpu.tensorParallel",
            f"gpu.tensorParallel is {size}, and the policy has {policys}: give a divisor of {each}, or whole nodes whose number "
            f"divides {policys.num_nodes}",
        )


def uneven_responses(config: AlignmentConfig | RlvrConfig, num_gpus: int) -> Iterator[Misfit]:
    """Each of the policy's GPUs takes as many."""
    prompts, each = config.prompts_per_step, config.rollout.group_size
    if prompts * each % num_gpus:
        yield (
            "promptsPerStep",
            f"promptsPerStep {prompts} x rollout.groupSize {each} are {prompts * each} responses, which do "
            f"not spread evenly over {num_gpus} GPUs; change one of them",
        )
