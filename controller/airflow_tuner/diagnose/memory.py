"""Who died for memory, and who may next."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from airflow_tuner import kills, local, past
from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Finding, Pod, Severity, Workload
from airflow_tuner.quantity import readable
from airflow_tuner.sentence import counted, fitted, listed, short

SHOWN = timedelta(hours=1)
"""How long a kill stays a finding."""

NAMED = 4
"""Most tasks that one message names."""


def out_of_memory(case: Case) -> Iterator[Finding]:
    """The kernel killed a container, or a process in one, within the hour."""
    for workload in case.covered():
        yield from _killed(case, workload)


def evicted(case: Case) -> Iterator[Finding]:
    """The kubelet ended pods within the hour, because their node was short of memory."""
    for workload in case.covered():
        gone = {pod.name: pod.eviction for pod in workload.pods if pod.eviction is not None}
        gone = {name: eviction for name, eviction in gone.items() if case.seen.at - eviction.at <= SHOWN}
        if gone:
            name, last = max(gone.items(), key=lambda one: one[1].at)
            yield Finding(
                "PodsEvicted",
                Severity.CRITICAL,
                workload.target,
                f"{counted(len(gone), 'pod', 'pods')} of {short(workload.label)} evicted within the hour, the last, "
                f"{short(name)}, at {last.at:%H:%M:%S}: {fitted(last.why, 300).rstrip('. ')}. Its node was short of "
                "memory, not the pod: the operator changes nothing for it. Pods that use more than they request go "
                "first: set requests nearer to what is used, or give the node more room.",
                min(eviction.at for eviction in gone.values()),
            )


def limits_missing(case: Case) -> Iterator[Finding]:
    """A container that may take the whole node."""
    for workload in case.covered():
        waiting = [pod for pod in workload.living if (pod.running or pod.memory).limit is None]
        if workload.template.limit is None and (waiting or not workload.living):
            yield Finding(
                "LimitsMissing",
                Severity.WARNING,
                workload.target,
                f"The container {short(workload.container)} of {short(workload.label)} has no memory limit: one task "
                f"can take the whole node's memory.{_first_limits(case, waiting)}",
                case.seen.at,
            )


def _first_limits(case: Case, waiting: list[Pod]) -> str:
    """When those that run get one."""
    if not case.seen.admission:
        return ""
    pods = counted(len(waiting), "running pod", "running pods")
    return f" {pods} can only get one at the next creation (a restart)."


def killed(workload: Workload, now: datetime) -> bool:
    """Whether anything of it was killed for memory within the hour."""
    return bool(_dead(workload, now) or _processes(workload))


def _dead(workload: Workload, now: datetime) -> list[Pod]:
    return [pod for pod in workload.pods if pod.death and now - pod.death.at <= SHOWN]


def _processes(workload: Workload) -> dict[str, int]:
    return {pod.name: count for pod in workload.pods if (count := kills.recent_process_kills(pod.usage))}


def _killed(case: Case, workload: Workload) -> Iterator[Finding]:
    now = case.seen.at
    raised = past.remembered(case.prior, workload.target).raised
    dead, processes = _dead(workload, now), _processes(workload)
    if not dead and not processes:
        return
    parts = []
    times = [pod.death.at for pod in dead if pod.death]
    if times:
        parts.append(
            f"{counted(len(dead), 'container', 'containers')} of {short(workload.label)} killed for memory, the last "
            f"at {max(times):%H:%M:%S}"
        )
    if processes:
        silent = "Kubernetes shows nothing, the tasks fail" if case.seen.admission else "the tasks fail"
        parts.append(
            f"{counted(sum(processes.values()), 'process', 'processes')} killed for memory in {listed([*processes])} "
            f"within the hour while the container lived on: {silent}"
        )
    hit = [pod for pod in workload.pods if pod in dead or pod.name in processes]
    limits = [memory.limit for pod in hit if (memory := pod.running or pod.memory).limit]
    now_at = f"The limit in force is {readable(min(limits))}" if limits else "No limit is in force"
    item = next(item for item in case.items if item.workload.target == workload.target)
    full = bool(limits) and max(limits) >= item.bounds.max
    most = f"No more is to be had: {item.bounds.holder}" if item.bounds.holder else "That is the policy's maximum"
    advice = (
        f". {most}, and it stays: load less at once in the tasks, run fewer of them at a time, or "
        f"{item.bounds.remedy[0].lower()}{item.bounds.remedy[1:]}."
        if full
        else ". If one task needs it all, load its data in chunks or give it a queue of its own."
    )
    # Of a container that died, the limit alone is known: the peak belongs to the one that came after it.
    of_node = not any((pod.running or pod.memory).limit for pod in dead) and all(
        kills.well_below(pod, raised) for pod in hit
    )
    reason = "NodeMemoryPressure" if of_node else "OutOfMemory"
    # The node's shortage is no task's doing.
    ran = "" if of_node else _ran(case, hit)
    where = local.killed(workload, case.seen, whole=bool(dead))
    message = f"{'; '.join(parts)}. {ran}{now_at}{advice}{where}"
    yield Finding(reason, Severity.CRITICAL, workload.target, message, min(times, default=now))


def _ran(case: Case, hit: list[Pod]) -> str:
    """Which tasks ran before the last of these kills, as a sentence with a space behind; empty where nobody saw it."""
    known = [(ran, pod) for pod in hit if (ran := case.seen.ran.get(pod.uid)) is not None]
    if not known:
        return ""
    ran, pod = max(known, key=lambda one: one[0].at)
    parts = []
    if ran.tasks:
        names = [f"{short(name)} ({count})" if count > 1 else short(name) for name, count in ran.tasks.items()]
        where = f"In {short(pod.name)}" if ran.here else "In its queues, in this or another worker,"
        several = sum(ran.tasks.values()) > 1
        parts.append(
            f"{where} ran within two minutes before, as far as seen: {listed(names, NAMED)}"
            f"{'; one of them took it, or all together did' if several else ''}. "
        )
    if ran.killed:
        parts.append(f"Airflow counts as ended by SIGKILL meanwhile: {listed(ran.killed, NAMED)}. ")
    return "".join(parts)
