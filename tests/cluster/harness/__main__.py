"""The test cluster by hand, from the folder `tests`: `python -m cluster.harness COMMAND`, `-h` for the commands."""

from __future__ import annotations

import argparse
import sys

from cluster.harness import images
from cluster.harness.build import build
from cluster.harness.commands import CommandFailed
from cluster.harness.node import Node


def main() -> int:
    arguments = _parser().parse_args()
    node = Node(arguments.name)
    try:
        return COMMANDS[arguments.command](node, arguments)
    except (CommandFailed, RuntimeError, TimeoutError) as problem:
        print(problem, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cluster.harness", description="A real Kubernetes node with KubeRay on this machine.")
    parser.add_argument("--name", default="node", help="of a second node, in a network namespace of its own")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start it, with the project's images, and keep it until `down`")
    up.add_argument("--fsync", action="store_true", help="let etcd write to disk before it answers, as benchmarks need")
    up.add_argument("--no-images", action="store_true", help="start without building the project's images")
    commands.add_parser("build", help="build every program from its Go module, those of the light mode and the benchmarks included")
    commands.add_parser("down", help="end it and remove every trace but the cache")
    commands.add_parser("status", help="what runs")
    images = commands.add_parser("images", help="build the project's images again and hand them to the running cluster")
    images.add_argument(
        "folders", nargs="*", default=["operator", "trainer-cpu"], help="folders of images/ (default: operator trainer-cpu)"
    )
    commands.add_parser("kubeconfig", help="print the path of its kubeconfig")
    logs = commands.add_parser("logs", help="print the end of a component's log")
    logs.add_argument("component")
    return parser


def _up(node: Node, arguments: argparse.Namespace) -> int:
    if node.is_kept():
        print("It runs already.", file=sys.stderr)
    else:
        node.up(keep=True, fsync=arguments.fsync)
    if not arguments.no_images:
        images.provide(node)
    return _kubeconfig(node, arguments)


def _build(node: Node, arguments: argparse.Namespace) -> int:
    build()
    return 0


def _down(node: Node, arguments: argparse.Namespace) -> int:
    node.down()
    return 0


def _status(node: Node, arguments: argparse.Namespace) -> int:
    if not node.is_running():
        print("The test cluster does not run.")
        return 1
    for name in node.processes.names():
        pid = node.processes.pid(name)
        print(f"{name:26}{'ended' if pid is None else pid}")
    print(node.control_plane.kubectl("get", "nodes,pods", "--all-namespaces"), end="")
    return 0


def _images(node: Node, arguments: argparse.Namespace) -> int:
    names = {folder: name for name, folder in images.FOLDERS.items()}
    if unknown := sorted(set(arguments.folders) - set(names)):
        raise RuntimeError(f"{', '.join(unknown)}: the images for the test cluster are {', '.join(names)}.")
    images.provide(node, tuple(names[folder] for folder in arguments.folders))
    for folder in arguments.folders:
        print(f"{names[folder]}: {images.size(names[folder]) / 1e6:.0f} MB")
    return 0


def _kubeconfig(node: Node, arguments: argparse.Namespace) -> int:
    print(f"export KUBECONFIG={node.control_plane.kubeconfig()}")
    return 0


def _logs(node: Node, arguments: argparse.Namespace) -> int:
    print("\n".join(node.processes.log(arguments.component).read_text(errors="replace").splitlines()[-50:]))
    return 0


COMMANDS = {"up": _up, "build": _build, "down": _down, "status": _status, "images": _images, "kubeconfig": _kubeconfig, "logs": _logs}

if __name__ == "__main__":
    sys.exit(main())
