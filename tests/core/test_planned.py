"""Memory is there for a DAG that runs seldom, as far as its last run showed it."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_tuner import api, due, explain, planned, report
from airflow_tuner.due import DueRun
from airflow_tuner.executor import Executors
from airflow_tuner.forecast import LEAST_MARGIN, Forecast, forecast
from airflow_tuner.history import History, hour_of
from airflow_tuner.model import Observation, Values
from core.worlds import NOW, Turn, observed, pod, scheduler, slots, spec, turn, usage, worker

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LAST = NOW - 45 * DAY
"""A peak of three hours, so long ago that no rule of the forecast knows it."""
RUN = DueRun("month_end", NOW + 5 * HOUR, LAST, LAST + 2 * HOUR + HOUR / 2)
POLICY: dict[str, Any] = {"workers": [{"name": "default", "memory": {"min": "256Mi", "max": "8Gi"}}]}


def past(peak: int = 3000, usual: int = 600) -> History:
    """Nine weeks of the same, but for the hours of that run."""
    now, first = hour_of(NOW), hour_of(LAST)
    hours = range(now - 60 * 24, now)
    return History(hours.start, tuple(peak if first <= hour <= first + 2 else usual for hour in hours))


def seen(*runs: DueRun, request: int = 700, limit: int = 800, **fields: Any) -> Observation:  # noqa: ANN401 - any field of the observation
    held = usage(anonymous=500, anonymous_day=600, working_set=600)
    one = pod(request=request, limit=limit, usage=held, slots=slots(2, 1))
    known = {"histories": {"worker/default": past()}, "due": runs, "calendar": "", **fields}
    return observed(worker(one, request=request, limit=limit, stated=Values(concurrency=2)), **known)


def turned(*runs: DueRun, **fields: Any) -> Turn:  # noqa: ANN401 - as `seen` has them
    return turn(spec(**POLICY, changes={"releases": True}), seen(*runs, **fields))


def foreseen(*runs: DueRun) -> tuple[Forecast, ...]:
    hour = hour_of(NOW)
    return planned.kept(forecast(past(), hour, 365), past(), hour, runs)


def test_the_hours_of_a_run_that_is_due_take_what_they_took_the_last_time() -> None:
    plain, found = foreseen(), foreseen(RUN)
    changed = [number for number, one in enumerate(found) if one != plain[number]]
    assert changed == [5, 6, 7, 8], "and an hour more, as it may begin late"
    assert {found[number].usual for number in changed} == {3000.0}
    assert {found[number].safe for number in changed} == {3000 * (1 + LEAST_MARGIN)}
    assert {found[number].rule for number in changed} == {"the run of month_end of 2026-10-10"}


def test_the_limit_rises_in_time_and_says_for_which_run() -> None:
    assert turned().reasons == []
    last = turned(RUN)
    assert last.reasons == ["MemoryForecast"]
    assert last.limit >= 3450
    assert "foreseen from the run of month_end of 2026-10-10" in last.decision.changes[0].message
    assert last.request == 700, "it is hours away"


def test_the_request_follows_in_its_hour() -> None:
    assert turned(replace(RUN, at=NOW + HOUR / 2), limit=4000).request > 700


def test_memory_for_it_is_not_released_before() -> None:
    assert turned(limit=4000).limit < 1000
    assert turned(RUN, limit=4000).limit >= 3450


def test_a_run_that_is_under_way_still_counts() -> None:
    assert [one.usual > 2000 for one in foreseen(replace(RUN, at=NOW - HOUR))][:4] == [True, True, True, False]


def test_what_the_last_run_held_may_not_be_known_any_more() -> None:
    old = replace(RUN, began=NOW - 80 * DAY, ended=NOW - 80 * DAY + HOUR)
    assert foreseen(old) == foreseen()


def test_a_dag_that_never_ran_holds_memory_until_it_has() -> None:
    never = DueRun("brand_new", NOW + 3 * HOUR)
    last = turned(never, limit=4000)
    assert last.limit == 4000
    rule = spec(**POLICY, changes={"releases": True})
    page = explain.page("worker/default", rule, last.seen, api.Status(), last.decision, ())
    assert "Less would do, but brand_new never ran, and is due within a day." in " ".join(page.split())
    assert "brand_new at 2026-11-24 15:00: it never ran" in page


def test_only_containers_that_run_tasks_follow_the_calendar() -> None:
    held = usage(anonymous=500, anonymous_day=600, working_set=600)
    one = scheduler(pod(request=700, limit=800, usage=held), request=700, limit=800)
    rule = spec(workers=[], scheduler={"memory": {"min": "256Mi", "max": "8Gi"}})
    known: dict[str, Any] = {"histories": {"scheduler": past()}, "due": (RUN,)}
    celery = Executors(("CeleryExecutor",), "there")
    assert turn(rule, observed(one, executors=celery, **known)).reasons == []
    local = Executors(("LocalExecutor",), "there")
    assert turn(rule, observed(one, executors=local, **known)).reasons == ["MemoryForecast"]


def test_the_calendar_is_a_condition_and_a_line_of_the_report() -> None:
    def conditions(last: Turn) -> dict[str, tuple[str, str]]:
        return {one.type: (one.status, one.message) for one in last.status.conditions}

    assert conditions(turned(RUN))["CalendarAvailable"] == ("True", "It is known which DAGs run next.")
    assert conditions(turned(calendar="It is gone."))["CalendarAvailable"] == ("False", "It is gone.")
    assert "CalendarAvailable" not in conditions(turned(calendar=None))
    assert "1 rare run is due within a day" in report.text("n/p", seen(RUN), ())
    assert "calendar" not in report.text("n/p", seen(calendar=None), ())


def test_explain_tells_what_was_held_the_last_time() -> None:
    last = turned(RUN)
    page = explain.page("worker/default", spec(**POLICY), last.seen, api.Status(), last.decision, ())
    told = " ".join(page.split())
    words = (
        "month_end at 2026-11-24 17:00; when it ran last, from 2026-10-10 12:00 on for 150 minutes, 3000 MiB were held"
    )
    assert words in told
    assert next(planned.told(History(), (RUN,))).endswith("what was held is not known")


MOMENTS = st.integers(-48, 48).map(lambda hours: NOW + hours * HOUR)


@given(st.lists(st.tuples(MOMENTS, st.integers(0, 70 * 24), st.integers(0, 60)), max_size=4))
def test_a_calendar_never_makes_less_of_what_is_foreseen(runs: list[tuple[datetime, int, int]]) -> None:
    due_runs = [DueRun("d", at, NOW - before * HOUR, NOW - before * HOUR + took * HOUR) for at, before, took in runs]
    for one, more in zip(foreseen(), foreseen(*due_runs), strict=True):
        assert more.usual >= one.usual
        assert more.safe >= one.safe
        assert more.usual <= max(one.usual, 3000)


def test_a_dag_that_never_ran_is_named() -> None:
    assert planned.new(()) == planned.new((RUN,)) == ""
    assert planned.new((RUN, DueRun("x", NOW))) == "x"


# What Airflow says


@pytest.mark.parametrize(("line", "field"), [("3", "next_dagrun_run_after"), ("2", "next_dagrun_create_after")])
def test_each_line_names_the_next_run_its_own_way(line: str, field: str) -> None:
    items = [
        {"dag_id": "a", field: "2026-11-24T12:00:00Z", "is_paused": False},
        {"dag_id": "never", field: None},
        {"dag_id": "asleep", field: "2026-11-24T12:00:00Z", "is_paused": True},
        {"dag_id": "naive", field: "2026-11-24T12:00:00"},
        {"dag_id": "else"},
    ]
    assert [*due.dags(json.loads(json.dumps({"dags": items})), line)] == [("a", datetime(2026, 11, 24, 12, tzinfo=UTC))]


def test_a_run_counts_once_it_has_ended() -> None:
    began, ended = "2026-11-24T12:00:00Z", "2026-11-24T13:00:00+00:00"
    assert due.last({"dag_runs": [{"start_date": began, "end_date": ended}]}) == (NOW, NOW + HOUR)
    for run in ({"start_date": began, "end_date": None}, {"start_date": ended, "end_date": began}, {}):
        assert due.last({"dag_runs": [run]}) is None


def test_times_that_no_run_can_have_count_for_nothing() -> None:
    for began, ended in (
        ("0001-01-01T00:00:00+14:00", "2026-11-24T13:00:00Z"),
        ("2026-11-24T12:00:00Z", "9999-12-31T23:59:59Z"),
    ):
        assert due.last({"dag_runs": [{"start_date": began, "end_date": ended}]}) is None
