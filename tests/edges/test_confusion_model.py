"""A modelled Airflow's past in a real Prometheus, judged by the real core: a cause, a quiet night, and how it is asked.

The whole table is `make prove CASE=confusion-model`.
"""

import json
import urllib.parse
from collections.abc import Callable, Iterator

import pytest

from airflow_tuner import questions
from airflow_tuner.observe import wanted
from testbed.loopback import fetch
from testbed.model_causes import alone, cause
from testbed.model_days import lived
from testbed.model_experiments import frozen, outcome, seeds
from testbed.model_judge import SPEC, Answers, asked, looks, remembering
from testbed.model_world import DAY, World
from testbed.processes import Area
from testbed.prometheus import Prometheus

CASE = alone(cause("slots exhausted"), 4, 4, plain=False)


@pytest.fixture(scope="module")
def worlds() -> dict[str, World]:
    return {"cause": CASE.played(asked), "quiet": lived("quiet", 4, 4, 0.4, asked)}


@pytest.fixture(scope="module")
def source(area: Area, needs: Callable[..., None], worlds: dict[str, World]) -> Iterator[Prometheus]:
    needs("prometheus", "promtool")
    with remembering(area, [*worlds.values()]) as running:
        yield running


def test_a_cause_is_found_first_and_nothing_else_is(source: Prometheus, worlds: dict[str, World]) -> None:
    found = outcome(CASE, [*looks(source, worlds["cause"])])
    (seconds,) = found.found
    assert seconds is not None
    assert seconds < 120
    assert (found.first, dict(found.false), dict(found.before)) == ((True,), {}, {})


def test_on_an_ordinary_night_nothing_is_found(source: Prometheus, worlds: dict[str, World]) -> None:
    found = [*looks(source, worlds["quiet"])]
    assert found[-1].at - found[0].at > 0.3 * DAY
    assert {name for look in found for name in look.names} == set()


def test_asked_over_a_range_the_answers_are_those_of_single_moments(
    source: Prometheus, worlds: dict[str, World]
) -> None:
    world = worlds["cause"]
    moments = [world.seen[number].at for number in (3, -1)]
    told = 0
    for signal in (*wanted(airflow=True), *questions.AIRFLOW):
        answers = Answers(source, signal, world, SPEC)
        for at in moments:
            if signal.lasts:
                at = max(one for one in answers.times if one <= at)  # noqa: PLW2901 - when it was asked last
            query = urllib.parse.urlencode({"query": answers.promql, "time": at})
            single = json.loads(fetch(f"{source.url}/api/v1/query?{query}"))["data"]["result"]
            values = {tuple(sorted(item["metric"].items())): float(item["value"][1]) for item in single}
            values = {labels: value for labels, value in values.items() if abs(value) < float("inf")}
            ranged = {tuple(sorted(item.labels.items())): item.value for item in answers.at(at)}
            if "topk" in answers.promql:
                # Of equal ones it takes any.
                assert sorted(ranged.values()) == pytest.approx(sorted(values.values()), rel=1e-9)
            else:
                assert ranged == pytest.approx(values, rel=1e-9), signal.name
            told += len(ranged)
    assert told > 200


def test_the_seeds_of_a_report_come_from_the_code_that_decides() -> None:
    assert len(frozen()) == 64
    assert seeds(3) == seeds(10)[:3]
    assert len({*seeds(10)}) == 10
