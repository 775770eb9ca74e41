"""Parts of sentences for people that stay readable, and inside the API's limits, whatever the names in them are."""

from collections.abc import Sequence

LONGEST = 1024
"""Most characters of a message in a status, a condition or an Event."""


def fitted(text: str, most: int = LONGEST) -> str:
    """`text`, cut with an ellipsis where it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def short(name: str, most: int = 63) -> str:
    """A name, without its middle where it is longer than `most` characters: its end tells pods of a workload apart."""
    if len(name) <= most:
        return name
    tail = most // 3
    return f"{name[: most - tail - 1]}…{name[-tail:]}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names of a list, and how many there are beyond them."""
    told = ", ".join(short(name) for name in names[:most])
    return told if len(names) <= most else f"{told} and {len(names) - most} more"


def counted(number: int, one: str, many: str) -> str:
    """`1 pod was` or `3 pods were`."""
    return f"{number} {one if number == 1 else many}"
