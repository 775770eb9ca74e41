"""PostgreSQL and Redis of the machine, with data of their own, listening where pods reach them."""

import contextlib
import csv
import os
import pwd
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.commands import run
from testbed.processes import Area, Program, ProgramFailed, free_port

START_SECONDS = 30.0
QUERY_SECONDS = 20.0
PASSWORD = "airflow"  # noqa: S105 - of a database that lives for one run, on addresses of this machine


def postgresql_programs() -> Path | None:
    """Return the folder of PostgreSQL's server programs, the newest version's, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    if found:
        return found[-1]
    postgres = shutil.which("postgres")
    return Path(postgres).resolve().parent if postgres else None


class PostgreSQL:
    """A PostgreSQL in `folder` (all its parents must be open to others: it refuses to run as root)."""

    def __init__(self, area: Area, folder: Path, address: str) -> None:
        programs = postgresql_programs()
        if programs is None:
            raise ProgramFailed("PostgreSQL's server is missing: run `sudo make system`")
        self._programs = programs
        self._data = folder
        self.address = address
        self.port = free_port()
        self.program: Program = area.program(
            "postgresql",
            [
                *self._as_its_user(),
                programs / "postgres",
                f"-D{folder}",
                f"-clisten_addresses=127.0.0.1,{address}",
                f"-cport={self.port}",
                f"-cunix_socket_directories={folder}",
                "-cfsync=off",
                "-cmax_connections=200",
            ],
        )

    @property
    def url(self) -> str:
        """The address of the database `airflow`, without a scheme."""
        return f"postgres:{PASSWORD}@{self.address}:{self.port}/airflow"

    def start(self) -> Self:
        """Create the cluster and the database `airflow`; return when it answers."""
        self._data.mkdir(mode=0o700)
        user = _user()
        shutil.chown(self._data, user.pw_uid, user.pw_gid)
        secret = self._data.with_suffix(".password")
        secret.write_text(PASSWORD)
        shutil.chown(secret, user.pw_uid)
        run(
            [
                *self._as_its_user(),
                self._programs / "initdb",
                f"--pgdata={self._data}",
                "--username=postgres",
                f"--pwfile={secret}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ]
        )
        secret.unlink()
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.88.0.0/24 scram-sha-256\n")
        self.program.start()
        self.program.wait_until(lambda: self._answers("postgres"), "PostgreSQL to answer", START_SECONDS)
        self.query("create database airflow", database="postgres")
        return self

    def stop(self) -> None:
        """Stop it at once, without a checkpoint: its data is not needed again."""
        if self.program.running():
            os.kill(self.program.pid, signal.SIGQUIT)
            self.program.stop()

    def query(self, sql: str, *, database: str = "airflow", **values: str) -> list[list[str]]:
        """Return the rows of a query, every value as text and NULL as the empty text; raises CommandFailed.

        In the SQL, `:'name'` stands for the quoted value of that name.
        """
        text = run(
            [*self._psql(database), "--csv", "--tuples-only", *(f"--set={name}={values[name]}" for name in values)],
            input=sql,
            env={"PGPASSWORD": PASSWORD, "PGTZ": "UTC"},
            timeout=QUERY_SECONDS,
        )
        return list(csv.reader(text.splitlines()))

    def _answers(self, database: str) -> bool:
        answer = subprocess.run(
            [*self._psql(database), "--command", "select 1"],
            capture_output=True,
            check=False,
            env={"PGPASSWORD": PASSWORD},
        )
        return answer.returncode == 0

    def _psql(self, database: str) -> list[str]:
        return [
            str(self._programs / "psql"),
            "--no-psqlrc",
            "--set=ON_ERROR_STOP=1",
            "--quiet",
            "--host=127.0.0.1",
            f"--port={self.port}",
            "--username=postgres",
            f"--dbname={database}",
        ]

    def _as_its_user(self) -> list[str]:
        user = _user()
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--pdeathsig=KILL"]


class Redis:
    """A Redis without persistence; `url` is its database 0."""

    def __init__(self, area: Area, address: str) -> None:
        self.port = free_port()
        self.url = f"redis://{address}:{self.port}/0"
        self.program = area.program(
            "redis",
            [
                "redis-server",
                "--bind",
                "127.0.0.1",
                address,
                "--port",
                str(self.port),
                "--save",
                "",
                "--appendonly",
                "no",
                "--protected-mode",
                "no",
                "--dir",
                str(area.path),
            ],
        )

    def start(self) -> Self:
        """Start it and wait until it answers."""
        self.program.start()
        self.program.wait_until(self._answers, "Redis to answer", START_SECONDS)
        return self

    def stop(self) -> None:
        """Stop it."""
        self.program.stop()

    def members(self, key: str) -> list[str]:
        """Return the members of a set; raises CommandFailed."""
        return run(["redis-cli", "-u", self.url, "smembers", key]).splitlines()

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")


class Services:
    """PostgreSQL and Redis together; as a context manager they start and stop."""

    def __init__(self, area: Area, folder: Path, address: str) -> None:
        self.postgresql = PostgreSQL(area, folder, address)
        self.redis = Redis(area, address)

    def __enter__(self) -> Self:
        try:
            self.postgresql.start()
            self.redis.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop both."""
        self.redis.stop()
        self.postgresql.stop()


def _user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise ProgramFailed("neither the user postgres nor nobody exists, and PostgreSQL refuses to run as root")
