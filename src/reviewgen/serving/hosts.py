"""Which names of a server a request may call it by.

A site can let its own name lead to 127.0.0.1 once its page is loaded (DNS rebinding). The browser then takes a server of this
machine for a part of that site, and lets the page read the answers, without CORS. But the header Host has the name of the site: a
server that only this machine reaches answers to names of this machine alone, as Jupyter and Ollama do.
"""

import ipaddress
import re
from collections.abc import Collection, Sequence

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from reviewgen.errors import ConfigError, quoted
from reviewgen.serving.problems import Problem

ANY_HOST = "*"
_HEADER = re.compile(r"(\[(?P<address>[^\[\]]+)\]|(?P<name>[^:\[\]]*))(:\d*)?")


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches a host's address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def accepted_hosts(host: str, address: str, more: Sequence[str] = ()) -> frozenset[str] | None:
    """Return the names besides those of this machine that requests may have, in lower case; None accepts any.

    Args:
        host: Where the server listens, as the user has given it.
        address: The address of that.
        more: Further names, without a port; ``*`` accepts any.

    Raises:
        ConfigError: One is not the name of a host.
    """
    for name in more:
        if name != ANY_HOST and (not name or _host_of(name) != name.lower() or any(each in "/*@ " for each in name)):
            raise ConfigError(f"{quoted(name)} is not the name of a host: give one without a port, as in example.org, or *.")
    if ANY_HOST in more or not (more or is_loopback(address)):
        return None
    return frozenset(name.lower() for name in (host, *more))


class HostsOnly:
    """Refuses requests whose header Host has another name than those of the server.

    Args:
        app: What answers the others.
        hosts: The accepted names, besides localhost and the addresses that lead to this machine.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = _host_of(dict(scope["headers"]).get(b"host", b"localhost").decode("latin-1"))  # every browser sends it
            if not is_loopback(host) and host not in self._hosts:
                message = (
                    f"This server does not answer to the name {quoted(host)}: call it at localhost, or start it with "
                    "--allowed-host and that name."
                )
                return await JSONResponse(Problem(421, message, code="unknown_host").to_json(), 421)(scope, receive, send)
        return await self._app(scope, receive, send)


def _host_of(header: str) -> str:
    """Return the host in a header Host, in lower case: without the port, and without the brackets of an address of IPv6.

    >>> _host_of("Localhost:8000"), _host_of("[::1]:8000"), _host_of("::1")
    ('localhost', '::1', '::1')
    """
    match = _HEADER.fullmatch(header)
    return (header if match is None else match["address"] or match["name"]).lower()
