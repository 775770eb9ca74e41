"""What is wrong, in the order a person would look: is there anything to see, is the evidence fresh, who died, what now.

Each check is a small pure function; a finding says what was seen, with its numbers, and what the user can do.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_tuner import api, decide, kills, lag, quantity
from airflow_tuner.model import Finding, MetricsState, Observation, Pod, Severity, Workload
from airflow_tuner.quantity import readable
from airflow_tuner.sentence import counted, fitted, listed, short

SHOWN = timedelta(hours=1)
"""How long a kill stays a finding."""

RESTARTS = "its resizePolicy would restart the container, and a restart is not ours to decide"

ADMISSION_GRACE = timedelta(seconds=5)
"""A pod created this soon after a decision may have been admitted before the API server knew of it."""


@dataclass(frozen=True, slots=True)
class Case:
    """All that a check may look at."""

    spec: api.Spec
    seen: Observation
    prior: api.Status


def diagnose(spec: api.Spec, seen: Observation, prior: api.Status) -> tuple[Finding, ...]:
    """The findings, worst first; `since` of one that was there before is kept."""
    case = Case(spec, seen, prior)
    began: dict[tuple[str, str], datetime] = {}
    for old in prior.findings:
        since = datetime.fromisoformat(old.since)
        began[old.reason, old.target] = min(since, began.get((old.reason, old.target), since))
    found = [finding for check in CHECKS for finding in check(case)]
    order = list(Severity)
    return tuple(
        Finding(
            finding.reason,
            finding.severity,
            finding.target,
            finding.message,
            began.get((finding.reason, finding.target), finding.since),
        )
        for finding in sorted(found, key=lambda finding: order.index(finding.severity))
    )


def another_policy_acts(case: Case) -> Iterator[Finding]:
    """An older policy tunes the same Airflow: two would undo each other's changes."""
    if elder := case.seen.elder:
        yield Finding(
            "AnotherPolicyActs",
            Severity.WARNING,
            "policy",
            f"The older TuningPolicy {short(elder)} tunes this Airflow. This one only recommends, until that one is "
            "deleted, is set to mode Recommend, or selects another Airflow.",
            case.seen.at,
        )


def targets_not_found(case: Case) -> Iterator[Finding]:
    """The policy names components that this namespace does not have."""
    seen = {workload.component for workload in case.seen.workloads}
    named = {
        "scheduler": case.spec.scheduler,
        "dag-processor": case.spec.dag_processor,
        "triggerer": case.spec.triggerer,
        "api-server": case.spec.api_server,
    }
    missing = [name for name, entry in named.items() if entry is not None and name not in seen]
    if "webserver" in seen and "api-server" in missing:
        missing.remove("api-server")
    workers = [workload for workload in case.seen.workloads if workload.component == "worker"]
    missing += [
        f"worker/{entry.name}"
        for entry in case.spec.workers
        if not any(_is_for(entry, workload) for workload in workers)
    ]
    labels = ",".join(f"{key}={value}" for key, value in case.spec.airflow.labels.items())
    if missing:
        yield Finding(
            "TargetsNotFound",
            Severity.WARNING,
            "policy",
            f"No Deployment or StatefulSet was found for: {listed(missing, 10)}. Correct spec.airflow or remove them "
            f"from the policy; `kubectl get deploy,sts -l {labels} --show-labels` shows what there is.",
            case.seen.at,
        )


def metrics_missing(case: Case) -> Iterator[Finding]:
    """The metrics source does not answer, has nothing, or only old samples."""
    metrics = case.seen.metrics
    if metrics.state is MetricsState.FRESH:
        return
    reason = "MetricsStale" if metrics.state is MetricsState.STALE else "MetricsUnavailable"
    yield Finding(
        reason,
        Severity.WARNING,
        "policy",
        f"{metrics.message} Until it is back, kills of single processes cannot be seen; kills of whole containers are "
        "still answered, and nothing is ever lowered.",
        case.seen.at,
    )


def out_of_memory(case: Case) -> Iterator[Finding]:
    """The kernel killed a container, or a process in one, within the hour."""
    for workload in _covered(case):
        yield from _killed(case, workload)


def limits_missing(case: Case) -> Iterator[Finding]:
    """A container that may take the whole node."""
    for workload in _covered(case):
        waiting = [pod for pod in workload.living if (pod.running or pod.memory).limit is None]
        if workload.template.limit is None and (waiting or not workload.living):
            yield Finding(
                "LimitsMissing",
                Severity.WARNING,
                workload.target,
                f"The container {short(workload.container)} of {short(workload.label)} has no memory limit: one task "
                f"can take the whole node's memory. {counted(len(waiting), 'running pod', 'running pods')} can only "
                "get one at the next creation (a restart).",
                case.seen.at,
            )


def template_changed(case: Case) -> Iterator[Finding]:
    """Somebody changed a workload that is tuned, or one of its pods: the user wins."""
    tuned = {entry.target: entry for entry in case.prior.tuned}
    for workload in _covered(case):
        entry = tuned.get(workload.target)
        if entry is not None and not _is_based_on(entry, workload):
            yield Finding(
                "TemplateChanged",
                Severity.INFO,
                workload.target,
                f"The resources in the template of {short(workload.label)} were changed since it was tuned: the new "
                "template counts, and tuning starts from it.",
                case.seen.at,
            )
        others = [
            pod.name
            for pod in workload.living
            if entry is not None and not (pod.decision or pod.resized) and pod.memory != workload.template
        ]
        if others:
            yield Finding(
                "TemplateChanged",
                Severity.INFO,
                workload.target,
                f"The memory values of {counted(len(others), 'pod', 'pods')} of {short(workload.label)} come neither "
                f"from the template nor from the operator ({listed(others)}): left alone.",
                case.seen.at,
            )


def pods_refused(case: Case) -> Iterator[Finding]:
    """A workload cannot have the pods it should."""
    for workload in _covered(case):
        if workload.refusal is not None:
            yield Finding(
                "PodsRefused",
                Severity.CRITICAL,
                workload.target,
                f"{short(workload.label)} cannot have the pods it should: {fitted(workload.refusal.why, 500)} "
                "Where that is for what was decided, it is withdrawn. Look at the namespace's ResourceQuota and "
                "LimitRange.",
                case.seen.at,
            )


def resize_refused(case: Case) -> Iterator[Finding]:
    """A running pod that does not get what was decided."""
    for workload in _covered(case):
        told = {pod.name: pod.resize_problem for pod in workload.living if pod.resize_problem}
        told |= {pod.name: RESTARTS for pod in _restarted_by_resize(case, workload)}
        told |= {pod.name: case.seen.refusals[pod.name] for pod in workload.living if pod.name in case.seen.refusals}
        if told:
            name, why = next(iter(told.items()))
            yield Finding(
                "ResizeRefused",
                Severity.WARNING,
                workload.target,
                f"{len(told)} of {counted(len(workload.living), 'pod', 'pods')} of {short(workload.label)} could not "
                f"be changed while running, e.g. {short(name)}: {fitted(why, 300).rstrip('. ')}. New pods get the new "
                "values.",
                case.seen.at,
            )


def admission_not_effective(case: Case) -> Iterator[Finding]:
    """Pods born after a decision without its values: the admission policy does not work here."""
    tuned = {entry.target: entry for entry in case.prior.tuned}
    if case.spec.mode is not api.Mode.ENFORCE:
        return
    for workload in _covered(case):
        entry = tuned.get(workload.target)
        if entry is None or not _is_based_on(entry, workload):
            continue
        since = datetime.fromisoformat(entry.since) + ADMISSION_GRACE
        bare = [pod for pod in workload.living if pod.created > since and not pod.decision and not pod.resized]
        bare = [pod for pod in bare if pod.memory == workload.template]
        if bare:
            yield Finding(
                "AdmissionNotEffective",
                Severity.WARNING,
                workload.target,
                f"{counted(len(bare), 'pod was', 'pods were')} created for {short(workload.label)} after the decision "
                f"without its values, e.g. {short(bare[0].name)}. A pod that has a limit is resized in place. Check "
                "that the MutatingAdmissionPolicy of the chart is installed (admission.enabled) and that the server is "
                "Kubernetes 1.36 or later.",
                case.seen.at,
            )


def airflow_metrics_missing(case: Case) -> Iterator[Finding]:
    """Slots or parsing are to be tuned, and Airflow's own series are not there."""
    problem = case.seen.airflow.problem
    if (case.spec.tunes_slots or case.spec.tunes_parsing) and problem and case.seen.metrics.state is MetricsState.FRESH:
        yield Finding(
            "AirflowMetricsMissing",
            Severity.WARNING,
            "policy",
            f"{problem} Until then, slots and parsing are left alone; memory is tuned.",
            case.seen.at,
        )


def broker_unavailable(case: Case) -> Iterator[Finding]:
    """The policy names a Celery broker that cannot be used."""
    if case.seen.broker:
        yield Finding(
            "BrokerUnavailable",
            Severity.WARNING,
            "policy",
            f"{case.seen.broker} Until then, workers' slots change only at their next creation; memory is tuned.",
            case.seen.at,
        )


def queue_lag_high(case: Case) -> Iterator[Finding]:
    """Tasks wait longer than the objective allows; what holds them back."""
    for item in _items(case):
        found = item.slots
        if found.flow is not None and found.cause:
            parts = (found.flow.told, f"{found.cause}: {found.told}", found.hold)
            yield Finding(
                "QueueLagHigh",
                Severity.WARNING,
                item.workload.target,
                " ".join(part for part in parts if part),
                case.seen.at,
            )
    if case.spec.tunes_slots:
        for cause, about, told in lag.before_workers(case.seen.airflow.tasks):
            yield Finding("QueueLagHigh", Severity.INFO, about, f"{cause}: {told}", case.seen.at)


def parsing_overloaded(case: Case) -> Iterator[Finding]:
    """Parsing takes more than its share of CPU, or is slower than the objective."""
    for item in _items(case):
        found = item.parsing
        if found.cause:
            wanted = f" The right interval is {found.interval} s." if found.interval else ""
            advice = " Move work out of the top level of slow files, or let Airflow ignore files that hold no DAG."
            yield Finding(
                "DagParsingOverloaded",
                Severity.WARNING,
                item.workload.target,
                f"{found.cause}: {found.told}{wanted}{advice} {found.hold}".rstrip(),
                case.seen.at,
            )


CHECKS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    another_policy_acts,  # is it ours to act
    targets_not_found,  # is there anything to look at
    metrics_missing,  # can we trust what we see
    airflow_metrics_missing,
    broker_unavailable,
    out_of_memory,  # who died
    queue_lag_high,  # who waits
    parsing_overloaded,
    limits_missing,  # who may die next, or take others along
    template_changed,  # did somebody else act
    pods_refused,  # can new pods be born at all
    resize_refused,  # did what we decided arrive in the pods that run
    admission_not_effective,  # and in those that were born since
)


def _restarted_by_resize(case: Case, workload: Workload) -> Iterator[Pod]:
    """Pods that have less than was decided and would be restarted for it."""
    entry = next((entry for entry in case.prior.tuned if entry.target == workload.target), None)
    if entry is not None and case.spec.mode is api.Mode.ENFORCE:
        limit = quantity.parse(entry.limits.memory)
        yield from (pod for pod in workload.living if pod.restarts_on_resize and (pod.memory.limit or limit) < limit)


def _items(case: Case) -> Iterator[decide.Item]:
    """The targets of the policy, with their past."""
    for workload in case.seen.workloads:
        bounds = decide.bounds_of(case.spec, workload.component, workload.target, workload.name)
        if bounds is not None:
            yield decide.item_of(case.spec, bounds, workload, case.seen, case.prior)


def _is_for(entry: api.Worker, workload: Workload) -> bool:
    return entry.name in {"*", workload.name, workload.target.removeprefix("worker/")}


def _is_based_on(entry: api.Tuned, workload: Workload) -> bool:
    return entry.baseline == decide.baseline(workload)


def _covered(case: Case) -> Iterator[Workload]:
    for workload in case.seen.workloads:
        if decide.bounds_of(case.spec, workload.component, workload.target, workload.name):
            yield workload


def _killed(case: Case, workload: Workload) -> Iterator[Finding]:
    now = case.seen.at
    raised = decide.remembered(case.prior, workload.target).raised
    dead = [pod for pod in workload.pods if pod.death and now - pod.death.at <= SHOWN]
    processes = {pod.name: count for pod in workload.pods if (count := kills.recent_process_kills(pod.usage))}
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
        parts.append(
            f"{counted(sum(processes.values()), 'process', 'processes')} killed for memory in {listed([*processes])} "
            "within the hour while the container lived on: Kubernetes shows nothing, the tasks fail"
        )
    hit = [pod for pod in workload.pods if pod in dead or pod.name in processes]
    limits = [memory.limit for pod in hit if (memory := pod.running or pod.memory).limit]
    now_at = f"The limit in force is {readable(min(limits))}" if limits else "No limit is in force"
    bounds = decide.bounds_of(case.spec, workload.component, workload.target, workload.name)
    full = bounds is not None and bool(limits) and max(limits) >= bounds.max
    advice = (
        ". That is the policy's maximum, and it stays: load less at once in the tasks, run fewer of them at a time, or "
        "raise memory.max."
        if full
        else ". If one task needs it all, load its data in chunks or give it a queue of its own."
    )
    # Of a container that died, the limit alone is known: the peak belongs to the one that came after it.
    of_node = not any((pod.running or pod.memory).limit for pod in dead) and all(
        kills.well_below(pod, raised) for pod in hit
    )
    reason = "NodeMemoryPressure" if of_node else "OutOfMemory"
    message = f"{'; '.join(parts)}. {now_at}{advice}"
    yield Finding(reason, Severity.CRITICAL, workload.target, message, min(times, default=now))
