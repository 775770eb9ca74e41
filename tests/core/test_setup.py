"""Findings about how Airflow is set up: each says what is wrong with the user's values, and is silent otherwise."""

from datetime import timedelta
from typing import Any

import pytest

from airflow_tuner import api, environment, helm, probe
from airflow_tuner.model import Finding, Pod, Severity, Workload
from airflow_tuner.probe import Probe
from core.worlds import (
    NOW,
    airflow,
    dag_processor,
    observed,
    pod,
    scheduler,
    slots,
    slots_spec,
    spec,
    tasks,
    turn,
    usage,
    worker,
)

BOUNDS = {"memory": {"min": "512Mi", "max": "4Gi"}}
ALL = spec(scheduler=BOUNDS, dagProcessor=BOUNDS, triggerer=BOUNDS, apiServer=BOUNDS)
LONG_AGO = NOW - timedelta(hours=2)


def found(policy: api.Spec, *workloads: Workload, reason: str, **fields: Any) -> list[Finding]:  # noqa: ANN401 - any field of the observation
    """The findings of one reason."""
    return [one for one in turn(policy, observed(*workloads, **fields)).findings if one.reason == reason]


# CpuLimitThrottling


def throttled(share: float | None, name: str = "airflow-scheduler-0", **fields: Any) -> Pod:  # noqa: ANN401 - any field of the pod
    """A pod that was held back by its CPU limit in this share of its periods."""
    return pod(name, usage=usage(throttled=share, cpu=0.43, peak=600), **{"started": LONG_AGO, **fields})


def held_back(*workloads: Workload, policy: api.Spec = ALL, **fields: Any) -> list[Finding]:  # noqa: ANN401 - any field of the observation
    return found(policy, *workloads, reason="CpuLimitThrottling", **fields)


def test_a_cpu_limit_that_holds_back_is_told_with_its_share_and_what_to_set() -> None:
    workload = scheduler(throttled(0.412), throttled(0.1, "other"), cpu_limit=0.5)
    (finding,) = held_back(workload)
    assert (finding.severity, finding.target, finding.since) == (Severity.WARNING, "scheduler", NOW)
    assert finding.message == (
        "Its CPU limit of 0.5 cores holds 1 of 2 pods of Deployment/airflow-scheduler back, most airflow-scheduler-0: "
        "in 41% of its scheduling periods, using 0.43 cores on average. The policy names no cpu for it, and so it "
        "stays. Raise or remove scheduler.resources.limits.cpu in the Airflow chart's values."
    )


@pytest.mark.parametrize(
    ("component", "key"),
    [
        ("scheduler", "scheduler"),
        ("dag-processor", "dagProcessor"),
        ("triggerer", "triggerer"),
        ("api-server", "apiServer"),
        ("webserver", "webserver"),
    ],
)
def test_every_component_that_the_policy_names_is_looked_at(component: str, key: str) -> None:
    workload = scheduler(throttled(0.25), component=component, target=component, container=component, cpu_limit=1.0)
    (finding,) = held_back(workload)
    assert finding.target == component
    assert "CPU limit of 1 core holds" in finding.message
    assert f"{key}.resources.limits.cpu" in finding.message
    assert held_back(workload, policy=spec()) == [], "the policy does not name it"


def test_a_share_below_the_threshold_or_unknown_is_no_finding() -> None:
    for share in (None, 0.0, 0.249):
        assert held_back(scheduler(throttled(share), cpu_limit=0.5)) == []


def test_what_a_container_does_while_airflow_starts_is_no_finding() -> None:
    young = NOW - timedelta(seconds=ALL.metrics.window_seconds + 59)
    assert held_back(scheduler(throttled(0.9, started=young))) == []
    assert held_back(scheduler(throttled(0.9, started=None))) == []
    assert len(held_back(scheduler(throttled(0.9, started=young - timedelta(seconds=1))))) == 1


def test_a_cpu_limit_that_holds_workers_back_is_told_whether_tasks_wait_or_not() -> None:
    held = throttled(0.4, "w", slots=slots(8), limit=2048)
    busy: dict[str, Any] = {"airflow": airflow(tasks(waiting=200, running=8)), "broker": ""}
    last = turn(slots_spec(), observed(worker(held, limit=2048, cpu_limit=1.0), **busy))
    assert last.found == ["QueueLagHigh", "CpuLimitThrottling"]
    assert "WorkersCpuBound" in last.findings[0].message
    calm: dict[str, Any] = {"airflow": airflow(tasks(running=8)), "broker": ""}
    (finding,) = held_back(worker(held, limit=2048, cpu_limit=1.0), policy=slots_spec(), **calm)
    assert "workers.celery.resources.limits.cpu" in finding.message


# GracePeriodTooShort


def too_short(*workloads: Workload, policy: api.Spec | None = None, **fields: Any) -> list[Finding]:  # noqa: ANN401 - any field of the observation
    return found(policy or spec(), *workloads, reason="GracePeriodTooShort", **fields)


def test_tasks_longer_than_the_grace_period_are_told_with_both_numbers() -> None:
    seen = airflow(tasks(longest=3600.4))
    (finding,) = too_short(worker(pod(), grace=600, chart="airflow-1.18.0"), airflow=seen)
    assert (finding.severity, finding.target) == (Severity.WARNING, "worker/default")
    assert finding.message == (
        "A pod of StatefulSet/airflow-worker that is replaced has 600 s to end its tasks, and some take 3600 s: a "
        "rollout, a scale-down or a node's drain kills them. Raise workers.terminationGracePeriodSeconds in the "
        "Airflow chart's values above that, or make the tasks shorter."
    )


def test_a_task_that_runs_now_counts_before_any_has_ended() -> None:
    running = pod(slots=slots(4, 1, oldest=901.0))
    (finding,) = too_short(worker(running, grace=900))
    assert "some take 901 s" in finding.message
    assert too_short(worker(running, grace=901)) == []


def test_without_a_word_about_tasks_or_with_short_ones_the_grace_period_is_no_finding() -> None:
    assert too_short(worker(pod(), grace=30)) == []
    assert too_short(worker(pod(), grace=600), airflow=airflow(tasks(longest=600.0))) == []
    assert too_short(scheduler(pod(), grace=10), policy=ALL, airflow=airflow(tasks(longest=60.0))) == []


def test_of_several_groups_only_what_their_own_workers_say_counts() -> None:
    heavy = worker(pod("h", slots=slots(1, oldest=5000.0)), target="worker/heavy", name="airflow-worker-heavy")
    policy = spec(workers=[{"name": "*", **BOUNDS}])
    seen = {"airflow": airflow(tasks(longest=5000.0))}
    (finding,) = too_short(worker(pod(), grace=600), heavy, policy=policy, **seen)
    assert finding.target == "worker/heavy"
    assert "workers.celery.sets[].terminationGracePeriodSeconds" in finding.message


def test_where_restarts_are_allowed_it_is_told_that_none_is_made() -> None:
    policy = spec(changes={"restarts": {"allowed": True}})
    (finding,) = too_short(worker(pod()), policy=policy, airflow=airflow(tasks(longest=60.0)))
    assert "The operator restarts none of them for it." in finding.message


def test_the_key_of_the_charts_values_is_the_one_of_its_version() -> None:
    assert helm.key(worker(chart="airflow-1.19.0")) == "workers"
    assert helm.key(worker(chart="airflow-1.20.0")) == "workers.celery"
    assert helm.key(dag_processor()) == "dagProcessor"


# OldVariableNamesIgnored

OLD, NEW = "AIRFLOW__SCHEDULER__PARSING_PROCESSES", "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES"


def misnamed(*workloads: Workload, policy: api.Spec = ALL, **fields: Any) -> list[Finding]:  # noqa: ANN401 - any field of the observation
    return found(policy, *workloads, reason="OldVariableNamesIgnored", **fields)


def test_a_variable_of_airflow_2_on_airflow_3_is_named_with_its_right_name() -> None:
    (finding,) = misnamed(dag_processor(pod(), names=frozenset({OLD, "AIRFLOW__CORE__PARALLELISM"})))
    assert (finding.severity, finding.target) == (Severity.WARNING, "dag-processor")
    assert finding.message == (
        f"Airflow 3 ignores 1 variable in the environment of Deployment/airflow-dag-processor, without a word: {OLD} "
        f"(here {NEW}). What they should set is at its default, or as airflow.cfg says. Rename them."
    )


def test_a_variable_of_airflow_3_on_airflow_2_is_named_as_well() -> None:
    (finding,) = misnamed(scheduler(pod(), names=frozenset({NEW})), line="2")
    assert "Airflow 2 ignores 1 variable" in finding.message
    assert f"{NEW} (here {OLD})" in finding.message


def test_the_right_names_and_those_still_understood_are_no_finding() -> None:
    understood = {
        "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL",
        "AIRFLOW__SCHEDULER__PARSING_PRE_IMPORT_MODULES",
        "AIRFLOW__CORE__DAG_FILE_PROCESSOR_TIMEOUT",
        "AIRFLOW__TRIGGERER__DEFAULT_CAPACITY",
        "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY",
    }
    assert misnamed(dag_processor(pod(), names=frozenset({NEW, *understood}))) == []
    assert misnamed(scheduler(pod(), names=frozenset({OLD, *understood})), line="2") == []
    assert misnamed(dag_processor(pod(), names=frozenset({OLD})), line=None) == [], "the line is not known"


def test_whoever_sets_both_names_is_ready_for_both_lines() -> None:
    for line in ("2", "3"):
        assert misnamed(dag_processor(pod(), names=frozenset({OLD, NEW})), line=line) == []


def test_what_the_chart_sets_for_all_components_is_told_once() -> None:
    names = frozenset({OLD})
    seen = (scheduler(pod(), names=names), dag_processor(pod(), names=names), worker(pod(), names=names))
    (finding,) = misnamed(*seen)
    assert finding.target == "dag-processor"
    assert "of Deployment/airflow-dag-processor and 2 other workloads, without" in finding.message


def test_each_line_names_what_the_other_does_not_know_and_nothing_else() -> None:
    assert environment.IGNORED.keys() == {"2", "3"}
    for table in environment.IGNORED.values():
        assert not {*table} & {*table.values()}
        names = frozenset(table)
        line = "3" if table is environment.IGNORED["3"] else "2"
        (finding,) = misnamed(dag_processor(pod(), names=names), line=line)
        assert f"ignores {len(table)} variables" in finding.message
        assert f"and {len(table) - 5} more." in finding.message
        assert len(finding.message) <= 1024


# ProbeTooTight

JOBS_CHECK, PING = probe.COMMANDS


def tight(*workloads: Workload, policy: api.Spec = ALL) -> list[Finding]:
    return found(policy, *workloads, reason="ProbeTooTight")


def test_a_probe_with_less_time_than_it_takes_under_load_is_told_with_both() -> None:
    (finding,) = tight(scheduler(pod(), probe=Probe(JOBS_CHECK, timeout=5, failures=3)))
    assert (finding.severity, finding.target) == (Severity.WARNING, "scheduler")
    assert finding.message == (
        "The liveness probe of Deployment/airflow-scheduler (airflow jobs check) has 5 s and starts an Airflow of its "
        "own each time: 9.1 s under load (1.9 s of CPU), and 114 MiB of the container's memory. After 3 late answers "
        "the kubelet restarts a container that works. Set scheduler.livenessProbe.timeoutSeconds of the Airflow "
        "chart's values to 20 or more."
    )


def test_the_charts_own_probes_are_no_finding() -> None:
    for command in probe.COMMANDS:
        for limit in (None, 0.25, 1.0):
            assert tight(scheduler(pod(), probe=Probe(command, timeout=20, failures=5), cpu_limit=limit)) == []
    assert tight(scheduler(pod(), probe=None)) == []
    assert tight(scheduler(pod(), probe=Probe(JOBS_CHECK, timeout=10, failures=1))) == []


def test_a_small_cpu_limit_makes_the_charts_time_too_short() -> None:
    small = worker(pod(), probe=Probe(PING, timeout=20, failures=1), cpu_limit=0.1)
    (finding,) = tight(small)
    assert "21.0 s under load (2.1 s of CPU under the container's limit of 0.1 cores), and 130 MiB" in finding.message
    assert "After 1 late answer the kubelet" in finding.message
    assert "workers.celery.livenessProbe.timeoutSeconds of the Airflow chart's values to 21 or more" in finding.message


@pytest.mark.parametrize(
    ("command", "known"),
    [
        (["sh", "-c", "exec /entrypoint \\\nairflow jobs check --job-type SchedulerJob --local\n"], JOBS_CHECK),
        (["airflow", "jobs", "check", "--local"], JOBS_CHECK),
        (["sh", "-c", "exec /entrypoint python -m celery --app a.b.app inspect ping -d celery@$(hostname)"], PING),
        (["pgrep", "-f", "airflow scheduler"], None),
        (["sh", "-c", "curl localhost:8793/celery"], None),
        ([], None),
    ],
)
def test_a_probe_is_known_by_its_command(command: list[str], known: probe.Command | None) -> None:
    read = probe.read({"name": "x", "livenessProbe": {"exec": {"command": command}, "timeoutSeconds": 7}})
    assert read == (None if known is None else Probe(known, timeout=7, failures=3))


def test_a_probe_that_says_no_time_has_kubernetes_defaults_and_one_over_http_is_none() -> None:
    told = {"exec": {"command": ["airflow", "jobs", "check"]}}
    assert probe.read({"livenessProbe": told}) == Probe(JOBS_CHECK, timeout=1, failures=3)
    assert probe.read({"livenessProbe": {"httpGet": {"path": "/health"}}}) is None
    assert probe.read({"name": "bare"}) is None
