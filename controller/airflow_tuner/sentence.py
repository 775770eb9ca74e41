"""Parts of sentences for people that stay readable, and inside the API's limits, whatever the names in them are."""

from collections.abc import Mapping, Sequence

LONGEST = 1024
"""Most characters of a message in a status, a condition or an Event."""


def plain(text: str) -> str:
    """`text` in one line, without what moves a terminal's cursor or turns the direction of the text."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else " " if one.isspace() else "\N{REPLACEMENT CHARACTER}" for one in text)


def fitted(text: str, most: int = LONGEST) -> str:
    """`text` in one plain line, cut with an ellipsis where it is longer than `most` characters."""
    text = plain(text[: most + 1])
    return text if len(text) <= most else f"{text[: most - 1]}…"


def short(name: str, most: int = 63) -> str:
    """A name, without its middle where it is longer than `most` characters: its end tells pods of a workload apart."""
    if len(name) <= most:
        return plain(name)
    tail = most // 3
    return plain(f"{name[: most - tail - 1]}…{name[-tail:]}")


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names of a list, and how many there are beyond them."""
    told = ", ".join(short(name) for name in names[:most])
    return told if len(names) <= most else f"{told} and {len(names) - most} more"


def first(reasons: Mapping[str, bool]) -> str:
    """The first reason that holds; empty where none does."""
    return next((reason for reason, holds in reasons.items() if holds), "")


def counted(number: int, one: str, many: str) -> str:
    """`1 pod was` or `3 pods were`."""
    return f"{number} {one if number == 1 else many}"
