"""Do the limits fit what the containers hold: slots that do not fit, before anybody has died of it."""

from collections.abc import Iterator, Sequence

from airflow_tuner import api, concurrency, decide, steps
from airflow_tuner.diagnose.case import Case
from airflow_tuner.footprint import Footprint, footprint
from airflow_tuner.model import Finding, Pod, Severity
from airflow_tuner.quantity import readable
from airflow_tuner.sentence import counted, short


def concurrency_exceeds_memory(case: Case) -> Iterator[Finding]:
    """A worker's slots, were all of them busy, need more memory than its limit."""
    for item in case.items():
        workload = item.workload
        # What a slot takes differs by Airflow line: where that is not known, nothing is claimed.
        if workload.component != "worker" or case.seen.line is None:
            continue
        pods = [(pod, slots) for pod in _limited(item) if (slots := concurrency.in_force(pod, workload))]
        law = _law(item, pods, case.seen.line)
        tight = [(pod, slots) for pod, slots in pods if law.need(slots) > _limit(pod)]
        if tight:
            pod, slots = max(tight, key=lambda one: law.need(one[1]) - _limit(one[0]))
            limit = _limit(pod)
            yield Finding(
                "ConcurrencyExceedsMemory",
                Severity.WARNING,
                workload.target,
                f"{counted(slots, 'slot does', 'slots do')} not fit the memory limit of {readable(limit)} in "
                f"{len(tight)} of {counted(len(pods), 'pod', 'pods')} of {short(workload.label)}, e.g. "
                f"{short(pod.name)}: with all busy they need {law.told(slots, 0)}"
                f"{' (a slot as measured here)' if law.measured else ''}. {_carried(law, limit, slots)} "
                f"{_upon_kill(item, limit, slots)}",
                case.seen.at,
            )


def _law(item: decide.Item, pods: Sequence[tuple[Pod, int]], line: str) -> Footprint:
    """What slots take in these workers: as it is decided by, where the policy names concurrency."""
    known = item.slots.footprint
    return known or footprint(
        [pod for pod, _ in pods], max((slots for _, slots in pods), default=0), 0, item.past, line
    )


def _carried(law: Footprint, limit: int, slots: int) -> str:
    """How many slots the limit carries, and what that means for the user."""
    most = law.most(limit, slots)
    if most < 1:
        return f"The limit carries none. Give it at least {readable(law.need(1))} for one slot."
    return (
        f"The limit carries {most}. Set worker_concurrency to {most} at most, or the limit to "
        f"{readable(law.need(slots))} at least."
    )


def _upon_kill(item: decide.Item, limit: int, slots: int | None = None) -> str:
    """What the operator will do about a limit that is too small, and what it will not."""
    most = readable(item.bounds.max)
    if steps.beyond(item.bounds, item.workload):
        return f"The operator leaves it alone: its template is above memory.max = {most}."
    if item.spec.mode is api.Mode.RECOMMEND:
        return "In mode Recommend the operator changes nothing."
    entry = item.spec.worker(item.workload.target, item.workload.name) if item.workload.component == "worker" else None
    bounds = None if entry is None else entry.concurrency
    untuned = " The slots are not tuned: the policy names no concurrency." if entry is not None and not bounds else ""
    if limit < item.bounds.max:
        follows = "The limit follows with the next raise of slots, and a" if bounds is not None else "A"
        return f"{follows} kill is answered with a larger limit, up to memory.max = {most}.{untuned}"
    if bounds is None or slots is None:
        return f"The limit is at memory.max = {most}, and stays after a kill.{untuned}"
    if slots <= bounds.min:
        return f"Nothing is left to change: the limit is at memory.max = {most}, the slots at concurrency.min."
    return f"The limit is at memory.max = {most}: after a kill the slots come down, to {bounds.min} at least."


def _limited(item: decide.Item) -> Iterator[Pod]:
    """The pods whose container runs under a limit."""
    return (pod for pod in item.workload.living if pod.running is not None and pod.running.limit)


def _limit(pod: Pod) -> int:
    """The limit in force of such a pod."""
    return (pod.running or pod.memory).limit or 0
