"""The state file of the tuner beside a Docker engine."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_tuner import board
from airflow_tuner import store as store_module
from airflow_tuner.compose import Baseline
from airflow_tuner.errors import Misconfigured, Unavailable
from airflow_tuner.gauges import Row
from airflow_tuner.store import KEPT, Store


def test_all_that_is_written_is_there_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "new" / "state.sqlite"
    with Store(file) as store:
        store.write(status={"a": 1}, memory={})
        store.define(("worker", "abc"), Baseline(7, {"A": "1"}))
        store.define(("worker", "abc"), Baseline(8))
        store.give("c", 9)
        store.keep([Row("c", 100, 1.0, 2.0, 0.5)])
        store.killed("c", 10.5, whole=False)
        store.killed("c", 10.5, whole=False)
        store.killed("d", 11.0, whole=True)
    with Store(file) as store:
        assert store.document("status") == {"a": 1}
        assert store.document("nothing") == {}
        known = store.known()
        assert known.baselines == {("worker", "abc"): Baseline(7, {"A": "1"})}, "what was seen first counts"
        assert known.given == {"c": 9}
        assert known.deaths == {"d": (datetime.fromtimestamp(11, UTC),)}
        assert store.kills(whole=False) == {"c": (datetime.fromtimestamp(10.5, UTC),)}, "told twice, it counts once"
        assert store.minutes("c") == [Row("c", 100, 1.0, 2.0, 0.5)]
    assert file.parent.stat().st_mode & 0o077 == 0, "it is its owner's alone"


def test_what_is_told_within_a_fifth_of_a_second_is_of_one_kill(tmp_path: Path) -> None:
    with Store(tmp_path / "state") as store:
        for at in (10.0, 10.1, 10.19, 10.3, 10.4, 11.0):
            store.killed("c", at, whole=False)
        store.killed("d", 10.1, whole=False)
        store.killed("c", 10.15, whole=True)
        counted = [time.timestamp() for time in store.kills(whole=False)["c"]]
        assert counted == [10.0, 10.3, 11.0], "however long it goes on"
        assert len(store.kills(whole=False)["d"]) == 1, "each container's own"
        assert len(store.kills(whole=True)["c"]) == 1, "the container's end is another matter"


def test_minutes_are_kept_for_two_days(tmp_path: Path) -> None:
    with Store(tmp_path / "state") as store:
        store.keep([Row("c", minute, 1.0, 1.0, 0.0) for minute in (0, KEPT, KEPT + 1)])
        assert [row.minute for row in store.minutes("c")] == [KEPT, KEPT + 1]


def test_a_copy_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "state"
    with Store(file) as store:
        store.write(status={"a": 1})
        with Store.copied(file) as copy:
            copy.write(status={"a": 2})
        assert store.document("status") == {"a": 1}
    with Store.copied(tmp_path / "nowhere") as copy:
        assert copy.document("status") == {}
    assert not (tmp_path / "nowhere").exists()


def test_a_file_that_is_no_state_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no database, and long enough for one: " + "x" * 4096)
    with pytest.raises(Misconfigured, match=r"cannot be opened: .* \(--state\)"):
        Store(tmp_path / "state")
    with pytest.raises(Misconfigured, match=r"cannot be read: .* \(--state\)"):
        Store.copied(tmp_path / "state")


def test_a_file_that_another_process_holds_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "BUSY", 0.1)
    with Store(tmp_path / "state") as store, closing(sqlite3.connect(tmp_path / "state")) as other:
        other.execute("begin immediate")
        with pytest.raises(Unavailable, match="database is locked"):
            store.write(status={"a": 1})
        other.rollback()
        store.write(status={"a": 1})
        assert store.document("status") == {"a": 1}


def test_a_status_is_shown_and_one_of_another_version_is_told() -> None:
    told = board.text(
        {
            "observedGeneration": 0,
            "summary": "1 of 1 tuned; nothing wrong",
            "airflowVersion": "3",
            "targets": [
                {
                    "name": "worker/default",
                    "workload": "Service/airflow-worker",
                    "container": "worker",
                    "pods": 2,
                    "template": {"limit": "700Mi"},
                    "running": {"limit": "700Mi", "concurrency": 4},
                    "recommended": {"limit": "1050Mi", "concurrency": 2},
                    "why": "Memory limit 700 MiB -> 1050 MiB.",
                }
            ],
        },
        {"name": "docker/airflow", "mode": "Enforce", "paused": True, "looked": "2026-11-24T12:00:00+00:00"},
    )
    assert told.startswith("Airflow 3, policy docker/airflow, mode Enforce, paused: 1 of 1 tuned; nothing wrong.")
    assert "Last looked at 2026-11-24 12:00:00 UTC." in " ".join(told.split())
    assert "worker/default   2            700Mi, 4 slots   1050Mi, 2 slots   unknown" in told
    with pytest.raises(Misconfigured, match="another version has written it"):
        board.text({"targets": "none"}, {})
