"""How a kubelet keeps time, and what it says: the delays are those measured on a real kubelet 1.36."""

from dataclasses import dataclass
from typing import NamedTuple


class Now(NamedTuple):
    """A moment: seconds on the node's clock, and how the API writes it."""

    seconds: float
    text: str


class Event(NamedTuple):
    """An Event about a pod."""

    kind: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Habits:
    """How fast a kubelet is, in seconds of the node's clock."""

    start: float = 0.5
    notice: float = 1.0
    """From a container's death to the kubelet's next act on it."""
    raised: float = 0.2
    lowered: float = 0.6
    resize_retry: float = 15.0
    first_back_off: float = 10.0
    longest_back_off: float = 300.0
    job: float = 2.0
    """How long a pod runs that is to end by itself."""
