"""How Airflow is set up: what its user chose in the chart's values, and what that costs."""

import math
from collections.abc import Iterator

from airflow_tuner import cores, environment, helm, lag
from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Finding, Severity, Workload
from airflow_tuner.quantity import readable
from airflow_tuner.sentence import counted, short

NAMED = 5
"""Most variables that one message names: each pair of names is up to 130 characters long."""

CHARTS_TIMEOUT = 20
"""Seconds that the official chart gives its liveness probes."""


def cpu_limit_throttling(case: Case) -> Iterator[Finding]:
    """The CPU limit holds a container back in a good part of its time."""
    for item in case.items:
        workload = item.workload
        shares = [(cores.held_back(case.spec, pod, case.seen.at), pod) for pod in workload.living]
        held = [(share, pod) for share, pod in shares if share >= lag.THROTTLED]
        if not held:
            continue
        share, pod = max(held, key=lambda one: (one[0], one[1].name))
        most = workload.cores_of(pod)
        limit = "CPU limit" if most is None else f"CPU limit of {_cores(most)}"
        used = "" if pod.usage.cpu is None else f", using {pod.usage.cpu.value:.2f} cores on average"
        yield Finding(
            "CpuLimitThrottling",
            Severity.WARNING,
            workload.target,
            f"Its {limit} holds {len(held)} of {counted(len(workload.living), 'pod', 'pods')} of "
            f"{short(workload.label)} back, most {short(pod.name)}: in {share:.0%} of its scheduling periods{used}. "
            f"{cores.said(item.cores)} Raise or remove {helm.key(workload)}.resources.limits.cpu in the Airflow "
            "chart's values.",
            case.seen.at,
        )


def grace_period_too_short(case: Case) -> Iterator[Finding]:
    """Workers are killed before their longest tasks have ended, whenever their pods are replaced."""
    workers = case.seen.of("worker")
    for workload in case.covered():
        if workload.component != "worker" or not case.seen.executors.celery:
            continue
        # Of several groups of workers, or several executors, it is not known whose the tasks are that ended.
        tasks = case.seen.airflow.tasks if len(workers) == 1 and not case.seen.executors.several else None
        longest = lag.longest(tasks, workload.living)
        if longest is None or longest <= workload.grace:
            continue
        restarts = " The operator restarts none of them for it." if case.spec.changes.restarts.allowed else ""
        yield Finding(
            "GracePeriodTooShort",
            Severity.WARNING,
            workload.target,
            f"A pod of {short(workload.label)} that is replaced has {workload.grace} s to end its tasks, and some take "
            f"{longest:.0f} s: a rollout, a scale-down or a node's drain kills them.{restarts} Raise "
            f"{helm.key(workload)}.terminationGracePeriodSeconds in the Airflow chart's values above that, or make the "
            "tasks shorter.",
            case.seen.at,
        )


def old_variable_names_ignored(case: Case) -> Iterator[Finding]:
    """Variables by names of the other Airflow line do nothing, and Airflow says nothing about it."""
    found = [(workload, ignored) for workload in case.covered() if (ignored := _ignored(case, workload))]
    if not found:
        return
    # What the chart sets for all components is told once, about the one that it was meant for.
    workload = next((one for one, _ in found if one.component == "dag-processor"), found[0][0])
    names = sorted({(old, new) for _, renamed in found for old, new in renamed.items()})
    told = ", ".join(f"{old} (here {new})" for old, new in names[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    others = f" and {counted(len(found) - 1, 'other workload', 'other workloads')}" if len(found) > 1 else ""
    yield Finding(
        "OldVariableNamesIgnored",
        Severity.WARNING,
        workload.target,
        f"Airflow {case.seen.line} ignores {counted(len(names), 'variable', 'variables')} in the environment of "
        f"{short(workload.label)}{others}, without a word: {told}{more}. What they should set is at its default, or as "
        "airflow.cfg says. Rename them.",
        case.seen.at,
    )


def probe_too_tight(case: Case) -> Iterator[Finding]:
    """A liveness probe that starts an Airflow has less time than that takes under load: what works is restarted."""
    # An engine restarts nothing for its health checks.
    for workload in case.covered() if case.seen.admission else ():
        probe = workload.probe
        if probe is None or probe.timeout >= (needed := probe.needed(workload.cpu_limit)):
            continue
        spent = f"{probe.cpu:g} s of CPU"
        if probe.by_cpu(workload.cpu_limit):
            spent = f"{spent} under the container's limit of {_cores(workload.cpu_limit or 0)}"
        yield Finding(
            "ProbeTooTight",
            Severity.WARNING,
            workload.target,
            f"The liveness probe of {short(workload.label)} ({probe.what}) has {probe.timeout} s and starts an Airflow "
            f"of its own each time: {needed:.1f} s under load ({spent}), and {readable(probe.memory)} of the "
            f"container's memory. After {counted(probe.failures, 'late answer', 'late answers')} the kubelet restarts "
            f"a container that works. Set {helm.key(workload)}.livenessProbe.timeoutSeconds of the Airflow chart's "
            f"values to {max(CHARTS_TIMEOUT, math.ceil(needed))} or more.",
            case.seen.at,
        )


def _ignored(case: Case, workload: Workload) -> dict[str, str]:
    return environment.ignored(workload.names, case.seen.line)


def _cores(number: float) -> str:
    return f"{number:g} {'core' if number == 1 else 'cores'}"
