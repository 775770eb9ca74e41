"""The status: nothing in it moves without a cause, and it is always what the schema admits."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner import api, crd, status
from airflow_tuner.model import Finding, Memory, MetricsState, Severity
from airflow_tuner.sentence import counted, fitted, listed, short
from core.test_concurrency import celery, crowded, with_tasks
from core.test_parsing import crawling
from core.worlds import (
    NOW,
    Turn,
    airflow,
    applied,
    observed,
    parsing_spec,
    pod,
    scheduler,
    slots_spec,
    spec,
    tasks,
    turn,
    usage,
    with_pods,
    worker,
)

SECOND = timedelta(seconds=1)
AT = "2026-11-24T12:00:00Z"
SCHEMA = jsonschema.Draft202012Validator(crd.schema()["properties"]["status"])


def written(value: api.Status) -> dict[str, Any]:
    """The status as it is sent; the schema admits it and it reads back the same."""
    text = status.as_written(value)
    SCHEMA.validate(text)
    assert api.Status.model_validate(text) == value
    return text


def conditions(value: api.Status) -> dict[str, tuple[str, str]]:
    return {condition.type: (condition.status, condition.reason) for condition in value.conditions}


def killed(**fields: Any) -> Turn:  # noqa: ANN401 - any field of the pod
    return turn(spec(), observed(worker(pod(died=NOW - SECOND, **fields))))


def test_a_status_is_what_the_schema_admits_and_reads_back_the_same() -> None:
    for value in (api.Status(), killed().status, turn(spec(), observed()).status):
        written(value)
    assert written(killed().status)["history"][0]["from"] == {"request": "512Mi", "limit": "1024Mi"}


def test_an_unchanged_world_leaves_every_letter_of_the_status() -> None:
    last = killed(usage=usage(kills=2, peak=1024, working_set=800))
    for seconds in (1, 60, 600):
        after = turn(spec(), applied(last, seconds=seconds), last.status)
        again = turn(spec(), replace(after.seen, at=after.seen.at + SECOND), after.status)
        assert written(again.status) == written(after.status)


def test_a_peak_that_moves_by_a_page_moves_nothing() -> None:
    first = turn(spec(), observed(worker(pod(usage=usage(peak=900)))))
    second = turn(spec(), observed(worker(pod(usage=usage(peak=900.1)))), first.status)
    assert first.status == second.status
    assert first.status.targets[0].peak == "928Mi"


def test_a_condition_says_when_its_status_changed_and_not_when_its_words_did() -> None:
    policy = spec(mode="Recommend")
    first = turn(policy, observed(worker(pod())))
    second = turn(spec(), observed(worker(pod()), at=NOW + SECOND), first.status)
    assert conditions(first.status)["Ready"] == ("True", "Recommending")
    assert conditions(second.status)["Ready"] == ("True", "Enforcing")
    assert {condition.last_transition_time for condition in second.status.conditions} == {AT}
    stale = turn(spec(), observed(worker(pod()), at=NOW + 2 * SECOND, state=MetricsState.STALE), second.status)
    moved = {item.type for item in stale.status.conditions if item.last_transition_time != AT}
    assert moved == {"MetricsAvailable"}


def test_conditions_of_a_policy_that_finds_nothing() -> None:
    last = turn(spec(), observed())
    assert conditions(last.status) == {
        "Ready": ("False", "TargetsNotFound"),
        "MetricsAvailable": ("True", "MetricsFresh"),
        "TargetsFound": ("False", "TargetsNotFound"),
        "Converged": ("True", "AsDecided"),
        "AdmissionEffective": ("Unknown", "NotYetSeen"),
        "RestartNeeded": ("False", "NothingWaits"),
    }
    assert turn(spec(workers=[]), observed()).status.conditions[0].message == "The policy names nothing."


def test_converged_becomes_true_when_the_pods_have_it() -> None:
    last = turn(spec(), observed(worker(pod("a", died=NOW - SECOND), pod("b"), pod("c", ending=True))))
    assert conditions(last.status)["Converged"] == ("False", "Resizing")
    assert last.status.conditions[3].message == "Not yet in force: a, b of worker/default to 1536 MiB."
    after = turn(spec(), applied(last, seconds=1), last.status)
    assert conditions(after.status)["Converged"] == ("True", "AsDecided")


def test_a_resize_that_is_asked_for_and_not_in_force_has_not_converged() -> None:
    last = killed()
    (done,) = applied(last).workloads[0].pods
    asked = replace(done, running=pod().memory)
    assert conditions(turn(spec(), with_pods(last.seen, asked), last.status).status)["Converged"][0] == "False"
    unlimited = replace(done, running=pod(limit=None).memory)
    assert conditions(turn(spec(), with_pods(last.seen, unlimited), last.status).status)["Converged"][0] == "False"
    down = replace(done, running=None)
    assert conditions(turn(spec(), with_pods(last.seen, down), last.status).status)["Converged"][0] == "True"


def test_admission_is_proven_by_a_pod_that_was_born_tuned() -> None:
    last = killed()
    born = pod(limit=1536, decision="p/worker-default-1", created=NOW + 10 * SECOND)
    after = turn(spec(), with_pods(last.seen, born, seconds=20), last.status)
    assert conditions(after.status)["AdmissionEffective"] == ("True", "PodsBornTuned")
    bare = turn(
        spec(), with_pods(last.seen, replace(born, decision=None, memory=pod().memory), seconds=20), last.status
    )
    assert conditions(bare.status)["AdmissionEffective"] == ("False", "AdmissionNotEffective")


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({}, True),
        ({"ending": True}, False),
        ({"limit": 1536}, False),
        ({"limit": None}, False),
        ({"limit": 900}, False),
        ({"limit": 900, "resized": True}, True),
        ({"limit": 1536, "request": 100, "decision": "d"}, True),
        ({"limit": 1536, "request": 512, "decision": "d"}, False),
        ({"limit": 9000, "decision": "d"}, False),
        ({"restarts_on_resize": True}, False),
    ],
)
def test_a_pod_is_resized_where_it_is_ours_and_has_less(fields: dict[str, Any], needed: bool) -> None:
    last = turn(spec(), observed(worker(pod("killed", died=NOW - SECOND), pod("other", **fields))))
    assert status.needs_resize(last.target, "other") is needed


def test_without_an_entry_nothing_is_resized() -> None:
    last = turn(spec(mode="Recommend"), observed(worker(pod(died=NOW - SECOND))))
    assert not status.needs_resize(last.target, "airflow-worker-0")
    assert status.converged(last.target)


def test_the_history_holds_the_last_ten_changes_newest_first() -> None:
    value = api.Status()
    for number in range(13):
        at = NOW + timedelta(hours=number)
        dead = pod(limit=600 + number * 300, died=at, deaths=number + 1)
        value = turn(spec("512Mi", "9Gi"), observed(worker(dead, limit=600), at=at), value).status
    times = [change.time for change in value.history]
    assert len(times) == 10
    assert times == sorted(times, reverse=True)
    written(value)
    assert value.last_change.startswith("worker/default ")


def test_findings_are_at_most_twenty_and_the_worst_ones() -> None:
    names = [f"set{number}" for number in range(30)]
    policy = spec(workers=[{"name": "*", "memory": {"min": "512Mi", "max": "1Gi"}}])
    pods = [pod(name, died=NOW if name == "set29" else None, limit=None) for name in names]
    workloads = [
        worker(one, limit=None, target=f"worker/{one.name}", name=one.name, pod_labels={"set": one.name})
        for one in pods
    ]
    last = turn(policy, observed(*workloads))
    assert len(last.findings) == 31
    assert len(last.status.findings) == 20
    assert last.status.findings[0].reason == "NodeMemoryPressure"
    assert last.status.summary == "0 of 30 tuned; NodeMemoryPressure worker/set29 (+30)"
    written(last.status)


def test_more_workloads_than_the_schema_admits_are_cut() -> None:
    policy = spec(workers=[{"name": "*", "memory": {"min": "512Mi", "max": "2Gi"}}])
    workloads = [
        worker(pod(f"p{number}", died=NOW), target=f"worker/s{number}", name=f"s{number}") for number in range(90)
    ]
    last = turn(policy, observed(*workloads))
    assert (len(last.status.targets), len(last.status.tuned), len(last.status.history)) == (80, 80, 10)
    written(last.status)


def test_the_summary_says_what_is_tuned_or_would_be_and_the_worst_finding() -> None:
    assert turn(spec(), observed(worker(pod()))).status.summary == "0 of 1 tuned; nothing wrong"
    assert killed().status.summary == "1 of 1 tuned; OutOfMemory worker/default"
    advised = turn(spec(mode="Recommend"), observed(worker(pod(died=NOW))))
    assert advised.status.summary == "1 of 1 to change; OutOfMemory worker/default"
    assert killed().status.last_change == "worker/default 1024Mi -> 1536Mi OutOfMemory"
    assert advised.status.last_change == ""


def test_what_runs_is_the_smallest_that_is_in_force_everywhere() -> None:
    pods = [pod("a", limit=2048), pod("b"), pod("c", running=None)]
    assert turn(spec(), observed(worker(*pods))).status.targets[0].running.limit == "1024Mi"
    unlimited = turn(spec(), observed(worker(*pods, pod("d", limit=None)))).status.targets[0].running
    assert (unlimited.request, unlimited.limit) == ("512Mi", None)
    assert turn(spec(), observed(worker(pod("c", running=None)))).status.targets[0].running.limit is None


@pytest.mark.parametrize(
    ("reason", "ready"),
    [("Unavailable", "Unknown"), ("InternalError", "Unknown"), ("Misconfigured", "False"), ("Refused", "False")],
)
def test_a_turn_that_failed_says_so_and_keeps_the_rest(reason: str, ready: str) -> None:
    prior = killed().status
    first = status.failed(prior, reason, "It did not answer. " * 200, 2, NOW + SECOND)
    second = status.failed(first, reason, "It did not answer. " * 200, 2, NOW + 2 * SECOND)
    assert first == second
    assert (first.conditions[0].type, first.conditions[0].status, first.summary) == ("Ready", ready, reason)
    assert first.targets == prior.targets
    assert first.conditions[1:] == prior.conditions[1:]
    written(first)


def test_kills_of_more_pods_than_the_schema_admits_are_cut() -> None:
    last = turn(spec(), observed(worker(*[pod(f"p{number}", died=NOW) for number in range(1001)])))
    assert len(last.status.targets[0].answered) == 1000
    written(last.status)


@given(st.integers(1, 230))
def test_names_of_any_length_fit_into_the_status(length: int) -> None:
    name = "n" * length
    policy = spec(workers=[{"name": "*", "memory": {"min": "512Mi", "max": "4Gi"}}], scheduler=None)
    one = worker(pod(f"{name}-0", died=NOW), target=f"worker/{name}", name=name, container=name)
    for value in (turn(policy, observed(one)).status, turn(policy, observed(one, scheduler(pod("s")))).status):
        text = written(value)
        assert len(text["summary"]) <= 256
        assert len(text["lastChange"]) <= 256


# Slots, parsing, and what an operator before them left


def slots_decided() -> Turn:
    return turn(slots_spec(), crowded(of=celery(2, 2), running=4))


def test_slots_are_in_the_status_where_memory_is() -> None:
    last = slots_decided()
    text = written(last.status)
    assert last.status.last_change == "worker/default slots 2 -> 4 SlotsExhausted"
    (target,) = text["targets"]
    assert (target["template"]["concurrency"], target["running"]["concurrency"]) == (2, 2)
    assert target["recommended"] == {"request": "784Mi", "limit": "1024Mi", "concurrency": 4}
    assert [item["name"] for item in text["tuned"][0]["env"]] == [
        "AIRFLOW__CELERY__WORKER_AUTOSCALE",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY",
    ]
    assert text["airflowVersion"] == "3"


def test_parsing_is_in_the_status_where_memory_is() -> None:
    last = turn(parsing_spec(processes=(1, 8)), crawling())
    assert last.status.last_change == "dag-processor processes none -> 5 DagsStale"
    (target,) = written(last.status)["targets"]
    assert target["recommended"]["parsingProcesses"] == 5
    assert target["running"]["parsingIntervalSeconds"] == 30


def test_converged_waits_for_slots_and_for_the_memory_that_carries_them() -> None:
    last = slots_decided()
    messages = {item.type: item.message for item in last.status.conditions}
    assert messages["Converged"] == (
        "Not yet in force: airflow-worker-0, airflow-worker-1 of worker/default to 1024 MiB; airflow-worker-0, "
        "airflow-worker-1 of worker/default to 4 slots."
    )
    after = turn(slots_spec(), with_tasks(applied(last, seconds=1), 0, 4), last.status)
    assert conditions(after.status)["Converged"] == ("True", "AsDecided")


def test_the_broker_has_a_condition_where_the_policy_names_one() -> None:
    seen = crowded(0, 2)
    assert "BrokerAvailable" not in conditions(turn(spec(), replace(seen, broker=None)).status)
    assert conditions(turn(slots_spec(), seen).status)["BrokerAvailable"] == ("True", "BrokerAnswers")
    down = turn(slots_spec(), replace(seen, broker="There is no Secret broker-url in the namespace n."))
    assert conditions(down.status)["BrokerAvailable"] == ("False", "BrokerUnavailable")
    assert down.found == ["BrokerUnavailable"]
    assert "memory is tuned" in down.findings[0].message


def test_airflows_metrics_have_a_condition_where_they_are_needed() -> None:
    seen = crowded(0, 2)
    assert "AirflowMetricsAvailable" not in conditions(turn(spec(), seen).status)
    assert conditions(turn(slots_spec(), seen).status)["AirflowMetricsAvailable"] == ("True", "AirflowAnswers")
    none = turn(slots_spec(), replace(seen, airflow=airflow(problem="There are none.")))
    assert conditions(none.status)["AirflowMetricsAvailable"] == ("False", "AirflowMetricsMissing")


def older(value: api.Status) -> dict[str, Any]:
    """The status as an operator left it that knew of memory alone."""
    text = written(value)
    for entry in text["targets"]:
        for values in (entry["template"], entry["running"], entry["recommended"]):
            for name in ("concurrency", "parsingIntervalSeconds", "parsingProcesses"):
                values.pop(name, None)
    for name in ("airflowVersion", "helmValues"):
        text.pop(name, None)
    return text


def test_an_older_status_is_read_and_its_memory_stays_tuned() -> None:
    workload = celery(8, died=NOW - SECOND, environment={})
    last = turn(spec(), observed(replace(workload, environment={}), broker=None))
    prior = api.Status.model_validate(older(last.status))
    seen = applied(replace(last, seen=replace(last.seen, workloads=(workload,))), seconds=60)
    after = turn(slots_spec(), replace(seen, airflow=airflow(tasks(0, 2))), prior)
    assert (after.reasons, after.limit, after.target.desired.concurrency) == ([], 1536, 8)
    rest = turn(slots_spec(), after.seen, after.status)
    assert (rest.reasons, rest.status) == ([], after.status)


def test_pods_of_a_template_in_decimal_units_are_resized_too() -> None:
    raw = Memory(500_000_000, 1_000_000_000)
    dead = pod(memory=raw, running=raw, died=NOW - SECOND)
    last = turn(spec(), observed(worker(dead, template=raw, requests={"memory": "500M"}, limits={"memory": "1G"})))
    assert last.reasons == ["OutOfMemory"]
    assert status.needs_resize(last.target, dead.name)


def test_a_long_message_is_cut_with_an_ellipsis() -> None:
    finding = Finding("Any", Severity.INFO, "policy", "x" * 3000, NOW)
    last = turn(spec(), observed(worker(pod())))
    value = status.rendered(api.Status(), spec(), last.seen, (finding,), last.decision, (), 1)
    assert value.findings[0].message == "x" * 1023 + "…"


def test_parts_of_sentences_stay_readable() -> None:
    assert fitted("abc", 3) == "abc"
    assert fitted("abcd", 3) == "ab…"
    assert short("a" * 63) == "a" * 63
    assert short("airflow-worker-of-a-very-long-release-abc12", 20) == "airflow-worke…-abc12"
    assert listed(["a", "b", "c"]) == "a, b, c"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert counted(1, "pod was", "pods were") == "1 pod was"
    assert counted(0, "pod was", "pods were") == "0 pods were"
