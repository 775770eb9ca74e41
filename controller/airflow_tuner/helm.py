"""What was decided, as a values file for the official Airflow chart. Pure."""

import re
from typing import Any

import yaml

from airflow_tuner import api, quantity
from airflow_tuner.model import Decision, Memory, Observation, TargetDecision, Workload
from airflow_tuner.quantity import mebibytes

Tree = dict[str, Any]

KEYS = {
    "scheduler": "scheduler",
    "dag-processor": "dagProcessor",
    "triggerer": "triggerer",
    "api-server": "apiServer",
    "webserver": "webserver",
}
"""Where the chart keeps a component's values."""

MOVED = (1, 20)
"""From this chart version on, Celery workers have their values under workers.celery."""


def values(decision: Decision, line: str | None) -> str:
    """The changes that the decision asks of the templates, as YAML; empty where it asks for none."""
    tree: Tree = {}
    notes: list[str] = []
    for target in decision.targets:
        if target.desired != target.workload.values:
            _add(tree, notes, target, line)
    if not tree and not notes:
        return ""
    head = (
        "# Values for the official Airflow chart: helm upgrade RELEASE apache-airflow/airflow --reuse-values -f FILE\n"
    )
    body = yaml.safe_dump(tree, sort_keys=False, default_flow_style=False) if tree else ""
    return head + body + "".join(f"# {note}\n" for note in notes)


def key(workload: Workload) -> str:
    """Where the chart keeps the values of a workload."""
    if workload.component != "worker":
        return KEYS[workload.component]
    if workload.target != "worker/default":
        return "workers.celery.sets[]"
    return "workers.celery" if _moved(workload.chart) else "workers"


def of_tasks(memory: Memory, seen: Observation) -> str:
    """Memory that the pod template should give tasks that say nothing, as values, and where those belong."""
    charts = [item.chart for item in seen.workloads if item.chart]
    resources = {
        f"{kind}s": {"memory": mebibytes(size)}
        for kind, size in (("request", memory.request), ("limit", memory.limit))
        if size is not None
    }
    if charts and not _moved(charts[0]) and seen.executors.celery:
        # There the template of tasks has the resources of the Celery workers.
        return f"# In a pod template of your own (podTemplate), for the container base: resources {resources}."
    inner: Tree = {"resources": resources}
    tree = {"workers": {"kubernetes": inner} if not charts or _moved(charts[0]) else inner}
    body: str = yaml.safe_dump(tree, sort_keys=False, default_flow_style=False)
    return f"# The pod template, by the values of the official Airflow chart\n{body.rstrip()}"


def _add(tree: Tree, notes: list[str], target: TargetDecision, line: str | None) -> None:
    desired, workload = target.desired, target.workload
    resources = _resources(target)
    if workload.component != "worker":
        if resources:
            tree.setdefault(KEYS[workload.component], {})["resources"] = resources
        _add_parsing(tree, notes, target, line)
        return
    if workload.target != "worker/default":
        # A list of the chart replaces the user's whole list.
        name = workload.target.removeprefix("worker/")
        slots = f", worker_concurrency {desired.concurrency}" if desired.concurrency else ""
        notes.append(f"In your entry of workers.celery.sets for {name}: resources {resources}{slots}.")
        return
    if resources:
        workers = tree.setdefault("workers", {})
        if _moved(workload.chart):
            workers = workers.setdefault("celery", {})
        workers["resources"] = resources
    if desired.concurrency is not None and desired.concurrency != workload.stated.concurrency:
        _config(tree, "celery")["worker_concurrency"] = desired.concurrency
        _overruled(notes, target, (api.EnvName.CONCURRENCY, api.EnvName.AUTOSCALE))


def _resources(target: TargetDecision) -> Tree:
    """What differs from the template; of workers that the chart keeps in a list, all."""
    desired, workload = target.desired, target.workload
    whole = workload.component == "worker" and workload.target != "worker/default"
    found: Tree = {}
    for kind, memory, cpu in (
        ("requests", desired.memory.request, desired.cpu.request),
        ("limits", desired.memory.limit, desired.cpu.limit),
    ):
        if memory is not None and (whole or desired.memory != workload.template):
            found.setdefault(kind, {})["memory"] = mebibytes(memory)
        if cpu is not None and desired.cpu != workload.stated.cpu:
            found.setdefault(kind, {})["cpu"] = quantity.cpu(cpu)
    return found


def _add_parsing(tree: Tree, notes: list[str], target: TargetDecision, line: str | None) -> None:
    desired, stated = target.desired, target.workload.stated
    section = "scheduler" if line == "2" else "dag_processor"
    if desired.interval is not None and desired.interval != stated.interval:
        _config(tree, section)["min_file_process_interval"] = desired.interval
        _overruled(notes, target, (api.EnvName.INTERVAL, api.EnvName.INTERVAL_2))
    if desired.processes is not None and desired.processes != stated.processes:
        _config(tree, section)["parsing_processes"] = desired.processes
        _overruled(notes, target, (api.EnvName.PROCESSES, api.EnvName.PROCESSES_2))


def _overruled(notes: list[str], target: TargetDecision, names: tuple[api.EnvName, ...]) -> None:
    """A variable in the container's environment goes before the chart's config."""
    workload = target.workload
    notes.extend(
        f"{name} stands in the environment of {workload.label}, which goes before config: change it there."
        for name in names
        if name in workload.environment
    )


def _config(tree: Tree, section: str) -> Tree:
    found: Tree = tree.setdefault("config", {}).setdefault(section, {})
    return found


def _moved(chart: str) -> bool:
    found = re.fullmatch(r"airflow-(\d+)\.(\d+)\..*", chart)
    return found is None or (int(found[1]), int(found[2])) >= MOVED
