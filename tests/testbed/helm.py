"""Helm 4 and Helm 3 against a control plane, with no trace in the user's own Helm folders."""

from pathlib import Path
from typing import Literal

from testbed.commands import run
from testbed.controlplane import ControlPlane
from testbed.programs import program


def helm(control_plane: ControlPlane, *args: str | Path, version: Literal[3, 4] = 4, timeout: float = 120) -> str:
    """Runs Helm as administrator and returns its standard output; raises CommandFailed."""
    home = control_plane.pki.parent / f"helm-{version}"
    folders = {f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
    folders["KUBECACHEDIR"] = str(home / "kube")
    argv = [program("helm" if version == 4 else "helm3"), f"--kubeconfig={control_plane.kubeconfig}", *args]
    return run(argv, env=folders, timeout=timeout)
