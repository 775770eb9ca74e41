"""Containers that die again and again: read from a pod's status, and told once it is a loop."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_tuner import crash, inventory
from airflow_tuner.crash import Crash
from airflow_tuner.model import Finding, Severity
from core.test_inventory import pod as pod_object
from core.test_inventory import workload
from core.worlds import NOW, Turn, observed, pod, scheduler, spec, turn, worker

SECOND = timedelta(seconds=1)
LOOP = Crash("scheduler", 7, 1, "Error", NOW - 90 * SECOND, lasted=8 * SECOND, put_off=160 * SECOND)
QUIET = Crash("scheduler", 3, 1, "Error", NOW - 70 * SECOND, lasted=10 * SECOND, put_off=None, before=NOW - 90 * SECOND)
"""Its restart is put off, and nobody says so."""
DIED = {"exitCode": 1, "reason": "Error", "startedAt": "2026-11-24T11:58:22Z", "finishedAt": "2026-11-24T11:58:30Z"}


def state(waits: str | None = "back-off 2m40s restarting failed container=c pod=p_n(1)", **last: Any) -> dict[str, Any]:  # noqa: ANN401 - any part of it
    """A container's status whose restart is put off; `last`: of its last death."""
    now = {"running": {"startedAt": "2026-11-24T12:00:00Z"}}
    if waits is not None:
        now = {"waiting": {"reason": "CrashLoopBackOff", "message": waits}}
    return {"name": "scheduler", "restartCount": 7, "state": now, "lastState": {"terminated": {**DIED, **last}}}


def looked(found: Crash | None, *others: Crash | None, last: Turn | None = None, ready: bool = False) -> Turn:
    """One turn over a scheduler whose pods have died so."""
    pods = [pod(f"s{number}", crash=one, ready=False) for number, one in enumerate((found, *others))]
    pods += [pod("well")] if ready else []
    return turn(spec(), observed(scheduler(*pods), worker(pod("w"))), last.status if last else None)


def loops(*crashes: Crash | None, last: Turn | None = None, ready: bool = True) -> list[Finding]:
    return [one for one in looked(*crashes, last=last, ready=ready).findings if one.reason == "CrashLooping"]


def test_the_kubelets_words_are_read() -> None:
    found = crash.read({"containerStatuses": [state()]}, "scheduler")
    assert found == LOOP
    short = crash.read({"containerStatuses": [state("back-off 40s restarting failed container=c")]}, "scheduler")
    assert short is not None
    assert short.put_off == 40 * SECOND
    other = crash.read({"containerStatuses": [state("in other words")]}, "scheduler")
    assert other is not None
    assert other.put_off == timedelta()
    again = crash.read({"containerStatuses": [state(None)]}, "scheduler")
    assert again == replace(LOOP, put_off=None, started=NOW)


def test_a_kubelet_that_says_nothing_while_it_puts_off_shows_two_deaths() -> None:
    ended = {
        "exitCode": 1,
        "reason": "Error",
        "startedAt": "2026-11-24T11:58:40Z",
        "finishedAt": "2026-11-24T11:58:50Z",
    }
    found = crash.read({"containerStatuses": [{**state(None), "state": {"terminated": ended}}]}, "scheduler")
    assert found == replace(QUIET, restarts=7)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, True),
        ({"restarts": 2}, False),
        ({"before": NOW - 71 * SECOND - timedelta(minutes=10)}, False),
        ({"before": None}, False),
        ({"lasted": timedelta(minutes=10)}, False),
        ({"at": NOW - timedelta(minutes=10), "before": NOW - timedelta(minutes=11)}, False),
    ],
)
def test_two_deaths_soon_one_after_the_other_are_a_loop_from_the_third_restart_on(
    changes: dict[str, Any], *, told: bool
) -> None:
    assert bool(loops(replace(QUIET, **changes))) == told


def test_a_loop_stays_told_while_the_kubelet_says_nothing() -> None:
    before = looked(LOOP)
    assert loops(replace(QUIET, before=None, restarts=8), last=before)
    assert not loops(replace(QUIET, before=None, restarts=8, at=NOW - timedelta(minutes=10)), last=before)


def test_a_container_that_never_died_or_died_for_memory_is_none() -> None:
    assert crash.read({}, "scheduler") is None
    assert crash.read({"containerStatuses": [{"name": "scheduler", "state": {"running": {}}}]}, "scheduler") is None
    assert crash.read({"containerStatuses": [state(reason="OOMKilled", exitCode=137)]}, "scheduler") is None


def test_the_container_that_is_put_off_counts_and_of_init_containers_no_other() -> None:
    init = {**state(), "name": "wait-for-airflow-migrations"}
    main = {"name": "scheduler", "state": {"waiting": {"reason": "PodInitializing"}}}
    found = crash.read({"initContainerStatuses": [init], "containerStatuses": [main]}, "scheduler")
    assert found is not None
    assert found.container == "wait-for-airflow-migrations"
    done = {**state(None), "name": "wait-for-airflow-migrations", "state": {"terminated": {"exitCode": 0}}}
    assert crash.read({"initContainerStatuses": [done]}, "scheduler") is None
    assert crash.read({"containerStatuses": [{**state(None), "name": "log-groomer"}]}, "scheduler") is None


def test_it_is_read_for_every_pod_of_a_workload() -> None:
    item = workload("airflow-worker", "worker", "worker", kind="StatefulSet")
    (found,) = inventory.workloads([item], [pod_object("w", "airflow-worker", state={**state(), "name": "worker"})])
    assert found.pods[0].crash == replace(LOOP, container="worker")


def test_a_loop_is_told_with_its_count_and_how_it_died_last() -> None:
    (finding,) = loops(LOOP)
    assert (finding.severity, finding.target) == (Severity.WARNING, "scheduler")
    assert finding.message == (
        "1 of 2 pods of Deployment/airflow-scheduler restarts again and again, and not for memory: s0 has had 7 "
        "restarts, and died last at 11:58:30 after 8 s (Error, exit code 1). `kubectl logs --previous s0 --container "
        "scheduler` ends with why; the operator may not read logs."
    )
    (finding,) = loops(LOOP, LOOP, ready=False)
    assert finding.severity is Severity.CRITICAL
    assert finding.message.startswith("2 of 2 pods of Deployment/airflow-scheduler restart again")


def test_it_is_told_also_of_what_the_policy_does_not_name() -> None:
    assert "CrashLooping" in looked(LOOP).found


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"of_celery": True}, "Its last words are those of an Airflow that cannot load Celery, as with celery 5.7"),
        ({"code": 137}, "It was killed (SIGKILL), often by its liveness probe"),
        ({"code": 0, "reason": "Completed"}, "(Completed, exit code 0). It ended by itself, without an error"),
        ({"container": "git-sync"}, "git-sync of s0 has had 7"),
        ({"lasted": None, "code": None, "reason": ""}, "died last at 11:58:30. `kubectl logs"),
    ],
)
def test_what_the_death_says_of_its_cause_is_told(changes: dict[str, Any], told: str) -> None:
    (finding,) = loops(replace(LOOP, **changes))
    assert told in finding.message


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            'The module/attribute could not be loaded. Please check "executor" key.\nCurrent value: ":CeleryExecutor:"',
            True,
        ),
        ('The module/attribute could not be loaded. Please check "executor" key. Current value: "my.Own"', False),
        ("ImportError: Failed to import providers_configuration_loaded. This feature is only", True),
        ("ModuleNotFoundError: No module named 'celery.backends.database.retry'", True),
        ("could not connect to server", False),
        ("", False),
    ],
)
def test_the_words_of_a_celery_that_does_not_fit_are_known(words: str, expected: bool) -> None:
    found = crash.read({"containerStatuses": [state(message=words)]}, "scheduler")
    assert found is not None
    assert found.of_celery is expected


@pytest.mark.parametrize(
    "found",
    [
        replace(LOOP, put_off=20 * SECOND, restarts=2),
        replace(LOOP, put_off=20 * SECOND, restarts=4),
        replace(LOOP, lasted=timedelta(minutes=10)),
        replace(LOOP, put_off=None, started=NOW),
        None,
    ],
    ids=["second death", "few", "ran for long", "runs again", "never died"],
)
def test_a_container_that_died_now_and_then_is_none(found: Crash | None) -> None:
    assert loops(found) == []


def test_where_the_kubelet_puts_off_for_less_five_restarts_are_a_loop() -> None:
    assert len(loops(replace(LOOP, put_off=10 * SECOND, restarts=5))) == 1


def test_while_it_runs_in_between_it_stays_told_for_ten_minutes() -> None:
    first = looked(LOOP)
    running = replace(LOOP, put_off=None, started=NOW - timedelta(minutes=9))
    assert len(loops(running, last=first)) == 1
    assert loops(replace(running, started=NOW - timedelta(minutes=10)), last=first) == []
