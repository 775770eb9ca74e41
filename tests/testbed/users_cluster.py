"""A cluster of the user's for the tests of `tests/cluster`, e.g. of kind: named by a kubeconfig, and left as it was."""

import base64
import json
import os
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from testbed.commands import CommandFailed, run
from testbed.controlplane import ControlPlane
from testbed.helm import helm
from testbed.operator_process import NAMESPACE, RELEASE
from testbed.processes import Area

VARIABLE = "AIRFLOW_TUNER_TEST_KUBECONFIG"
DEFINITIONS = ("tuningpolicies.airflow-tuner.dev", "tuningcheckpoints.airflow-tuner.dev")


class Unusable(Exception):  # noqa: N818 - it reads as what is found
    """The tests cannot use this cluster; the message says what to do."""


def chosen() -> Path | None:
    """The kubeconfig that the user has named."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else None


class UsersCluster(ControlPlane):
    """The cluster of a kubeconfig's current context, as its administrator.

    As a context manager it refuses a cluster that has an airflow-tuner already, and takes out at the end what the tests
    have put in.
    """

    def __init__(self, area: Area, kubeconfig: Path) -> None:
        super().__init__(area)
        self.kubeconfig = kubeconfig
        settings = self._settings()
        cluster, user = settings["clusters"][0]["cluster"], settings["users"][0]["user"]
        self.url = cluster["server"]
        self.port = urlsplit(self.url).port or 443
        self.pki.mkdir()
        wanted = {
            self.ca: cluster.get("certificate-authority-data"),
            self.pki / "admin.crt": user.get("client-certificate-data"),
            self.pki / "admin.key": user.get("client-key-data"),
        }
        if not all(wanted.values()):
            raise Unusable(
                f"{VARIABLE}: {kubeconfig} must name its cluster with a certificate authority and its user with a"
                " client certificate, as kind writes it. The tests need an administrator of a cluster of their own."
            )
        for file, data in wanted.items():
            file.touch(mode=0o600)
            file.write_bytes(base64.b64decode(str(data)))

    def start(self) -> Self:
        """Look whether the tests may use it."""
        try:
            found = self.kubectl("get", "crd", "--ignore-not-found", "--output=name", *DEFINITIONS)
        except CommandFailed as error:
            raise Unusable(f"{VARIABLE}: the cluster of {self.kubeconfig} does not answer: {error}") from error
        if found:
            raise Unusable(
                f"{VARIABLE}: the cluster at {self.url} has an airflow-tuner already ({', '.join(found.split())}). The"
                " tests would play with its policies: give them a cluster of their own (kind create cluster)."
            )
        return self

    def stop(self) -> None:
        """Take the operator's chart and definitions out again."""
        helm(self, "uninstall", RELEASE, f"--namespace={NAMESPACE}", "--ignore-not-found")
        self.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")
        self.kubectl("delete", "crd", "--ignore-not-found", "--wait=false", *DEFINITIONS)

    def _settings(self) -> dict[str, Any]:
        if not self.kubeconfig.is_file():
            raise Unusable(f"{VARIABLE}: there is no file {self.kubeconfig}.")
        whole = ("--raw", "--minify", "--flatten", "--output=json")
        told = run([self.binary, "kubectl", f"--kubeconfig={self.kubeconfig}", "config", "view", *whole])
        settings: dict[str, Any] = json.loads(told)
        return settings
