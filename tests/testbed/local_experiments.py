"""What `make prove CASE=local-executor` measures: a real Airflow whose scheduler runs the tasks itself."""

import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from testbed.airflow_environment import airflow_environment
from testbed.commands import run
from testbed.processes import Area, Program, free_port
from testbed.telling import say

PARALLELISM = (1, 4, 16)
MORE = 4
"""Tasks beyond those that run at once."""

SECONDS = 40
"""Each task sleeps so long."""

SETTLED = 15.0
LIMIT = 300.0
KIBIBYTES = 1024

DAG = f"""
import time

import pendulum
from airflow.sdk import DAG, task

with DAG("sleepers", schedule=None, start_date=pendulum.datetime(2024, 1, 1), catchup=False, max_active_tasks=64):
    @task
    def sleeps(number):
        time.sleep({SECONDS})

    sleeps.expand(number=list(range(%d)))
"""


@dataclass
class Gauges:
    """What Airflow says over StatsD."""

    port: int = 0
    last: dict[str, float] = field(default_factory=dict)


@contextmanager
def listening() -> Iterator[Gauges]:
    """Gauges, as they come, until the end of the block."""
    found = Gauges()
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.5)
        found.port = server.getsockname()[1]
        ended = threading.Event()

        def listen() -> None:
            while not ended.is_set():
                try:
                    lines = server.recv(65536).decode(errors="replace").splitlines()
                except TimeoutError:
                    continue
                for line in lines:
                    name, _, rest = line.partition(":")
                    value, _, kind = rest.partition("|")
                    if kind.startswith("g") and value[:1].isdigit():
                        found.last[name.removeprefix("airflow.")] = float(value)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield found
        finally:
            ended.set()
            thread.join()


def local_executor() -> str:
    """A scheduler that runs tasks itself (LocalExecutor, Airflow 3): its memory by tasks at once, and what it says."""
    rows = [_measured(parallelism) for parallelism in PARALLELISM]
    text = """\
MiB of anonymous memory of the scheduler's processes together (each page once: Pss_Anon of smaps_rollup). Tasks sleep
and hold nothing; four more than run at once. SQLite. Busy: the most of ten looks in 15 s, after all slots were busy for
15 s. Then what the gauges say: of the executor, and of the pool.

| core.parallelism | no task yet | all busy | after all tasks | executor: open / running | pool: queued / running |
|---|---|---|---|---|---|
"""
    return text + "\n".join(rows)


def _measured(parallelism: int) -> str:
    area = Area(f"local{parallelism}")
    try:
        with listening() as gauges:
            return _row(area, parallelism, gauges)
    finally:
        area.clean()


def _row(area: Area, parallelism: int, gauges: Gauges) -> str:
    home, port = area.path / "home", free_port()
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "sleepers.py").write_text(DAG % (parallelism + MORE))
    environment = _environment(home, port, gauges.port, parallelism)
    airflow = airflow_environment() / "bin" / "airflow"
    say(f"core.parallelism {parallelism}")
    run([airflow, "db", "migrate"], env=environment, timeout=120)
    programs = [
        area.program(name, ["nice", "-n", "15", airflow, name], env=environment)
        for name in ("api-server", "dag-processor", "scheduler")
    ]
    try:
        for one in programs:
            one.start()
        scheduler = programs[-1]
        scheduler.wait_until(lambda: "executor.open_slots" in gauges.last and _known(home), "the DAG", LIMIT)
        time.sleep(SETTLED)
        none = _memory(scheduler)
        run([airflow, "dags", "trigger", "sleepers"], env=environment, timeout=120)
        scheduler.wait_until(lambda: _count(home, "running") == parallelism, "all slots to be busy", LIMIT)
        time.sleep(SETTLED)
        most = 0.0
        for _ in range(10):
            most = max(most, _memory(scheduler))
            time.sleep(SETTLED / 10)
        says = f"{gauges.last['executor.open_slots']:.0f} / {gauges.last['executor.running_tasks']:.0f}"
        pools = [gauges.last.get(f"pool.{state}_slots.default_pool", 0) for state in ("queued", "running")]
        scheduler.wait_until(lambda: _count(home, "success") == parallelism + MORE, "all tasks to end", LIMIT)
        time.sleep(SETTLED)
        after = _memory(scheduler)
        return f"| {parallelism} | {none:.0f} | {most:.0f} | {after:.0f} | {says} | {pools[0]:.0f} / {pools[1]:.0f} |"
    finally:
        for one in reversed(programs):
            one.stop()
        shutil.rmtree(home, ignore_errors=True)


def _environment(home: Path, port: int, statsd: int, parallelism: int) -> dict[str, str]:
    options = {
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": f"{parallelism}",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "API__HOST": "127.0.0.1",
        "API__PORT": f"{port}",
        "API__WORKERS": "1",
        "API__SECRET_KEY": "secret-of-this-run-alone",
        "API_AUTH__JWT_SECRET": "secret-of-this-run-alone-and-long-enough-to-be-one-of-64-characters",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "METRICS__STATSD_ON": "True",
        "METRICS__STATSD_HOST": "127.0.0.1",
        "METRICS__STATSD_PORT": f"{statsd}",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    known = {f"AIRFLOW__{name}": value for name, value in options.items()}
    return {**known, "AIRFLOW_HOME": str(home), "no_proxy": "127.0.0.1", "PYTHONPATH": ""}


def _known(home: Path) -> bool:
    return bool(_asked(home, "select count(*) from serialized_dag where dag_id = 'sleepers'"))


def _count(home: Path, state: str) -> int:
    return _asked(home, "select count(*) from task_instance where state = ?", state)


def _asked(home: Path, question: str, *words: str) -> int:
    try:
        with closing(sqlite3.connect(f"file:{home}/airflow.db?mode=ro", uri=True, timeout=5)) as database:
            return int(database.execute(question, words).fetchone()[0])
    except sqlite3.Error:
        return 0


def _memory(program: Program) -> float:
    """MiB of anonymous memory of a program and all its children, each page once."""
    top = psutil.Process(program.pid)
    total = 0
    for one in [top, *top.children(recursive=True)]:
        try:
            lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next((int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")), 0)
    return total / KIBIBYTES
