"""HTTP as it is spoken to servers that the operator's configuration names: no redirect, nothing without end."""

import time
from typing import Any

import requests

LARGEST = 4 * 2**20
"""Most bytes of an answer."""

_PIECE = 2**16


class TooLarge(ValueError):  # noqa: N818 - it says what the answer is
    """An answer beyond `LARGEST`."""


class Session(requests.Session):
    """Follows no redirect: a server is one address, chosen by whoever runs the operator.

    An answer that is not whole within `seconds`, or is too large, is none.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 - the base's signature
        """Nowhere."""
        return

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # noqa: ANN401 - the base's
        """The whole answer."""
        until = time.monotonic() + self._seconds
        response = super().send(request, **{**options, "stream": True})
        try:
            body = _read(response, until)
        except BaseException:
            response.close()
            raise
        response._content = body  # noqa: SLF001 - where requests keeps a body that was read
        return response


def _read(response: requests.Response, until: float) -> bytes:
    """The body. The client itself would read on for as long as a byte comes now and then, and its thread be lost."""
    body = bytearray()
    while piece := response.raw.read1(_PIECE, decode_content=True):
        body += piece
        if len(body) > LARGEST:
            raise TooLarge
        if time.monotonic() > until:
            raise TimeoutError
    return bytes(body)
