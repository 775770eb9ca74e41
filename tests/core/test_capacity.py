"""A triggerer that is full is told how many more triggers it could take, or how many triggerers it takes."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner import api, capacity, telemetry, triggers
from airflow_tuner.autoscaler import Autoscaler
from airflow_tuner.capacity import Law
from airflow_tuner.diagnose.case import Case
from airflow_tuner.diagnose.scheduling import triggerer_saturated
from airflow_tuner.model import Pod, Workload
from airflow_tuner.signals import Series
from airflow_tuner.triggers import Triggerer
from core.worlds import MI, observed, pod, scheduler, spec, usage

SPEC = spec(workers=[], triggerer={"memory": {"min": "256Mi", "max": "2Gi"}})
FULL = Triggerer(running=1000, free=0, deferred=1500)


def triggerer(*pods: Pod) -> Workload:
    known = {"target": "triggerer", "component": "triggerer", "name": "airflow-triggerer", "container": "triggerer"}
    return scheduler(*pods, **known)


def one(held: float | None = 320, limit: int | None = 1024, cpu: float | None = 0.3, name: str = "t-0") -> Pod:
    """A triggerer that holds so many MiB."""
    return pod(name, limit=limit, usage=usage(anonymous=held, cpu=cpu))


def told(*pods: Pod, found: Triggerer = FULL, most: int | None = None, **fields: Any) -> str:  # noqa: ANN401 - any field of the observation
    workload = triggerer(*(pods or (one(),)))
    return capacity.advice(workload, observed(workload, **fields), found, None if most is None else most * MI)


def test_the_capacity_follows_what_is_deferred_where_memory_carries_it() -> None:
    assert told() == (
        "Set config.triggerer.capacity to 1650 (now 1000): 267 MiB + 1650 x 54 KiB + 130 MiB = 484 MiB, a trigger as "
        "all that it holds beyond an empty one."
    )


def test_a_trigger_as_measured_within_a_day_goes_before_what_is_only_left_over() -> None:
    found = Triggerer(running=1000, free=0, deferred=1500, per_trigger=200 * 1024)
    assert "125 MiB + 1650 x 200 KiB" in told(found=found)
    assert "a trigger as its memory rose and fell with them within a day" in told(found=found)


def test_a_triggerer_that_holds_no_more_than_an_empty_one_is_counted_by_the_table() -> None:
    assert "x 41 KiB" in told(one(held=200))


@pytest.mark.parametrize(
    ("limit", "most", "words"),
    [
        (420, None, "Memory ends at 433: "),
        (420, 1024, "Set config.triggerer.capacity to 1650 (now 1000) and a memory limit of 484 MiB: "),
        (None, None, "Set config.triggerer.capacity to 1650 (now 1000): "),
        (460, None, "Set config.triggerer.capacity to 1150 (now 1000): "),
    ],
)
def test_memory_ends_it_at_the_limit_or_at_the_policys_maximum(limit: int | None, most: int | None, words: str) -> None:
    assert told(one(limit=limit), most=most).startswith(words)


def test_what_does_not_fit_one_takes_more_triggerers() -> None:
    assert told(one(limit=420)).endswith("Run 2 triggerers instead of 1 (triggerer.replicas).")
    assert told(one(limit=460)).endswith("Run 2 triggerers instead of 1 (triggerer.replicas).")
    two = (one(limit=420), one(limit=420, name="t-1"))
    assert told(*two, found=Triggerer(1000, 0, 5000)).endswith("Run 6 triggerers instead of 2 (triggerer.replicas).")


def test_a_full_event_loop_takes_more_triggerers_whatever_memory_says() -> None:
    assert told(one(cpu=0.95)) == (
        "t-0 uses 0.95 cores, and its event loop can use one: more triggers in it would only share that. Run 2 "
        "triggerers instead of 1 (triggerer.replicas)."
    )


def test_how_many_there_are_is_left_to_what_scales_them() -> None:
    keda = Autoscaler("ScaledObject", "airflow-triggerer", "Deployment/airflow-triggerer")
    other = Autoscaler("ScaledObject", "airflow-worker", "Deployment/airflow-worker")
    words = "How many triggerers there are is left to the ScaledObject airflow-triggerer."
    assert told(one(cpu=0.95), autoscalers=(keda,)).endswith(words)
    assert words not in told(one(cpu=0.95), autoscalers=(other,))


def test_where_it_is_not_known_how_many_are_asked_for_it_is_twice_as_many() -> None:
    assert told(found=Triggerer(1000, 0)).startswith("Set config.triggerer.capacity to 2000 (now 1000)")
    assert told(one(limit=420), found=Triggerer(1000, 0)).endswith("Add triggerers (triggerer.replicas).")


@pytest.mark.parametrize("found", [Triggerer(None, 0, 1500), Triggerer(0, 0, 1500)])
def test_nothing_is_said_of_triggers_that_are_not_known(found: Triggerer) -> None:
    assert told(found=found) == ""


def test_nothing_is_said_of_memory_that_is_not_known() -> None:
    assert told(one(held=None)) == ""


def full(found: Triggerer, *workloads: Workload) -> str:
    seen = observed(*workloads, airflow=telemetry.Airflow(triggerer=found))
    (finding,) = triggerer_saturated(Case(SPEC, seen, api.Status()))
    return finding.message


def test_the_finding_says_it_with_the_numbers_it_rests_on() -> None:
    message = full(FULL, triggerer(one()))
    assert "(1000 triggers run in one, tasks of 1500 slots are deferred)" in message
    assert message.endswith("a trigger as all that it holds beyond an empty one.")
    assert full(Triggerer(None, 0)).endswith("Add triggerers, or raise config.triggerer.capacity.")


@given(st.floats(1, 5000), st.integers(1, 20_000), st.integers(64, 8192), st.none() | st.floats(1, 1e7))
def test_what_is_said_to_fit_fits_and_what_is_held_is_never_less_than_it_is(
    held: float, running: int, limit: int, per: float | None
) -> None:
    law = capacity.law(held * MI, running, Triggerer(running, 0, per_trigger=per), "3")
    assert law.per_trigger >= capacity.PER_TRIGGER
    assert law.base + running * law.per_trigger >= held * MI - 1
    most = law.most(limit * MI)
    assert most == 0 or law.base + most * law.per_trigger + 130 * MI <= limit * MI + 1


def test_a_law_tells_itself() -> None:
    assert Law(2**28, 2048.0, "as told").told(1024) == "256 MiB + 1024 x 2 KiB + 130 MiB = 388 MiB, as told"


# What a trigger takes, from a day


def of_a_day(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """What Prometheus says of these looks: triggers, and bytes."""
    count = len(pairs)

    def mean(values: list[float]) -> float:
        return math.fsum(values) / count

    return {
        "trigger_looks": count,
        "trigger_mean": mean([x for x, _ in pairs]),
        "trigger_held": mean([y for _, y in pairs]),
        "trigger_squares": mean([x * x for x, _ in pairs]),
        "trigger_held_squares": mean([y * y for _, y in pairs]),
        "trigger_both": mean([x * y for x, y in pairs]),
    }


DAY = [(100.0 + 10 * hour, 280e6 + (100 + 10 * hour) * 60e3) for hour in range(30)]


def test_memory_that_rises_and_falls_with_the_triggers_says_what_one_takes() -> None:
    assert triggers.per_trigger(of_a_day(DAY)) == pytest.approx(60e3, rel=1e-3)


@pytest.mark.parametrize(
    "pairs",
    [
        DAY[: triggers.LOOKS - 1],
        [(500.0 + hour % 2, y) for hour, (_, y) in enumerate(DAY)],
        [(x, 280e6) for x, _ in DAY],
        [(x, 280e6 - x * 60e3) for x, _ in DAY],
        [(x, 280e6 + (hour % 3) * 50e6) for hour, (x, _) in enumerate(DAY)],
        [(0.0, y) for _, y in DAY],
    ],
    ids=["too few looks", "steady triggers", "steady memory", "falls as they rise", "unrelated", "no triggers"],
)
def test_a_day_that_does_not_show_it_says_nothing(pairs: list[tuple[float, float]]) -> None:
    assert triggers.per_trigger(of_a_day(pairs)) is None
    assert triggers.per_trigger({}) is None


def test_a_triggerer_is_read_with_what_is_deferred_and_what_a_trigger_takes() -> None:
    rates = {"triggerer_beats": 35.0, "triggers": 1000.0, "triggers_free": 0.0, "deferred": 1500.0}
    answered = [Series({"signal": name}, value) for name, value in of_a_day(DAY).items()]
    found = triggers.read(rates, answered)
    assert found is not None
    assert (found.running, found.free, found.deferred) == (1000, 0, 1500)
    assert found.per_trigger == pytest.approx(60e3, rel=1e-3)
    assert triggers.read({**rates, "triggerer_beats": 0.0}, answered) is None
    assert triggers.read({"triggerer_beats": 1.0, "triggers": 4.0}, answered) is None
