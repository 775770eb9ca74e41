"""Containers of one compose project, as the engine inspects them, read as the workloads of one Airflow. Pure.

A service is a workload, each of its containers a pod. Docker reserves no memory: request and limit are one number.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_tuner import api, environment, executor, inventory, model, probe
from airflow_tuner.crash import Crash
from airflow_tuner.executor import Executors
from airflow_tuner.model import Cpu, Death, Memory, Pod, Workload
from airflow_tuner.room import DECISION

Object = Mapping[str, Any]

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
HASH = "com.docker.compose.config-hash"
ONEOFF = "com.docker.compose.oneoff"
ORIGINAL = f"{api.GROUP}/original"
"""Label of a container that was made for a decision, beside `DECISION`: what its service's definition says, as JSON."""
COMPONENT = f"{api.GROUP}/component"
"""Label of a service whose name does not say which component of Airflow it is."""

PERIOD = 100_000
"""Microseconds: the engine's own scheduling period."""
SECOND = 10**9
"""Nanoseconds; Docker's unit of time and of CPUs."""

_SERVICE = re.compile(
    r"(?:airflow[-_])?(scheduler|dag[-_]?processor|triggerer|api[-_]?server|webserver|worker)(?:[-_](.+))?"
)
_NAMES = {"dagprocessor": "dag-processor", "apiserver": "api-server"}


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the definition of a service says, before anything was changed."""

    memory: int | None = None
    """Bytes; `None`: no limit."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Of the variables that may be set."""
    cpu: int | None = None
    """Thousandths of a core; `None`: no limit."""

    @property
    def written(self) -> str:
        """As a label has it."""
        told = {"memory": self.memory, "cpu": self.cpu, "environment": dict(self.environment)}
        return json.dumps(told, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of a project's containers: the engine shows only what is set now."""

    baselines: Mapping[tuple[str, str], Baseline] = field(default_factory=dict)
    """By service and hash of its definition."""
    given: Mapping[str, int] = field(default_factory=dict)
    """The limit that a container was given last, by id."""
    deaths: Mapping[str, tuple[datetime, ...]] = field(default_factory=dict)
    """When a container died of memory, by id."""


def labels(spec: api.Spec) -> dict[str, str]:
    """What a container of this Airflow carries: `release` is the name of the compose project."""
    airflow = spec.airflow
    if airflow.selector is not None:
        return dict(airflow.selector.match_labels)
    return {PROJECT: airflow.release or ""}


def read_baseline(text: str) -> Baseline | None:
    """What was written; `None` where it is no such thing."""
    try:
        told = json.loads(text)
        memory, cpu, env = (told[key] for key in ("memory", "cpu", "environment"))
        memory, cpu = (None if size is None else int(size) for size in (memory, cpu))
        return Baseline(memory, {str(key): str(env[key]) for key in env}, cpu)
    except (ValueError, TypeError, LookupError):
        return None


def service(item: Object) -> str:
    """The service that a container belongs to; its own name where there is none."""
    return str(_labels(item).get(SERVICE) or item["Name"].lstrip("/"))


def project(item: Object) -> str:
    """The compose project that a container belongs to; empty: none."""
    return str(_labels(item).get(PROJECT, ""))


def key(item: Object) -> tuple[str, str]:
    """The definition that a container was made from."""
    return service(item), str(_labels(item).get(HASH) or item["Id"])


def incarnation(item: Object) -> str:
    """A container between two starts: what the kernel counts begins anew with each."""
    return f"{item['Id']}@{_state(item).get('StartedAt', '')}"[:128]


def hostname(item: Object) -> str:
    """What its Celery worker calls itself by."""
    return str(item["Config"].get("Hostname") or "")


def baseline(item: Object) -> Baseline:
    """What the definition of a container that nobody has changed says, or of one that was made for a decision."""
    told = read_baseline(str(_labels(item).get(ORIGINAL, "")))
    return told or Baseline(item["HostConfig"].get("Memory") or None, _ours(item), cpu(item))


def cpu(item: Object) -> int | None:
    """The CPU limit of a container in thousandths of a core, however it is set; `None`: none is."""
    host = item["HostConfig"]
    if nanos := host.get("NanoCpus"):
        return int(nanos) * 1000 // SECOND
    quota, period = host.get("CpuQuota") or 0, host.get("CpuPeriod") or PERIOD
    return quota * 1000 // period if quota > 0 else None


def limited(item: Object, millicores: int) -> dict[str, int]:
    """What to ask for to give a container a CPU limit, in the terms in which it has one."""
    host = item["HostConfig"]
    if host.get("CpuQuota"):
        period = host.get("CpuPeriod") or PERIOD
        return {"CpuPeriod": period, "CpuQuota": millicores * period // 1000}
    return {"NanoCpus": millicores * SECOND // 1000}


def component(item: Object) -> str:
    """The component of Airflow that a container is; empty: none that is known."""
    stated = str(_labels(item).get(COMPONENT, ""))
    found = _SERVICE.fullmatch(service(item))
    name = stated or (found[1].replace("_", "-") if found else "")
    name = _NAMES.get(name, name)
    once = str(_labels(item).get(ONEOFF, "")).lower() == "true"
    return name if name in inventory.COMPONENTS and not once else ""


def line(items: Iterable[Object], stated: str | None, known: str) -> str | None:
    """Airflow's major version, as `inventory.line` tells it."""
    kinds = {component(item) for item in items}
    return stated or ("3" if "api-server" in kinds else "2" if "webserver" in kinds else known or None)


def executors(items: Iterable[Object], stated: str | None) -> Executors:
    """What runs the tasks: as stated, else the scheduler's environment."""
    if stated:
        return executor.option(stated, "spec.airflow.executor")
    for item in items:
        if component(item) == "scheduler" and executor.OPTION in (told := _environment(item)):
            return executor.option(told[executor.OPTION], f"{executor.OPTION} of {model.SERVICE}/{service(item)}")
    return executor.UNKNOWN


def workloads(items: Iterable[Object], known: Known, line: str | None) -> tuple[Workload, ...]:
    """The services of known components, with their containers."""
    groups: dict[tuple[str, str], list[Object]] = {}
    for item in items:
        if kind := component(item):
            groups.setdefault((kind, service(item)), []).append(item)
    kinds = [kind for kind, _ in groups]
    order = sorted(groups, key=lambda one: (inventory.COMPONENTS.index(one[0]), one[1]))
    return tuple(
        _workload(name, _target(kind, name, alone=kinds.count(kind) == 1), groups[kind, name], known, line)
        for kind, name in order
    )


def _target(kind: str, name: str, *, alone: bool) -> str:
    if kind == "worker":
        found = _SERVICE.fullmatch(name)
        return f"worker/{(found[2] or 'default') if found else name}"
    return kind if alone else f"{kind}/{name}"


def _workload(name: str, target: str, items: list[Object], known: Known, line: str | None) -> Workload:
    # The newest says what the next will be like.
    newest = max(items, key=lambda item: str(item["Created"]))
    kind, config = component(newest), newest["Config"]
    base = known.baselines.get(key(newest)) or baseline(newest)
    sizes = {} if base.memory is None else {"memory": f"{base.memory}"}
    sizes |= {} if base.cpu is None else {"cpu": f"{base.cpu}m"}
    words = [str(word) for word in [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]]
    # One text is a shell's command.
    words = [part for word in words for part in word.split()]
    told = {**_environment(newest), **base.environment}
    told = {name: value for name, value in told.items() if name in base.environment or name not in environment.NAMES}
    stated = environment.stated_by(kind, told, words, line)
    return Workload(
        target=target,
        component=kind,
        kind=model.SERVICE,
        name=name,
        container=kind,
        pod_labels={label: str(_labels(newest)[label]) for label in (PROJECT, SERVICE) if label in _labels(newest)},
        requests=sizes,
        limits=sizes,
        template=Memory(base.memory, base.memory),
        pods=tuple(_pod(item, known) for item in items),
        environment=dict(base.environment),
        names=frozenset(told),
        probe=_probe(config.get("Healthcheck") or {}),
        stated=replace(stated, cpu=Cpu(base.cpu, base.cpu)),
        queues=environment.queues_of(words, told.get(inventory.DEFAULT_QUEUE, "default")),
        replicas=len(items),
        cpu_limit=None if base.cpu is None else base.cpu / 1000,
        grace=int(10 if config.get("StopTimeout") is None else config["StopTimeout"]),
    )


def _pod(item: Object, known: Known) -> Pod:
    state, container = _state(item), str(item["Id"])
    limit = item["HostConfig"].get("Memory") or None
    memory, runs = Memory(limit, limit), bool(state.get("Running")) and not state.get("Restarting")
    cores = Cpu(cpu(item), cpu(item))
    deaths, given = known.deaths.get(container, ()), known.given.get(container)
    return Pod(
        name=str(item["Name"]).lstrip("/"),
        uid=container,
        created=moment(item["Created"]),
        memory=memory,
        running=memory if runs else None,
        cpu=cores,
        running_cpu=cores if runs else None,
        container_id=incarnation(item),
        started=moment(state["StartedAt"]) if runs else None,
        deaths=int(item.get("RestartCount") or 0),
        death=Death(len(deaths), max(deaths)) if deaths else None,
        crash=_crash(item, state, deaths),
        guaranteed=True,
        ending=state.get("Status") in {"exited", "dead", "removing"},
        decision=_labels(item).get(DECISION),
        resized=given is not None,
        resized_cpu=given is not None,
        foreign=given is not None and limit != given,
        environment=_ours(item),
        ready=runs and (state.get("Health") or {}).get("Status", "healthy") in {"healthy", "none"},
    )


def _crash(item: Object, state: Object, deaths: tuple[datetime, ...]) -> Crash | None:
    """Its last death, where it was started again and was not killed for memory."""
    restarts, at = int(item.get("RestartCount") or 0), moment(state.get("FinishedAt"))
    if not restarts or any(abs(death - at) < timedelta(seconds=10) for death in deaths):
        return None
    again = bool(state.get("Restarting"))
    return Crash(
        container=str(item["Name"]).lstrip("/"),
        restarts=restarts,
        # What runs again shows no code any more.
        code=int(state.get("ExitCode", 0)) if again else None,
        reason="Error",
        at=at,
        lasted=at - moment(state.get("StartedAt")) if again else None,
        put_off=timedelta() if again else None,
        started=None if again else moment(state.get("StartedAt")),
    )


def moment(text: str | None) -> datetime:
    """A time of the engine, which has nanoseconds."""
    if not text or text.startswith("0001-"):
        return datetime.fromtimestamp(0, UTC)
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))


def _probe(check: Object) -> probe.Probe | None:
    """The health check, where it starts an Airflow; an unhealthy container is not restarted by the engine."""
    words = [str(word) for word in check.get("Test") or []]
    seconds = int(check.get("Timeout") or 30 * SECOND) // SECOND
    told = {"exec": {"command": words[1:]}, "timeoutSeconds": seconds, "failureThreshold": check.get("Retries") or 3}
    return probe.read({"livenessProbe": told})


def _environment(item: Object) -> dict[str, str]:
    entries = (str(entry).partition("=") for entry in item["Config"].get("Env") or [])
    return {name: value for name, _, value in entries}


def _ours(item: Object) -> dict[str, str]:
    return {name: value for name, value in _environment(item).items() if name in environment.NAMES}


def _labels(item: Object) -> Mapping[str, str]:
    return item["Config"].get("Labels") or {}


def _state(item: Object) -> Object:
    state: Object = item["State"]
    return state
