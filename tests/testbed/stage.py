"""What both demos play with: the policy of the documentation, made quick, a watch, and a play that stays up."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from testbed.telling import say

POLICY = Path(__file__).parents[2] / "docs" / "examples" / "policy.yaml"


def quick(now: datetime) -> dict[str, Any]:
    """What differs from the example for a play of minutes: shorter averages, larger steps, a window that is open."""
    start, end = (now + timedelta(minutes=minutes) for minutes in (-10, 50))
    window = {"start": f"{start:%H:%M}", "end": f"{end:%H:%M}", "timeZone": "UTC"}
    return {
        "metrics": {"windowSeconds": 60},
        "changes": {"restarts": {"allowed": True, "window": window}, "maxStep": {"concurrencyPercent": 400}},
    }


class Watch:
    """Tells when things come about, in seconds since it began. `wait`: waits for a condition, so many seconds."""

    def __init__(self, wait: Callable[[Callable[[], bool], str, float], None]) -> None:
        self._wait = wait
        self.began = time.monotonic()

    def until(self, check: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait until it holds, and say so."""
        self._wait(check, what, seconds)
        say(f"  {time.monotonic() - self.began:5.1f} s  {what}")


def wait_for_interrupt(how: str) -> None:
    """Leave everything up until Ctrl-C; `how`: what makes it usable from another shell."""
    say(f"\nKEEP=1: it stays up. {how}   (Ctrl-C ends it)")
    while True:
        time.sleep(3600)
