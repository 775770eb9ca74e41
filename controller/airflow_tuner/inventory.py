"""Kubernetes objects, as plain dicts, read as the workloads and pods of one Airflow deployment. Pure.

Which pods belong to a workload is read from their owner, not from labels alone: several worker workloads of one chart
may share every label.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_tuner import crash, environment, executor, probe, quantity
from airflow_tuner.executor import Executors
from airflow_tuner.model import Cpu, Death, Eviction, Memory, Pod, Refusal, TaskPod, Workload
from airflow_tuner.room import DECISION
from airflow_tuner.sentence import short

Object = Mapping[str, Any]

FIELD_MANAGER = "airflow-tuner"
COMPONENT_LABELS = ("component", "app.kubernetes.io/component")
COMPONENTS = ("scheduler", "dag-processor", "triggerer", "api-server", "webserver", "worker")
OUT_OF_MEMORY = crash.OUT_OF_MEMORY
EVICTED = "Evicted"
"""Reason of a pod that the kubelet has ended for pressure on its node."""
DEFAULT_QUEUE = "AIRFLOW__OPERATORS__DEFAULT_QUEUE"
DISRUPTION = (
    ("karpenter.sh/do-not-disrupt", "true"),
    ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
)
"""Annotations of a pod that asks not to be disrupted."""
LONGEST = 256
"""Most characters of a variable's value that a status holds."""
SIGKILLED = crash.SIGKILLED
TASK = "kubernetes_executor"
"""Label of the KubernetesExecutor's pods; they also carry those of the chart's workers, and have no owner."""
_WORKER = re.compile(r"-worker(?:-(.+))?$")


def line(objects: Iterable[Object], stated: str | None, known: str) -> str | None:
    """Airflow's major version: as stated, else 3 with an api-server, 2 with a webserver, else as it was known."""
    kinds = {component(item) for item in objects}
    return stated or ("3" if "api-server" in kinds else "2" if "webserver" in kinds else known or None)


def executors(objects: Iterable[Object], stated: str | None) -> Executors:
    """What runs the tasks, as far as the objects say: as stated, else the scheduler's environment, else its label.

    Unknown where it is set by reference, or where two schedulers differ.
    """
    if stated:
        return executor.option(stated, "spec.airflow.executor")
    found = {_executors(item) for item in objects if component(item) == "scheduler"}
    return found.pop() if len({one.names for one in found}) == 1 else executor.UNKNOWN


def _executors(item: Object) -> Executors:
    where = short(f"{item['kind']}/{item['metadata']['name']}")
    entries = _main(item["spec"]["template"]["spec"]["containers"], "scheduler").get("env") or []
    # The last one counts, as it does for the kubelet.
    told = {str(entry["name"]): entry for entry in entries}
    if (entry := told.get(executor.OPTION)) is not None:
        text = "" if "valueFrom" in entry else str(entry.get("value", ""))
        return executor.option(text, f"{executor.OPTION} of {where}")
    if told.keys() & {*executor.FROM_ELSEWHERE}:
        return executor.UNKNOWN
    text = str((item["metadata"].get("labels") or {}).get(executor.LABEL, ""))
    return executor.label(text, f"label {executor.LABEL} of {where}")


def executors_of(workloads: Iterable[Workload]) -> Executors:
    """The weakest sign: where there are workers, they are Celery's."""
    workers = [item for item in workloads if item.component == "worker"]
    return Executors(("CeleryExecutor",), f"there is {short(workers[0].label)}") if workers else executor.UNKNOWN


def task_pods(pods: Iterable[Object]) -> tuple[TaskPod, ...]:
    """The pods in which the KubernetesExecutor runs tasks."""
    return tuple(_task_pod(pod) for pod in pods if is_task(pod))


def is_task(pod: Object) -> bool:
    """The KubernetesExecutor made it, for one try of a task."""
    return (pod["metadata"].get("labels") or {}).get(TASK) == "True"


def _task_pod(pod: Object) -> TaskPod:
    metadata, status = pod["metadata"], pod.get("status") or {}
    container = next(
        (item for item in pod["spec"]["containers"] if item["name"] == "base"), pod["spec"]["containers"][0]
    )
    states = status.get("containerStatuses") or []
    state: Object = next((item for item in states if item["name"] == container["name"]), {})
    # A label holds what fits one; the annotation of that name has it whole.
    known = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
    placed = [item for item in status.get("conditions") or [] if item["type"] == "PodScheduled"]
    return TaskPod(
        name=metadata["name"],
        dag=str(known.get("dag_id", "")),
        task=str(known.get("task_id", "")),
        created=moment(metadata.get("creationTimestamp")),
        memory=_memory(*_born(container.get("resources") or {})),
        death=_death(state, int(state.get("restartCount", 0)), _ended_from(metadata)),
        unplaced=next((str(item.get("message", "")) for item in placed if item.get("reason") == "Unschedulable"), ""),
    )


def workloads(objects: Iterable[Object], pods: Iterable[Object], line: str | None = None) -> tuple[Workload, ...]:
    """The workloads of the known components among Deployments and StatefulSets, with their pods."""
    by_owner: dict[tuple[str, str], list[Object]] = {}
    for pod in pods:
        by_owner.setdefault(owner(pod), []).append(pod)
    known = [item for item in objects if component(item) in COMPONENTS]
    known.sort(key=lambda item: (COMPONENTS.index(component(item)), item["metadata"]["name"]))
    shared = [component(item) for item in known]
    found: dict[str, Workload] = {}
    for item in known:
        pods_of_it = by_owner.get((item["kind"], item["metadata"]["name"]), [])
        target = _target(item, alone=shared.count(component(item)) == 1)
        if target in found:
            # Two releases under one selector, or a Deployment that takes the place of a StatefulSet of its name.
            target = f"{component(item)}/{item['metadata']['name']}"
        if target in found:
            target = f"{target}.{item['kind'].lower()}"
        found[target] = _workload(item, target, pods_of_it, line)
    return tuple(found.values())


def component(item: Object) -> str:
    """The value of the component label; empty when there is none."""
    labels = item["metadata"].get("labels") or {}
    return next((str(labels[key]) for key in COMPONENT_LABELS if key in labels), "")


def owner(pod: Object) -> tuple[str, str]:
    """Kind and name of the workload a pod belongs to."""
    for reference in pod["metadata"].get("ownerReferences") or []:
        if not reference.get("controller"):
            continue
        if reference["kind"] == "ReplicaSet":
            suffix = (pod["metadata"].get("labels") or {}).get("pod-template-hash", "")
            return "Deployment", str(reference["name"]).removesuffix(f"-{suffix}")
        return str(reference["kind"]), str(reference["name"])
    return "", ""


def moment(text: str | None) -> datetime:
    """A time of the API server."""
    return datetime.fromisoformat(text) if text else datetime.fromtimestamp(0, UTC)


def _workload(item: Object, target: str, pods: Iterable[Object], line: str | None) -> Workload:
    name, kind = item["metadata"]["name"], component(item)
    template = item["spec"]["template"]
    container = _main(template["spec"]["containers"], kind)
    requests, limits = _born(container.get("resources") or {})
    told, referenced = _environment(container)
    words = [str(word) for word in [*(container.get("command") or []), *(container.get("args") or [])]]
    stated = environment.stated_by(kind, told, words, line)
    return Workload(
        target=target,
        component=kind,
        kind=item["kind"],
        name=name,
        container=container["name"],
        pod_labels=dict(item["spec"]["selector"].get("matchLabels") or template["metadata"].get("labels") or {}),
        requests=requests,
        limits=limits,
        template=_memory(requests, limits),
        pods=tuple(_pod(pod, container["name"]) for pod in pods),
        environment={key: value for key, value in told.items() if key in environment.NAMES},
        referenced=referenced & environment.NAMES,
        names=frozenset(str(entry["name"]) for entry in container.get("env") or []),
        probe=probe.read(container),
        stated=replace(stated, cpu=_cpu(requests, limits)),
        queues=environment.queues_of(words, told.get(DEFAULT_QUEUE, "default")),
        replicas=int(item["spec"].get("replicas", 1)),
        cpu_limit=_cores(limits.get("cpu", "")),
        grace=int(template["spec"].get("terminationGracePeriodSeconds", 30)),
        chart=str((item["metadata"].get("labels") or {}).get("chart", "")),
        labels=dict(item["metadata"].get("labels") or {}),
        refusal=_refusal(item),
        beside=_beside(template["spec"]["containers"], container),
        surge=int(item["kind"] == "Deployment" and (item["spec"].get("strategy") or {}).get("type") != "Recreate"),
    )


def _target(item: Object, *, alone: bool) -> str:
    release = (item["metadata"].get("labels") or {}).get("release", "")
    return target_of(str(item["metadata"]["name"]), component(item), release, alone=alone)


def target_of(name: str, kind: str, release: str, *, alone: bool) -> str:
    """What the workload of a component is called; `alone`: there is no other of that component."""
    if kind == "worker":
        # <release>-worker is the chart's default worker, <release>-worker-<set> one of its sets.
        found = _WORKER.search(name.removeprefix(release))
        return f"worker/{(found[1] or 'default') if found else name}"
    return kind if alone else f"{kind}/{name}"


def _main(containers: list[Object], kind: str) -> Object:
    """The container that does the component's work: named for it, else the first."""
    return next((item for item in containers if item["name"] in {kind, f"airflow-{kind}"}), containers[0])


def _born(resources: Object) -> tuple[dict[str, str], dict[str, str]]:
    """Requests and limits as a pod is born with them: the API server sets a missing request to the limit."""
    limits = {key: str(value) for key, value in (resources.get("limits") or {}).items()}
    requests = {key: str(value) for key, value in (resources.get("requests") or {}).items()}
    return {**limits, **requests}, limits


def _cores(text: str) -> float | None:
    try:
        return quantity.cores(text)
    except ValueError:
        return None


def _environment(container: Object) -> tuple[dict[str, str], frozenset[str]]:
    """The container's variables with plain values, and the names of those set by reference."""
    entries = container.get("env") or []
    plain = {str(entry["name"]): str(entry.get("value", "")) for entry in entries if "valueFrom" not in entry}
    # What is too long for a status cannot be compared there, and is left alone as well.
    odd = {name for name, value in plain.items() if len(value) > LONGEST and name in environment.NAMES}
    return {name: value for name, value in plain.items() if name not in odd}, frozenset(
        {str(entry["name"]) for entry in entries if "valueFrom" in entry} | odd
    )


def _held(metadata: Object) -> str:
    """The annotation that asks not to disrupt the pod."""
    marks = metadata.get("annotations") or {}
    return next((f"{key}={value}" for key, value in DISRUPTION if marks.get(key) == value), "")


def _ready(status: Object) -> bool:
    told = status.get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in told)


def _memory(requests: Mapping[str, str], limits: Mapping[str, str]) -> Memory:
    return Memory(
        request=quantity.parse(requests["memory"]) if "memory" in requests else None,
        limit=quantity.parse(limits["memory"]) if "memory" in limits else None,
    )


def _beside(containers: Iterable[Object], main: Object) -> Memory:
    """What the other containers of a template ask for together."""
    others = [_memory(*_born(item.get("resources") or {})) for item in containers if item is not main]
    return Memory(sum(item.request or 0 for item in others) or None, sum(item.limit or 0 for item in others) or None)


def _cpu(requests: Mapping[str, str], limits: Mapping[str, str]) -> Cpu:
    # Nothing requested is no request.
    told = [quantity.millicores(sizes["cpu"]) or None if "cpu" in sizes else None for sizes in (requests, limits)]
    return Cpu(*told)


def _pod(pod: Object, container: str) -> Pod:
    metadata, status = pod["metadata"], pod.get("status") or {}
    spec: Object = next((item for item in pod["spec"]["containers"] if item["name"] == container), {})
    state: Object = next((item for item in status.get("containerStatuses") or [] if item["name"] == container), {})
    restarts = int(state.get("restartCount", 0))
    in_force, evicted = state.get("resources"), _eviction(status, state)
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        created=moment(metadata.get("creationTimestamp")),
        memory=_memory(*_born(spec.get("resources") or {})),
        running=_memory(*_born(in_force)) if in_force is not None and "running" in (state.get("state") or {}) else None,
        container_id=str(state.get("containerID", "")).partition("://")[2],
        started=_started(state),
        deaths=restarts,
        death=_death(state, restarts, _ended_from(metadata) or (evicted.at if evicted else None)),
        eviction=evicted,
        crash=crash.read(status, container),
        guaranteed=status.get("qosClass") == "Guaranteed",
        ending="deletionTimestamp" in metadata or status.get("phase") in {"Succeeded", "Failed"},
        decision=(metadata.get("annotations") or {}).get(DECISION),
        resized=_resized(metadata, container, "f:memory", ours=True),
        foreign=_resized(metadata, container, "f:memory", ours=False),
        restarts_on_resize=_restarts(spec, "memory"),
        cpu=_cpu(*_born(spec.get("resources") or {})),
        running_cpu=_cpu(*_born(in_force))
        if in_force is not None and "running" in (state.get("state") or {})
        else None,
        resized_cpu=_resized(metadata, container, "f:cpu", ours=True),
        foreign_cpu=_resized(metadata, container, "f:cpu", ours=False),
        restarts_for_cpu=_restarts(spec, "cpu"),
        environment={key: value for key, value in _environment(spec)[0].items() if key in environment.NAMES},
        ready=_ready(status),
        held=_held(metadata),
        resize_problem=_resize_problem(status),
        deferred=_deferred(status),
        node=str(pod["spec"].get("nodeName", "")),
    )


def _resized(metadata: Object, container: str, resource: str, *, ours: bool) -> bool:
    """Our hand, or somebody else's, is on the container's resource: who writes a field last owns it."""
    for entry in metadata.get("managedFields") or []:
        if entry.get("subresource") == "resize" and (entry.get("manager") == FIELD_MANAGER) is ours:
            containers = ((entry.get("fieldsV1") or {}).get("f:spec") or {}).get("f:containers") or {}
            owned = (containers.get(f'k:{{"name":"{container}"}}') or {}).get("f:resources") or {}
            if any(resource in (owned.get(kind) or {}) for kind in ("f:limits", "f:requests")):
                return True
    return False


def _started(state: Object) -> datetime | None:
    at = ((state.get("state") or {}).get("running") or {}).get("startedAt")
    return None if at is None else moment(at)


def _death(state: Object, restarts: int, ended_from: datetime | None) -> Death | None:
    """The last death, if it was for memory.

    The reason alone does not say so: containerd gives `OOMKilled` to every container in which the kernel has ever
    killed a process, however it ends later. So it must have died by SIGKILL, and not because its pod was deleted.
    """
    # While a restart is put off, the kubelet shows the death as the last state and has not counted it yet.
    waiting = (state.get("state") or {}).get("waiting") or {}
    put_off = waiting.get("reason") not in {None, "ContainerCreating", "PodInitializing"}
    last = restarts + 1 if put_off else restarts
    for number, when in ((restarts + 1, state.get("state")), (last, state.get("lastState"))):
        told = (when or {}).get("terminated") or {}
        at = moment(told.get("finishedAt"))
        by_kernel = told.get("reason") == OUT_OF_MEMORY and told.get("exitCode") == SIGKILLED
        if by_kernel and (ended_from is None or at < ended_from):
            return Death(number, at)
    return None


def _eviction(status: Object, state: Object) -> Eviction | None:
    """As the kubelet leaves it in the status of the pod it has ended; other pressure than memory's is none of ours."""
    message = str(status.get("message", ""))
    if (status.get("phase"), status.get("reason")) != ("Failed", EVICTED) or "memory" not in message:
        return None
    conditions = status.get("conditions") or []
    times = [item.get("lastTransitionTime") for item in conditions if item["type"] == "DisruptionTarget"]
    times += [(when.get("terminated") or {}).get("finishedAt") for when in (state.get("state") or {},)]
    known = [moment(text) for text in times if text]
    return Eviction(known[0], message) if known else None


def _ended_from(metadata: Object) -> datetime | None:
    """When somebody asked for the pod to be deleted; the API server keeps the time when its grace is over."""
    if "deletionTimestamp" not in metadata:
        return None
    return moment(metadata["deletionTimestamp"]) - timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)


def _restarts(container: Object, resource: str) -> bool:
    policies = container.get("resizePolicy") or []
    return any(item["resourceName"] == resource and item["restartPolicy"] == "RestartContainer" for item in policies)


def _deferred(status: Object) -> datetime | None:
    for condition in status.get("conditions") or []:
        pending = condition["type"] == "PodResizePending" and condition.get("status") == "True"
        if pending and condition.get("reason") == "Deferred":
            return moment(condition.get("lastTransitionTime"))
    return None


def _refusal(item: Object) -> Refusal | None:
    """As a Deployment tells it; a StatefulSet does so in Events alone."""
    for condition in (item.get("status") or {}).get("conditions") or []:
        if condition["type"] == "ReplicaFailure" and condition.get("status") == "True":
            return Refusal(moment(condition.get("lastTransitionTime")), str(condition.get("message", "")))
    return None


def lacks_pods(item: Object) -> bool:
    """A StatefulSet that has fewer pods than it should."""
    wanted = int(item["spec"].get("replicas", 1))
    return item["kind"] == "StatefulSet" and int((item.get("status") or {}).get("replicas", 0)) < wanted


def refused(workload: Workload, events: Iterable[Object]) -> Workload:
    """A StatefulSet with what the Events of its namespace say of pods that it was refused."""
    told = [
        Refusal(_told_at(event), str(event.get("note", "")))
        for event in events
        if (event.get("regarding") or {}).get("name") == workload.name
        and (event.get("regarding") or {}).get("kind") == workload.kind
    ]
    return replace(workload, refusal=max(told, key=lambda refusal: refusal.at)) if told else workload


def _told_at(event: Object) -> datetime:
    last = (event.get("series") or {}).get("lastObservedTime") or event.get("deprecatedLastTimestamp")
    return moment(last or event.get("eventTime") or event["metadata"].get("creationTimestamp"))


def _resize_problem(status: Object) -> str:
    for condition in status.get("conditions") or []:
        pending = condition["type"] == "PodResizePending"
        failed = condition["type"] == "PodResizeInProgress" and condition.get("reason") == "Error"
        if condition.get("status") == "True" and (pending or failed):
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    return ""
