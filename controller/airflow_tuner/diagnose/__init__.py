"""What is wrong, in the order a person would look: is there anything to see, is the evidence fresh, who died, what now.

Each check is a small pure function in the room of its cause; a finding says what was seen, with its numbers, and what
the user can do.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from airflow_tuner import api
from airflow_tuner.diagnose import (
    arrival,
    autoscaling,
    capped,
    crashes,
    executors,
    files,
    growth,
    headroom,
    hogs,
    memory,
    ownership,
    scheduling,
    setup,
    shortage,
    sources,
    waiting,
)
from airflow_tuner.diagnose.case import Case
from airflow_tuner.model import Finding, Observation, Severity

log = logging.getLogger("airflow_tuner")

CHECKS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    ownership.another_policy_acts,  # is it ours to act
    ownership.change_budget_spent,
    ownership.targets_not_found,  # is there anything to look at
    sources.metrics_missing,  # can we trust what we see
    sources.airflow_metrics_missing,
    sources.metrics_unit_suspicious,
    sources.broker_unavailable,
    scheduling.scheduler_down,  # does Airflow run at all
    crashes.crash_looping,
    memory.out_of_memory,  # who died
    executors.task_pods_killed,
    memory.evicted,
    waiting.stranded_tasks,  # who died with tasks that others wait for
    scheduling.runaway_tasks,  # what creates more than there should be
    waiting.queue_lag_high,  # who waits
    capped.dag_concurrency_capped,
    executors.waiting_for_the_scheduler,
    executors.waiting_for_a_node,
    waiting.parsing_overloaded,
    files.parse_offenders,
    scheduling.scheduler_slow,  # what is slow before them
    scheduling.import_errors,
    scheduling.triggerer_saturated,
    headroom.concurrency_exceeds_memory,  # who may die next
    executors.scheduler_exceeds_memory,
    headroom.memory_headroom_low,
    shortage.memory_room_short,  # and could not be helped
    hogs.task_memory_hog,  # by whose doing
    growth.memory_leak_suspected,
    memory.limits_missing,  # or take others along
    headroom.page_cache_not_demand,  # what only seems so
    headroom.memory_overprovisioned,
    setup.cpu_limit_throttling,  # what was chosen for Airflow that harms it
    setup.grace_period_too_short,
    setup.old_variable_names_ignored,
    setup.probe_too_tight,
    autoscaling.another_autoscaler,  # who else has a hand on it
    autoscaling.keda_out_of_step,
    ownership.template_changed,  # did somebody else act
    arrival.pods_refused,  # can new pods be born at all
    arrival.resize_refused,  # did what we decided arrive in the pods that run
    arrival.admission_not_effective,  # and in those that were born since
)


def _asked(check: Callable[[Case], Iterator[Finding]], case: Case) -> tuple[Finding, ...]:
    """What a check finds. A bug in one must stop neither the others nor the answer to a kill."""
    try:
        return tuple(check(case))
    except Exception:
        log.exception("the check %s failed", check.__name__)
        return ()


def diagnose(spec: api.Spec, seen: Observation, prior: api.Status) -> tuple[Finding, ...]:
    """The findings, worst first; `since` of one that was there before is kept."""
    case = Case(spec, seen, prior)
    began: dict[tuple[str, str], datetime] = {}
    for old in prior.findings:
        since = datetime.fromisoformat(old.since)
        began[old.reason, old.target] = min(since, began.get((old.reason, old.target), since))
    found = [finding for check in CHECKS for finding in _asked(check, case)]
    order = list(Severity)
    return tuple(
        replace(finding, since=began.get((finding.reason, finding.target), finding.since))
        for finding in sorted(found, key=lambda finding: order.index(finding.severity))
    )
