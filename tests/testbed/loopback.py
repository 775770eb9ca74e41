"""HTTP to our own programs: never through the proxy that the user's environment may name."""

import ssl
import urllib.request


def fetch(url: str, *, tls: ssl.SSLContext | None = None, timeout: float = 10) -> bytes:
    """Returns the body of a GET; an OSError when there is no answer or an error status."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if tls is not None:
        handlers.append(urllib.request.HTTPSHandler(context=tls))
    with urllib.request.build_opener(*handlers).open(url, timeout=timeout) as answer:
        body: bytes = answer.read()
    return body
