"""The metadata database: a real PostgreSQL with the tables' columns that are read, one who may only read, and none."""

import asyncio
import logging
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_tuner import database
from airflow_tuner.database import Counts, Database, database_of
from airflow_tuner.errors import Misconfigured, Unavailable
from airflow_tuner.telemetry import Pool
from testbed.processes import Area, free_port
from testbed.services import PostgreSQL, postgresql_programs

TABLES = """
create table task_instance (
    task_id text, pool text not null, pool_slots int not null, queue text, state text, priority_weight int
);
create index ti_state on task_instance (state);
create table slot_pool (id serial, pool text unique, slots int, description text, include_deferred boolean not null);
create role reader login password 'a-secret@of/its:own';
create role nobody login password 'nobody';
grant select on task_instance, slot_pool to reader;
"""
ROWS = """
insert into slot_pool (pool, slots, include_deferred)
    values ('default_pool', 128, false), ('small', 2, true), ('endless', -1, false);
insert into task_instance (task_id, pool, pool_slots, queue, state)
    select 't', 'default_pool', 1, 'default', state from unnest(array['running', 'running', 'queued', 'success', null])
        as state
    union all select 't', 'default_pool', 3, 'heavy', 'scheduled'
    union all select 't', 'small', 1, 'heavy', 'running'
    union all select 't', 'small', 1, 'default', 'deferred'
    union all select 't', 'small', 1, 'heavy', 'scheduled'
    union all select 't', 'endless', 2, null, 'queued';
"""


@pytest.fixture(scope="module")
def postgresql(area: Area) -> Iterator[PostgreSQL]:
    """It runs, in a folder that all may enter: as root its server runs as another user."""
    if postgresql_programs() is None:
        pytest.skip("PostgreSQL's server is missing: run `sudo make system`")
    with tempfile.TemporaryDirectory(prefix="airflow-tuner-") as folder:
        Path(folder).chmod(0o755)
        running = PostgreSQL(area, Path(folder) / "postgresql", "127.0.0.1")
        running.start()
        try:
            running.query(TABLES + ROWS)
            yield running
        finally:
            running.stop()


def of(server: PostgreSQL, user: str = "reader:a-secret%40of%2Fits%3Aown", name: str = "airflow") -> Database:
    """The database, for one of its users."""
    return Database(f"postgresql://{user}@127.0.0.1:{server.port}/{name}")


async def looked(asked: Database) -> Counts:
    """One look."""
    try:
        return await asked.counts()
    finally:
        await asked.close()


def told(asked: Database) -> str:
    """Why there is no answer."""
    with pytest.raises(Unavailable) as caught:
        asyncio.run(looked(asked))
    assert "secret" not in f"{caught.value!r}{caught.value.__cause__!r}{asked!r}"
    return str(caught.value)


def test_tasks_are_counted_by_queue_and_pools_by_their_slots(postgresql: PostgreSQL) -> None:
    found = asyncio.run(looked(of(postgresql)))
    assert found.queued == {"default": 1, "": 1}
    assert found.running == {"default": 2, "heavy": 1}
    assert found.pools == (
        Pool("default_pool", 125, 2, 1, 3),
        Pool("endless", None, 0, 2, 0),
        Pool("small", 0, 1, 0, 1),
    )
    assert [pool.name for pool in found.pools if pool.full] == ["small"], "what is deferred takes a slot there"


def test_one_connection_does_for_all_looks(postgresql: PostgreSQL) -> None:
    asked = Database(f"postgresql://{postgresql.url.replace(postgresql.address, '127.0.0.1')}")

    async def look() -> None:
        before = postgresql.query("select count(*) from pg_stat_activity where datname = 'airflow'")
        for _ in range(3):
            await asked.counts()
        after = postgresql.query("select count(*) from pg_stat_activity where datname = 'airflow'")
        assert int(after[0][0]) == int(before[0][0]) + 1
        await asked.close()

    asyncio.run(look())


@pytest.mark.parametrize(
    ("user", "name", "why"),
    [
        ("reader:wrong-secret", "airflow", "refuses the user or the password"),
        ("reader:a-secret%40of%2Fits%3Aown", "other", "does not exist on its server"),
        ("reader:a-secret%40of%2Fits%3Aown", "postgres", "has no table task_instance"),
        ("nobody:nobody", "airflow", "grant select on task_instance and slot_pool"),
    ],
)
def test_a_refusal_says_what_to_do_and_no_word_of_the_url(
    postgresql: PostgreSQL, user: str, name: str, why: str
) -> None:
    assert why in told(of(postgresql, user, name))


def test_a_server_that_is_not_there_is_left_alone_for_a_minute(postgresql: PostgreSQL) -> None:
    asked = of(postgresql)
    asked.url = asked.url.replace(str(postgresql.port), str(free_port()))

    async def look() -> None:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await asked.counts()
        asked.url = of(postgresql).url
        with pytest.raises(Unavailable, match="cannot be reached"):
            await asked.counts()

    asyncio.run(look())


def test_a_locked_table_ends_the_question_in_time(
    postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "ANSWERS", 0.5)
    lock = "begin; lock table slot_pool in access exclusive mode; select pg_sleep(3); commit"
    holds = threading.Thread(target=postgresql.query, args=(lock,))
    holds.start()
    while not postgresql.query("select 1 from pg_locks where mode = 'AccessExclusiveLock' and granted"):
        time.sleep(0.05)
    with caplog.at_level(logging.DEBUG):
        assert "does not answer within" in told(of(postgresql))
    assert holds.is_alive()
    holds.join()
    assert "secret" not in caplog.text


def test_the_file_holds_airflows_own_setting_or_the_start_ends_with_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql+psycopg2://airflow:airflow@postgres/airflow\n")
    found = database_of(file)
    assert found is not None
    assert found.url == "postgresql://airflow:airflow@postgres/airflow"
    file.write_text("mysql://airflow:secret@db/airflow")
    with pytest.raises(Misconfigured, match="no other database is asked") as caught:
        database_of(file)
    assert "secret" not in str(caught.value)
    with pytest.raises(Misconfigured, match="cannot be read"):
        database_of(tmp_path / "missing")
    assert database_of(None) is None
