"""verl's platform for a machine without a GPU: FSDP2 over gloo, vLLM's CPU build, and one logical GPU in Ray for each worker."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.distributed
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

from prism_trainer.engines.verl.after_import import after_import

LOGICAL_MEMORY_BYTES = 16 * 2**30


def install() -> None:
    PlatformRegistry.register(platform="cpu")(CpuPlatform)
    torch.distributed.init_process_group = _single_backend(torch.distributed.init_process_group)
    after_import("vllm.model_executor.layers.utils", keep_weights_as_they_are)
    after_import("verl.workers.engine.fsdp.transformer_impl", offload_without_pinning)


class CpuPlatform(PlatformBase):  # type: ignore[misc]
    """What verl asks of an accelerator, answered by the CPU. Its name for Ray is GPU: that is what verl reserves for its workers."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = None

    def __init__(self) -> None:
        self.device_module = _device_module()  # type: ignore[assignment]

    def is_available(self) -> bool:
        return True

    def current_device(self) -> Any:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return (None, None)

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextlib.contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_resource_options(self, num_devices: float) -> dict[str, Any]:
        return {"num_gpus": num_devices}

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False  # weights go to vLLM through shared memory

    def cudart(self) -> None:
        return None


def _device_module() -> ModuleType:
    """In place of `torch.cuda`."""
    module: Any = ModuleType("prism_cpu_device")
    for name in _QUIET:
        setattr(module, name, lambda *_, **__: None)
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        setattr(module, name, lambda *_, **__: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    for name in ("stream", "device"):
        setattr(module, name, lambda *_, **__: contextlib.nullcontext())
    module.is_available = lambda: False
    module.current_device = lambda: "cpu"
    module.device_count = lambda: 1
    module.get_rng_state = lambda *_, **__: torch.get_rng_state()
    module.mem_get_info = lambda *_, **__: (LOGICAL_MEMORY_BYTES // 2, LOGICAL_MEMORY_BYTES)
    module.get_device_name = lambda *_, **__: "cpu"
    module.get_device_properties = lambda *_, **__: SimpleNamespace(total_memory=LOGICAL_MEMORY_BYTES, name="cpu")
    module.Stream, module.Event = type("Stream", (), {}), type("Event", (), {})
    module.memory = SimpleNamespace(
        _set_allocator_settings=lambda *_: None, _snapshot=lambda *_, **__: {}, _record_memory_history=lambda *_, **__: None
    )
    return module  # type: ignore[no-any-return]


_QUIET = (
    "synchronize", "empty_cache", "ipc_collect", "set_device", "manual_seed", "manual_seed_all", "reset_peak_memory_stats",
    "reset_accumulated_memory_stats", "reset_max_memory_allocated", "set_rng_state", "current_stream",
)  # fmt: skip


def _single_backend(init: Any) -> Any:
    """verl names a backend for the CPU and one for the device; torch refuses the same device twice."""

    def init_process_group(backend: str | None = None, *args: Any, **options: Any) -> Any:
        doubled = isinstance(backend, str) and backend.startswith("cpu:gloo,cpu:")
        return init("gloo" if doubled else backend, *args, **options)

    return init_process_group


def keep_weights_as_they_are(layers: Any) -> None:
    """vLLM's CPU build packs the weights of its linear layers and frees the originals; then no new weights can be loaded into them."""

    def plain_linear(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    layers.dispatch_cpu_unquantized_gemm = plain_linear


def offload_without_pinning(engine: Any) -> None:
    """A reference is kept in the node's memory, which only a GPU's driver can pin."""
    policy = engine.CPUOffloadPolicy
    engine.CPUOffloadPolicy = lambda pin_memory: policy(pin_memory=False)
