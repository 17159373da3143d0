"""Decides which requests are let in: hosts, origins, keys, types and sizes of bodies. The rest of the server may rely on it."""

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from .errors import ApiError

CORS_METHODS = "GET, POST, HEAD, OPTIONS"
CORS_SECONDS = "600"


class Guard:
    """ASGI middleware in front of every route.

    Any web page that is open in a browser on this machine can reach a server on it. The browser says which page is asking
    (`Origin`): only the pages listed in `cors_origins` are let in. A page could also pass for the same origin, with a host name
    of its own that resolves to this machine (`Host`): only addresses, this machine's names and `hosts` are served. The headers
    of a body must say that it is JSON, which a page of another origin cannot send without asking first.

    Args:
        app: the application.
        hosts: further names of this server.
        cors_origins: origins of web pages that may use it; `"*"` allows all.
        api_key: the key that clients must send as `Authorization: Bearer`; no key is needed when `None`. `/health` is always
            open.
        max_body_bytes: maximum size of a request's body.
        body_seconds: seconds within which a body must arrive.
    """

    def __init__(
        self,
        app,
        hosts: Sequence[str] = (),
        cors_origins: Sequence[str] = (),
        api_key: str | None = None,
        max_body_bytes: int = 8 << 20,
        body_seconds: float = 30.0,
    ):
        self.app = app
        self.hosts = {"localhost", socket.gethostname().lower(), *(host.lower() for host in hosts)}
        self.cors_origins = {origin.rstrip("/").lower() for origin in cors_origins}
        self.api_key = api_key
        self.max_body_bytes, self.body_seconds = max_body_bytes, body_seconds

    async def __call__(self, scope, receive, send):
        """Lets a request through, or refuses it."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        cors = self._cors_headers(origin)

        async def send_with_cors(message):
            if message["type"] == "http.response.start" and cors:
                message = {**message, "headers": [*message.get("headers", ()), *cors]}
            await send(message)

        try:
            self._check_host(headers.get(b"host", ""))
            self._check_origin(origin, headers.get(b"host", ""))
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                asked = headers.get(b"access-control-request-headers", "authorization, content-type")
                return await _answer(send_with_cors, 204, _preflight(asked), b"")
            if scope["path"] != "/health":
                self._check_key(headers.get(b"authorization", ""))
            if scope["method"] in ("POST", "PUT", "PATCH"):
                self._check_body(headers)
                body = await self._read_body(receive)
                if body is None:
                    return  # the client has left
                receive = _replay(body, receive)
        except ApiError as error:
            return await _answer_error(send_with_cors, error)
        await self.app(scope, receive, send_with_cors)

    def _cors_headers(self, origin: str | None) -> list[tuple[bytes, bytes]]:
        if origin is None or not self._is_named(origin):
            return []
        return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"Origin")]

    def _is_named(self, origin: str) -> bool:
        return "*" in self.cors_origins or origin.rstrip("/").lower() in self.cors_origins

    def _check_host(self, host: str) -> None:
        name = _host_name(host)
        if not (name in self.hosts or _is_address(name)):
            raise ApiError(403, f"the host {name[:100]!r} is not served here: start the server with --allowed_host")

    def _check_origin(self, origin: str | None, host: str) -> None:
        if origin is None or self._is_named(origin):
            return
        if urlsplit(origin).netloc.lower() == host.lower() != "":
            return  # a page of this server
        raise ApiError(403, f"pages from {origin[:100]!r} may not use this server: start it with --cors_origin")

    def _check_key(self, authorization: str) -> None:
        if self.api_key is None:
            return
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.api_key.encode()):
            return
        raise ApiError(
            401, "the API key is missing or wrong", "invalid_api_key", headers={"WWW-Authenticate": "Bearer"}
        )

    def _check_body(self, headers: dict[bytes, str]) -> None:
        kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(415, f"the body is of type {kind[:50]!r}: send application/json")
        size = headers.get(b"content-length", "0")
        if size.isdigit() and int(size) > self.max_body_bytes:
            raise self._too_large()

    async def _read_body(self, receive) -> bytes | None:
        parts, size = [], 0
        try:
            ends = asyncio.get_running_loop().time() + self.body_seconds
            while True:
                message = await asyncio.wait_for(receive(), ends - asyncio.get_running_loop().time())
                if message["type"] == "http.disconnect":
                    return None
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > self.max_body_bytes:
                    raise self._too_large()
                if not message.get("more_body", False):
                    return b"".join(parts)
        except asyncio.TimeoutError:
            raise ApiError(408, f"the body did not arrive within {self.body_seconds:g} seconds") from None

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body is larger than {self.max_body_bytes} bytes: send less")


def _host_name(host: str) -> str:
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _preflight(asked: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-methods", CORS_METHODS.encode()),
        (b"access-control-allow-headers", asked.encode("latin-1")),
        (b"access-control-max-age", CORS_SECONDS.encode()),
    ]


def _replay(body: bytes, receive):
    """A `receive` that returns the body again, and then whatever comes next, such as the client's disconnect."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again():
        return waiting.pop() if waiting else await receive()

    return receive_again


async def _answer(send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _answer_error(send, error: ApiError) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]  # the rest of a body is not read
    headers += [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    await _answer(send, error.status, headers, error.body)
