"""`make test`: the tiers in two groups side by side, as most of their time they wait.

What each says comes with its name. With arguments it is pytest and nothing else.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from testbed.evidence import ROOT

GROUPS: Mapping[str, Sequence[str]] = {
    "cluster": ("tests/chart", "tests/cluster"),
    # The real node comes last: what it runs wants most of the machine.
    "others": ("tests/core", "tests/edges", "tests/docker", "tests/node"),
}
"""Each takes about half of the time. Every tier is in one of them."""

_printing = threading.Lock()


def _say(name: str, line: str) -> None:
    with _printing:
        sys.stdout.write(f"{name}: {line}\n")
        sys.stdout.flush()


def _run(name: str, tiers: Sequence[str], ended: dict[str, int]) -> None:
    """One pytest; how it ended goes to `ended`."""
    argv = [sys.executable, "-m", "pytest", *tiers]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            _say(name, line.rstrip())
    ended[name] = process.returncode


def main() -> int:
    """Run all of them; 0 where all have passed."""
    if sys.argv[1:]:
        return subprocess.run([sys.executable, "-m", "pytest", *sys.argv[1:]], cwd=ROOT, check=False).returncode
    begun, ended = time.monotonic(), dict[str, int]()
    threads = [threading.Thread(target=_run, args=(name, tiers, ended)) for name, tiers in GROUPS.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, tiers in GROUPS.items():
        _say(name, f"{'passed' if ended[name] == 0 else f'FAILED (exit code {ended[name]})'}: {', '.join(tiers)}")
    _say("all", f"{time.monotonic() - begun:.0f} s")
    return max(ended.values())


if __name__ == "__main__":
    sys.exit(main())
