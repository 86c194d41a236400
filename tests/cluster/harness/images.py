"""The project's images, built from `images/*/Dockerfile` on a base made here, and handed to the node's containerd. There is no registry.

Only what the node lacks is handed over: a changed line of ours costs one small layer, not the gigabytes below it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
import threading
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from cluster.harness import versions
from cluster.harness.commands import CommandFailed, run
from cluster.harness.locations import REPOSITORY, image_build_dir, locked
from cluster.harness.node import Node
from cluster.harness.steps import step

OPERATOR = "prism.local/prism-operator:test"
TRAINER = "prism.local/prism-trainer-cpu:test"
RL = "prism.local/prism-rl-cpu:test"
"""Engine verl's; 4 GB, so that only what asks for it gets it."""
FOLDERS = {OPERATOR: "operator", TRAINER: "trainer-cpu", RL: "rl-cpu"}
OLD_BUILDS_KEPT = 6
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")

# What the official slim images leave out of Debian as well.
LEFT_OUT = (
    "dev/*",
    "proc/*",
    "sys/*",
    "tmp/*",
    "var/cache/*",
    "var/lib/apt/lists/*",
    "var/log/*",
    "usr/share/doc/*",
    "usr/share/man/*",
    "usr/share/locale/*",
)

BASE_DOCKERFILE = """FROM scratch
ADD base.tar /
RUN printf '[global]\\ncert = /etc/ssl/certs/ca-certificates.crt\\n' > /etc/pip.conf
CMD ["python"]
"""


def provide(node: Node, names: tuple[str, ...] = (OPERATOR, TRAINER)) -> None:
    """Builds the images from the working tree, reusing every unchanged layer, and imports into the node what it lacks."""
    with locked("images"):
        for name in names:
            with step(f"build {name}"):
                build(name)
            with step(f"import {name}"):
                hand_over(node, name)
        _forget_old_builds()


def build(name: str) -> None:
    _make_base()
    dockerfile = REPOSITORY / "images" / FOLDERS[name] / "Dockerfile"
    _bud("--layers", f"--build-arg=BASE_IMAGE={base_name()}", f"--file={dockerfile}", f"--tag={name}", REPOSITORY)


def size(name: str) -> int:
    """Bytes of the image's layers, uncompressed. The image must have been provided."""
    layout = _layout()
    entry = next(entry for entry in _index(layout)["manifests"] if entry["annotations"]["org.opencontainers.image.ref.name"] == name)
    return sum(int(layer["size"]) for layer in json.loads(_blob(layout, entry["digest"]).read_text())["layers"])


def base_name() -> str:
    """Of the stand-in for the official Python image, named by what it is made of."""
    recipe = json.dumps([versions.DEBIAN_SUITE, versions.BASE_PACKAGES, LEFT_OUT, BASE_DOCKERFILE])
    return f"prism.local/base:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def hand_over(node: Node, name: str) -> None:
    layout = _layout()
    layout.mkdir(parents=True, exist_ok=True)
    # Uncompressed, a layer that the layout holds is known by its digest and not written again; buildah's own push compresses every time.
    storage = f"containers-storage:[overlay@{image_build_dir() / 'storage'}+{image_build_dir() / 'run'}]{name}"
    run(["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers", storage, f"oci:{layout}:{name}"])
    index = _index(layout)
    entry = next(entry for entry in index["manifests"] if entry["annotations"]["org.opencontainers.image.ref.name"] == name)
    present = set(node.ctr("content", "list", "--quiet").split())
    if entry["digest"] not in present or name not in node.ctr("images", "list", "--quiet").split():
        _import(node, layout, {**entry, "annotations": {"io.containerd.image.name": name}}, present)
    _forget_unused(layout, index)


def _import(node: Node, layout: Path, entry: dict[str, Any], present: set[str]) -> None:
    """Streams an archive with the manifest, and those of its parts that the node's store does not hold."""
    manifest = json.loads(_blob(layout, entry["digest"]).read_text())
    parts = [entry["digest"], manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])]
    wanted = [digest for digest in dict.fromkeys(parts) if digest not in present]
    argv = [*node.processes.entrance, "ctr", "--namespace=k8s.io", "images", "import", "-"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as importer:
        assert importer.stdin and importer.stdout
        writer = threading.Thread(target=_write_archive, args=(importer.stdin, layout, entry, wanted))
        writer.start()
        output = importer.stdout.read().decode(errors="replace")
        writer.join()
    if importer.returncode != 0:
        raise CommandFailed(f"ctr images import ended with status {importer.returncode}: {output[-2000:]}")


def _write_archive(stream: IO[bytes], layout: Path, entry: dict[str, Any], digests: list[str]) -> None:
    index = {"schemaVersion": 2, "manifests": [entry]}
    try:
        with stream, tarfile.open(fileobj=stream, mode="w|", bufsize=1 << 20) as archive:
            for name, data in (("oci-layout", {"imageLayoutVersion": "1.0.0"}), ("index.json", index)):
                text = json.dumps(data).encode()
                header = tarfile.TarInfo(name)
                header.size = len(text)
                archive.addfile(header, BytesIO(text))
            for digest in digests:
                archive.add(_blob(layout, digest), f"blobs/{digest.replace(':', '/')}")
    except BrokenPipeError:
        pass  # the importer has ended, and its words tell why


def _layout() -> Path:
    return image_build_dir() / "layout"


def _index(layout: Path) -> dict[str, Any]:
    """The layout's index without the images that lost their name to a newer one."""
    index: dict[str, Any] = json.loads((layout / "index.json").read_text())
    index["manifests"] = [entry for entry in index["manifests"] if "org.opencontainers.image.ref.name" in entry.get("annotations", {})]
    (layout / "index.json").write_text(json.dumps(index))
    return index


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _forget_unused(layout: Path, index: dict[str, Any]) -> None:
    """Removes what no image in the layout is made of: each change of ours leaves a layer behind."""
    used = set()
    for entry in index["manifests"]:
        manifest = json.loads(_blob(layout, entry["digest"]).read_text())
        used |= {entry["digest"], manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
    for blob in (layout / "blobs" / "sha256").iterdir():
        if f"sha256:{blob.name}" not in used:
            blob.unlink()


def _forget_old_builds() -> None:
    """Every build leaves the image that lost its name and the stages beside it; the newest of them save the next build's time."""
    unnamed = json.loads(_buildah("images", "--filter=dangling=true", "--json") or "[]") or []
    newest_first = sorted(unnamed, key=lambda image: image["createdatraw"], reverse=True)
    if old := [image["id"] for image in newest_first[OLD_BUILDS_KEPT:]]:
        _buildah("rm", "--all")  # a build that was killed holds on to its image
        _buildah("rmi", *old)


def _make_base() -> None:
    if _exists(base_name()):
        return
    with step(f"base image: Debian {versions.DEBIAN_SUITE} with Python"), tempfile.TemporaryDirectory(dir=_scratch()) as scratch:
        root, context = Path(scratch, "root"), Path(scratch, "context")
        context.mkdir()
        run(["debootstrap", "--variant=minbase", f"--include={','.join(versions.BASE_PACKAGES)}", versions.DEBIAN_SUITE, root])
        left_out = [f"--exclude=./{pattern}" for pattern in LEFT_OUT]
        run(["tar", "--create", f"--file={context / 'base.tar'}", f"--directory={root}", "--numeric-owner", *left_out, "."])
        (context / "Dockerfile").write_text(BASE_DOCKERFILE)
        _bud(f"--tag={base_name()}", context)


def _scratch() -> Path:
    folder = image_build_dir() / "scratch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _exists(name: str) -> bool:
    return bool(_buildah("images", "--quiet", f"--filter=reference={name}").strip())


def _bud(*arguments: str | Path) -> None:
    # The machine's own authorities: packages may reach it through a proxy that only they know.
    trust = [f"--volume={AUTHORITIES}:{AUTHORITIES}:ro"] if AUTHORITIES.exists() and "--layers" in arguments else []
    _buildah("bud", "--quiet", "--isolation=chroot", *trust, *arguments)


def _buildah(*arguments: str | Path) -> str:
    folder = image_build_dir()
    return run(["buildah", f"--root={folder / 'storage'}", f"--runroot={folder / 'run'}", "--storage-driver=overlay", *arguments])
