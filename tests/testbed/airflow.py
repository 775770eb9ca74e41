"""A real Airflow with CeleryExecutor in pods of the real node, installed by Helm."""

import base64
import json
import secrets
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from testbed import images
from testbed.airflow_client import AirflowClient
from testbed.airflow_environment import airflow_environment
from testbed.airflow_lines import AIRFLOW_3, CHART, Line
from testbed.commands import CommandFailed
from testbed.helm import helm
from testbed.node import Node
from testbed.processes import Program, free_port
from testbed.prometheus import StatsdExporter
from testbed.services import Services

DAGS = Path(__file__).parent / "dags"
NAMESPACE = "airflow"
RELEASE = "airflow"

MIGRATION_SECONDS = 180.0
HEALTHY_SECONDS = 240.0
LOG_LINES = 8
LOG_WIDTH = 300
_BEATING = "select distinct job_type from job where state = 'running' and latest_heartbeat > now() - interval '15 s'"


class Airflow(AirflowClient):
    """Airflow of one line on a prepared node; its objects go with the node, so there is nothing to stop.

    The database is migrated in the background from the moment of construction; `start` does the rest.
    """

    namespace = NAMESPACE
    release = RELEASE

    def __init__(self, node: Node, services: Services, exporter: StatsdExporter, line: Line = AIRFLOW_3) -> None:
        self.port = free_port()
        super().__init__(
            line, f"http://{node.address}:{self.port}", services.postgresql, node.home / "dags", node.home / "logs"
        )
        self.node = node
        self.control_plane = node.control_plane
        self.services = services
        self.environment = airflow_environment(line)
        self._components = set(line.components)
        self._migrated = node.home / "migrated"
        self._machine_values = self._facts(exporter)
        shutil.copytree(DAGS, self.dags, ignore=shutil.ignore_patterns("__pycache__"))
        self.logs.mkdir()
        self._migration = self._begin_migration()

    def start(self, values: Mapping[str, Any] | None = None) -> Self:
        """Install the chart with these values over its own; return when all of its components work."""
        if (values or {}).get("workers", {}).get("celery", {}).get("enableDefault") is False:
            self._components.discard("worker")
        self._migration.wait_until(self._migrated.exists, "the database to be migrated", MIGRATION_SECONDS)
        self._migration.stop()
        self.control_plane.kubectl("create", "namespace", self.namespace)
        self._helm("install", values or {})
        self.wait_until(self.healthy, "Airflow to be healthy", HEALTHY_SECONDS)
        return self

    def upgrade(self, values: Mapping[str, Any]) -> None:
        """Upgrade the release to exactly these values over the chart's own; return when the new pods run."""
        self._helm("upgrade", values)
        self._kubectl("rollout", "status", "deployment", "--selector=tier=airflow", timeout=HEALTHY_SECONDS)

    def healthy(self) -> bool:
        """Whether every pod runs, the jobs' heartbeats are fresh, and the REST API and the workers answer."""
        pods = self.pods()
        running = [pod for pod in pods if pod["status"].get("phase") == "Running"]
        components = {pod["metadata"]["labels"]["component"] for pod in running}
        if not components >= self._components or len(running) < len(pods):
            return False
        beating = {row[0] for row in self.services.postgresql.query(_BEATING)}
        if not beating >= {"SchedulerJob", "DagProcessorJob", "TriggererJob"}:
            return False
        self.call("GET", "/version")
        listening = " ".join(self.services.redis.members("_kombu.binding.celery.pidbox"))
        workers = [pod for pod in running if pod["metadata"]["labels"]["component"] == "worker"]
        return all(f"celery@{pod['metadata']['name']}." in listening for pod in workers)

    def pods(self, component: str | None = None) -> list[dict[str, Any]]:
        """Return the pods of one component, or of all, as the API server has them."""
        selector = f"tier=airflow,release={self.release}" + (f",component={component}" if component else "")
        pods: list[dict[str, Any]] = json.loads(
            self._kubectl("get", "pods", f"--selector={selector}", "--output=json")
        )["items"]
        return pods

    def describe(self) -> str:
        """Return the state of the pods, the last lines of each one's log, and import errors: for failures."""
        try:
            parts = [self._kubectl("get", "pods", "--output=wide")]
            for pod in self.pods():
                name = pod["metadata"]["name"]
                lines = self._kubectl("logs", name, "--all-containers", f"--tail={LOG_LINES}", check=False)
                parts += [f"--- {name}", *(line[:LOG_WIDTH] for line in lines.splitlines())]
            parts.append(super().describe())
        except CommandFailed as error:
            return f"(the cluster does not answer: {error})"
        return "\n".join(parts)

    def _begin_migration(self) -> Program:
        """Migrate in the background: ten seconds of CPU that fit beside the start of the cluster."""
        home = self.node.home / "airflow-home"
        airflow = self.environment / "bin" / "airflow"
        return self.node.area.program(
            "airflow-db-migrate",
            # It lives on when it is done, as whoever waits for it takes an exit for a failure.
            ["sh", "-c", f"'{airflow}' db migrate && touch '{self._migrated}' && exec sleep infinity"],
            env={
                "AIRFLOW_HOME": str(home),
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": str(self._machine_values["data"]["metadataConnection"]),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
            },
        ).start()

    def _facts(self, exporter: StatsdExporter) -> dict[str, Any]:
        """Return the chart's values that describe this machine and this run."""
        database = self.services.postgresql.url
        folders = [*images.host_folders(), str(self.environment)]
        if not Path(sys.base_prefix).is_relative_to("/usr"):
            folders.append(sys.base_prefix)
        return {
            "machine": {
                "address": self.node.address,
                "folders": folders,
                "environment": str(self.environment),
                "image": images.HOST_ROOT,
            },
            "dags": {"hostPath": str(self.dags)},
            "logs": {"hostPath": str(self.logs)},
            "data": {
                "metadataConnection": f"postgresql://{database}",
                "resultBackendConnection": f"db+postgresql://{database}",
                "brokerUrl": self.services.redis.url,
            },
            "statsd": {"port": exporter.udp_port},
            "ports": {"apiServer": self.port},
            "fernetKey": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "apiSecretKey": secrets.token_hex(16),
            "jwtSecret": secrets.token_hex(64),
        }

    def _helm(self, verb: str, values: Mapping[str, Any]) -> None:
        files = [f"--values={file}" for file in self.line.values]
        for name, content in (("machine", self._machine_values), ("release", values)):
            file = self.node.home / f"values-{name}.json"  # JSON is YAML
            file.touch(mode=0o600)
            file.write_text(json.dumps(content))
            files.append(f"--values={file}")
        helm(self.control_plane, verb, self.release, CHART, f"--namespace={self.namespace}", *files)

    def _kubectl(self, *words: str, check: bool = True, timeout: float = 60) -> str:
        return self.control_plane.kubectl(f"--namespace={self.namespace}", *words, check=check, timeout=timeout)
