"""What a user of a running Airflow does: DAG files, runs, pools and their states, by REST and SQL."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from testbed.airflow_lines import Line
from testbed.commands import CommandFailed
from testbed.processes import POLL_SECONDS, ProgramFailed
from testbed.services import PostgreSQL

DAG_SECONDS = 60.0
HTTP_SECONDS = 20.0
_TRIES = """
select task_id, map_index, try_number, state, start_date, end_date from {table}
where dag_id = :'dag_id' and run_id = :'run_id'
"""
_SET_POOL = """
insert into slot_pool (pool, slots, description, include_deferred) values (:'name', :'slots', '', false)
on conflict (pool) do update set slots = excluded.slots
"""


@dataclass(frozen=True)
class TaskTry:
    """One try of a task, as the metadata database has it; times are UTC. `map_index` is -1 outside mapped tasks."""

    task_id: str
    map_index: int
    try_number: int
    state: str
    start: datetime | None
    end: datetime | None


class AirflowClient:
    """A user of the Airflow at `url`, who also has its database and its folders."""

    def __init__(self, line: Line, url: str, postgresql: PostgreSQL, dags: Path, logs: Path) -> None:
        self.line = line
        self.url = url
        self.dags = dags
        self.logs = logs
        self._postgresql = postgresql

    def write_dag(self, name: str, text: str) -> None:
        """Put a DAG file into the DAG folder; it is parsed within seconds."""
        new = self.dags / f".{name}.new"
        new.write_text(text)
        new.replace(self.dags / name)

    def wait_for_dag(self, dag_id: str, timeout: float = DAG_SECONDS) -> None:
        """Wait until the DAG can be triggered; raises ProgramFailed with the import errors."""

        def known() -> bool:
            sql = f"select 1 from dag join serialized_dag using (dag_id) where {self.line.dag_is_there}"  # noqa: S608 - ours
            return bool(self._postgresql.query(f"{sql} and dag_id = :'dag_id'", dag_id=dag_id))

        self.wait_until(known, f"the DAG {dag_id}", timeout)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run now and return its id; `conf` overrides the DAG's params."""
        body = {**self.line.new_run, "conf": dict(conf or {})}
        answer = self.call("POST", f"/dags/{urllib.parse.quote(dag_id)}/dagRuns", body)
        return str(answer["dag_run_id"])

    def end_run(self, dag_id: str, run_id: str) -> None:
        """End a run as failed, with its running tasks and waiting retries."""
        path = f"/dags/{urllib.parse.quote(dag_id)}/dagRuns/{urllib.parse.quote(run_id)}"
        self.call("PATCH", path, {"state": "failed"})

    def pause(self, dag_id: str) -> None:
        """Let a scheduled DAG start no more runs."""
        self.call("PATCH", f"/dags/{urllib.parse.quote(dag_id)}", {"is_paused": True})

    def set_pool(self, name: str, slots: int) -> None:
        """Create the pool, or change how many slots it has; the scheduler sees it in its next loop."""
        self._postgresql.query(_SET_POOL, name=name, slots=str(slots))

    def task_states(self, dag_id: str, run_id: str) -> list[TaskTry]:
        """Return every task instance of the run in its latest try, by id and map index."""
        sql = _TRIES.format(table="task_instance") + "order by task_id, map_index"
        return self._tries(sql, dag_id, run_id)

    def task_tries(self, dag_id: str, run_id: str) -> list[TaskTry]:
        """Return every try of every task of the run, the finished and the latest, oldest first."""
        past, latest = (_TRIES.format(table=table) for table in ("task_instance_history", "task_instance"))
        return self._tries(f"{past} union {latest} order by task_id, map_index, try_number", dag_id, run_id)

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of the run: queued, running, success or failed; empty when there is no such run."""
        sql = "select state from dag_run where dag_id = :'dag_id' and run_id = :'run_id'"
        rows = self._postgresql.query(sql, dag_id=dag_id, run_id=run_id)
        return rows[0][0] if rows else ""

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int = -1) -> str:
        """Return the log of one try, or the empty text while there is none."""
        folder = self.logs / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        if map_index >= 0:
            folder /= f"map_index={map_index}"
        file = folder / f"attempt={try_number}.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def wait_until(self, check: Callable[[], bool], what: str, timeout: float) -> None:
        """Poll `check` until it holds; an error in between counts as not yet.

        Raises ProgramFailed with what `describe` says.
        """
        deadline = time.monotonic() + timeout
        while True:
            last = ""
            try:
                if check():
                    return
            except (OSError, CommandFailed) as error:
                last = f" (last: {error})"
            if time.monotonic() > deadline:
                raise ProgramFailed(f"waited {timeout:g} s for {what}, in vain{last}\n{self.describe()}")
            time.sleep(2 * POLL_SECONDS)

    def describe(self) -> str:
        """Return the import errors of the DAG files: for failures."""
        errors = self._postgresql.query("select filename, stacktrace from import_error")
        return "\n".join(f"--- import error in {filename}\n{trace}" for filename, trace in errors)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call Airflow's REST API, which here takes every caller for an administrator; raises OSError."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}{self.line.api}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=HTTP_SECONDS) as answer:  # noqa: S310 - our own server
                result: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            raise OSError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from error
        return result

    def _tries(self, sql: str, dag_id: str, run_id: str) -> list[TaskTry]:
        rows = self._postgresql.query(sql, dag_id=dag_id, run_id=run_id)
        return [
            TaskTry(task_id, int(map_index), int(try_number), state, _time(start), _time(end))
            for task_id, map_index, try_number, state, start, end in rows
        ]


def _time(text: str) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
