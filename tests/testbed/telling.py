"""What demos and experiments print."""

import sys


def title(text: str) -> None:
    """A heading."""
    say(f"\n=== {text}")


def show(text: str) -> None:
    """Something a program printed."""
    say("\n".join(f"    {line}" for line in text.rstrip().splitlines()))


def say(text: str) -> None:
    """A line of commentary."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def section(described: str, name: str) -> str:
    """One section of the status as `kubectl describe` prints it."""
    lines = described.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith(f"  {name}:")), None)
    if start is None:
        return ""
    end = next((n for n in range(start + 1, len(lines)) if not lines[n].startswith("    ")), len(lines))
    return "\n".join(lines[start:end]) + "\n"
