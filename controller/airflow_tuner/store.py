"""What the tuner of a Docker engine remembers: one file of sqlite3, which `airflow-tuner status` reads as well."""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from airflow_tuner.compose import Baseline, Known, read_baseline
from airflow_tuner.errors import Misconfigured, Unavailable
from airflow_tuner.gauges import Row

FILE = "docker.sqlite"
KEPT = 2 * 24 * 60
"""Minutes for which what each minute took is kept; hours are, for nine weeks."""
KILLS = 90
"""Days for which a kill is kept."""
SAME = 0.2
"""Seconds within which what an engine tells is of one kill (measured on cgroup v1: 167 events of 20 kills in 21 s, most
of them while a process was ending; counted so, they make 19)."""
BUSY = 5.0
"""Seconds that another process may hold the file."""

_TABLES = """
create table if not exists documents (name text primary key, body text not null);
create table if not exists minutes (container text, minute integer, anonymous real, working_set real, cpu real,
  primary key (container, minute)) without rowid;
create table if not exists kills (container text, at real, whole integer, primary key (container, at)) without rowid;
create table if not exists baselines (service text, hash text, body text not null, primary key (service, hash))
  without rowid;
create table if not exists given (container text primary key, bytes integer) without rowid;
"""

Object = dict[str, Any]


def default_file() -> Path:
    """Where it is when nobody says so."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "airflow-tuner" / FILE


class Store:
    """The memory of one policy. It is small: every call is done at once."""

    def __init__(self, file: Path) -> None:
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._base = sqlite3.connect(file, timeout=BUSY, isolation_level=None)
            self._base.execute("pragma journal_mode=wal")
            self._base.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            raise Misconfigured(f"The state file {file} cannot be opened: {error} (--state).") from error

    @classmethod
    def copied(cls, file: Path) -> Self:
        """A copy in memory: what is done to it is lost. Empty where there is no such file."""
        copy = cls(Path(":memory:"))
        if file.exists():
            try:
                with closing(sqlite3.connect(f"file:{file}?mode=ro", timeout=BUSY, uri=True)) as base:
                    base.backup(copy._base)
            except sqlite3.Error as error:
                raise Misconfigured(f"The state file {file} cannot be read: {error} (--state).") from error
        return copy

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def _do(self, sql: str, values: Iterable[object] = ()) -> sqlite3.Cursor:
        """One statement; `Unavailable` where the file is locked, or its disk is full."""
        try:
            return self._base.execute(sql, tuple(values))
        except sqlite3.Error as error:
            raise Unavailable(f"The state file cannot be used: {error}.") from error

    def document(self, name: str) -> Object:
        """A document; empty where there is none."""
        found = self._do("select body from documents where name = ?", (name,)).fetchone()
        told = json.loads(found[0]) if found else {}
        return told if isinstance(told, dict) else {}

    def write(self, **documents: Object) -> None:
        """Write documents, all or none; those that are the same are left alone."""
        changed = [(name, json.dumps(body)) for name, body in documents.items() if body != self.document(name)]
        if changed:
            with self._whole():
                for pair in changed:
                    self._do("insert or replace into documents values (?, ?)", pair)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        self._do("begin immediate")
        try:
            yield
        except BaseException:
            self._do("rollback")
            raise
        self._do("commit")

    def keep(self, rows: Iterable[Row]) -> None:
        """Keep what minutes took, and forget the oldest."""
        told = [(row.container, row.minute, row.anonymous, row.working_set, row.cpu) for row in rows]
        if told:
            with self._whole():
                for row in told:
                    self._do("insert or replace into minutes values (?, ?, ?, ?, ?)", row)
                self._do("delete from minutes where minute < ?", (max(row[1] for row in told) - KEPT,))

    def minutes(self, container: str) -> list[Row]:
        """What is kept of a container between two starts, the oldest first."""
        found = self._do("select * from minutes where container = ? order by minute", (container,))
        return [Row(*row) for row in found]

    def killed(self, container: str, at: float, *, whole: bool) -> None:
        """Something was killed for memory: the container itself, or a process in it. Told twice, it counts once."""
        near = "select 1 from kills where container = ? and whole = ? and at between ? and ?"
        known = (container, whole, at - SAME, at)
        self._do(
            f"insert or ignore into kills select ?, ?, ? where not exists ({near})", (container, at, whole, *known)
        )
        self._do("delete from kills where at < ?", (at - KILLS * 86400,))

    def kills(self, *, whole: bool) -> dict[str, tuple[datetime, ...]]:
        """When, by container."""
        found: dict[str, list[datetime]] = {}
        for container, at in self._do("select container, at from kills where whole = ?", (whole,)):
            found.setdefault(container, []).append(datetime.fromtimestamp(at, UTC))
        return {container: tuple(sorted(times)) for container, times in found.items()}

    def give(self, container: str, size: int) -> None:
        """Remember the limit that a container is given."""
        self._do("insert or replace into given values (?, ?)", (container, size))

    def take_back(self, container: str) -> None:
        """Forget it: it was refused."""
        self._do("delete from given where container = ?", (container,))

    def define(self, key: tuple[str, str], told: Baseline) -> None:
        """Remember what a definition says, where that is not known."""
        self._do("insert or ignore into baselines values (?, ?, ?)", (*key, told.written))

    def known(self) -> Known:
        """What is remembered of containers."""
        told = self._do("select service, hash, body from baselines")
        baselines = {(service, key): base for service, key, body in told if (base := read_baseline(body)) is not None}
        given = dict(self._do("select container, bytes from given"))
        return Known(baselines, given, self.kills(whole=True))
