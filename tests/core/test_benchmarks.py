"""The benchmarks close the loop through `airflow-tuner replay`: same tasks, same beginning, no inner state shown."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner

from airflow_tuner import simulate, transcript
from airflow_tuner.fleet.loads import Burst, Load
from airflow_tuner.fleet.scenarios import Scenario
from airflow_tuner.fleet.weeks import Weeks
from benchmarks import ablated, page, seeds
from benchmarks.__main__ import main
from benchmarks.controllers import Controller, Keda, Krr, Static
from benchmarks.oracle import played as played_by_the_oracle
from benchmarks.score import Score
from benchmarks.tuned import Tuner

GREEDY = Load("greedy", 300, 800, bursts=(Burst(6, hour=2.0),), memory_spread=0.05, seconds_spread=0.1)
USUAL = Load("usual", 60, 20, daily=4000)
SMALL = Scenario("small", "A test.", (GREEDY, USUAL), workers=3, slots=4, warm_up=0, days=1)


def played(kind: type[Controller], size: float, minutes: int = 300, made: Scenario = SMALL) -> tuple[Score, Weeks]:
    weeks = Weeks(made, 1, size, size)
    acting, score = kind(weeks), Score(made.name, 1, kind.__name__)
    for _ in range(minutes):
        weeks.step()
        score.add(weeks)
        acting.act()
    acting.close()
    return score.end(weeks, acting.changes), weeks


def test_the_tuner_answers_a_kill_and_the_retry_fits() -> None:
    tuned, weeks = played(Tuner, 1000)
    static, _ = played(Static, 1000)
    assert 0 < tuned.kills < static.kills
    assert tuned.changes > 0
    assert [worker.limit for worker in weeks.workers] == [weeks.workers[0].limit] * 3
    assert weeks.workers[0].limit >= 1500
    assert tuned.limit > static.limit


def test_who_does_nothing_asks_for_what_was_set() -> None:
    score, _ = played(Static, 2048, minutes=120)
    assert score.requested == score.limit == pytest.approx(3 * 2 * 2)
    assert (score.changes, score.restarts, score.days) == (0, 0, 120 / 1440)


def test_keda_takes_workers_away_and_brings_them_back() -> None:
    score, weeks = played(Keda, 4096)
    assert 1 <= len(weeks.living) <= 3
    assert score.restarts > 0
    assert score.requested < 3 * 4 * 5


def test_krr_does_not_act_on_hours() -> None:
    score, weeks = played(Krr, 4096)
    assert (score.changes, weeks.workers[0].limit) == (0, 4096)


def test_the_oracle_asks_for_less_than_anybody_and_nobody_is_killed() -> None:
    oracle = played_by_the_oracle(SMALL, 1, 60.0)
    static, _ = played(Static, 4096, minutes=1440)
    assert 0 < oracle.requested < static.requested
    assert (oracle.kills, oracle.late, oracle.failed) == (0, 0, 0)
    assert oracle.days == pytest.approx(1, rel=0.01)


def test_the_seeds_of_a_report_are_none_of_the_design() -> None:
    assert not {*seeds.report()} & {*seeds.DESIGN}
    assert seeds.report() == seeds.report()
    files = {path.stem for path in seeds.core()}
    assert {"decide", "steps", "memory"} <= files
    assert not {"weeks", "reconcile"} & files


def test_an_ablation_sets_a_constant_of_the_core_in_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_tuner import concurrency

    monkeypatch.setattr(concurrency, "IDLE_MARGIN", concurrency.IDLE_MARGIN)
    monkeypatch.setattr(concurrency, "IDLE", concurrency.IDLE)
    ablated.patch("concurrency.IDLE_MARGIN=9")
    ablated.patch("concurrency.IDLE=60")
    assert (concurrency.IDLE_MARGIN, concurrency.IDLE.total_seconds()) == (9.0, 60)
    with pytest.raises(SystemExit):
        ablated.patch("concurrency.SET=1")
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.ablated", "steps.OOM_FACTOR=1.2", "replay", "--schema"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    )
    assert json.loads(told.stdout).keys() == {"observation", "decision"}


def test_the_tables_compare_with_the_oracle_of_the_same_story_and_seed() -> None:
    oracle = Score(
        "a", 1, "oracle", requested=10, limit=10, minutes=1440, days=1, tasks=10, parse_cores=1, parse_least=1
    )
    other = replace(oracle, controller="manual", requested=40, limit=80, kills=2)
    rows = page.summary([oracle, other, replace(other, scenario="b")])
    assert rows[2][:4] == ("manual", "4.00", "8.00", "2.0")
    assert page.by_story([oracle, other])[1] == ("a", "4.00 / 2.0")
    assert page.markdown(rows).splitlines()[1] == "|" + " --- |" * len(page.COLUMNS)
    assert page.text(rows).splitlines()[0].startswith("controller")


def test_what_is_not_there_is_told() -> None:
    result = CliRunner().invoke(main, ["--scenario", "stedy"])
    assert result.exit_code == 2
    assert "there is no story stedy; there are: steady, midnight" in result.output


def test_an_observation_carries_nothing_that_metrics_would_not_show() -> None:
    from airflow_tuner.model import Memory
    from airflow_tuner.played import Played

    weeks = Weeks(SMALL, 1, 2000, 2000)
    view = Played(weeks, Memory(2000 * 2**20, 2000 * 2**20))
    for _ in range(5):
        weeks.step()
        seen = view.look()
    text = transcript.written(seen)
    assert transcript.read(text, 1) == seen
    for inner in ("mebibytes", "held", "leaked", "seed", "retries", "wait"):
        assert f'"{inner}"' not in text
    assert json.loads(simulate.parsed(simulate.POLICY)["spec"]["dagProcessor"]["parsing"]["cpu"]) == 8
