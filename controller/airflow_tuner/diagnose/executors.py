"""Where tasks do not run on Celery workers: in the scheduler's container, or in pods of their own."""

import re
from collections.abc import Iterator
from datetime import timedelta

from airflow_tuner import lag, local, task_sizes
from airflow_tuner.diagnose.case import Case
from airflow_tuner.diagnose.memory import SHOWN
from airflow_tuner.model import Finding, Severity, TaskPod
from airflow_tuner.quantity import readable
from airflow_tuner.sentence import counted, fitted, short

NAMED = 3
"""Most tasks that one message names."""


def waiting_for_the_scheduler(case: Case) -> Iterator[Finding]:
    """Tasks wait longer than the objective allows for a slot of the scheduler that runs them."""
    for item in case.items:
        if item.workload.component == "scheduler":
            objective = case.spec.objectives.queue_lag_seconds
            found = local.late(item.workload, case.seen, item.past, objective)
            if found is not None:
                yield Finding(
                    "QueueLagHigh",
                    Severity.WARNING,
                    item.workload.target,
                    f"{found.flow.told} {found.cause}: {found.told}",
                    case.seen.at,
                )


def waiting_for_a_node(case: Case) -> Iterator[Finding]:
    """Pods of tasks wait longer than the objective allows for a node that takes them."""
    late = timedelta(seconds=case.spec.objectives.queue_lag_seconds)
    found = [pod for pod in case.seen.task_pods if pod.unplaced and case.seen.at - pod.created > late]
    if found:
        first = min(found, key=lambda pod: (pod.created, pod.name))
        waits = (case.seen.at - first.created).total_seconds()
        yield Finding(
            "QueueLagHigh",
            Severity.WARNING,
            task_sizes.TARGET,
            f"{counted(len(found), 'pod of a task waits', 'pods of tasks wait')} for a node, the first, "
            f"{short(first.name)} (task {short(first.task)} of {short(first.dag)}), for {waits:.0f} s; the objective "
            f"is {late.total_seconds():.0f} s. {lag.PODS_PENDING}: {_why(first.unplaced)}. Add "
            "nodes, or let tasks request less.",
            first.created,
        )


def scheduler_exceeds_memory(case: Case) -> Iterator[Finding]:
    """A scheduler that runs tasks itself, were all its slots busy, needs more memory than its limit."""
    for item in case.items:
        slots = local.slots_of(case.seen) if item.workload.component == "scheduler" else None
        pods = [pod for pod in item.workload.living if pod.running is not None]
        law = local.footprint(pods, slots, case.seen, item.past) if slots is not None else None
        if slots is None or law is None:
            continue
        tight = local.exceeded(pods, slots, law)
        if tight:
            pod = tight[0]
            limit = 0 if pod.running is None else pod.running.limit or 0
            most = law.most(limit, slots)
            carried = (
                f"The limit carries {most}. Set config.core.parallelism to {most} at most, or the limit"
                if most
                else ("The limit carries none. Set it")
            )
            yield Finding(
                "ConcurrencyExceedsMemory",
                Severity.WARNING,
                item.workload.target,
                f"{counted(slots, 'task does', 'tasks do')} not fit the memory limit of {readable(limit)} in "
                f"{len(tight)} of {counted(len(pods), 'pod', 'pods')} of {short(item.workload.label)}, e.g. "
                f"{short(pod.name)}: tasks run in that container ({case.seen.executors.told}), core.parallelism allows "
                f"so many, and they would need {law.told(slots, 0)}"
                f"{' (a slot as measured here)' if law.measured else ''}. {carried} to {readable(law.need(slots))} at "
                "least, or use Celery workers.",
                case.seen.at,
            )


def task_pods_killed(case: Case) -> Iterator[Finding]:
    """Pods of tasks were killed for memory within the hour."""
    dead = [(pod.death.at, pod) for pod in case.seen.task_pods if pod.death and case.seen.at - pod.death.at <= SHOWN]
    if dead:
        dead.sort(key=lambda one: (one[0], one[1].name))
        tasks = {(pod.dag, pod.task): pod for _, pod in dead}
        told = [
            f"task {short(task)} of {short(dag)} "
            f"({'no limit' if pod.memory.limit is None else f'limit {readable(pod.memory.limit)}'})"
            for (dag, task), pod in [*tasks.items()][:NAMED]
        ]
        more = f" and {len(tasks) - NAMED} more" if len(tasks) > NAMED else ""
        yield Finding(
            "OutOfMemory",
            Severity.CRITICAL,
            task_sizes.TARGET,
            f"{counted(len(dead), 'pod of a task was', 'pods of tasks were')} killed for memory within the hour, the "
            f"last at {dead[-1][0]:%H:%M:%S}: {', '.join(told)}{more}. The operator does not size pods of tasks: give "
            "the task a larger limit (executor_config, pod_override) or the chart's pod template, or load less at once "
            f"in it.{_advised(case, dead[-1][1])}",
            dead[0][0],
        )


def _advised(case: Case, pod: TaskPod) -> str:
    """What is recommended for the task of a pod, where that is known."""
    size = task_sizes.size_of(case.spec, case.seen, pod.dag, pod.task)
    if size is None or size.after.limit is None or size.after.limit <= (pod.memory.limit or 0):
        return ""
    return f" Recommended for {short(pod.task)} of {short(pod.dag)}: a limit of {readable(size.after.limit)}."


def _why(told: str) -> str:
    """The Kubernetes scheduler's words, without those about pods that it might end for this one."""
    return fitted(re.split(r"[.,]? (?:no new claims to deallocate|preemption:)", told, maxsplit=1)[0], 300).rstrip(". ")
