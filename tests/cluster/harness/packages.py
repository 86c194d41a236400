"""The Debian packages that the node and the images need, installed where they are missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cluster.harness.commands import run
from cluster.harness.versions import HOST_PACKAGES

CNI_PLUGINS = Path("/usr/lib/cni")


def missing_packages() -> list[str]:
    missing = {package for command, package in HOST_PACKAGES.items() if shutil.which(command) is None}
    if not (CNI_PLUGINS / "ptp").exists():
        missing.add("containernetworking-plugins")
    return sorted(missing)


def install_packages() -> None:
    """Raises `RuntimeError` naming the packages, where this machine has no apt-get or is not ours to install on."""
    missing = missing_packages()
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(f"The test cluster needs {', '.join(missing)}: install them (their Debian names), or run it as root on Debian.")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update"], env=quiet)
    run(["apt-get", "install", "--yes", "--no-install-recommends", *missing], env=quiet)
    if "containerd" in missing and Path("/run/systemd/system").is_dir():
        # The package starts a containerd of its own; ours is another process with other folders.
        run(["systemctl", "disable", "--now", "containerd.service"], check=False)
