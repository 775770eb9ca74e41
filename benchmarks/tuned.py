"""The tuner as users run it: `airflow-tuner replay` in a process of its own, which sees lines of JSON and no model.

Constants of the core can be set for an ablation: the process then starts with `benchmarks.ablated`, which patches them
and runs the same command. The product has no switch for that.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from airflow_tuner import quantity, simulate, transcript
from airflow_tuner.fleet.weeks import Weeks
from airflow_tuner.model import Memory
from airflow_tuner.played import Played
from benchmarks.controllers import Controller


class Tuner(Controller):
    """Looks once a minute, and carries out what comes back."""

    def __init__(self, weeks: Weeks, ablation: tuple[str, ...] = ()) -> None:
        super().__init__(weeks)
        worker = weeks.workers[0]
        size = round(worker.limit) * quantity.MEBIBYTE
        self._played = Played(weeks, Memory(size, size))
        self._folder = tempfile.TemporaryDirectory()
        policy = Path(self._folder.name) / "policy.yaml"
        policy.write_text(simulate.POLICY)
        module = ["benchmarks.ablated", *ablation] if ablation else ["airflow_tuner"]
        self._process = subprocess.Popen(  # noqa: S603 - the tuner itself
            [sys.executable, "-m", *module, "replay", "--policy", str(policy)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def act(self) -> None:
        """One look, one answer."""
        given, came = self._process.stdin, self._process.stdout
        if given is None or came is None:
            raise RuntimeError("The tuner's process has no pipes.")
        given.write(f"{transcript.written(self._played.look())}\n")
        given.flush()
        line = came.readline()
        if not line:
            raise RuntimeError(f"The tuner's process has ended with {self._process.wait(10)}.")
        answer = transcript.read_answer(line)
        self.changes += sum(target.change is not None for target in answer.targets)
        self._played.carry_out(answer)

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()
