"""containerd of the real node: its own root, state and socket, runc, and a point-to-point pod network."""

import json
import shutil
import subprocess
from pathlib import Path

from testbed.processes import Area, Program, ProgramFailed

POD_NETWORK = "10.88.0.0/24"
READY_SECONDS = 30.0
IMPORT_SECONDS = 60.0

# native: works on any file system, and the images are empty folders. restrict_oom_score_adj: containers may be asked
# for scores that even root may not set inside another container.
CONFIG = """\
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]

[grpc]
  address = "{socket}"

[ttrpc]
  address = "{socket}.ttrpc"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_apparmor = true

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_plugins}"
    conf_dir = "{cni_config}"
"""


class Containerd:
    """One containerd in the mount namespace of process `inside`, with its files in `home` and its log in the area."""

    def __init__(self, area: Area, home: Path, *, cni_plugins: Path, pause_image: str, inside: int) -> None:
        self.socket = home / "containerd.sock"
        self._home = home
        self._inside = inside
        self._cni_plugins = cni_plugins
        self._pause_image = pause_image
        self.program: Program = area.program(
            "containerd", ["containerd", "--config", home / "containerd.toml"], inside=inside
        )

    def start(self) -> None:
        """Start it and wait until it answers; raises ProgramFailed."""
        self._write_config()
        self.program.start()
        self.program.wait_until(
            lambda: self._ctr("version").returncode == 0, "containerd to answer on its socket", READY_SECONDS
        )

    def import_image(self, archive: Path) -> None:
        """Load a docker-archive for the kubelet to find; raises ProgramFailed."""
        answer = self._ctr("--namespace=k8s.io", "images", "import", "--no-unpack", str(archive))
        if answer.returncode != 0:
            raise self.program.failure(f"containerd did not import {archive.name}: {answer.stderr.strip()}")

    def _ctr(self, *words: str) -> subprocess.CompletedProcess[str]:
        ctr = shutil.which("ctr")
        if ctr is None:
            raise ProgramFailed("ctr is missing: it comes with containerd")
        return subprocess.run(
            ["nsenter", f"--target={self._inside}", "--mount", ctr, f"--address={self.socket}", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=IMPORT_SECONDS,
        )

    def _write_config(self) -> None:
        cni_config = self._home / "cni"
        cni_config.mkdir()
        network = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "ptp",
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": POD_NETWORK, "rangeStart": "10.88.0.2"}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": str(self._home / "addresses"),
                    },
                }
            ],
        }
        (cni_config / "10-pods.conflist").write_text(json.dumps(network))
        (self._home / "containerd.toml").write_text(
            CONFIG.format(
                root=self._home / "containerd",
                state=self._home / "containerd-state",
                socket=self.socket,
                pause_image=self._pause_image,
                cni_plugins=self._cni_plugins,
                cni_config=cni_config,
            )
        )
