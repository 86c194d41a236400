"""The cluster's programs, built from Go modules. A program is built once per version and recipe and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cluster.harness import versions
from cluster.harness.commands import run
from cluster.harness.locations import binaries_dir, locked
from cluster.harness.steps import step

ETCD_MAIN = """package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
"""

# CoreDNS with all its plugins takes three minutes to build; these four are what the node's Corefile names.
COREDNS_MAIN = """package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
)

func main() { coremain.Run() }
"""

# What holds a pod's namespaces. It is process 1 of pods that share one pid namespace, so it also reaps.
PAUSE_MAIN = """package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			os.Exit(0)
		}
		for pid := 1; pid > 0; {
			pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		}
	}
}
"""


@dataclass(frozen=True)
class Recipe:
    """How one or more programs are made from one Go module."""

    name: str
    version: str
    module: str | None
    packages: tuple[str, ...] = ()
    """Import paths of the commands; the last part is the program's name. Empty: `main` is the program, named after the recipe."""
    main: str = ""
    staging: str = ""
    """Version of the `k8s.io/...` modules that the module's own go.mod replaces by local folders."""
    folder: str = ""
    """A folder of the module kept beside the program: KubeRay's CRDs."""
    flags: tuple[str, ...] = field(default=())

    @property
    def programs(self) -> dict[str, str]:
        return {path.rsplit("/", 1)[-1]: path for path in self.packages} or {self.name: "."}

    def dir(self) -> Path:
        """Named by version and by everything else that decides what comes out."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]
        return binaries_dir() / f"{self.name}-{self.version}-{digest}"


KUBERNETES_COMMANDS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
VERSION_PACKAGE = "k8s.io/component-base/version"

RECIPES = (
    Recipe("etcd", versions.ETCD, "go.etcd.io/etcd/server/v3", main=ETCD_MAIN),
    Recipe(
        "kubernetes",
        versions.KUBERNETES,
        "k8s.io/kubernetes",
        packages=tuple(f"k8s.io/kubernetes/cmd/{command}" for command in KUBERNETES_COMMANDS),
        staging=versions.KUBERNETES_STAGING,
        flags=(
            f"-X {VERSION_PACKAGE}.gitVersion={versions.KUBERNETES}",
            f"-X {VERSION_PACKAGE}.gitMajor=1",
            f"-X {VERSION_PACKAGE}.gitMinor={versions.KUBERNETES.split('.')[1]}",
        ),
    ),
    Recipe(
        "kuberay",
        versions.KUBERAY,
        "github.com/ray-project/kuberay/ray-operator",
        packages=("github.com/ray-project/kuberay/ray-operator",),
        folder="config/crd/bases",
    ),
    Recipe("helm", versions.HELM, "helm.sh/helm/v3", packages=("helm.sh/helm/v3/cmd/helm",)),
    Recipe("kwok", versions.KWOK, "sigs.k8s.io/kwok", packages=("sigs.k8s.io/kwok/cmd/kwok",)),
    Recipe("coredns", versions.COREDNS, "github.com/coredns/coredns", main=COREDNS_MAIN),
    Recipe("versitygw", versions.VERSITYGW, "github.com/versity/versitygw", packages=("github.com/versity/versitygw/cmd/versitygw",)),
    Recipe("pause", versions.PAUSE, None, main=PAUSE_MAIN),
)
BY_NAME = {recipe.name: recipe for recipe in RECIPES}
CONTROL_PLANE = ("etcd", "kubernetes", "kuberay")
NODE = (*CONTROL_PLANE, "helm", "coredns", "versitygw", "pause")


def program(name: str) -> Path:
    """Path of a built program. Raises `FileNotFoundError` where it was not built."""
    for recipe in RECIPES:
        if name in recipe.programs:
            path = recipe.dir() / name
            if not path.exists():
                raise FileNotFoundError(f"{path} is missing: build it with `python -m cluster.harness build` in the folder `tests`.")
            return path
    raise FileNotFoundError(f"No recipe makes a program named {name!r}.")


def kuberay_crds() -> Path:
    """Folder of KubeRay's custom resource definitions."""
    return BY_NAME["kuberay"].dir() / "bases"


def build(names: tuple[str, ...] = tuple(BY_NAME)) -> None:
    """Builds what the cache lacks. Raises `CommandFailed` with the compiler's words."""
    for name in names:
        recipe = BY_NAME[name]
        if not recipe.dir().exists():
            with locked("build"), step(f"build {recipe.name} {recipe.version}"):
                if not recipe.dir().exists():  # another process may have built it meanwhile
                    _build(recipe)


def _build(recipe: Recipe) -> None:
    target = recipe.dir()
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the last step is a rename: a folder that has its final name is complete.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-") as scratch:
        module, made = Path(scratch, "module"), Path(scratch, "made")
        module.mkdir()
        made.mkdir()
        _write_module(recipe, module)
        for name, package in recipe.programs.items():
            _go(module, "build", "-ldflags", " ".join(("-s -w", *recipe.flags)), "-o", str(made / name), package)
        if recipe.folder:
            shutil.copytree(
                _module_dir(recipe, module) / recipe.folder, made / recipe.folder.rsplit("/", 1)[-1], copy_function=shutil.copyfile
            )
        made.rename(target)


def _write_module(recipe: Recipe, folder: Path) -> None:
    """A module of ours that requires theirs: so their published go.mod, and with it every version they tested, is what counts."""
    lines = [f"module {recipe.name}build", "go 1.24.0"]
    if recipe.module:
        lines.append(f"require {recipe.module} {recipe.version}")
    if recipe.staging:
        lines += _staging_replaces(recipe, folder)
    lines += [f"tool {package}" for package in recipe.packages]
    (folder / "go.mod").write_text("\n".join(lines) + "\n")
    if recipe.main:
        (folder / "main.go").write_text(recipe.main)
    if recipe.module:
        _go(folder, "mod", "tidy")


def _staging_replaces(recipe: Recipe, folder: Path) -> list[str]:
    (folder / "go.mod").write_text(f"module {recipe.name}build\ngo 1.24.0\n")
    text = (_module_dir(recipe, folder) / "go.mod").read_text()
    staged = re.findall(r"^\s*(k8s\.io/\S+) => \./staging/", text, flags=re.MULTILINE)
    return [f"replace {module} => {module} {recipe.staging}" for module in staged]


def _module_dir(recipe: Recipe, folder: Path) -> Path:
    return Path(json.loads(_go(folder, "mod", "download", "-json", f"{recipe.module}@{recipe.version}"))["Dir"])


def _go(folder: Path, *arguments: str) -> str:
    toolchain = os.environ.get("GOTOOLCHAIN", "auto")
    return run(["go", *arguments], cwd=folder, env={"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=mod", "GOTOOLCHAIN": toolchain})
