"""From the old status, the observation and the decision to the new status. Pure; nothing changes without a cause."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from airflow_tuner import api, environment, helm, quantity, task_page
from airflow_tuner.model import (
    Change,
    Cpu,
    Decision,
    Finding,
    Memory,
    MetricsState,
    Observation,
    Pod,
    TargetDecision,
    Values,
    Workload,
)
from airflow_tuner.past import cpu_from_tuned, from_tuned, moments_of, moved, same_template, whole
from airflow_tuner.quantity import mebibytes, readable, readable_cpu
from airflow_tuner.restarts import Waiting
from airflow_tuner.sentence import counted, fitted, listed, short

FREE = 1.1
"""A limit is lowered to no less than this times what the container holds: it may hold more before the kubelet acts."""

HISTORY = 10
FINDINGS = 20
TARGETS = 80
BRIEF = 256
ANSWERED = 1000
HELM_VALUES = 8192
_TRUTH: dict[bool | None, Literal["True", "False", "Unknown"]] = {True: "True", False: "False", None: "Unknown"}


def rendered(
    prior: api.Status,
    spec: api.Spec,
    seen: Observation,
    findings: tuple[Finding, ...],
    decision: Decision,
    waiting: tuple[Waiting, ...],
    generation: int,
) -> api.Status:
    """The status after this turn. `waiting`: the pods that wait for their next creation."""
    changes = made(spec, seen, decision)
    history = [*changes, *prior.history][:HISTORY]
    by_target = {change.target: change for change in changes}
    targets = [_target(target, seen, prior, by_target.get(target.workload.target)) for target in decision.targets]
    tuned = [target.tuned for target in decision.targets if target.tuned is not None]
    released = {change.target for change in decision.released}
    known = {target.name for target in targets}
    # What was tuned and is not there at the moment (a release being reinstalled) is not forgotten.
    targets += [old.model_copy(update={"pods": 0}) for old in prior.targets if _held(old.name, known, released, prior)]
    tuned += [old for old in prior.tuned if old.target not in known | released]
    return api.Status(
        observed_generation=generation,
        summary=_summary(spec, findings, decision),
        last_change=_last_change(history),
        airflow_version=seen.line or "",
        metrics_naming=seen.naming,
        airflow_executor=fitted(seen.executors.told, BRIEF),
        airflow_executor_source=fitted(seen.executors.source, BRIEF),
        conditions=_conditions(prior, spec, seen, findings, decision, waiting, generation),
        findings=[_finding(finding) for finding in findings[:FINDINGS]],
        targets=targets[:TARGETS],
        tuned=tuned[:TARGETS],
        history=history,
        helm_values=_advice(spec, seen, decision),
        **task_page.fields(spec, seen, prior),
    )


def made(spec: api.Spec, seen: Observation, decision: Decision) -> list[api.Change]:
    """What is changed now, as the history has it; in mode Recommend only what is released."""
    changes = decision.changes if spec.mode is api.Mode.ENFORCE else decision.released
    return [_entry(change, seen.at) for change in changes]


def _advice(spec: api.Spec, seen: Observation, decision: Decision) -> str:
    """In mode Recommend, the recommendation as a file for Helm; too long for a status, it is left to the command."""
    if spec.mode is not api.Mode.RECOMMEND or not seen.admission:
        return ""
    text = helm.values(decision, seen.line)
    return text if len(text) <= HELM_VALUES else "# Too long for a status: see `airflow-tuner plan --helm-values`.\n"


def failed(prior: api.Status, reason: str, message: str, generation: int, now: datetime) -> api.Status:
    """The old status with `Ready` set to False, or Unknown where trying again may do: this turn was not finished."""
    value = False if reason in {"Misconfigured", "Refused"} else None
    ready = _condition(prior, "Ready", value=value, reason=reason, message=message, generation=generation, now=now)
    others = [condition for condition in prior.conditions if condition.type != "Ready"]
    return prior.model_copy(
        update={"observed_generation": generation, "summary": reason, "conditions": [ready, *others]}
    )


def as_written(status: api.Status) -> dict[str, Any]:
    """The status as it is sent to the API server."""
    return status.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True, mode="json")


def written(values: Values) -> api.Values:
    """Values as the status has them."""
    memory, cpu = values.memory, values.cpu
    return api.Values(
        request=None if memory.request is None else mebibytes(memory.request),
        limit=None if memory.limit is None else mebibytes(memory.limit),
        cpu_request=None if cpu.request is None else quantity.cpu(cpu.request),
        cpu_limit=None if cpu.limit is None else quantity.cpu(cpu.limit),
        concurrency=values.concurrency,
        parsing_interval_seconds=values.interval,
        parsing_processes=values.processes,
    )


def converged(target: TargetDecision) -> bool:
    """Every running pod that can be resized has at least what was decided."""
    return not any(needs_resize(target, pod.name) or needs_slots(target, pod) for pod in target.workload.living)


def needs_slots(target: TargetDecision, pod: Pod) -> bool:
    """A worker that answers has another number of slots than was decided."""
    wanted = target.desired.concurrency
    decided = target.tuned is not None and target.slots_decided and wanted is not None
    return decided and not pod.ending and pod.slots is not None and pod.slots.processes != wanted


def needs_resize(target: TargetDecision, name: str) -> bool:
    """A pod is ours to resize, and has other memory or CPU than it should have by now."""
    pod = next(pod for pod in target.workload.pods if pod.name == name)
    return needs_memory(target, pod) or needs_cpu(target, pod)


def needs_memory(target: TargetDecision, pod: Pod) -> bool:
    """Its memory is ours to resize, and is not what it should be by now."""
    wanted = resized(target, pod)
    if wanted is None:
        return False
    running = pod.running or pod.memory
    return pod.memory != wanted or (running.limit or 0) < (wanted.limit or 0)


def needs_cpu(target: TargetDecision, pod: Pod) -> bool:
    """The same of its CPU, whose request may wait for room by itself."""
    wanted = resized_cpu(target, pod)
    if wanted is None:
        return False
    running = pod.running_cpu or pod.cpu
    less = (running.request or 0) < (wanted.request or 0) or (running.limit or 0) < (wanted.limit or 0)
    return pod.cpu != wanted or less


def resized(target: TargetDecision, pod: Pod) -> Memory | None:
    """The memory that a running pod should have; `None`: it is not ours to resize.

    Ours: born with the template's values or with ours, or resized by us before. A container without a limit, or one
    that a resize would restart, gets its values at its next creation. It keeps more than was decided where somebody
    else gave it that, or where it holds too much to give it back now.
    """
    desired = meant(target, pod)
    if desired is None or pod.ending or pod.memory.limit is None or desired.limit is None:
        return None
    ours = bool(pod.decision) or pod.resized or whole(pod.memory) == target.workload.template
    if pod.restarts_on_resize or not ours:
        return None
    # Memory as in the template is not decided, and what stands beside it in an entry lowers nobody's.
    if desired == target.workload.template or not lowerable(pod, desired.limit):
        desired = Memory(max(desired.request or 0, pod.memory.request or 0), max(desired.limit, pod.memory.limit))
    return _in_class(desired, pod, target.workload, resized_cpu(target, pod) or pod.cpu)


def _in_class(memory: Memory, pod: Pod, workload: Workload, coming: Cpu) -> Memory:
    """`memory` with which a running pod keeps its QoS class: the API server refuses a resize that would change it.

    `coming`: its CPU, which is resized after its memory.
    """
    if pod.guaranteed:
        return replace(memory, request=memory.limit)
    # Of CPU that is not ours the template alone is known here.
    stated = workload.limits.get("cpu")
    ours = any(cpu.request == cpu.limit for cpu in (pod.cpu, coming))
    theirs = stated is not None and workload.requests.get("cpu") == stated
    if memory.request == memory.limit and (theirs if pod.cpu.limit is None else ours):
        return replace(memory, request=(memory.limit or 0) - quantity.MEBIBYTE)
    return memory


def meant(target: TargetDecision, pod: Pod) -> Memory | None:
    """What was decided, as far as the pod's node has room for it; `None`: nothing is tuned."""
    desired, most = from_tuned(target.tuned), target.rooms.get(pod.name)
    if desired is None or most is None or desired.limit is None or desired.limit <= most:
        return desired
    return Memory(min(desired.request or 0, most), most)


def resized_cpu(target: TargetDecision, pod: Pod) -> Cpu | None:
    """The CPU that a running pod should have; `None`: it is not ours to resize.

    Ours as for memory. A limit is neither added nor lowered; a request is lowered where nobody else has set it.
    """
    desired, workload = cpu_from_tuned(target.tuned), target.workload
    if desired is None or desired.request is None or pod.ending or pod.restarts_for_cpu:
        return None
    # The first request of a pod that has none of anything would give it another QoS class.
    bare = pod.cpu.request is None and pod.memory.request is None
    if bare or not (pod.decision or pod.resized_cpu or pod.cpu == workload.stated.cpu):
        return None
    limit = None if pod.cpu.limit is None else max(pod.cpu.limit, desired.limit or 0)
    request = max(desired.request, pod.cpu.request or 0) if pod.foreign_cpu else desired.request
    if limit is not None:
        request = limit if pod.guaranteed else min(request, limit)
    return Cpu(request, limit)


def lowerable(pod: Pod, limit: int) -> bool:
    """A running pod's memory may come down to a limit: what it has is ours, and it holds far less."""
    held = pod.usage.anonymous
    return not pod.foreign and pod.running is not None and held is not None and held.value * FREE <= limit


def _held(name: str, known: set[str], released: set[str], prior: api.Status) -> bool:
    return name not in known | released and any(entry.target == name for entry in prior.tuned)


def _entry(change: Change, now: datetime) -> api.Change:
    return api.Change(
        time=now.isoformat(),
        decision=change.decision,
        target=change.target,
        reason=change.reason,
        from_=written(change.before),
        to=written(change.after),
        message=fitted(change.message),
    )


def _finding(finding: Finding) -> api.FindingStatus:
    return api.FindingStatus(
        reason=finding.reason,
        severity=finding.severity.value,
        target=finding.target,
        message=fitted(finding.message),
        since=finding.since.isoformat(),
    )


def _target(target: TargetDecision, seen: Observation, prior: api.Status, change: api.Change | None) -> api.Target:
    workload = target.workload
    moments = moments_of(prior, workload.target)
    before = next((item for item in prior.targets if item.name == workload.target), None)
    if before is not None and not same_template(before.template, written(workload.values)):
        # Another template may fit the quota that the last one did not.
        told = {"refused": None, "template": seen.at.isoformat()}
        moments = (moments or api.Moments()).model_copy(update=told)
    peaks = [pod.usage.peak.value for pod in workload.living if pod.usage.peak is not None]
    return api.Target(
        name=workload.target,
        workload=workload.label,
        container=workload.container,
        pods=len(workload.living),
        template=written(workload.values),
        running=written(_smallest(workload, seen.line)),
        recommended=written(target.desired),
        # Coarse, so that the status is not written anew for every page that is touched.
        peak=mebibytes(_coarse(max(peaks))) if peaks else None,
        why=fitted(target.why),
        changed=moments if change is None else moved(moments or api.Moments(), change),
        answered=list(target.answered)[:ANSWERED],
    )


def _coarse(size: float) -> int:
    step = 32 * quantity.MEBIBYTE
    return -int(-size // step) * step


def _smallest(workload: Workload, line: str | None) -> Values:
    """The smallest of each that is in force in a running pod."""
    slots = [pod.slots.processes for pod in workload.living if pod.slots is not None]
    born = [environment.stated(workload.component, pod.environment, line) for pod in workload.living]
    memory = [pod.running for pod in workload.living if pod.running is not None]
    cpu = [pod.running_cpu for pod in workload.living if pod.running_cpu is not None]
    return Values(
        Memory(_least([one.request for one in memory]), _least([one.limit for one in memory])),
        cpu=Cpu(_least([one.request for one in cpu]), _least([one.limit for one in cpu])),
        concurrency=min(slots or [told.concurrency for told in born if told.concurrency], default=None),
        interval=min((told.interval for told in born if told.interval), default=None),
        processes=min((told.processes for told in born if told.processes), default=None),
    )


def _least(sizes: Sequence[int | None]) -> int | None:
    """The smallest of them; `None` where one is not set."""
    known = [size for size in sizes if size is not None]
    return min(known) if known and len(known) == len(sizes) else None


def _summary(spec: api.Spec, findings: tuple[Finding, ...], decision: Decision) -> str:
    count = sum(target.tuned is not None for target in decision.targets)
    worst = f"; {findings[0].reason} {findings[0].target}" if findings else "; nothing wrong"
    more = f" (+{len(findings) - 1})" if len(findings) > 1 else ""
    if spec.mode is api.Mode.ENFORCE:
        return fitted(f"{count} of {len(decision.targets)} tuned{worst}{more}", BRIEF)
    advised = sum(target.desired != target.workload.values for target in decision.targets)
    return fitted(f"{advised} of {len(decision.targets)} to change{worst}{more}", BRIEF)


def _last_change(history: Iterable[api.Change]) -> str:
    change = next(iter(history), None)
    if change is None:
        return ""
    before, after = change.from_, change.to
    parts = [
        f"{name}{then if then is not None else 'none'} -> {now if now is not None else 'none'}"
        for name, then, now in (
            ("", before.limit, after.limit),
            ("CPU limit ", before.cpu_limit, after.cpu_limit),
            ("CPU request ", before.cpu_request, after.cpu_request),
            ("slots ", before.concurrency, after.concurrency),
            ("parsing interval ", before.parsing_interval_seconds, after.parsing_interval_seconds),
            ("processes ", before.parsing_processes, after.parsing_processes),
        )
        if then != now
    ]
    told = ", ".join(parts) or f"{before.request or 'none'} -> {after.request or 'none'} requested"
    return fitted(f"{change.target} {told} {change.reason}", BRIEF)


def _conditions(
    prior: api.Status,
    spec: api.Spec,
    seen: Observation,
    findings: tuple[Finding, ...],
    decision: Decision,
    waiting: tuple[Waiting, ...],
    generation: int,
) -> list[api.Condition]:
    reasons = {finding.reason: finding for finding in findings}
    missing = reasons.get("TargetsNotFound")
    bare = reasons.get("AdmissionNotEffective")
    behind = [target for target in decision.targets if not converged(target)]
    fresh = seen.metrics.state is MetricsState.FRESH
    proven = any(pod.decision for target in decision.targets for pod in target.workload.living)
    enforced = spec.mode is api.Mode.ENFORCE

    def condition(kind: str, reason: str, message: str, *, value: bool | None) -> api.Condition:
        return _condition(prior, kind, value=value, reason=reason, message=message, generation=generation, now=seen.at)

    decided = "Every running pod has at least what was decided."
    if not enforced:
        decided = "In mode Recommend nothing is put in force."
    if not decision.targets:
        ready = condition(
            "Ready", "TargetsNotFound", missing.message if missing else "The policy names nothing.", value=False
        )
    else:
        found = listed([target.workload.target for target in decision.targets], 10)
        done = "Tuning" if enforced else "Watching (mode Recommend: nothing is changed)"
        ready = condition("Ready", "Enforcing" if enforced else "Recommending", f"{done}: {found}.", value=True)
    if seen.elder:
        told = next(finding.message for finding in findings if finding.reason == "AnotherPolicyActs")
        ready = condition("Ready", "AnotherPolicyActs", told, value=False)
    more, born = [], []
    if seen.admission:
        told = bare.message if bare else ""
        born.append(
            condition("AdmissionEffective", "AdmissionNotEffective", told, value=False)
            if bare
            else condition("AdmissionEffective", "PodsBornTuned", "Pods are born with the decided values.", value=True)
            if proven
            else condition("AdmissionEffective", "NotYetSeen", "No pod was created since a decision.", value=None)
        )
    if spec.tunes_slots or spec.tunes_parsing:
        problem = seen.airflow.problem
        more.append(
            condition("AirflowMetricsAvailable", "AirflowMetricsMissing", problem, value=False)
            if problem
            else condition("AirflowMetricsAvailable", "AirflowAnswers", "Airflow's series are fresh.", value=True)
        )
    if seen.broker is not None:
        more.append(
            condition("BrokerAvailable", "BrokerUnavailable", seen.broker, value=False)
            if seen.broker
            else condition("BrokerAvailable", "BrokerAnswers", "Slots can be changed while workers run.", value=True)
        )
    if seen.calendar is not None:
        more.append(
            condition("CalendarAvailable", "CalendarUnavailable", seen.calendar, value=False)
            if seen.calendar
            else condition("CalendarAvailable", "CalendarAnswers", "It is known which DAGs run next.", value=True)
        )
    return [
        ready,
        condition("MetricsAvailable", seen.metrics.state.value, seen.metrics.message, value=fresh),
        condition("TargetsFound", "TargetsNotFound", missing.message, value=False)
        if missing
        else condition("TargetsFound", "AllFound", "Every component of the policy was found.", value=True),
        condition("Converged", "Resizing", _behind(behind), value=False)
        if behind
        else condition("Converged", "AsDecided", decided, value=True),
        *born,
        *more,
        condition("RestartNeeded", "PodsWait", _waits(waiting), value=True)
        if waiting
        else condition("RestartNeeded", "NothingWaits", "No pod waits for a restart.", value=False),
    ]


def _waits(waiting: tuple[Waiting, ...]) -> str:
    """What waits for a restart, and why it does."""
    first = waiting[0]
    pods = counted(len(waiting), "pod waits", "pods wait")
    why = f"not restarted, as {first.blocked}" if first.blocked else "it is restarted now, one pod at a time"
    return f"{pods} for the next creation, e.g. {first}: {why}."


def _behind(targets: list[TargetDecision]) -> str:
    told = []
    for target in targets:
        desired = from_tuned(target.tuned) or Memory()
        pods = [pod.name for pod in target.workload.living if needs_memory(target, pod)]
        cpu = [pod.name for pod in target.workload.living if needs_cpu(target, pod)]
        slots = [pod.name for pod in target.workload.living if needs_slots(target, pod)]
        if pods:
            told.append(f"{listed(pods)} of {short(target.workload.target)} to {readable(desired.limit or 0)}")
        if cpu:
            wanted = target.desired.cpu
            limit = "" if wanted.limit is None else f" of at most {readable_cpu(wanted.limit)}"
            told.append(
                f"{listed(cpu)} of {short(target.workload.target)} to {readable_cpu(wanted.request or 0)}{limit}"
            )
        if slots:
            told.append(f"{listed(slots)} of {short(target.workload.target)} to {target.desired.concurrency} slots")
    return f"Not yet in force: {'; '.join(told)}."


def _condition(
    prior: api.Status,
    kind: str,
    *,
    value: bool | None,
    reason: str,
    message: str,
    generation: int,
    now: datetime,
) -> api.Condition:
    truth = _TRUTH[value]
    old = next((condition for condition in prior.conditions if condition.type == kind), None)
    same = old is not None and old.status == truth
    return api.Condition(
        type=kind,
        status=truth,
        observed_generation=generation,
        last_transition_time=old.last_transition_time if old is not None and same else now.isoformat(),
        reason=reason,
        message=fitted(message),
    )
