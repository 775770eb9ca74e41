"""What DAGs run next, and when they ran last: of real Airflows of both lines, and of servers that are none."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_tuner import api
from airflow_tuner.airflow_api import AirflowApi
from airflow_tuner.calendars import Calendar
from airflow_tuner.due import DueRun
from airflow_tuner.errors import Misconfigured, TunerError, Unavailable
from airflow_tuner.settings import Api
from edges.servers import serving
from testbed.airflow_environment import CannotInstall
from testbed.airflow_lines import AIRFLOW_2, AIRFLOW_3, Line
from testbed.airflow_web import READER, AirflowWeb, airflow_web
from testbed.processes import Area

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SPEC = api.Spec.model_validate({"airflow": {"release": "airflow", "api": "main"}})
DAGS = ("hourly", "month_end", "brand_new", "asleep", "far")


def number(line: Line) -> str:
    return "3" if line is AIRFLOW_3 else "2"


def account(folder: Path, name: str, password: str) -> Path:
    """A Secret as it is mounted."""
    folder.mkdir(exist_ok=True)
    (folder / "username").write_text(name)
    (folder / "password").write_text(f"{password}\n")
    return folder


@pytest.fixture(scope="module", params=[AIRFLOW_3, AIRFLOW_2], ids=lambda line: line.version)
def web(request: pytest.FixtureRequest, area: Area) -> Iterator[AirflowWeb]:
    """A real one, with a DAG of each kind."""
    try:
        with airflow_web(area, request.param, *DAGS) as running:
            running.due("hourly", NOW + HOUR / 2)
            running.ran("hourly", NOW - HOUR / 2, NOW - HOUR / 3)
            running.due("month_end", NOW + 5 * HOUR)
            running.ran("month_end", NOW - 61 * DAY, NOW - 61 * DAY + HOUR)
            running.ran("month_end", NOW - 30 * DAY, NOW - 30 * DAY + 3 * HOUR, "failed")
            running.ran("month_end", NOW - HOUR, None, "running")
            running.due("brand_new", NOW + 2 * HOUR)
            running.due("asleep", NOW + 2 * HOUR, paused=True)
            running.due("far", NOW + 2 * DAY)
            yield running
    except CannotInstall as error:
        pytest.skip(str(error))


def of(web: AirflowWeb, folder: Path, *, password: str = READER[1]) -> AirflowApi:
    known = account(folder / "account", READER[0], password)
    return AirflowApi("main", Api(url=web.url, namespace="n", credentials=known))


def test_a_real_airflow_tells_what_is_due_and_what_ran_last(web: AirflowWeb, tmp_path: Path) -> None:
    source, line = of(web, tmp_path), number(web.line)
    assert asyncio.run(source.due(line, NOW)) == [
        ("hourly", NOW + HOUR / 2),
        ("brand_new", NOW + 2 * HOUR),
        ("month_end", NOW + 5 * HOUR),
    ]
    assert asyncio.run(source.last(line, "month_end")) == (NOW - 30 * DAY, NOW - 30 * DAY + 3 * HOUR)
    assert asyncio.run(source.last(line, "brand_new")) is None


def test_the_calendar_holds_what_the_last_days_do_not_show(web: AirflowWeb, tmp_path: Path) -> None:
    calendar, source = Calendar(), {"main": of(web, tmp_path)}
    asyncio.run(calendar.read(source, SPEC, "n", number(web.line), NOW))
    assert calendar.problem == ""
    assert calendar.due(NOW) == (
        DueRun("brand_new", NOW + 2 * HOUR),
        DueRun("month_end", NOW + 5 * HOUR, NOW - 30 * DAY, NOW - 30 * DAY + 3 * HOUR),
    )


def test_a_wrong_password_is_told_without_it_and_a_right_one_counts_at_once(web: AirflowWeb, tmp_path: Path) -> None:
    source, line = of(web, tmp_path, password="not-that-one"), number(web.line)  # noqa: S106 - a wrong one
    with pytest.raises(Misconfigured, match="Secret") as caught:
        asyncio.run(source.due(line, NOW))
    assert "not-that-one" not in str(caught.value)
    account(tmp_path / "account", *READER)
    assert len(asyncio.run(source.due(line, NOW))) == 3


def test_a_token_that_has_ended_is_asked_for_anew(web: AirflowWeb, tmp_path: Path) -> None:
    source = of(web, tmp_path)
    source._token = "of-yesterday"  # noqa: S105, SLF001 - no token
    assert len(asyncio.run(source.due(number(web.line), NOW))) == 3


# Servers that are no Airflow


def asked(url: str, **fields: Any) -> list[tuple[str, datetime]]:  # noqa: ANN401 - any field of the API
    source = AirflowApi("main", Api(url=url, namespace="n", **{"timeout_seconds": 1.0, **fields}))
    return asyncio.run(source.due("3", NOW))


def page(*dags: str, at: datetime = NOW + HOUR) -> str:
    return json.dumps({"dags": [{"dag_id": dag, "next_dagrun_run_after": at.isoformat()} for dag in dags]})


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("nonsense", 200, "answers in another form"),
        ("{}", 200, "answers in another form"),
        ('{"dags": [{"dag_id": "a", "next_dagrun_run_after": "tomorrow"}]}', 200, "answers in another form"),
        ('{"dags": 7}', 200, "answers in another form"),
        ("secret words", 500, "answers with status 500"),
        ("secret words", 401, r"does not let the operator read DAGs and their runs \(status 401\)"),
        ("secret words", 403, r"does not let the operator read DAGs and their runs \(status 403\)"),
    ],
)
def test_whatever_answers_is_told_and_its_words_are_not(body: str, status: int, words: str) -> None:
    with serving(body, status) as server, pytest.raises(TunerError, match=words) as caught:
        asked(server.url)
    assert "secret words" not in str(caught.value)


def test_no_redirect_is_followed_and_no_account_is_sent_elsewhere(tmp_path: Path) -> None:
    with serving(page("a")) as other, serving("", 302, headers={"Location": other.url}) as server:
        with pytest.raises(Unavailable, match="status 302"):
            asked(server.url)
        with pytest.raises(Misconfigured, match=r"gives no token .* \(status 302\)"):
            asked(server.url, credentials=account(tmp_path / "a", *READER))
        assert other.asked == []


@pytest.mark.parametrize("option", ["silent", "drip"])
def test_an_answer_that_never_ends_is_none(option: str) -> None:
    with serving(page("a"), **{option: True}) as server, pytest.raises(Unavailable, match="does not answer"):
        asked(server.url)


def test_an_answer_that_is_too_large_is_none() -> None:
    with serving(page("a" * 5 * 2**20)) as server, pytest.raises(Unavailable, match="answers in another form"):
        asked(server.url)


def test_nobody_at_the_address_is_told() -> None:
    with pytest.raises(Unavailable, match="Airflow's REST API main does not answer"):
        asked("http://127.0.0.1:9")


def test_a_secret_that_lacks_a_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="its Secret needs the keys username and password"):
        asked("http://127.0.0.1:9", credentials=tmp_path)


def test_more_than_a_page_is_read_to_its_end_and_not_without_end() -> None:
    pages = [page(*(f"d{number:03}" for number in range(100))), page("last")]
    with serving(lambda: pages.pop(0)) as server:
        assert len(asked(server.url)) == 101
        assert "offset=100" in server.asked[-1][0]
    with serving(page(*(f"d{number:03}" for number in range(100)))) as server:
        assert len(asked(server.url)) == 3000
        assert len(server.asked) == 30


# The calendar, as time goes by


class Told(AirflowApi):
    """An Airflow whose answers are these."""

    def __init__(self, dags: dict[str, datetime], runs: dict[str, tuple[datetime, datetime]]) -> None:
        super().__init__("main", Api(url="http://127.0.0.1:9", namespace="n"))
        self.dags, self.runs = dags, runs
        self.calls: list[str] = []
        self.broken = False

    async def due(self, line: str, now: datetime) -> list[tuple[str, datetime]]:
        """As `dags` has it."""
        del line
        self.calls.append("due")
        if self.broken:
            raise Unavailable("It does not answer.")
        return sorted((item for item in self.dags.items() if now <= item[1] <= now + DAY), key=lambda one: one[1])

    async def last(self, line: str, dag: str) -> tuple[datetime, datetime] | None:
        """As `runs` has it."""
        del line
        self.calls.append(dag)
        return self.runs.get(dag)


def read(calendar: Calendar, source: Told, at: datetime, spec: api.Spec = SPEC, namespace: str = "n") -> list[str]:
    """What is due after one more look, and what was asked for."""
    source.calls.clear()
    asyncio.run(calendar.read({"main": source}, spec, namespace, "3", at))
    return [run.dag for run in calendar.due(at)]


def a_month() -> Told:
    began = NOW - 30 * DAY
    return Told(
        {"month": NOW + HOUR, "daily": NOW + HOUR}, {"month": (began, began + 3 * HOUR), "daily": (NOW - DAY, NOW)}
    )


def test_it_is_asked_every_half_hour_and_of_what_is_known_not_again() -> None:
    calendar, source = Calendar(), a_month()
    assert read(calendar, source, NOW) == ["month"]
    assert source.calls[0] == "due"
    assert sorted(source.calls[1:]) == ["daily", "month"]
    assert read(calendar, source, NOW + HOUR / 4) == ["month"]
    assert source.calls == []
    assert read(calendar, source, NOW + HOUR / 2) == ["month"]
    assert source.calls == ["due"]


def test_a_run_that_is_under_way_counts_until_it_should_be_over() -> None:
    calendar, source = Calendar(), a_month()
    read(calendar, source, NOW)
    source.dags = {"month": NOW + 31 * DAY, "daily": NOW + DAY}
    for hours, there in ((2, True), (4, True), (6, False)):
        assert read(calendar, source, NOW + hours * HOUR) == (["month"] if there else []), hours


def test_a_dag_that_was_paused_or_whose_schedule_was_changed_is_looked_at_anew() -> None:
    calendar, source = Calendar(), a_month()
    read(calendar, source, NOW)
    source.dags["month"] = NOW + 3 * HOUR
    assert read(calendar, source, NOW + HOUR / 2) == ["month"]
    assert source.calls == ["due", "month"]
    del source.dags["month"]
    assert read(calendar, source, NOW + HOUR * 1.5) == []


def test_what_was_due_is_believed_for_hours_though_nobody_answers() -> None:
    calendar, source = Calendar(), a_month()
    source.dags["month"] = NOW + 20 * HOUR
    read(calendar, source, NOW)
    source.broken = True
    assert read(calendar, source, NOW + HOUR) == ["month"]
    assert calendar.problem == "It does not answer."
    assert read(calendar, source, NOW + HOUR + timedelta(minutes=4)) == ["month"]
    assert source.calls == [], "it rests for five minutes"
    assert read(calendar, source, NOW + 7 * HOUR) == []
    source.broken = False
    assert read(calendar, source, NOW + 8 * HOUR) == ["month"]
    assert calendar.problem == ""


def test_no_more_than_so_many_last_runs_are_asked_for_at_once_the_soonest_first() -> None:
    dags = {f"d{number:03}": NOW + HOUR + timedelta(seconds=number) for number in range(450)}
    calendar, source = Calendar(), Told(dags, dict.fromkeys(dags, (NOW - HOUR, NOW)))
    counts = []
    for look in range(4):
        read(calendar, source, NOW + look * HOUR / 2)
        counts.append(len(source.calls) - 1)
    # By then the first of them are no longer due.
    assert counts[:2] == [200, 200]
    assert max(counts[2:]) <= 50


def test_it_belongs_to_one_namespace_and_is_asked_only_where_a_policy_names_it() -> None:
    calendar, source = Calendar(), a_month()
    assert read(calendar, source, NOW, namespace="other") == []
    assert calendar.problem == "The operator knows no REST API main for the namespace other (airflow.apis)."
    bare = SPEC.model_copy(update={"airflow": SPEC.airflow.model_copy(update={"api": None})})
    assert read(calendar, source, NOW, bare) == []
    assert source.calls == []
    assert calendar.problem is None
    asyncio.run(calendar.read({"main": source}, SPEC, "n", None, NOW))
    assert calendar.problem == "Airflow's version is not known: state spec.airflow.version."


def test_of_another_api_nothing_is_known() -> None:
    calendar, source = Calendar(), a_month()
    assert read(calendar, source, NOW) == ["month"]
    other = SPEC.model_copy(update={"airflow": SPEC.airflow.model_copy(update={"api": "other"})})
    assert read(calendar, source, NOW, other) == []
    assert read(calendar, source, NOW) == ["month"]
    assert source.calls[0] == "due"


def test_it_is_asked_beside_the_turns_and_once_at_a_time() -> None:
    async def twice() -> None:
        calendar, source = Calendar(), a_month()
        for _ in range(2):
            calendar.begin({"main": source}, SPEC, "n", "3", NOW)
        assert source.calls == []
        await asyncio.sleep(0.05)
        assert source.calls.count("due") == 1
        assert [run.dag for run in calendar.due(NOW)] == ["month"]

    asyncio.run(twice())


def test_a_bug_in_it_ends_nothing() -> None:
    class Broken(Told):
        async def due(self, *_: object) -> list[tuple[str, datetime]]:
            raise RuntimeError

    calendar = Calendar()
    assert read(calendar, Broken({}, {}), NOW) == []
    assert calendar.problem == "It could not be read; see the operator's log."


def test_a_run_says_when_it_should_be_over() -> None:
    run = DueRun("a", NOW, NOW - DAY, NOW - DAY + 2 * HOUR)
    assert (run.rare, run.over) == (False, NOW + 3 * HOUR)
    assert replace(run, began=None, ended=None).rare


def test_what_is_due_is_not_all_known_before_every_last_run_was_asked_for() -> None:
    dags = {f"d{number:03}": NOW + 20 * HOUR + timedelta(seconds=number) for number in range(250)}
    calendar, source = Calendar(), Told(dags, dict.fromkeys(dags, (NOW - HOUR, NOW)))
    found = [calendar.reading(SPEC)]
    for look in range(2):
        read(calendar, source, NOW + look * HOUR / 2)
        found.append(calendar.reading(SPEC))
    assert found == [True, True, False]
    source.broken = True
    read(calendar, source, NOW + 2 * HOUR)
    assert not calendar.reading(SPEC), "then its condition says so"
    bare = SPEC.model_copy(update={"airflow": SPEC.airflow.model_copy(update={"api": None})})
    assert not calendar.reading(bare)
