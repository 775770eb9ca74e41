"""A real Kubernetes control plane: etcd, API server, controller manager and scheduler as four processes."""

import json
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from testbed.commands import run
from testbed.loopback import fetch
from testbed.processes import Area, Program, Startable, free_port, wait_for
from testbed.programs import program

START_SECONDS = 60.0
API_SERVER_GRACE_SECONDS = 3.0  # open watches keep it for a minute otherwise

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class ControlPlane(Startable):
    """One control plane with its data and keys in `area`; as a context manager it starts and stops.

    It listens on 127.0.0.1, and with `extra_addresses` on every address, with those in its certificate. `node` is the
    node whose kubelet gets a kubeconfig. With `audit` every request is noted in `<area>/audit.log`. With `aggregates`
    the API server tells the servers behind it who asks.
    """

    def __init__(
        self,
        area: Area,
        *,
        extra_addresses: Sequence[str] = (),
        node: str = "node",
        audit: bool = False,
        aggregates: bool = False,
    ) -> None:
        self.binary = program("control-plane")
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.pki = area.path / "pki"
        self.ca = self.pki / "ca.crt"
        self.kubeconfig = self.pki / "admin.kubeconfig"
        self.audit_log = area.path / "audit.log" if audit else None
        self._aggregates = aggregates
        self._area = area
        self._addresses = ["127.0.0.1", "localhost", *extra_addresses]
        self._node = node
        self._etcd_port = free_port()
        self._api_server = self._part("kube-apiserver", self._api_server_flags())
        self._programs = [
            self._part("etcd", self._etcd_flags()),
            self._api_server,
            self._part("kube-controller-manager", self._controller_manager_flags()),
            self._part("kube-scheduler", self._component_flags("scheduler")),
        ]

    def start(self) -> Self:
        """Starts all four at once; returns when a pod could be created in the namespace `default`."""
        self.pki.mkdir()
        names = ",".join(self._addresses)
        run([self.binary, "pki", "-folder", self.pki, "-server", self.url, "-names", names, "-node", self._node])
        if self.audit_log is not None:
            self._audit_policy.write_text(json.dumps(AUDIT_POLICY))
        try:
            for part in self._programs:
                part.start()
            wait_for(self._programs_by_suspicion(), self.ready, "the API server to be ready", START_SECONDS)
            wait_for(self._programs_by_suspicion(), self._has_default_account, "the ServiceAccount", START_SECONDS)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stops all four, those that depend on others first."""
        for part in reversed(self._programs):
            part.stop(API_SERVER_GRACE_SECONDS)

    @property
    def programs(self) -> tuple[Program, ...]:
        """The four programs, in the order of their start."""
        return tuple(self._programs)

    def stop_api_server(self) -> None:
        """Stops the API server alone, as an outage would."""
        self._api_server.stop(API_SERVER_GRACE_SECONDS)

    def start_api_server(self) -> None:
        """Starts the API server again, on the same port; returns when it is ready."""
        self._api_server.start()
        self._api_server.wait_until(self.ready, "the API server to be ready", START_SECONDS)

    def ready(self) -> bool:
        """Whether the API server says it is ready; an OSError when it does not answer or is not."""
        return self.get("/readyz") == b"ok"

    def get(self, path: str) -> bytes:
        """Returns what the API server answers the administrator to a GET of `path`; an OSError on an error status."""
        trust = ssl.create_default_context(cafile=str(self.ca))
        trust.load_cert_chain(self.pki / "admin.crt", self.pki / "admin.key")
        return fetch(f"{self.url}{path}", tls=trust, timeout=5)

    def kubectl(
        self,
        *args: str | Path,
        input: str | None = None,  # noqa: A002 - as in `run`
        check: bool = True,
        timeout: float = 60,
    ) -> str:
        """Runs kubectl as administrator and returns its standard output; raises CommandFailed."""
        cache = {"KUBECACHEDIR": str(self._area.path / "kubectl-cache"), "KUBECTL_KUBERC": "false"}
        argv = [self.binary, "kubectl", f"--kubeconfig={self.kubeconfig}", *args]
        return run(argv, input=input, env=cache, check=check, timeout=timeout)

    def kubeconfig_for_service_account(self, namespace: str, name: str, path: Path) -> Path:
        """Writes a kubeconfig with a token of the ServiceAccount, good for a day, and returns its path."""
        token = self.kubectl("create", "token", name, f"--namespace={namespace}", "--duration=24h").strip()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "testbed", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}},
            ],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": name, "namespace": namespace}}],
            "current-context": "testbed",
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=2))
        return path

    def scrape_config(self) -> dict[str, Any]:
        """Returns the Prometheus scrape config for the API server's own metrics."""
        key = {name: str(self.pki / f"admin.{end}") for name, end in (("cert_file", "crt"), ("key_file", "key"))}
        return {
            "job_name": "kube-apiserver",
            "scheme": "https",
            "tls_config": {"ca_file": str(self.ca), **key},
            "static_configs": [{"targets": [f"127.0.0.1:{self.port}"]}],
        }

    def _has_default_account(self) -> bool:
        return bool(self.get("/api/v1/namespaces/default/serviceaccounts/default"))

    def _programs_by_suspicion(self) -> list[Program]:
        """Returns the API server first: its log says most about a start that takes too long."""
        return sorted(self._programs, key=lambda part: part is not self._api_server)

    def _part(self, name: str, flags: Sequence[str]) -> Program:
        return self._area.program(name, [self.binary, name, *flags])

    @property
    def _audit_policy(self) -> Path:
        return self._area.path / "audit-policy.json"

    def _etcd_flags(self) -> list[str]:
        return [
            f"--data-dir={self._area.path / 'etcd'}",
            f"--listen-client-url=http://127.0.0.1:{self._etcd_port}",
            f"--listen-peer-url=http://127.0.0.1:{free_port()}",
        ]

    def _api_server_flags(self) -> list[str]:
        everywhere = len(self._addresses) > 2
        flags = {
            "etcd-servers": f"http://127.0.0.1:{self._etcd_port}",
            "secure-port": str(self.port),
            "bind-address": "0.0.0.0" if everywhere else "127.0.0.1",  # noqa: S104 - pods reach it by a host address
            "advertise-address": self._addresses[2] if everywhere else "127.0.0.1",
            "endpoint-reconciler-type": "none",  # a loopback address may not be an endpoint
            "service-cluster-ip-range": "10.96.0.0/24",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "allow-privileged": "true",
            "cert-dir": str(self.pki),
            "tls-cert-file": str(self.pki / "apiserver.crt"),
            "tls-private-key-file": str(self.pki / "apiserver.key"),
            "client-ca-file": str(self.ca),
            "kubelet-client-certificate": str(self.pki / "apiserver-kubelet-client.crt"),
            "kubelet-client-key": str(self.pki / "apiserver-kubelet-client.key"),
            "kubelet-preferred-address-types": "InternalIP,Hostname",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": str(self.pki / "sa.pub"),
            "service-account-signing-key-file": str(self.pki / "sa.key"),
        }
        if self._aggregates:
            flags |= {
                "proxy-client-cert-file": str(self.pki / "apiserver-kubelet-client.crt"),
                "proxy-client-key-file": str(self.pki / "apiserver-kubelet-client.key"),
                "requestheader-client-ca-file": str(self.ca),
                "requestheader-allowed-names": "kube-apiserver-kubelet-client",
                "requestheader-username-headers": "X-Remote-User",
                "requestheader-group-headers": "X-Remote-Group",
                "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            }
        if self.audit_log is not None:
            flags |= {"audit-policy-file": str(self._audit_policy), "audit-log-path": str(self.audit_log)}
        return [f"--{name}={value}" for name, value in flags.items()]

    def _controller_manager_flags(self) -> list[str]:
        return [
            *self._component_flags("controller-manager"),
            f"--service-account-private-key-file={self.pki / 'sa.key'}",
            f"--root-ca-file={self.ca}",
            "--use-service-account-credentials=true",  # RBAC knows its controllers only by their own accounts
            "--kube-api-qps=500",  # the default of 20 a second costs three seconds of the start
            "--kube-api-burst=1000",
        ]

    def _component_flags(self, client: str) -> list[str]:
        config = self.pki / f"{client}.kubeconfig"
        return [
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--authentication-tolerate-lookup-failure=true",  # it starts before the API server answers
            "--bind-address=127.0.0.1",
            f"--secure-port={free_port()}",
            "--leader-elect=false",
        ]
