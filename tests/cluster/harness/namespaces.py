"""The node's own mount, network, pid and ipc namespaces on this machine.

Everything the node starts lives in them: processes, mounts, pod links, iptables chains, sockets under /run. When their first process
ends, the kernel ends and removes all of it, however the rest died. What lies outside is removed here: one link, a cgroup, six settings.
"""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path

from cluster.harness.build import program
from cluster.harness.commands import run, wait_until
from cluster.harness.control_plane import POD_CIDR, SERVICE_CIDR
from cluster.harness.processes import Processes

NODE_ADDRESS = "10.77.0.1"
HOST_ADDRESS = "10.77.0.2"
"""This machine's end of the link; it has routes to pods and services through the node, and gives them no way out."""
HOST_LINK = "prism-host"
CGROUPS = Path("/sys/fs/cgroup")

# kubelet sets these for the whole machine, not for its namespace.
KUBELET_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)

UNSHARE = ("unshare", "--mount", "--net", "--pid", "--ipc", "--fork", "--mount-proc", "--propagation=private")


def entrance(init: int) -> tuple[str, ...]:
    """Put before a command, it runs inside."""
    return ("nsenter", f"--target={init}", "--mount", "--net", "--pid", "--ipc")


def cgroup_name(folder: Path) -> str:
    """Of the group that all pods are in; another folder is another cluster."""
    return f"prism-test-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}"


def make(folder: Path) -> int:
    """Makes the namespaces and connects them; returns the id of their first process. `folder` is where the cluster runs."""
    _save_settings(folder)
    init = Processes(folder, UNSHARE).start("init", [program("pause")])
    wait_until(lambda: b"pause" in Path(f"/proc/{init}/cmdline").read_bytes(), "The node's namespaces exist", seconds=10, every=0.02)
    _mount(folder, init)
    _connect(init)
    _make_cgroup(cgroup_name(folder))
    return init


def destroy(folder: Path) -> None:
    """Ends all that runs inside and takes back what was changed outside. Safe to repeat, and after a crash at any point."""
    init = Processes(folder).pid("init")
    Processes(folder).stop("init", signal.SIGKILL, seconds=30)
    if init is not None:
        wait_until(lambda: not _entrances(init), "The commands that led into the node's namespaces have ended", seconds=10, every=0.05)
    # The link goes with its other end; both may happen at once.
    run(["ip", "link", "delete", HOST_LINK], check=False)
    wait_until(lambda: not run(["ip", "link", "show", HOST_LINK], check=False), f"{HOST_LINK} is gone", seconds=10)
    _remove_cgroup(cgroup_name(folder))
    _restore_settings(folder)
    for mount_point in _made_mount_points(folder):
        if mount_point.is_dir() and not any(mount_point.iterdir()):
            mount_point.rmdir()


def _entrances(init: int) -> list[Path]:
    """The outer halves of the node's processes; each ends a moment after its inner half."""
    mark = f"--target={init}".encode()
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if mark in _read(path).split(b"\0")]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""  # the process has ended since it was listed


def _mount(folder: Path, init: int) -> None:
    made = [path for path in (Path("/var/lib/cni"), Path("/var/lib/kubelet")) if not path.exists()]
    (folder / "mount-points.json").write_text(json.dumps([str(path) for path in made]))
    for path in made:
        path.mkdir()
    etc, work = folder / "etc", folder / "etc-work"
    etc.mkdir()
    work.mkdir()
    # kubelet hands mounts on to pods, so the root is shared inside; /etc gets the cluster's DNS without touching the machine's.
    script = f"""
mount --make-rshared /
for private in /run /var/lib/cni /var/lib/kubelet; do mount -t tmpfs tmpfs $private; done
mount -t overlay -o lowerdir=/etc,upperdir={etc},workdir={work} overlay /etc
rm -f /etc/resolv.conf
echo "nameserver {NODE_ADDRESS}" > /etc/resolv.conf
"""
    run([*entrance(init), "sh", "-ec", script])


def _connect(init: int) -> None:
    run(["ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", "eth0", "netns", str(init)])
    run(["ip", "address", "add", f"{HOST_ADDRESS}/30", "dev", HOST_LINK])
    run(["ip", "link", "set", HOST_LINK, "up"])
    # The default route only lets the kernel start a packet to a service's address, which iptables then rewrites.
    script = f"""
ip link set lo up
ip address add {NODE_ADDRESS}/30 dev eth0
ip link set eth0 up
ip route add default via {HOST_ADDRESS}
echo 1 > /proc/sys/net/ipv4/ip_forward
"""
    run([*entrance(init), "sh", "-ec", script])
    for destination in (POD_CIDR, SERVICE_CIDR):
        run(["ip", "route", "add", destination, "via", NODE_ADDRESS])


def hierarchies() -> list[Path]:
    """One root for cgroup v2; one per controller for v1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _make_cgroup(name: str) -> None:
    for root in hierarchies():
        if (root / "cgroup.controllers").exists() and root == CGROUPS:
            wanted = " ".join(f"+{name}" for name in (root / "cgroup.controllers").read_text().split())
            (root / "cgroup.subtree_control").write_text(wanted)
        group = root / name
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # v1: a group without them holds no process
            if root != CGROUPS and (group / setting).exists():
                (group / setting).write_text((root / setting).read_text())


def _remove_cgroup(name: str) -> None:
    for root in hierarchies():
        group = root / name
        if group.exists():
            folders = sorted((path for path in group.rglob("*") if path.is_dir()), key=lambda path: len(path.parts), reverse=True)
            for folder in [*folders, group]:
                wait_until(lambda folder=folder: _removed(folder), f"{folder} is empty", seconds=10)  # type: ignore[misc]


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _save_settings(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    values = {name: Path("/proc/sys", name).read_text().strip() for name in KUBELET_SETTINGS}
    (folder / "settings.json").write_text(json.dumps(values))


def _restore_settings(folder: Path) -> None:
    if (folder / "settings.json").exists():
        for name, value in json.loads((folder / "settings.json").read_text()).items():
            Path("/proc/sys", name).write_text(value)


def _made_mount_points(folder: Path) -> list[Path]:
    file = folder / "mount-points.json"
    return [Path(path) for path in json.loads(file.read_text())] if file.exists() else []
