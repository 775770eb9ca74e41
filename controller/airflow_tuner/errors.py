"""The errors of the loop, split by what it should do next.

* `TunerError`: the root.
  * `Unavailable`: the other side does not answer; try again soon.
  * `Stale`: somebody wrote in between; observe again at once.
  * `Refused`: the other side understood and said no; report it and try again slowly.
  * `Misconfigured`: only the user can mend it; report what to do.
"""


class TunerError(Exception):
    """Something the loop knows how to report. The text is a sentence for the user, in one line that can be printed.

    It may quote names and answers of anybody: what would move a terminal's cursor, or turn the direction of the text,
    is taken out.
    """

    def __str__(self) -> str:
        return "".join(
            one if one.isprintable() else " " if one.isspace() else "\N{REPLACEMENT CHARACTER}"
            for one in super().__str__()
        )


class Unavailable(TunerError):  # noqa: N818 - the tree reads better without the suffix
    """A server that did not answer, or not in time."""


class Stale(TunerError):  # noqa: N818 - as above
    """A write that lost against a newer one: the world must be observed again."""


class Refused(TunerError):  # noqa: N818 - as above
    """A request that was understood and refused: a missing right, a quota, an impossible value."""


class Misconfigured(TunerError):  # noqa: N818 - as above
    """A setting that only the user can mend."""
