"""What both demos play with: the policy of the documentation, made quick, and a play that stays up."""

import time
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


def wait_for_interrupt(how: str) -> None:
    """Leave everything up until Ctrl-C; `how`: what makes it usable from another shell."""
    say(f"\nKEEP=1: it stays up. {how}   (Ctrl-C ends it)")
    while True:
        time.sleep(3600)
