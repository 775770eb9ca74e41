"""The model of weeks is seen as Prometheus and the API server would show it, and what is decided comes into force."""

import math
from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from airflow_tuner import api, simulate, transcript
from airflow_tuner.__main__ import main
from airflow_tuner.fleet import Laws, scenarios
from airflow_tuner.fleet.loads import Burst, Load
from airflow_tuner.fleet.scenarios import Scenario, Span
from airflow_tuner.fleet.weeks import Weeks
from airflow_tuner.model import Memory, MetricsState, Observation, Usage, Values
from airflow_tuner.played import Played
from airflow_tuner.scraped import DAY, Container, Dags, Highest, Scrape
from airflow_tuner.transcript import Answer, Target
from core.worlds import NOW

MI = 2**20
BUSY = Load("busy", 600, 100, bursts=(Burst(12, hour=0.1),), memory_spread=0.0, seconds_spread=0.0)
QUIET = replace(Laws.measured("3"), probe_seconds=0.0)


def begun(limit: float = 4000, **more: Any) -> Played:  # noqa: ANN401 - any field of the scenario
    made = Scenario("test", "A test.", **{"loads": (BUSY,), "workers": 3, "slots": 4, **more})
    return Played(Weeks(made, 1, limit, limit, laws=QUIET), Memory(round(limit * MI), round(limit * MI)))


def after(view: Played, minutes: int) -> Observation:
    for _ in range(minutes):
        view.weeks.step()
        seen = view.look()
    return seen


def scrape(size: float, **more: Any) -> Scrape:  # noqa: ANN401 - any field of the scrape
    known: dict[str, Any] = {"working_set": size, "peak": size, "cpu": 0.5, "process_kills": 0, "node_cpu": 0.1}
    return Scrape(**{"anonymous": size, **known, **more})


def decided(seen: Observation, target: str, desired: Values, *, slots: bool = False) -> Answer:
    """An answer of which only this is carried out."""
    tuned = {
        "target": target,
        "component": target.partition("/")[0],
        "bounds": target,
        "decision": "d-1",
        "since": seen.at.isoformat(),
        "container": "c",
        "workload": "w",
        "pod_labels": {"a": "b"},
        "baseline": {},
        "requests": {"memory": "1Mi"},
        "limits": {"memory": "1Mi"},
    }
    line = Target(target, "w", "b", desired, "", tuned=api.Tuned.model_validate(tuned), slots_decided=slots)
    return Answer(seen.at, (line,), waiting=(transcript.Waits("airflow-dag-processor-0", "x"),))


def test_the_largest_of_a_time_is_forgotten_with_it() -> None:
    largest = Highest(10)
    for minute, value in enumerate([5, 9, 3, 4]):
        largest.add(minute, value)
    assert [largest.at(minute) for minute in (3, 10, 11, 12, 13)] == [9, 9, 4, 4, None]


def test_workers_are_seen_with_their_memory_and_their_tasks() -> None:
    seen = after(begun(), 9)
    (workers,) = (item for item in seen.workloads if item.component == "worker")
    assert [pod.slots.busy for pod in workers.pods if pod.slots] == [4, 4, 4]
    expected = 255 + 4 * (85.8 + 100)
    for pod in workers.pods:
        assert pod.usage.anonymous is not None
        assert pod.usage.anonymous.value == pytest.approx(expected * MI)
        assert pod.memory == Memory(4000 * MI, 4000 * MI)
    assert seen.airflow.tasks is not None
    assert seen.airflow.tasks.running_in(None) == 12
    assert seen.metrics.state is MetricsState.FRESH
    assert seen.broker == ""


def test_every_signal_that_decisions_may_rest_on_is_played() -> None:
    # Who adds a signal adds it to `scraped` and `played`, or the benchmarks would not know of it.
    calls = Load("calls", 30, 10, daily=3000)
    view = begun(workers=1, leak=20.0, loads=(calls,))
    seen = after(view, 4 * DAY)
    (pod,) = seen.workloads[0].pods
    unknown = {item.name for item in fields(pod.usage) if getattr(pod.usage, item.name) is None}
    assert unknown == set()
    assert seen.airflow.tasks is not None
    assert {item.name for item in fields(seen.airflow.tasks) if getattr(seen.airflow.tasks, item.name) is None} == set()
    told = {item.name for item in fields(seen.airflow) if getattr(seen.airflow, item.name) is None}
    assert told == {"triggerer"}
    for workload in seen.workloads[1:]:
        usage = workload.pods[0].usage
        assert {item.name for item in fields(usage) if getattr(usage, item.name) is None} <= {
            "anonymous_before",
            "growth_by_day",
            "growth_days",
            "growth_hours",
            "node_cpu",
            "process_kills_before",
            "throttled",
        }


def test_a_day_is_known_only_after_a_day_and_of_the_living_container_alone() -> None:
    container = Container("c")
    for minute in range(DAY + 5):
        container.add(minute, scrape(minute, process_kills=minute // 700))
        usage = container.usage(minute, NOW)
        assert (usage.anonymous_before is not None) == (minute >= DAY)
    assert usage.anonymous_before is not None
    assert usage.anonymous_before.value == 4
    assert usage.process_kills_before is not None
    assert (usage.process_kills_before.value, usage.process_kills and usage.process_kills.value) == (1, 2)
    assert container.usage(DAY + 6, NOW) == Usage()


@pytest.mark.parametrize(("size", "rises"), [(lambda minute: 2.0 * minute, True), (lambda minute: minute % 700, False)])
def test_an_even_rise_is_seen_and_a_daily_one_is_not(size: Any, rises: bool) -> None:  # noqa: ANN401 - of a minute
    container = Container("c")
    for minute in range(2 * DAY):
        container.add(minute, scrape(size(minute)))
    growth = container.usage(2 * DAY - 1, NOW).growth_days
    assert (growth is not None) is rises
    if growth is not None:
        assert growth.value * 60 == pytest.approx(2.0)


@pytest.mark.parametrize(("leak", "seen"), [(0.1, True), (0.0, False), (-0.1, False)])
def test_a_rise_from_day_to_day_is_seen_under_days_that_swing(leak: float, *, seen: bool) -> None:
    container = Container("c")
    for minute in range(4 * DAY):
        swing = 900 * math.sin(2 * math.pi * minute / DAY)
        container.add(minute, scrape(2000 + swing + leak * minute))
    usage = container.usage(4 * DAY - 1, NOW)
    assert usage.growth_days is None
    assert (usage.growth_by_day is not None) is seen
    if usage.growth_by_day is not None:
        assert usage.growth_by_day.value * 60 == pytest.approx(leak)


def test_a_rise_on_one_day_alone_is_not_one_from_day_to_day() -> None:
    container = Container("c")
    for minute in range(4 * DAY):
        container.add(minute, scrape(2000 + 300 * (minute > 3 * DAY - 60)))
        if minute > 2 * DAY:
            assert container.usage(minute, NOW).growth_by_day is None


def test_the_pace_of_a_dag_is_known_and_its_past_after_a_day() -> None:
    dags = Dags()
    for minute in range(DAY + 400):
        dags.add(minute, {"a": minute * 3, "b": minute})
    (first, second), total = dags.paces()
    assert (first.dag, first.now, second.now, total) == ("a", 30, 10, 40)
    assert first.most == 30


def test_without_metrics_nothing_is_known_but_what_the_api_server_and_the_broker_say() -> None:
    seen = after(begun(outages=(Span(0.0, 1.0),)), 9)
    assert seen.metrics.state is MetricsState.UNAVAILABLE
    assert seen.airflow.tasks is None
    for workload in seen.workloads:
        assert all(pod.usage == Usage() for pod in workload.pods)
    assert all(pod.slots is not None for pod in seen.workloads[0].pods)


def test_a_death_is_seen_at_the_api_server() -> None:
    seen = after(begun(700), 7)
    pods = seen.workloads[0].pods
    assert sum(pod.deaths for pod in pods) > 1
    pods = tuple(pod for pod in pods if pod.deaths)
    assert all(pod.death is not None and seen.at - pod.death.at < timedelta(minutes=3) for pod in pods)
    assert all(pod.death is not None and pod.death.number == pod.deaths for pod in pods)


def test_what_was_decided_comes_into_force() -> None:
    view = begun()
    seen = after(view, 9)
    memory = Memory(1000 * MI, 5000 * MI)
    view.carry_out(decided(seen, "worker/default", Values(memory, concurrency=6), slots=True))
    pods = view.look().workloads[0].pods
    assert [(pod.memory, pod.slots and pod.slots.processes, pod.resized) for pod in pods] == [(memory, 6, True)] * 3
    view.carry_out(decided(seen, "worker/default", Values(Memory(900 * MI, 900 * MI), concurrency=2), slots=True))
    # It does not fit yet what is in use.
    assert view.look().workloads[0].pods[0].memory == Memory(900 * MI, 5000 * MI)
    assert after(view, 15).workloads[0].pods[0].memory == Memory(900 * MI, 900 * MI)


def test_the_worker_that_waits_first_is_restarted_unless_something_forbids_it() -> None:
    view = begun()
    seen = after(view, 9)
    wait = transcript.Waits("airflow-worker-1", "x")
    view.carry_out(Answer(seen.at, (), waiting=(replace(wait, blocked="no"),)))
    assert view.weeks.tally.restarts == 0
    view.carry_out(Answer(seen.at, (), waiting=(wait, replace(wait, pod="airflow-worker-2"))))
    after(view, 15)
    assert view.weeks.tally.restarts == 1
    assert [worker.life for worker in view.weeks.workers] == [1, 2, 1]


def test_parsing_changes_with_a_restart() -> None:
    view = begun()
    seen = after(view, 9)
    assert seen.airflow.parsing is not None
    view.carry_out(decided(seen, "dag-processor", Values(interval=50, processes=4)))
    seen = after(view, 1)
    assert seen.airflow.parsing is None
    assert view.weeks.tally.restarts == 1
    (pod,) = seen.workloads[2].pods
    assert (pod.decision, *pod.environment.values()) == ("d-1", "50", "4")
    parsing = after(view, 5).airflow.parsing
    assert parsing is not None
    assert parsing.cycle == pytest.approx(50.6)


def test_simulate_tells_day_by_day(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = Load("crowd", 100, 20, bursts=(Burst(60, hour=1.0),))
    story = Scenario("crowd", "Many at once.", (crowd,), workers=2, slots=2, warm_up=0, days=1)
    monkeypatch.setattr(scenarios, "SCENARIOS", {"crowd": story})
    result = CliRunner().invoke(main, ["simulate", "crowd", "--days", "1", "--memory", "6Gi"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "Many at once. 2 workers with 2 slots each."
    assert lines[1].startswith("Day 0: fullest worker ")
    assert any("SlotsExhausted: Slots 2 -> 4" in line for line in lines)
    assert simulate.told(simulate.Day(0), replace(story, warm_up=1)).startswith("Day 0 (to learn from): ")


def test_simulate_lists_its_stories_and_says_what_it_does_not_know() -> None:
    assert "steady " in CliRunner().invoke(main, ["simulate"]).stdout
    result = CliRunner().invoke(main, ["simulate", "stedy"])
    assert result.exit_code == 2
    assert "there is no scenario stedy; there are: steady, " in result.output
    assert CliRunner().invoke(main, ["simulate", "steady", "--memory", "lots"]).exit_code == 2


def test_a_careful_user_sets_twice_of_what_was_seen() -> None:
    made = Scenario("test", "A test.", (BUSY,), workers=3, slots=4)
    peak = simulate.seen_peak(made, 1)
    assert simulate.careful(made, 1) == math.ceil(2 * peak / 256) * 256
