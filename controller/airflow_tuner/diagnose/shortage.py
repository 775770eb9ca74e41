"""What keeps memory from being raised, though it is asked for: a quota, a limit range, a node."""

from collections.abc import Iterator

from airflow_tuner import decide
from airflow_tuner.diagnose import memory
from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Finding, Pod, Severity
from airflow_tuner.quantity import MEBIBYTE, readable
from airflow_tuner.sentence import counted, short


def memory_room_short(case: Case) -> Iterator[Finding]:
    """A target could use more memory than a quota, a limit range or its nodes leave."""
    for item in case.items:
        told = _held_back(case, item) or _on_full_nodes(item)
        if told:
            yield Finding("MemoryRoomShort", Severity.WARNING, item.workload.target, told, case.seen.at)


def _held_back(case: Case, item: decide.Item) -> str:
    """Its limit is as large as it can be, and that is too little; empty where that is not so."""
    bounds, workload, foreseen = item.bounds, item.workload, item.sizing.foreseen
    if bounds.closed:
        return (
            f"Nothing is decided for {short(workload.label)}: the policy's minimum is {readable(bounds.min)}, and "
            f"{bounds.holder}. {bounds.remedy}, or lower memory.min."
        )
    limits = [one.limit or 0 for pod in workload.living if (one := pod.running or pod.memory).limit]
    died = memory.killed(workload, case.seen.at) and max(limits, default=0) >= bounds.max
    more = foreseen is not None and foreseen.safe * MEBIBYTE > bounds.max
    if not bounds.holder or not (died or more):
        return ""
    why = "something was killed for memory at that limit" if died else ""
    if foreseen is not None and more and not died:
        why = f"{foreseen.safe:.0f} MiB are foreseen"
    stays = f"The limit of {short(workload.label)} goes no higher than {bounds.named}; {why}."
    fewer = " After a kill slots go down instead." if item.slots.slots is not None else ""
    return f"{stays}{fewer} {bounds.remedy}."


def _on_full_nodes(item: decide.Item) -> str:
    """Pods whose node has no room for what was decided; empty where there are none."""
    wanted = item.before.memory.limit or 0
    behind = [
        pod for pod in item.workload.living if item.past.tuned and item.bounds.rooms.get(pod.name, wanted) < wanted
    ]
    if not behind:
        return ""
    pod = min(behind, key=lambda pod: item.bounds.rooms[pod.name])
    pods = counted(len(behind), "pod", "pods")
    return (
        f"{pods} of {len(item.workload.living)} of {short(item.workload.label)} cannot have the limit of "
        f"{readable(wanted)}, as the limits of Airflow's pods there would exceed what their nodes have free, e.g. "
        f"{_told(item, pod)}. Slots do not rise there, and go down after a kill. Move pods away from that node."
    )


def _told(item: decide.Item, pod: Pod) -> str:
    node = item.seen.room.node(pod.node)
    of = "" if node is None else f" ({readable(node.held)} of {readable(node.allocatable)} are requested by others)"
    return f"{short(pod.name)} on the node {short(pod.node)} at most {readable(item.bounds.rooms[pod.name])}{of}"
