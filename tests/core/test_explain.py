"""A decision for people: the table of `plan`, the page of `explain`, and the document for programs."""

import json
from dataclasses import replace

import pytest
from hypothesis import given

from airflow_tuner import api, explain
from airflow_tuner.autoscaler import Autoscaler
from airflow_tuner.model import Memory, Observation, Values
from core import test_concurrency, test_parsing, test_restarts
from core.worlds import Turn, airflow, applied, observed, parsing_spec, pod, slots_spec, spec, tasks, turn, worker


def both() -> tuple[api.Spec, Turn]:
    """Slots and parsing are wrong at once."""
    parsing = parsing_spec().model_dump(by_alias=True, exclude_none=True, mode="json")["dagProcessor"]
    policy = slots_spec(dagProcessor=parsing)
    workloads = (test_concurrency.celery(2, 2), *test_parsing.overloaded().workloads)
    seen = observed(*workloads, airflow=airflow(tasks(30, 4, duration=60.0), test_parsing.parsed()), broker="")
    return policy, turn(policy, seen)


def planned(policy: api.Spec, last: Turn) -> str:
    return explain.plan(policy, last.seen, last.findings, last.decision, last.waiting)


def page(target: str, policy: api.Spec, last: Turn, prior: api.Status | None = None) -> str:
    return explain.page(target, policy, last.seen, prior or api.Status(), last.decision, last.waiting)


def lines_of(text: str, name: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"  {name:<10}")]


def test_the_plan_is_a_table_with_its_reasons_and_what_waits() -> None:
    told = planned(*both())
    assert told.startswith(
        "Mode Enforce, Airflow 3. Nothing is written.\n\n"
        "TARGET           NOW (REQUEST / LIMIT)         PLAN                          REASON\n"
        "worker/default   512 MiB / 1024 MiB, 2 slots   784 MiB / 1024 MiB, 4 slots   SlotsExhausted\n"
        "dag-processor    512 MiB / 1024 MiB            parse every 120 s             ParsingOverloaded\n\n"
        "worker/default: Slots 2 -> 4, memory request 512 MiB -> 784 MiB for each worker of"
    )
    assert "Findings, worst first:\n\n  Warning QueueLagHigh worker/default: 30 tasks wait" in told
    assert told.endswith(
        "For the next creation of the pod wait:\n\n"
        "  airflow-dag-processor-1 waits for parsing interval as configured -> 120 s: not restarted, as the policy\n"
        "    allows no restarts (changes.restarts.allowed)."
    )


def test_a_plan_that_changes_nothing_says_so() -> None:
    seen = observed(worker(pod()), line=None)
    assert planned(spec(), turn(spec(), seen)) == (
        "Mode Enforce, Airflow of unknown version. Nothing is written.\n\n"
        "TARGET           NOW (REQUEST / LIMIT)   PLAN        REASON\n"
        "worker/default   512 MiB / 1024 MiB      unchanged"
    )


def test_what_was_recommended_before_is_still_to_be_done() -> None:
    policy = spec(mode="Recommend", workers=[{"name": "default", "memory": {"min": "2Gi", "max": "4Gi"}}])
    first = turn(policy, observed(worker(pod())))
    again = turn(policy, first.seen, first.status)
    assert not again.decision.changes
    assert planned(policy, again).startswith(
        "Mode Recommend, Airflow 3. Nothing is written.\n\n"
        "TARGET           NOW (REQUEST / LIMIT)   PLAN                  REASON\n"
        "worker/default   512 MiB / 1024 MiB      2048 MiB / 2048 MiB   Recommended\n\n"
        "worker/default: Memory limit 1024 MiB -> 2048 MiB, request 512 MiB -> 2048 MiB: the policy's minimum"
    )


def test_what_is_released_stands_in_the_plan() -> None:
    _, last = both()
    gone = turn(spec(workers=[]), applied(last), last.status)
    assert "Released" in planned(spec(workers=[]), gone)
    assert "worker/default: Released: the policy no longer names it." in planned(spec(workers=[]), gone)


def test_the_page_of_a_worker_says_how_its_slots_came_to_be() -> None:
    policy, last = both()
    told = page("worker/default", policy, last)
    assert told.startswith("worker/default: container worker of StatefulSet/airflow-worker, 2 pods, mode Enforce.\n\n")
    for name, text in {
        "template": "512 MiB / 1024 MiB",
        "in force": "512 MiB / 1024 MiB in 2 pods",
        "decided": "784 MiB / 1024 MiB",
        "present": "2 for each worker",
        "tasks": "4 running, 30 waiting, of 60.0 s each, for 4 slots in force in 2 workers",
        "demand": "17 slots for each worker (running + waiting x duration / objective, + 10%)",
        "step": "as said above",
    }.items():
        assert lines_of(told, name) == [f"  {name:<10}{text}"]
    assert "cause     SlotsExhausted: All 4 slots are taken (4 tasks run)" in told


def test_the_page_of_a_dag_processor_names_the_slowest_files_and_what_waits() -> None:
    policy, last = both()
    told = page("dag-processor", policy, last)
    assert len(lines_of(told, "slow")) == 5
    assert lines_of(told, "right") == ["  right     120 s"]
    assert "Waiting for the next creation of the pod\n  airflow-dag-processor-1 waits for parsing interval" in told


def test_the_page_says_why_nothing_is_done() -> None:
    first = turn(slots_spec(), test_concurrency.crowded())
    again = turn(slots_spec(), test_concurrency.with_tasks(applied(first, seconds=1), 30, 4), first.status)
    told = page("worker/default", slots_spec(), again, first.status)
    assert lines_of(told, "held") == ["  held      Slots were changed at 12:00:00: the cooldown is running."]
    calm = page("worker/default", slots_spec(), turn(slots_spec(), test_concurrency.crowded(0, 1)))
    assert lines_of(calm, "lag") == ["  lag       No task waits; the objective is 30 s."]
    assert lines_of(calm, "step") == ["  step      none: the objective is met"]


@pytest.mark.parametrize("target", ["scheduler", "worker/other", ""])
def test_a_target_the_policy_does_not_have_has_no_page(target: str) -> None:
    policy, last = both()
    with pytest.raises(KeyError):
        page(target, policy, last)


def test_values_in_a_few_words() -> None:
    assert explain.shown(Values()) == "none / none"
    one = Values(Memory(2**20, None), concurrency=1, interval=30, processes=1)
    assert explain.shown(one) == "1 MiB / none, 1 slot, parse every 30 s, 1 parsing process"


def test_the_document_is_for_programs() -> None:
    policy, last = both()
    told = explain.document(last.status, last.decision, last.waiting)
    assert json.loads(json.dumps(told)) == told
    assert [change["target"] for change in told["changes"]] == ["worker/default", "dag-processor"]
    assert told["changes"][0]["to"] == {"request": "784Mi", "limit": "1024Mi", "concurrency": 4}
    assert [item["pod"] for item in told["waiting"]] == ["airflow-dag-processor-1"]
    assert "worker_concurrency: 4" in told["helmValues"]
    assert policy.mode is api.Mode.ENFORCE


@given(test_concurrency.worlds())
def test_whatever_was_decided_fits_a_terminal(world: tuple[api.Spec, Observation]) -> None:
    policy, seen = world
    last = turn(policy, seen)
    told = page("worker/default", policy, last)
    assert all(len(line) <= explain.WIDTH for line in told.splitlines())
    planned(policy, last)


def test_names_are_not_broken_and_long_ones_do_no_harm() -> None:
    name = f"airflow-{'very-' * 40}long"
    last = test_restarts.parsing_waits()
    long = replace(last.seen.workloads[0].pods[0], name=name)
    seen = replace(last.seen, workloads=(replace(last.seen.workloads[0], pods=(long,)),))
    policy = parsing_spec()
    told = page("dag-processor", policy, turn(policy, seen))
    assert "long waits for parsing interval" in told
    assert "airflow-\n" not in told


def test_a_target_that_another_autoscaler_rules_is_told_as_left_to_it() -> None:
    ruler = Autoscaler("VerticalPodAutoscaler", "vpa", "StatefulSet/airflow-worker", mode="Recreate")
    last = turn(spec(), observed(worker(pod()), autoscalers=(ruler,)))
    first = page("worker/default", spec(), last).splitlines()[0]
    assert first.endswith("1 pod, mode Enforce, but left to the VerticalPodAutoscaler vpa.")
