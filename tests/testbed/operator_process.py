"""The operator as a process of this machine, with the token and the rights of the chart's own ServiceAccount."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from testbed import images
from testbed.controlplane import ControlPlane
from testbed.helm import helm
from testbed.node import Node
from testbed.processes import Area, Program, Startable

CHART = Path(__file__).parents[2] / "charts" / "airflow-tuner"
NAMESPACE = "airflow-tuner"
RELEASE = "airflow-tuner"
START_SECONDS = 30.0
MAY_READ_BROKER = ("--set-json", 'celery.brokerSecrets=[{"namespace": "airflow", "name": "airflow-broker-url"}]')
"""Options for `install_chart` that let the operator read the broker's Secret of the real Airflow."""


def install_chart(control_plane: ControlPlane, source: str, *options: str) -> None:
    """Install or upgrade the chart with one metrics source, by real Helm, without its pod: `Operator` runs instead."""
    values = ["--set", f"metrics.sources.default.url={source}", "--set", "replicas=0", *options]
    folders = ["--namespace", NAMESPACE, "--create-namespace"]
    helm(control_plane, "upgrade", "--install", RELEASE, CHART, *folders, *values)


def install_chart_on_node(control_plane: ControlPlane, node: Node, source: str, *options: str) -> None:
    """Install the chart with its Deployment, as a user does, and wait until the operator's pod is ready.

    Its image holds no files: the pod mounts this project's environment and its Python read-only.
    """
    command = (str(Path(sys.prefix) / "bin" / "python"), "-m", "airflow_tuner")
    node.import_image(images.host_root_image(node.home / "operator.tar", images.OPERATOR, command))
    repository, _, tag = images.OPERATOR.removeprefix("docker.io/library/").partition(":")
    folders = [*images.host_folders(), sys.prefix, str(CHART.parents[1] / "controller")]
    if not Path(sys.base_prefix).is_relative_to("/usr"):
        folders.append(sys.base_prefix)
    volumes = [{"name": f"host-{n}", "hostPath": {"path": folder}} for n, folder in enumerate(folders)]
    mounts = [{"name": f"host-{n}", "mountPath": folder, "readOnly": True} for n, folder in enumerate(folders)]
    api = urlsplit(control_plane.url)
    values = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "metrics": {"sources": {"default": {"url": source}}},
        "celery": {"brokerSecrets": [{"namespace": "airflow", "name": "airflow-broker-url"}]},
        "extraVolumes": volumes,
        "extraVolumeMounts": mounts,
        # There is no proxy for Services on this node.
        "extraEnv": [
            {"name": "KUBERNETES_SERVICE_HOST", "value": node.address},
            {"name": "KUBERNETES_SERVICE_PORT", "value": str(api.port)},
        ],
    }
    file = node.home / "operator-values.json"
    file.write_text(json.dumps(values))
    folders = ["--namespace", NAMESPACE, "--create-namespace"]
    helm(control_plane, "upgrade", "--install", RELEASE, CHART, *folders, "--values", file, "--wait", *options)


class Operator(Startable):
    """`airflow-tuner run` with the chart's rights; as a context manager it starts and stops."""

    def __init__(
        self,
        area: Area,
        control_plane: ControlPlane,
        source: str,
        namespaces: Sequence[str],
        identity: str = "operator",
        options: Sequence[str] = (),
        apis: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.sources = area.path / f"{identity}-sources.yaml"
        self.sources.write_text(json.dumps({"sources": {"default": {"url": source}}, "apis": apis or {}}))
        kubeconfig = area.path / f"{identity}.kubeconfig"
        control_plane.kubeconfig_for_service_account(NAMESPACE, RELEASE, kubeconfig)
        argv: list[str | Path] = [sys.executable, "-m", "airflow_tuner", "run", "--sources", self.sources]
        argv += ["--kubeconfig", kubeconfig, "--lease-namespace", NAMESPACE, "--identity", identity]
        argv += [f"--namespace={namespace}" for namespace in namespaces] + [*options]
        self._area = area
        self._identity = identity
        self._argv = argv
        self.program = self._new()

    def start(self) -> Self:
        """Start it; return when it holds the Lease."""
        self.program = self._new()
        self.program.start()
        self.program.wait_until(self._acts, "the operator to act", START_SECONDS)
        return self

    def stop(self) -> None:
        """Stop it as Kubernetes would."""
        self.program.stop()

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.program.kill()

    def log(self) -> str:
        """Everything it has logged since its last start."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def _log(self) -> Path:
        return self._area.path / f"{self._identity}.log"

    def _new(self) -> Program:
        self._log.unlink(missing_ok=True)
        return self._area.program(self._identity, self._argv)

    def _acts(self) -> bool:
        return "is the operator that acts" in self.log()
