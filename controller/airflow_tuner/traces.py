"""What an Airflow's pods leave in Prometheus, read as its workloads and pods at a moment of the past. Pure.

The API server has no past. What pods there were, cAdvisor tells; their memory and their deaths kube-state-metrics,
where it is scraped; what neither knows is stated by the user, or taken as the official chart has it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from airflow_tuner import api, inventory, probe, quantity
from airflow_tuner.environment import INTERVAL, PROCESSES
from airflow_tuner.errors import Misconfigured
from airflow_tuner.model import Cpu, Death, Memory, Pod, Values, Workload
from airflow_tuner.observe import container_id
from airflow_tuner.prometheus import moment
from airflow_tuner.sentence import short
from airflow_tuner.signals import SAMPLED_AT, Series, Signal, apart

CHARTS_GRACE = 600
"""Seconds that the official chart gives a worker to end."""

CHARTS_PROBE = (20, 5)
"""The official chart's liveness probes: seconds until the answer must be there, and failures in a row."""

_STATUS = "kube_pod_container_status"
_KILLED = f'{_STATUS}_last_terminated_reason{{reason="OOMKilled",$container}} == 1'
_OTHERWISE = f"{_STATUS}_last_terminated_exitcode{{$container}} != {inventory.SIGKILLED}"

OBJECTS = {
    "limit": 'max by (pod, container) (kube_pod_container_resource_limits{resource="memory",$container})',
    "request": 'max by (pod, container) (kube_pod_container_resource_requests{resource="memory",$container})',
    "cpu_request": 'max by (pod, container) (kube_pod_container_resource_requests{resource="cpu",$container})',
    "cpu_limit": 'max by (pod, container) (kube_pod_container_resource_limits{resource="cpu",$container})',
    "restarts": f"max by (pod, container) ({_STATUS}_restarts_total{{$container}})",
    # The reason alone does not say it: a container in which the kernel ever killed a process has it, too.
    "killed": f"max by (pod, container) ({_KILLED} unless on (pod, container) {_OTHERWISE})",
    "guaranteed": 'max by (pod) (kube_pod_status_qos_class{qos_class="Guaranteed",$cluster} == 1'
    f" and on (namespace, pod) {_STATUS}_restarts_total{{$container}})",
    "allowed": "container_spec_memory_limit_bytes{$container}",
    "started": "container_start_time_seconds{$container}",
}
"""What is asked for beside the operator's own questions; the first seven are kube-state-metrics'."""

OF_PODS = ("limit", "request", "cpu_request", "cpu_limit", "restarts", "killed")
"""Those of them that are about the container of a pod, whichever it is."""

_POD = re.compile(r"(.+?)(-[a-z0-9]{6,10}-[a-z0-9]{5}|-[0-9]+)")
_UID = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})")


def objects(step: int) -> Signal:
    """The question for pods; and the most anonymous memory of each within a `step` of so many seconds."""
    held = f"max_over_time(container_memory_rss{{$container}}[{step}s])"
    parts = {**OBJECTS, "held": held}
    return Signal("objects", apart(parts), "as each is named", "pods are known from cAdvisor alone", parts=(*parts,))


@dataclass(frozen=True, slots=True)
class Stated:
    """What the user says of a workload."""

    memory: Memory = field(default_factory=Memory)
    unlimited: bool = False
    """It has no limit."""
    unrequested: bool = False
    """It has no request."""
    cpu: Cpu | None = None
    """`None`: nothing is said of it."""
    values: Values = field(default_factory=Values)
    queues: tuple[str, ...] = ()


_FORM = "worker/default=limit:2Gi,request:1Gi,slots:16"


def stated(text: str) -> tuple[str, Stated]:
    """What an option like `worker/default=limit:2Gi,request:1Gi,slots:16` says, and of which target."""
    target, _, told = text.partition("=")
    found = Stated()
    if not told:
        msg = f"--workload {short(text)!r} says nothing of a workload. It has the form {_FORM}."
        raise Misconfigured(msg)
    try:
        for part in told.split(","):
            name, _, value = part.partition(":")
            found = _with(found, name.strip(), value.strip())
    except ValueError as error:
        msg = f"--workload {short(text)!r}: {error}. It has the form {_FORM}."
        raise Misconfigured(msg) from error
    return target.strip(), found


def _with(found: Stated, name: str, value: str) -> Stated:
    if name == "limit":
        size = None if value == "none" else quantity.parse(value)
        return replace(found, memory=replace(found.memory, limit=size), unlimited=size is None)
    if name == "request":
        size = None if value == "none" else quantity.parse(value)
        return replace(found, memory=replace(found.memory, request=size), unrequested=size is None)
    if name in {"cpu", "cpu-limit"}:
        cpu = found.cpu or Cpu()
        size = None if value == "none" else quantity.millicores(value)
        return replace(found, cpu=replace(cpu, **{"request" if name == "cpu" else "limit": size}))
    if name == "queues":
        return replace(found, queues=tuple(value.split("+")))
    if name not in {"slots", "interval", "processes"}:
        msg = (
            f"there is no {short(name)!r}; there are limit, request, cpu, cpu-limit, slots, queues, interval, processes"
        )
        raise ValueError(msg)
    number = int(value)
    if number < 1:
        msg = f"{name} must be 1 or more"
        raise ValueError(msg)
    values = {
        "slots": replace(found.values, concurrency=number),
        "interval": replace(found.values, interval=number),
        "processes": replace(found.values, processes=number),
    }
    return replace(found, values=values[name])


@dataclass(slots=True)
class _Trace:
    """What is known of one pod so far."""

    born: datetime
    """When it was first seen."""
    container: str = ""
    """The id of its last container."""
    begun: datetime | None = None
    """When that began."""
    containers: int = 0
    restarts: int | None = None
    """As kube-state-metrics told last."""
    memory: Memory | None = None
    """The same."""
    cpu: Cpu | None = None
    """The same."""
    allowed: int | None = None
    """The limit that cAdvisor tells, in bytes; 0: none."""
    death: Death | None = None


Key = tuple[str, str]
"""A pod and a container."""


@dataclass(slots=True)
class Traces:
    """All that is known of the pods, from moment to moment. Look at each moment once, one after the other."""

    spec: api.Spec
    stated: Mapping[str, Stated]
    line: str | None = None
    objects_known: bool = False
    """kube-state-metrics has told something."""
    others: set[str] = field(default_factory=set)
    """Workloads that are left out, as their names do not begin with the release's."""
    unknown: dict[str, set[str]] = field(default_factory=dict)
    """By target: `limit` and `request`, where nobody knows them."""
    _pods: dict[str, _Trace] = field(default_factory=dict)
    """By UID."""
    _first: dict[str, datetime] = field(default_factory=dict)
    """When each container was first seen."""

    def workloads(self, at: datetime, values: Mapping[str, tuple[Series, ...]]) -> tuple[Workload, ...]:
        """The workloads that had pods at this moment; `values`: the answers to `objects`, and when was sampled last."""
        told = {name: {_key(item): item.value for item in values.get(name, ())} for name in OF_PODS}
        self.objects_known = self.objects_known or bool(told["restarts"])
        guaranteed = {item.labels.get("pod") for item in values.get("guaranteed", ())}
        by_id = {
            name: {container_id(item): item.value for item in values.get(name, ())} for name in ("started", "allowed")
        }
        found: dict[Key, list[tuple[str, Pod]]] = {}
        for key, item in self._newest(at, values.get(SAMPLED_AT.name, ())).items():
            kind = key[1].removeprefix("airflow-")
            if kind in inventory.COMPONENTS and (made := _POD.fullmatch(key[0])):
                trace = self._traced(at, item, by_id["started"])
                facts = {part: known[key] for part, known in told.items() if key in known}
                _count(trace, at, facts)
                if (one := trace.container) in by_id["allowed"]:
                    trace.allowed = round(by_id["allowed"][one])
                pod = _pod(key[0], _uid(item), trace, guaranteed=key[0] in guaranteed)
                found.setdefault((made[1], kind), []).append((key[1], pod))
        return tuple(self._workload(name, kind, found) for name, kind in self._chosen(found))

    def _newest(self, at: datetime, sampled: Iterable[Series]) -> dict[Key, Series]:
        """By pod the series of its last container: those of its predecessors linger for minutes."""
        newest: dict[Key, Series] = {}
        for item in sampled:
            key, one = _key(item), container_id(item)
            self._first.setdefault(one, at)
            if key not in newest or self._first[container_id(newest[key])] < self._first[one]:
                newest[key] = item
        return newest

    def _traced(self, at: datetime, item: Series, started: Mapping[str, float]) -> _Trace:
        one = container_id(item)
        trace = self._pods.setdefault(_uid(item), _Trace(at))
        if trace.container != one:
            trace.container, trace.containers = one, trace.containers + 1
            trace.begun = min(moment(started[one]), at) if one in started else self._first[one]
        return trace

    def _chosen(self, found: Iterable[Key]) -> list[Key]:
        """Those of the release; where none has its name, all of the namespace."""
        release, all_of_them = self.spec.airflow.release, {*found}
        own = {key for key in all_of_them if release and key[0].startswith(f"{release}-")}
        if own:
            self.others |= {name for name, _ in all_of_them - own}
        chosen = own or all_of_them
        kinds = {kind for _, kind in chosen}
        self.line = self.spec.airflow.version or (
            "3" if "api-server" in kinds else "2" if "webserver" in kinds else self.line
        )
        return sorted(chosen, key=lambda key: (inventory.COMPONENTS.index(key[1]), key[0]))

    def _workload(self, name: str, kind: str, found: Mapping[Key, list[tuple[str, Pod]]]) -> Workload:
        release = self.spec.airflow.release or ""
        alone = sum(other == kind for _, other in found) == 1
        target = inventory.target_of(name, kind, release, alone=alone)
        told = self.stated.get(target, Stated())
        environment = _environment(kind, told.values, self.line)
        named = self.spec.cpu(kind, target, name) is not None
        pods = [self._filled(pod, target, told, named=named) for _, pod in found[name, kind]]
        pods = sorted((replace(pod, environment=environment) for pod in pods), key=lambda pod: pod.name)
        newest = max(pods, key=lambda pod: (pod.created, pod.name))
        template, cpu = newest.memory, newest.cpu
        return Workload(
            target=target,
            component=kind,
            kind="StatefulSet" if re.search(r"-[0-9]+$", pods[0].name) else "Deployment",
            name=name,
            container=found[name, kind][0][0],
            pod_labels={"component": kind, "release": release},
            requests=_written(template.request, cpu.request),
            limits=_written(template.limit, cpu.limit),
            template=template,
            pods=tuple(pods),
            environment=environment,
            names=frozenset(environment),
            probe=_probe(kind),
            stated=replace(told.values, cpu=cpu),
            queues=told.queues or (target.removeprefix("worker/"),),
            replicas=len(pods),
            cpu_limit=None if cpu.limit is None else cpu.limit / 1000,
            grace=CHARTS_GRACE if kind == "worker" else 30,
        )

    def _filled(self, pod: Pod, target: str, told: Stated, *, named: bool) -> Pod:
        """With what is stated, where nothing tells it. `named`: the policy names its CPU."""
        trace = self._pods[pod.uid]
        if trace.memory is not None:
            return pod
        unknown = self.unknown.setdefault(target, set())
        limit, request = told.memory.limit, told.memory.request
        if trace.allowed is not None:
            limit = trace.allowed or None
        elif limit is None and not told.unlimited:
            unknown.add("limit")
        if request is None and not told.unrequested:
            unknown.add("request")
        if named and told.cpu is None:
            unknown.add("cpu")
        memory, cpu = Memory(request, limit), told.cpu or Cpu()
        return replace(pod, memory=memory, running=memory, cpu=cpu, running_cpu=cpu)


def _pod(name: str, uid: str, trace: _Trace, *, guaranteed: bool) -> Pod:
    memory, cpu = trace.memory or Memory(), trace.cpu or Cpu()
    return Pod(
        name=name,
        uid=uid,
        created=min(trace.born, trace.begun or trace.born),
        memory=memory,
        running=memory,
        cpu=cpu,
        running_cpu=cpu,
        container_id=trace.container,
        started=trace.begun,
        deaths=trace.containers - 1 if trace.restarts is None else trace.restarts,
        death=trace.death,
        guaranteed=guaranteed,
    )


def _count(trace: _Trace, at: datetime, facts: Mapping[str, float]) -> None:
    """A death is seen as the count of restarts rises; when those before the first look were, is not known."""
    if "restarts" not in facts:
        return
    trace.memory = Memory(*(round(facts[part]) if part in facts else None for part in ("request", "limit")))
    trace.cpu = Cpu(*(_millicores(facts.get(part)) for part in ("cpu_request", "cpu_limit")))
    restarts = round(facts["restarts"])
    if trace.restarts is not None and restarts > trace.restarts:
        trace.death = Death(restarts, at) if "killed" in facts else None
    trace.restarts = restarts


def _millicores(cores: float | None) -> int | None:
    return None if cores is None else round(cores * 1000) or None


def _written(memory: int | None, cpu: int | None) -> dict[str, str]:
    """As a template has it."""
    told = {"memory": None if memory is None else f"{memory}", "cpu": None if cpu is None else quantity.cpu(cpu)}
    return {name: text for name, text in told.items() if text is not None}


def _key(item: Series) -> Key:
    return item.labels.get("pod", ""), item.labels.get("container", "")


def _uid(item: Series) -> str:
    """As the cgroup's path has it; where it does not, the pod's name must do."""
    found = _UID.search(item.labels.get("id", ""))
    return found[1].replace("_", "-") if found else item.labels.get("pod", "")


def _environment(kind: str, values: Values, line: str | None) -> dict[str, str]:
    """The variables that would make these values."""
    if kind == "worker" and values.concurrency:
        return {api.EnvName.CONCURRENCY: f"{values.concurrency}"}
    if kind != "dag-processor" or line is None:
        return {}
    told = {INTERVAL[line]: values.interval, PROCESSES[line]: values.processes}
    return {name: f"{value}" for name, value in told.items() if value}


def _probe(kind: str) -> probe.Probe | None:
    """What the official chart has."""
    commands = {"worker": "celery inspect ping", "scheduler": "airflow jobs check", "triggerer": "airflow jobs check"}
    commands["dag-processor"] = commands["scheduler"]
    return next((probe.Probe(one, *CHARTS_PROBE) for one in probe.COMMANDS if one.what == commands.get(kind)), None)
