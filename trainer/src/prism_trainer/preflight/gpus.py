"""What one process finds of the GPUs that it sees: memory, a product that comes out right, and the patch embedding both ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F

from prism_trainer.contract.preflight import GpuFacts

MATMUL_SIZE = 4096
MATMUL_ROUNDS = 8
PATCHES = 4096
"""Of an image of one megapixel, 16 x 16 pixels each."""
CHANNELS, FRAMES, PIXELS, WIDTH = 3, 2, 16, 1152
"""Of Qwen3-VL's patch embedding: Conv3d(3, 1152, kernel and stride (2, 16, 16))."""


def look_at_gpus() -> tuple[GpuFacts, ...]:
    """All that are visible. One that fails is told by its `problem`; it does not keep the others from being looked at."""
    return tuple(_look_at(index) for index in range(torch.cuda.device_count()))


def _look_at(index: int) -> GpuFacts:
    name, free, total = f"GPU {index}", 0, 0
    try:
        device = torch.device("cuda", index)
        name = torch.cuda.get_device_name(device)
        free, total = torch.cuda.mem_get_info(device)
        tflops = measure_matmul(device)
        conv3d_ms, linear_ms, error = compare_patch_embeddings(device)
        torch.cuda.empty_cache()
    except (RuntimeError, AssertionError) as error_of_cuda:
        problem = str(error_of_cuda).strip().splitlines()[0][:200]
        return GpuFacts(index=index, name=name, total_bytes=total, free_bytes=free, problem=problem)
    return GpuFacts(
        index=index,
        name=name,
        total_bytes=total,
        free_bytes=free,
        matmul_tflops=tflops,
        conv3d_ms=conv3d_ms,
        linear_ms=linear_ms,
        conv3d_error=error,
    )


def measure_matmul(device: torch.device, size: int = MATMUL_SIZE) -> float:
    """TFLOP/s. Ones, whose product is `size` everywhere, so that a GPU that calculates wrongly is found; RuntimeError then."""
    ones = torch.ones(size, size, device=device, dtype=torch.bfloat16)
    if not bool((ones @ ones == size).all()):
        raise RuntimeError(f"a product of two {size} x {size} matrices of ones is not {size} everywhere: the GPU calculates wrongly")
    seconds = _seconds(lambda: ones @ ones, device, MATMUL_ROUNDS)
    return round(2 * size**3 / seconds / 1e12, 1)


def compare_patch_embeddings(device: torch.device, patches: int = PATCHES, width: int = WIDTH) -> tuple[float, float, float]:
    """Milliseconds as Conv3d and as a product, forward and backward, and how far their gradients of the weight are apart.

    The kernel covers a patch exactly and the stride is the kernel, so the convolution is a product of the flattened patch and the
    flattened weight. Versions of cuDNN are known in which it is a hundred times slower, or its backward wrong.
    """
    generator = torch.Generator(device).manual_seed(0)
    shape = (CHANNELS, FRAMES, PIXELS, PIXELS)
    dtype = torch.bfloat16
    weight_WCTHW = torch.randn(width, *shape, device=device, dtype=dtype, generator=generator).mul_(0.02).requires_grad_()
    pixels_PCTHW = torch.randn(patches, *shape, device=device, dtype=dtype, generator=generator)

    def convolve() -> torch.Tensor:
        return F.conv3d(pixels_PCTHW, weight_WCTHW, stride=shape[1:]).flatten(1)

    def multiply() -> torch.Tensor:
        return F.linear(pixels_PCTHW.flatten(1), weight_WCTHW.flatten(1))

    gradients = [_gradient(form, weight_WCTHW) for form in (convolve, multiply)]
    error = (gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()
    times = [_seconds(partial(_gradient, form, weight_WCTHW), device, 3) * 1000 for form in (convolve, multiply)]
    return round(times[0], 3), round(times[1], 3), round(float(error), 6)


def _gradient(form: Callable[[], torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
    """Of the mean square of the output."""
    (gradient,) = torch.autograd.grad(form().float().square().mean(), [weight])
    return gradient.float()


def _seconds(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    """The fastest of several, after one that warms up."""
    times: list[float] = []
    for _ in range(rounds + 1):
        _wait_for(device)
        started = time.perf_counter()
        work()
        _wait_for(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def visible_problem(wanted: int, found: Sequence[GpuFacts]) -> str:
    """What torch says where it sees no GPU at all."""
    if found or not wanted:
        return ""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0][:200]
    return "torch sees no GPU"
