"""`airflow-tuner run --backend docker` as a process, with its policy, state and log in one folder."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from testbed.commands import run
from testbed.processes import POLL_SECONDS, Area, Program, Startable

START_SECONDS = 30.0


class DockerTuner(Startable):
    """A tuner beside an engine; `spec`: fields of its policy beside the project."""

    def __init__(
        self, area: Area, folder: Path, engine: str, project: str, spec: Mapping[str, Any], *options: str
    ) -> None:
        self.policy = folder / "policy.json"
        self.state = folder / "state.sqlite"
        self._area = area
        self._log = area.path / f"tuner-{project}.log"
        self._project = project
        self.write({"mode": "Enforce", **spec})
        self._words = ["--docker-host", engine, "--state", str(self.state), "--backend", "docker", *options]
        self.program = self._new()

    def write(self, spec: Mapping[str, Any]) -> None:
        """Write the policy anew; it counts from the next turn on."""
        document = {
            "apiVersion": "airflow-tuner.dev/v1alpha1",
            "kind": "TuningPolicy",
            "metadata": {"name": "airflow"},
            "spec": {"airflow": {"release": self._project}, **spec},
        }
        self.policy.write_text(json.dumps(document))

    def start(self) -> Self:
        """Start it; return when its first turn is over."""
        self.program = self._new()
        self.program.start()
        self.program.wait_until(lambda: bool(self.state.exists() and self.status()), "the first turn", START_SECONDS)
        return self

    def stop(self) -> None:
        """Stop it as a system does."""
        self.program.stop()

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.program.kill()

    def status(self) -> dict[str, Any]:
        """Its status, out of the state file."""
        found: dict[str, Any] = json.loads(self.command("status", "--state", str(self.state), "--output", "json"))
        return found

    def limit(self, target: str) -> str:
        """The limit that was decided for a target."""
        return next(
            str(one["recommended"].get("limit", "none")) for one in self.status()["targets"] if one["name"] == target
        )

    def command(self, *words: str) -> str:
        """What another of its commands prints."""
        return run([sys.executable, "-m", "airflow_tuner", *words])

    def look(self, *words: str) -> str:
        """What a command that looks prints."""
        return self.command(*words, "--file", str(self.policy), *self._words)

    def log(self) -> list[dict[str, Any]]:
        """What it has logged since its start."""
        text = self._log.read_text() if self._log.exists() else ""
        # The last line may not be whole yet.
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Lines of its log that tell of one kind of thing."""
        return [line for line in self.log() if line.get("event") == kind]

    def wait_until(self, check: Callable[[], bool], what: str, seconds: float) -> None:
        """Poll until it holds; raises ProgramFailed with the log."""
        self.program.wait_until(check, what, seconds)
        time.sleep(POLL_SECONDS)

    def _new(self) -> Program:
        self._log.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "airflow_tuner", "run", "--policy", str(self.policy), *self._words]
        return self._area.program(self._log.stem, argv)
