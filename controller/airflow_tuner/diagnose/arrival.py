"""Did what was decided arrive: in pods that run, in pods that are born."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from airflow_tuner import api, quantity
from airflow_tuner.diagnose.case import Case, is_based_on
from airflow_tuner.model import Finding, Pod, Severity, Workload
from airflow_tuner.sentence import counted, fitted, short

RESTARTS = "its resizePolicy would restart the container, and a restart is not ours to decide"

ADMISSION_GRACE = timedelta(seconds=5)
"""A pod created this soon after a decision may have been admitted before the API server knew of it."""


def pods_refused(case: Case) -> Iterator[Finding]:
    """A workload cannot have the pods it should."""
    for workload in case.covered():
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
    for workload in case.covered():
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
    if case.spec.mode is not api.Mode.ENFORCE or not case.seen.admission:
        return
    for workload in case.covered():
        entry = tuned.get(workload.target)
        if entry is None or not is_based_on(entry, workload):
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


def _restarted_by_resize(case: Case, workload: Workload) -> Iterator[Pod]:
    """Pods that have less than was decided and would be restarted for it."""
    entry = next((entry for entry in case.prior.tuned if entry.target == workload.target), None)
    if entry is not None and case.spec.mode is api.Mode.ENFORCE:
        limit = quantity.parse(entry.limits.memory)
        yield from (pod for pod in workload.living if pod.restarts_on_resize and (pod.memory.limit or limit) < limit)
