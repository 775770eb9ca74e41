"""What `make prove` writes about faults: the tests of `tests/cluster` that cause them, with what they have measured."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from testbed.processes import ProgramFailed

ROOT = Path(__file__).parents[2]
TESTS = ("test_metrics_faults.py", "test_api_faults.py", "test_hostile_strings.py", "test_no_room.py")


def faults() -> str:
    """Each fault of the metrics source and the API server: what is said, how long until it is over, what is written."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "AIRFLOW_TUNER_FAULTS": folder}
        argv = [sys.executable, "-m", "pytest", "-q", *(str(ROOT / "tests" / "cluster" / name) for name in TESTS)]
        done = subprocess.run(argv, env=env, check=False, capture_output=True, text=True, cwd=ROOT)
        sys.stdout.write(done.stdout[-2000:])
        if done.returncode:
            raise ProgramFailed("a test of a fault failed: its table would not be true")
        told = [json.loads(line) for line in (Path(folder) / "faults.jsonl").read_text().splitlines()]
    rows = [_row(one) for one in sorted(told, key=lambda one: str(one["fault"]))]
    head = "| fault | said after (s) | over after (s) | written meanwhile | what the user saw |"
    return (
        "Seconds from the beginning of the fault until the status or the log says so, and from its end until that is\n"
        "taken back. Most turns were asked for by a change of the policy; metrics-unattended is what a user waits for\n"
        "who does nothing: the operator looks every 30 s. Written: by the operator's ServiceAccount, from the API\n"
        "server's audit log. In the faults of metrics a container is killed as well, whose answer rests on the API\n"
        "server alone: the two `patch pods/resize`; nothing else than that and what people read is written.\n\n"
        + "\n".join([head, "|---" * 5 + "|", *rows])
        + f"\n\n`pytest` on {', '.join(TESTS)}: {done.stdout.strip().splitlines()[-1].strip('= ')}."
    )


def _row(one: dict[str, Any]) -> str:
    writes = ", ".join(f"{count} {what}" for what, count in sorted(one["writes"].items())) or "nothing"
    seen = str(one["seen"]).replace("|", "\\|")
    times = ("" if one[key] is None else f"{one[key]:.1f}" for key in ("said", "recovered"))
    return f"| {one['fault']} | {' | '.join(times)} | {writes} | {seen} |"
