"""What a look at the machines found, as sentences: each names the node and what to do, and has the class that fits."""

import re

import pytest

from prism_trainer.contract.preflight import AllReduceFacts, DiskFacts, GpuFacts, NodeFacts, PreflightRequest, StorageFacts
from prism_trainer.environment import PINS
from prism_trainer.preflight.judgement import failures, warnings

GIB = 2**30
REQUEST = PreflightRequest(
    ray_address="a", environment="rl", num_nodes=2, gpus_per_node=2, storage_dir="/storage", report_file="r", weights_bytes=8 * GIB
)
SOUND = StorageFacts(path="/storage")


def gpu(index=0, **fields):
    given = {"name": "H100", "total_bytes": 80 * GIB, "free_bytes": 79 * GIB, "matmul_tflops": 700, "conv3d_ms": 1.0, "linear_ms": 0.9}
    return GpuFacts(index=index, **{**given, **fields})


def disk(path, total=1000, free=900):
    return DiskFacts(path=path, total_bytes=total * GIB, free_bytes=free * GIB)


def node(name="a", **fields):
    disks = (disk("/dev/shm", 64), disk("/tmp"), disk("/storage"))
    return NodeFacts(**{"node": name, "cpus": 24, "gpus": (gpu(0), gpu(1)), "disks": disks, "versions": PINS["rl"], **fields})


def summed(**fields):
    given = {"nodes": ("a", "b"), "ranks": 4, "backend": "nccl", "bytes": GIB, "seconds": 0.01, "bus_gb_per_s": 160.0}
    return AllReduceFacts(**{**given, **fields})


def judged(*nodes, storage=SOUND, sums=(), **request):
    asked = REQUEST.model_copy(update=request)
    found = [(one.failure_class, one.sentence) for one in failures(asked, nodes, storage, sums)]
    return found + [("warning", sentence) for sentence in warnings(asked, nodes, sums)]


def test_sound_machines_are_not_complained_of():
    assert judged(node("a"), node("b"), sums=[summed()]) == []


@pytest.mark.parametrize(
    ("nodes", "more", "expected", "sentence"),
    [
        ([node("a")], {}, "NodeLost", "1 of 2 Ray nodes are alive"),
        ([node("b", problem="no driver")], {}, "NodeLost", "node b could not be looked at: no driver; look at its driver and its pod"),
        ([node("b", gpus=(gpu(),))], {}, "NodeLost", "node b has 1 GPUs that work, and 2 are needed; look at `nvidia-smi`"),
        (
            [node("b", gpus=(gpu(), gpu(1, problem="ECC")))],
            {},
            "NodeLost",
            r"GPU 1 \(H100\) of node b does not work: ECC; take the node out",
        ),
        (
            [node("b", gpus=(gpu(), gpu(1, free_bytes=12 * GIB)))],
            {},
            "NodeLost",
            r"GPU 1 \(H100\) of node b has 12.0 of 80.0 GiB free: another process is on it; end it",
        ),
        ([node("b", gpus=(gpu(), gpu(1, conv3d_error=0.9)))], {}, "UserError", r"Conv3d's gradient is off by 90% .* take the image's own"),
        (
            [node("b", gpus=(gpu(), gpu(1, name="A100")))],
            {},
            "UserError",
            r"not of one type \(H100 on a and A100 on b\).*set resources.gpuType",
        ),
        (
            [node("b", versions={**PINS["rl"], "verl": "0.9.0"})],
            {},
            "UserError",
            "node b has verl 0.9.0, and 0.9.1 is pinned; every pod must",
        ),
        ([node("b", cpus=9)], {}, "UserError", "Ray counts 9 CPUs on node b, .* 3 for each of 2 GPUs and 4 beside .* resources.cpus to 10"),
        (
            [node("b", disks=(disk("/dev/shm", 1),))],
            {},
            "UserError",
            "/dev/shm of node b has 1.0 GiB, .* need 2; raise resources.sharedMemory",
        ),
        (
            [node("b", disks=(disk("/storage", free=7),))],
            {},
            "UserError",
            "'/storage' has 7.0 GiB free on node b, less than the model's own 8.0",
        ),
        (
            [node("b")],
            {"storage": StorageFacts(path="/storage", problems={"b": "[Errno 30] Read-only file system"})},
            "UserError",
            r"node b cannot write to '/storage' \(\[Errno 30\] Read-only file system\); look at the claim",
        ),
        (
            [node("b")],
            {"storage": StorageFacts(path="/storage", unseen={"b": ("a",)})},
            "UserError",
            r"node b does not see what a wrote to '/storage'; all pods must mount one ReadWriteMany claim",
        ),
        (
            [node("b")],
            {"sums": [summed(problem="on node b: no answer within 180 s")]},
            "NodeLost",
            "the sum over 4 GPUs of a and b by nccl failed: on node b: no answer .*; look at the network between them",
        ),
        ([node("b")], {"sums": [summed(bus_gb_per_s=0.4)]}, "warning", "NCCL sums over 4 GPUs of a and b at 0.4 GB/s a link, below 2"),
        (
            [node("b", gpus=(gpu(), gpu(1, matmul_tflops=300)))],
            {},
            "warning",
            "GPU 1 of node b multiplies at 300 TFLOP/s, and the others at 700",
        ),
        (
            [node("b", gpus=(gpu(), gpu(1, linear_ms=90.0)))],
            {},
            "NodeLost",
            r"GPU 1 \(H100\) of node b takes 90 ms to embed the patches of one megapixel, .* and 25 are the limit; take the node out",
        ),
        ([node("b", locked_memory="cards are there")], {}, "warning", "node b: cards are there; raise the container runtime's limit"),
        (
            [node("b", disks=(disk("/storage", free=20),))],
            {},
            "warning",
            "'/storage' has 20 GiB free on node b, and a checkpoint .* about 64",
        ),
        ([node("b", disks=(disk("/tmp", free=2),))], {}, "warning", "/tmp of node b has 2.0 GiB free: Ray goes there"),
    ],
)
def test_one_thing_that_is_wrong_is_one_sentence_with_its_class(nodes, more, expected, sentence):
    first = [] if nodes[0].node == "a" else [node("a")]
    ((found, said),) = judged(*first, *nodes, **more)
    assert found == expected and re.search(sentence, said), said


def test_a_node_with_just_as_many_cpus_as_verl_reserves_will_do():
    assert judged(node("a", cpus=10), node("b", cpus=10)) == []


def test_a_slow_conv3d_is_in_nobodys_way():
    assert judged(node("a"), node("b", gpus=(gpu(), gpu(1, conv3d_ms=300.0)))) == []


def test_without_gpus_nothing_of_gpus_is_missed():
    bare = node("a", gpus=(), disks=(disk("/dev/shm", 1),))
    assert judged(bare, node("b", gpus=()), on_cpu=True) == []
    assert judged(node("a", gpus=(), cpus=1), node("b", gpus=(), cpus=1), gpus_per_node=0) == []
