"""The REST API of a real Airflow alone, on SQLite, with a user that may only read: neither node nor scheduler."""

import base64
import json
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testbed.airflow_environment import airflow_environment
from testbed.airflow_lines import AIRFLOW_3, Line
from testbed.commands import run
from testbed.processes import Area, Program, free_port

READER, ADMIN = ("tuner", "reads: only"), ("admin", "writes")
"""Names and passwords."""

START_SECONDS = 120.0

_DAG = """
from datetime import datetime
try:
    from airflow.sdk import DAG
    from airflow.providers.standard.operators.empty import EmptyOperator
except ImportError:
    from airflow import DAG
    from airflow.operators.empty import EmptyOperator

for name in {names}:
    with DAG(name, schedule="0 * * * *", start_date=datetime(2026, 1, 1), catchup=False) as dag:
        EmptyOperator(task_id="nothing")
    globals()[name] = dag
"""


@dataclass(frozen=True)
class AirflowWeb:
    """A running one."""

    line: Line
    url: str
    home: Path
    program: Program

    def due(self, dag: str, at: datetime | None, *, paused: bool = False) -> None:
        """When a DAG runs next, as its scheduler would have it."""
        values = (at and _written(at), paused, dag)
        self._change("update dag set next_dagrun_create_after = ?, is_paused = ? where dag_id = ?", *values)

    def ran(self, dag: str, began: datetime, ended: datetime | None, state: str = "success") -> None:
        """A run of a DAG that was."""
        body = {"logical_date": began.isoformat(), "conf": {}}
        answer = self._call("POST", f"/dags/{dag}/dagRuns", body)
        values = (_written(began), ended and _written(ended), state, answer["dag_run_id"], dag)
        self._change(
            "update dag_run set start_date = ?, end_date = ?, state = ? where run_id = ? and dag_id = ?", *values
        )

    def _change(self, sql: str, *values: object) -> None:
        with closing(sqlite3.connect(self.home / "airflow.db", timeout=20)) as database, database:
            database.execute(sql, values)

    def _call(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return _answer(f"{self.url}{self.line.api}{path}", method, body, self._proof())

    def _proof(self) -> str:
        name, password = ADMIN
        if self.line is not AIRFLOW_3:
            return f"Basic {base64.b64encode(':'.join(ADMIN).encode()).decode()}"
        told = _answer(f"{self.url}/auth/token", "POST", {"username": name, "password": password})
        return f"Bearer {told['access_token']}"


@contextmanager
def airflow_web(area: Area, line: Line, *dags: str) -> Iterator[AirflowWeb]:
    """The API of one line with these DAGs; a few seconds once Airflow is installed."""
    airflow, port = airflow_environment(line) / "bin" / "airflow", free_port()
    home = area.path / f"airflow-{line.version}-{port}"
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "all.py").write_text(_DAG.format(names=list(dags)))
    (home / "passwords.json").write_text(json.dumps(dict((READER, ADMIN))))
    environment = _environment(home)

    def done(*words: str) -> None:
        run([airflow, *words], env=environment)

    done("db", "migrate")
    done("dags", "reserialize")
    if line is AIRFLOW_3:
        words = ["api-server", f"--port={port}", "--workers=1", "--host=127.0.0.1"]
    else:
        done("sync-perm")
        for (name, password), role in ((READER, "Viewer"), (ADMIN, "Admin")):
            who = [f"--email={name}@example.com", f"--firstname={name}", f"--lastname={name}"]
            done("users", "create", f"--username={name}", f"--password={password}", f"--role={role}", *who)
        words = ["webserver", f"--port={port}", "--workers=1", "--hostname=127.0.0.1"]
    program = Program(f"airflow-{line.web}", [airflow, *words], log=home / "web.log", env=environment, area=area)
    url = f"http://127.0.0.1:{port}"
    program.start()
    try:
        health = f"{url}/api/v2/monitor/health" if line is AIRFLOW_3 else f"{url}/health"
        program.wait_until(lambda: bool(_answer(health, "GET")), "Airflow's web component to answer", START_SECONDS)
        yield AirflowWeb(line, url, home, program)
    finally:
        program.stop()


def _environment(home: Path) -> dict[str, str]:
    options = {
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{READER[0]}:viewer,{ADMIN[0]}:admin",
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": f"{home}/passwords.json",
        "API__AUTH_BACKENDS": "airflow.providers.fab.auth_manager.api.auth.backend.basic_auth",
        "API_AUTH__JWT_SECRET": "secret-of-this-run-alone-and-long-enough-to-be-one-of-64-characters",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    known = {f"AIRFLOW__{name}": value for name, value in options.items()}
    return {**known, "AIRFLOW_HOME": str(home), "HOME": str(home), "no_proxy": "127.0.0.1", "PYTHONPATH": ""}


def _written(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _answer(url: str, method: str, body: Mapping[str, Any] | None = None, proof: str = "") -> dict[str, Any]:
    headers = {"Content-Type": "application/json", **({"Authorization": proof} if proof else {})}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, method=method, data=data, headers=headers)  # noqa: S310 - our own server
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - the same
            return dict(json.loads(answer.read()))
    except urllib.error.HTTPError as error:
        raise OSError(f"{url} answers {error.code}: {error.read()[:500]!r}") from error
