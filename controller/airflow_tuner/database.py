"""Tasks by state, pool and queue, as Airflow's metadata database has them: for an Airflow whose metrics nobody scrapes.

It asks for less than each scheduler does in each of its loops, by an index (`ti_state`), in a transaction that may not
write, for two seconds at most. A database that is slow or refuses is left alone for a minute.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from airflow_tuner.errors import Misconfigured, Unavailable
from airflow_tuner.settings import read_url
from airflow_tuner.telemetry import Pool

CONNECTS = 3.0
"""Seconds that a connection may take."""
ANSWERS = 2.0
"""Seconds that a question may take; PostgreSQL itself ends it then."""
RESTS = 60.0
"""Seconds for which it is not asked again after it was slow or refused."""

STATES = """
select pool, coalesce(queue, ''), state, count(*), sum(coalesce(pool_slots, 1))
from task_instance where state in ('scheduled', 'queued', 'running', 'deferred') group by 1, 2, 3
"""
POOLS = "select pool, slots, coalesce(include_deferred, false) from slot_pool"

ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError)
REASONS: tuple[tuple[Any, str], ...] = (
    (asyncpg.InvalidAuthorizationSpecificationError, "refuses the user or the password of --database-url-file"),
    (asyncpg.InvalidCatalogNameError, "of --database-url-file does not exist on its server"),
    (
        asyncpg.InsufficientPrivilegeError,
        "does not show its tables: grant select on task_instance and slot_pool to the user that asks",
    ),
    (asyncpg.UndefinedTableError, "has no table task_instance: name Airflow's own in --database-url-file"),
    ((TimeoutError, asyncpg.QueryCanceledError), f"does not answer within {ANSWERS:.0f} s"),
    (OSError, "cannot be reached: check host and port of --database-url-file"),
)
"""What becomes of a question, by the errors that say so; the first that fits counts."""

_URL = re.compile(r"postgres(ql)?(\+\w+)?://(.*)", re.DOTALL)
"""Airflow's own setting names its driver as well."""

Row = tuple[str, str, str, int, int]
"""Pool, queue, state, tasks and the slots of their pool."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Tasks that are there."""

    pools: tuple[Pool, ...]
    queued: Mapping[str, int]
    """Tasks that wait for a worker, by Celery queue."""
    running: Mapping[str, int]
    """Tasks that run, by Celery queue."""


@dataclass
class Database:
    """The metadata database of one Airflow."""

    url: str = field(repr=False)
    _connection: asyncpg.Connection | None = field(default=None, repr=False)
    _failed: tuple[float, str] | None = field(default=None, repr=False)
    """When it failed last, and how."""

    async def counts(self) -> Counts:
        """What is there now; `Unavailable` with a sentence for people, without a word of the URL."""
        loop = asyncio.get_running_loop()
        if self._failed is not None and loop.time() - self._failed[0] < RESTS:
            raise Unavailable(self._failed[1])
        try:
            async with asyncio.timeout(CONNECTS + 2 * ANSWERS):
                states, pools = await self._ask()
        except ERRORS as error:
            await self.close()
            self._failed = loop.time(), f"The metadata database {_why(error)}."
            # Not from the error: what a driver says may hold a part of the URL.
            raise Unavailable(self._failed[1]) from None
        self._failed = None
        return counted(states, pools)

    async def _ask(self) -> tuple[list[Row], list[tuple[str, int, bool]]]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self.url, timeout=CONNECTS, command_timeout=ANSWERS, statement_cache_size=0
            )
        async with self._connection.transaction(readonly=True):
            await self._connection.execute(f"set local statement_timeout = {ANSWERS * 1000:.0f}")
            states, pools = [await self._connection.fetch(sql) for sql in (STATES, POOLS)]
        return [tuple(row) for row in states], [tuple(row) for row in pools]

    async def close(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*ERRORS):
                await connection.close(timeout=1)


def counted(states: Iterable[Row], pools: Iterable[tuple[str, int, bool]]) -> Counts:
    """What the rows say; a pool of -1 slots has no end."""
    by_queue: dict[str, Counter[str]] = {"queued": Counter(), "running": Counter()}
    by_pool: dict[str, Counter[str]] = {}
    for pool, queue, state, tasks, slots in states:
        by_pool.setdefault(pool, Counter())[state] += int(slots)
        if state in by_queue:
            by_queue[state][queue] += tasks
    found = []
    for name, size, with_deferred in pools:
        at = by_pool.get(name, Counter())
        taken = at["running"] + at["queued"] + (at["deferred"] if with_deferred else 0)
        found.append(Pool(name, None if size < 0 else size - taken, at["running"], at["queued"], at["scheduled"]))
    return Counts(tuple(sorted(found, key=lambda pool: pool.name)), by_queue["queued"], by_queue["running"])


def database_of(file: Path | None) -> Database | None:
    """The database whose URL stands in a file; `Misconfigured` where it cannot be read, or is no PostgreSQL's."""
    if file is None:
        return None
    found = _URL.fullmatch(read_url(file, "the metadata database", "--database-url-file"))
    if found is None:
        raise Misconfigured(
            f"The file {file} must hold a URL as postgresql://user:password@host/airflow (--database-url-file): "
            "no other database is asked."
        )
    return Database(f"postgresql://{found[3]}")


def _why(error: Exception) -> str:
    """What became of the question, and what to do about it."""
    told = (why for kinds, why in REASONS if isinstance(error, kinds))
    return next(told, f"cannot be asked ({type(error).__name__}): check --database-url-file")
