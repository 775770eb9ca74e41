"""A real Airflow with CeleryExecutor in the containers of a compose project, on a Docker engine of its own."""

import base64
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.airflow_client import AirflowClient
from testbed.airflow_environment import airflow_environment
from testbed.airflow_lines import AIRFLOW_3
from testbed.docker_engine import IMAGE, DockerEngine, mounts, require_engine
from testbed.processes import Area, Program, ProgramFailed, free_port
from testbed.programs import build
from testbed.prometheus import Prometheus, StatsdExporter
from testbed.services import Services

PROJECT = "airflow"
ADDRESS = "127.0.0.1"
ANOTHER = "127.0.0.2"
"""Also of this machine: services listen on two addresses."""
DAGS = Path(__file__).parent / "dags"
MAPPING = Path(__file__).parent / "statsd-mapping.yaml"
WORKER = "airflow-worker"
DAG_PROCESSOR = "airflow-dag-processor"
COMMANDS = {
    "airflow-apiserver": "api-server",
    "airflow-scheduler": "scheduler",
    DAG_PROCESSOR: "dag-processor",
    "airflow-triggerer": "triggerer",
    WORKER: "celery worker",
}
"""Services of the official compose file, and what each runs."""

MIGRATION_SECONDS = 180.0
HEALTHY_SECONDS = 180.0
_BEATING = "select distinct job_type from job where state = 'running' and latest_heartbeat > now() - interval '15 s'"


class DockerAirflow(AirflowClient):
    """Airflow 3 in containers; they go with the engine."""

    def __init__(self, area: Area, engine: DockerEngine, services: Services, exporter: StatsdExporter | None) -> None:
        self.engine = engine
        self.services = services
        self.environment = airflow_environment(AIRFLOW_3)
        self.file = engine.home / "docker-compose.yaml"
        port = free_port()
        super().__init__(
            AIRFLOW_3, f"http://{ADDRESS}:{port}", services.postgresql, engine.home / "dags", engine.home / "logs"
        )
        shutil.copytree(DAGS, self.dags, ignore=shutil.ignore_patterns("__pycache__"))
        self.logs.mkdir()
        self._settings = self._facts(port, exporter)
        self._migrated = engine.home / "migrated"
        self._migration = self._begin_migration(area)

    def start(self, services: Mapping[str, Mapping[str, Any]]) -> None:
        """Start these services of the official file; what is given for each is laid over it."""
        self._migration.wait_until(self._migrated.exists, "the database to be migrated", MIGRATION_SECONDS)
        self._migration.stop()
        self.write(services)
        self.engine.compose(self.file, PROJECT, "up", "--detach")
        self.wait_until(lambda: self.healthy(services), "Airflow to be healthy", HEALTHY_SECONDS)

    def write(self, services: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the compose file."""
        common: dict[str, Any] = {
            "image": IMAGE,
            "network_mode": "host",
            "restart": "always",
            "volumes": [
                *mounts(self.environment),
                f"{self.dags}:/opt/airflow/dags:ro",
                f"{self.logs}:/opt/airflow/logs",
            ],
        }
        told = {}
        for name, own in services.items():
            command = [str(self.environment / "bin" / "airflow"), *COMMANDS[name].split()]
            environment = {**self._settings, **own.get("environment", {})}
            told[name] = {**common, "hostname": name, "command": command, **own, "environment": environment}
        self.file.write_text(json.dumps({"version": "2.4", "services": told}))

    def healthy(self, services: Mapping[str, Mapping[str, Any]]) -> bool:
        """The heartbeats are fresh, and the REST API and the worker answer."""
        jobs = {
            "airflow-scheduler": "SchedulerJob",
            DAG_PROCESSOR: "DagProcessorJob",
            "airflow-triggerer": "TriggererJob",
        }
        beating = {row[0] for row in self.services.postgresql.query(_BEATING)}
        if not beating >= {job for name, job in jobs.items() if name in services}:
            return False
        self.call("GET", "/version")
        return f"celery@{WORKER}." in " ".join(self.services.redis.members("_kombu.binding.celery.pidbox"))

    def container(self, service: str) -> dict[str, Any]:
        """What the engine says of the one container of a service."""
        words = ("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.service={service}")
        return self.engine.inspect(self.engine.docker(*words).split()[0])

    def describe(self) -> str:
        """The containers, the last lines of each one's log, and import errors: for failures."""
        parts = [self.engine.docker("ps", "--all", check=False)]
        for name in self.engine.docker("ps", "--all", "--format={{.Names}}", check=False).split():
            parts += [f"--- {name}", self.engine.docker("logs", "--tail=8", name, check=False)]
        return "\n".join([*parts, super().describe()])

    def _facts(self, port: int, exporter: StatsdExporter | None) -> dict[str, str]:
        database = self.services.postgresql.url.replace(ANOTHER, ADDRESS)
        told = {
            "HOME": "/root",
            "PATH": f"{self.environment}/bin:/usr/local/bin:/usr/bin:/bin",
            "AIRFLOW_HOME": "/opt/airflow",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API__PORT": f"{port}",
            "AIRFLOW__API__HOST": ADDRESS,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql://{database}",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql://{database}",
            "AIRFLOW__CELERY__BROKER_URL": self.services.redis.url,
            "AIRFLOW__CELERY__WORKER_CONCURRENCY": "2",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
            "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
            "AIRFLOW__SCHEDULER__TI_METRICS_INTERVAL": "5",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        if exporter is not None:
            told |= {
                "AIRFLOW__METRICS__STATSD_ON": "True",
                "AIRFLOW__METRICS__STATSD_PREFIX": "airflow",
                "AIRFLOW__METRICS__STATSD_HOST": ADDRESS,
                "AIRFLOW__METRICS__STATSD_PORT": f"{exporter.udp_port}",
            }
        return told

    def _begin_migration(self, area: Area) -> Program:
        home = self.engine.home / "airflow-home"
        airflow = self.environment / "bin" / "airflow"
        return area.program(
            "airflow-db-migrate",
            # It lives on when it is done, as whoever waits for it takes an exit for a failure.
            ["sh", "-c", f"'{airflow}' db migrate && touch '{self._migrated}' && exec sleep infinity"],
            env={**self._settings, "AIRFLOW_HOME": str(home), "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs")},
        ).start()


@dataclass(frozen=True)
class RealProject:
    """The parts of a running Airflow in containers."""

    area: Area
    airflow: DockerAirflow
    metrics: Prometheus | None

    @property
    def prometheus(self) -> Prometheus:
        """The Prometheus, where it was asked for."""
        if self.metrics is None:
            raise ProgramFailed("this Airflow was started without metrics")
        return self.metrics


@contextmanager
def docker_airflow(services: Mapping[str, Mapping[str, Any]], *, metrics: bool = False) -> Iterator[RealProject]:
    """Start an engine and Airflow in it, with these services, and leave nothing behind."""
    require_engine()
    airflow_environment(AIRFLOW_3)
    if metrics:
        build(("statsd_exporter", "prometheus"))
    with ExitStack() as stack:
        area = Area("docker")
        stack.callback(area.clean)
        engine = stack.enter_context(DockerEngine(area))
        around = stack.enter_context(Services(area, engine.home / "postgresql", ANOTHER))
        exporter = prometheus = None
        if metrics:
            exporter = stack.enter_context(StatsdExporter(area, MAPPING, address=ADDRESS))
            target = exporter.url.removeprefix("http://")
            scrape: Mapping[str, Any] = {"job_name": "airflow", "static_configs": [{"targets": [target]}]}
            prometheus = stack.enter_context(Prometheus(area, [scrape], interval="2s"))
        airflow = DockerAirflow(area, engine, around, exporter)
        airflow.start(services)
        yield RealProject(area, airflow, prometheus)
