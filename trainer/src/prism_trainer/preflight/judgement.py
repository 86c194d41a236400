"""What of the findings is in the way, and what only slows. Pure: facts in, sentences out.

NodeLost is what another machine would do better, UserError what stays wrong until somebody corrects it.

Qwen3-VL's patch embedding is judged as the matrix product that every stage runs (`packed.patches`; vLLM has its own): a slow one fails.
No stage runs it as Conv3d, which torch from 2.9 on is slow at, so a slow Conv3d is measured and logged but in nobody's way; one that
disagrees with the product fails, for one of the two is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from prism_trainer.contract.fitting import CPUS_BESIDE_GPUS, CPUS_PER_GPU, cpus_needed
from prism_trainer.contract.preflight import AllReduceFacts, Finding, NodeFacts, PreflightRequest, StorageFacts
from prism_trainer.contract.report import FailureClass
from prism_trainer.environment import PINS

FREE_SHARE = 0.9
"""Of a GPU's memory that must be free: more than a context is taken by nobody but another process."""
SLOW_SHARE = 0.7
"""Of the median product's speed; a GPU below it is throttled or shared, and all wait for it."""
SLOW_EMBEDDING_MS = 25.0
"""Of one megapixel, forward and backward; an H100 takes less than 1, and each of a step's images is embedded at least once."""
WRONG_GRADIENT = 0.1
"""bf16 sums of 4096 patches in another order differ by a hundredth."""
SLOW_ON_ONE_MACHINE, SLOW_BETWEEN_MACHINES = 10.0, 2.0
"""GB/s: less than PCI Express gives, and than 25 Gbit/s of Ethernet."""
CHECKPOINT_FACTOR = 8
"""A training state in float32 with Adam's two moments and a copy in bf16, by the size of the bf16 weights."""
GIB = 2**30


def failures(
    request: PreflightRequest, nodes: Sequence[NodeFacts], storage: StorageFacts, sums: Sequence[AllReduceFacts]
) -> Iterator[Finding]:
    """In the order in which one explains the next."""
    if len(nodes) < request.num_nodes:
        yield _lost(f"{len(nodes)} of {request.num_nodes} Ray nodes are alive; look at the events of the pods")
    for node in nodes:
        yield from _of_a_node(request, node)
    yield from _differences(request, nodes)
    yield from _of_storage(storage)
    for one in sums:
        if one.problem:
            yield _lost(
                f"the sum over {one.ranks} GPUs of {_listed(one.nodes)} by {one.backend} failed: {one.problem}; look at the network "
                "between them (NCCL_SOCKET_IFNAME and NCCL_IB_HCA in spec.env, resources.rdma) and at NCCL's warnings in the log"
            )


def warnings(request: PreflightRequest, nodes: Sequence[NodeFacts], sums: Sequence[AllReduceFacts]) -> Iterator[str]:
    """What costs time."""
    speeds = [gpu.matmul_tflops for node in nodes for gpu in node.gpus if gpu.matmul_tflops]
    usual = median(speeds) if speeds else 0.0
    for node in nodes:
        for gpu in node.gpus:
            if gpu.matmul_tflops and gpu.matmul_tflops < SLOW_SHARE * usual:
                yield (
                    f"GPU {gpu.index} of node {node.node} multiplies at {gpu.matmul_tflops:g} TFLOP/s, and the others at {usual:g}: it is "
                    "hot, throttled or shared, and all will wait for it"
                )
        if node.locked_memory:
            yield f"node {node.node}: {node.locked_memory}; raise the container runtime's limit of locked memory, or NCCL falls back to TCP"
        yield from _scarce(request, node)
    for one in sums:
        limit = SLOW_BETWEEN_MACHINES if len(one.nodes) > 1 else SLOW_ON_ONE_MACHINE
        if one.backend == "nccl" and one.bus_gb_per_s and one.bus_gb_per_s < limit:
            yield (
                f"NCCL sums over {one.ranks} GPUs of {_listed(one.nodes)} at {one.bus_gb_per_s:g} GB/s a link, below {limit:g}; look at "
                "resources.rdma, NCCL_SOCKET_IFNAME and NCCL's warnings in the log"
            )


def _of_a_node(request: PreflightRequest, node: NodeFacts) -> Iterator[Finding]:
    if node.problem:
        yield _lost(
            f"node {node.node} could not be looked at: {node.problem}; look at its driver and its pod, and take the node out if it stays so"
        )
        return
    wanted = 0 if request.on_cpu else request.gpus_per_node
    if len(node.gpus) < wanted:
        yield _lost(f"node {node.node} has {len(node.gpus)} GPUs that work, and {wanted} are needed; look at `nvidia-smi` there")
    for gpu in node.gpus:
        where = f"GPU {gpu.index} ({gpu.name}) of node {node.node}"
        if gpu.problem:
            yield _lost(f"{where} does not work: {gpu.problem}; take the node out and have the GPU looked at")
        elif gpu.free_bytes < FREE_SHARE * gpu.total_bytes:
            free, total = gpu.free_bytes / GIB, gpu.total_bytes / GIB
            yield _lost(f"{where} has {free:.1f} of {total:.1f} GiB free: another process is on it; end it, or take the node out")
        if gpu.linear_ms > SLOW_EMBEDDING_MS:
            yield _lost(
                f"{where} takes {gpu.linear_ms:g} ms to embed the patches of one megapixel, as the matrix product that every stage runs, "
                f"and {SLOW_EMBEDDING_MS:g} are the limit; take the node out and have the GPU looked at"
            )
        if gpu.conv3d_error > WRONG_GRADIENT:
            yield _wrong(
                f"{where}: Conv3d's gradient is off by {gpu.conv3d_error:.0%} of its largest value against the same as a matrix product; "
                "this torch and cuDNN are not to be trusted with a vision model: take the image's own"
            )
    if request.environment == "rl" and request.gpus_per_node and 0 < node.cpus < cpus_needed(request.gpus_per_node):
        yield _wrong(
            f"Ray counts {node.cpus} CPUs on node {node.node}, and verl waits without a word for {CPUS_PER_GPU} for each of "
            f"{request.gpus_per_node} GPUs and {CPUS_BESIDE_GPUS} beside them; raise resources.cpus to {cpus_needed(request.gpus_per_node)}"
        )
    yield from _full(request, node)


def _differences(request: PreflightRequest, nodes: Sequence[NodeFacts]) -> Iterator[Finding]:
    products: dict[str, str] = {}
    for node in nodes:
        for gpu in node.gpus:
            products.setdefault(gpu.name, node.node)
    if len(products) > 1:
        found = _listed([f"{name} on {node}" for name, node in products.items()])
        yield _wrong(f"the GPUs are not of one type ({found}), and all would wait for the slowest; set resources.gpuType")
    for node in nodes:
        if node.problem:
            continue
        for name, pinned in PINS[request.environment].items():
            installed = node.versions.get(name, "not at all")
            if installed != pinned:
                yield _wrong(
                    f"node {node.node} has {name} {installed}, and {pinned} is pinned; every pod must run the image of this version"
                )


def _of_storage(storage: StorageFacts) -> Iterator[Finding]:
    for node, problem in storage.problems.items():
        yield _wrong(f"node {node} cannot write to '{storage.path}' ({problem}); look at the claim, its permissions and its quota")
    for node, writers in storage.unseen.items():
        yield _wrong(
            f"node {node} does not see what {_listed(writers)} wrote to '{storage.path}'; all pods must mount one ReadWriteMany claim "
            "(spec.storage.pvc)"
        )


def _full(request: PreflightRequest, node: NodeFacts) -> Iterator[Finding]:
    disks = {disk.path: disk for disk in node.disks}
    shared, storage = disks.get("/dev/shm"), disks.get(request.storage_dir)
    needed = GIB * max(1, request.gpus_per_node)
    if request.gpus_per_node and not request.on_cpu and shared and shared.total_bytes < needed:
        have = shared.total_bytes / GIB
        yield _wrong(
            f"/dev/shm of node {node.node} has {have:.1f} GiB, and Ray and NCCL need {needed / GIB:.0f}; raise resources.sharedMemory"
        )
    if storage and storage.free_bytes < request.weights_bytes:
        free, weights = storage.free_bytes / GIB, request.weights_bytes / GIB
        yield _wrong(f"'{storage.path}' has {free:.1f} GiB free on node {node.node}, less than the model's own {weights:.1f}; free space")


def _scarce(request: PreflightRequest, node: NodeFacts) -> Iterator[str]:
    disks = {disk.path: disk for disk in node.disks}
    storage, tmp = disks.get(request.storage_dir), disks.get("/tmp")
    wanted = CHECKPOINT_FACTOR * request.weights_bytes
    if storage and request.weights_bytes <= storage.free_bytes < wanted:
        yield (
            f"'{storage.path}' has {storage.free_bytes / GIB:.0f} GiB free on node {node.node}, and a checkpoint to resume from takes "
            f"about {wanted / GIB:.0f}"
        )
    if tmp and tmp.free_bytes < 10 * GIB:
        yield f"/tmp of node {node.node} has {tmp.free_bytes / GIB:.1f} GiB free: Ray goes there when its object store is full"


def _lost(sentence: str) -> Finding:
    return Finding(failure_class=FailureClass.NODE_LOST, sentence=sentence)


def _wrong(sentence: str) -> Finding:
    return Finding(failure_class=FailureClass.USER_ERROR, sentence=sentence)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
