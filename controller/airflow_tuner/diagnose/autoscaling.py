"""Who else has a hand on the workloads: autoscalers of replicas and of resources."""

from collections.abc import Iterator

from airflow_tuner import api, workgroup
from airflow_tuner.autoscaler import INITIAL, OFF, VERTICAL, Autoscaler
from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Finding, Pod, Severity, Workload
from airflow_tuner.sentence import counted, short


def another_autoscaler(case: Case) -> Iterator[Finding]:
    """An autoscaler changes a workload of the policy."""
    for workload in case.covered():
        parts = [_told(case, workload, item) for item in case.seen.autoscalers_of(workload)]
        told = [part for part in parts if part is not None]
        if told:
            order = list(Severity)
            told.sort(key=lambda part: order.index(part[0]))
            yield Finding(
                "AnotherAutoscaler",
                told[0][0],
                workload.target,
                " ".join(sentence for _, sentence in told),
                case.seen.at,
            )


def keda_out_of_step(case: Case) -> Iterator[Finding]:
    """KEDA counts with another number of slots than the workers have."""
    for item in case.items:
        workload = item.workload
        if workload.component != "worker" or not case.seen.executors.celery:
            continue
        slots = _slots(workload, item.before.concurrency if item.spec.mode is api.Mode.ENFORCE else None)
        for scaler in case.seen.autoscalers_of(workload):
            if scaler.slots is None or not slots or scaler.slots in slots:
                continue
            have = max(slots)
            effect = (
                "too few workers, and tasks wait" if scaler.slots > have else "more workers than the tasks have use for"
            )
            yield Finding(
                "KedaOutOfStep",
                Severity.WARNING,
                workload.target,
                f"The query of the {scaler.kind} {short(scaler.name)} counts {scaler.slots} tasks for each worker of "
                f"{short(workload.label)}, and {counted(have, 'slot is', 'slots are')} in force in each: KEDA starts "
                f"{effect}. Set config.celery.worker_concurrency of the Airflow chart's values to {have}, which also "
                "renders the query anew; or give KEDA a query of your own.",
                case.seen.at,
            )


def _told(case: Case, workload: Workload, item: Autoscaler) -> tuple[Severity, str] | None:
    """What is to be said about one autoscaler of a workload."""
    who = f"The {item.kind} {short(item.name)}"
    named = case.spec.cpu(workload.component, workload.target, workload.name) is not None
    left = " The operator leaves its CPU alone." if named and item.rules_cpu(workload.container) else ""
    if item.kind != VERTICAL:
        if not item.by_memory:
            by = " by its CPU as a share of the request" if left else ""
            told = f"{who} changes the replicas of {short(workload.label)}{by}: that is in nobody's way.{left}"
            return Severity.INFO, told
        return (
            Severity.WARNING,
            f"{who} decides how many replicas {short(workload.label)} has by its memory as a share of the request, "
            "which the operator changes: with a higher request there are fewer replicas. Let it go by CPU, or by an "
            f"average value.{left}",
        )
    if item.mode == OFF:
        return None
    who = f"{who} (updateMode {short(item.mode)})"
    if not item.changes_memory(workload.container):
        told = f"{who} changes the CPU of {short(workload.label)} alone: that is in nobody's way.{left}"
        return Severity.INFO, told
    advice = "Set its updateMode to Off, or its controlledResources to [cpu]; or take this workload out of the policy."
    if item.mode == INITIAL:
        return (
            Severity.WARNING,
            f"{who} sets the memory of new pods of {short(workload.label)}, and so does the operator: which of them "
            f"counts depends on who is asked last. {advice}",
        )
    done = (
        "Two hands on one knob: the operator only recommends for it, changes no memory and no slots, and does not "
        "answer its kills."
        if case.spec.mode is api.Mode.ENFORCE
        else "In mode Enforce the operator would change nothing of it."
    )
    return Severity.WARNING, f"{who} changes the memory of {short(workload.label)}. {done} {advice}"


def _slots(workload: Workload, decided: int | None) -> set[int]:
    """Slots in force in the workers; where none runs, what a new one gets. Empty: not known."""
    pods = [pod for pod in workload.living if pod.running is not None]
    found = {_most(pod, workload) for pod in pods} or {decided or workload.stated.concurrency}
    return set() if None in found else {number for number in found if number is not None}


def _most(pod: Pod, workload: Workload) -> int | None:
    """Slots of a worker. One whose pool grows and shrinks by itself has its largest size, whatever runs now."""
    most, _, least = pod.environment.get(api.EnvName.AUTOSCALE, "").partition(",")
    if pod.slots is not None and pod.slots.autoscaled and most.isdigit() and least.isdigit() and most != least:
        return int(most)
    return workgroup.in_force(pod, workload)
