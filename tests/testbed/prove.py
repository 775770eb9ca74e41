"""Long experiments: `make prove CASE=name`. Figures go to docs/evidence/<name>.md with commit and date, as they are.

What stands below a page's mark was written by hand, and stays.
"""

import sys
from collections.abc import Callable
from datetime import UTC, datetime

from testbed import (
    cause_experiments,
    day_experiments,
    docker_experiments,
    experiments,
    fault_experiments,
    helm_experiments,
    leak_experiments,
    local_experiments,
    model_experiments,
    recovery_experiments,
    scale_experiments,
    slot_experiments,
)
from testbed.evidence import PAGES, ROOT, commit

MARK = "<!-- Below this line it is written by hand. -->"

CASES: dict[str, Callable[[], str]] = {
    "process-kill": experiments.process_kill,
    "container-kill": experiments.container_kill,
    "turn-cost": experiments.turn_cost,
    "slots": slot_experiments.slots,
    "slots-held": slot_experiments.held,
    "slots-changes": slot_experiments.slot_changes,
    "parsing": slot_experiments.parsing,
    "virtual-kills": scale_experiments.virtual_kills,
    "idle-cost": scale_experiments.idle_cost,
    "deaths": recovery_experiments.all_deaths,
    "faults": fault_experiments.faults,
    "causes": cause_experiments.causes,
    "leak-shape": leak_experiments.leak_shape,
    "day": day_experiments.day,
    "docker": docker_experiments.docker,
    "local-executor": local_experiments.local_executor,
    "confusion-model": model_experiments.confusion_model,
    "helm-upgrades": helm_experiments.upgrades,
}


def main() -> None:
    """Run one case and write its page."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in CASES:
        told = "\n".join(f"  make prove CASE={case:16} {function.__doc__}" for case, function in CASES.items())
        sys.exit(f"Name one of these experiments:\n{told}")
    function = CASES[name]
    code, text = commit(), function()
    page = PAGES / f"{name}.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    title = str(function.__doc__).splitlines()[0]
    stamp = f"`make prove CASE={name}` at commit {code}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    by_hand = page.read_text().partition(MARK)[2] if page.exists() else ""
    below = f"\n{MARK}{by_hand}" if by_hand else ""
    page.write_text(f"# {title}\n\n{stamp}\n\n{text.rstrip()}\n{below}")
    sys.stdout.write(f"{text}\nWritten to {page.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
