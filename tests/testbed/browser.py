"""A page in a real headless Chromium: what it became, what its console said, and what it asked the network for."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from testbed.commands import run

PROGRAM = "chromium"
QUIET = (
    "--headless",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
"""A browser that keeps to itself; what it asks for of its own goes nowhere."""

BROWSERS_OWN = "not an origin"


@dataclass(frozen=True, slots=True)
class Opened:
    """A page that was opened."""

    dom: str
    """Its document, after everything in it ran."""
    console: tuple[str, ...]
    """Lines of its console."""
    requests: tuple[str, ...]
    """Addresses that it asked the network for."""


def there() -> bool:
    """Whether this machine has it."""
    return shutil.which(PROGRAM) is not None


def opened(page: Path, folder: Path) -> Opened:
    """Open a page from its file. `folder`: for what the browser keeps."""
    log, net = folder / "chromium.log", folder / "chromium-net.json"
    options = [f"--user-data-dir={folder / 'profile'}", "--enable-logging", f"--log-file={log}", f"--log-net-log={net}"]
    dom = run([PROGRAM, *QUIET, *options, "--dump-dom", page.as_uri()])
    told = json.loads(net.read_text())
    kind = told["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [event.get("params", {}) for event in told["events"] if event["type"] == kind]
    return Opened(
        dom,
        tuple(line for line in log.read_text().splitlines() if "CONSOLE" in line),
        tuple(one["url"] for one in asked if "url" in one and one.get("initiator") != BROWSERS_OWN),
    )


def pictured(page: Path, picture: Path, folder: Path, size: tuple[int, int] = (1200, 1600)) -> None:
    """What it looks like, as PNG."""
    options = [f"--user-data-dir={folder / 'profile'}", f"--window-size={size[0]},{size[1]}", "--hide-scrollbars"]
    run([PROGRAM, *QUIET, *options, f"--screenshot={picture}", page.as_uri()])
