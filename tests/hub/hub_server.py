"""A small server that speaks the endpoints of the Hub that loading and sharing models uses, all in memory.

Large files go the way of Git LFS, through a storage host of its own (the same server under another name), which wants no
token and refuses to be shown one. Errors carry the headers by which `huggingface_hub` tells them apart.
"""

import json
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

from tests.hub.endpoints import ROUTES, Refusal
from tests.hub.repositories import Commit, Repository

TOKENS = {"hf_tokenofuser": "user", "hf_tokenofreader": "reader"}
READ_ONLY = {"hf_tokenofreader"}


class HubServer(ThreadingHTTPServer):
    """The server with what it keeps: repositories by id, large files by SHA-256, and a log of requests."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.storage_url = f"http://localhost:{self.server_port}"  # another origin: tokens must not travel there
        self.repositories: dict[str, Repository] = {}
        self.storage: dict[str, bytes] = {}
        self.log: list[tuple[str, str, int]] = []

    def requests(self, method: str, pattern: str) -> list[str]:
        """The paths of successful requests that match."""
        return [
            path for verb, path, status in self.log if verb == method and status < 400 and re.search(pattern, path)
        ]


@contextmanager
def running_server():
    """A server that answers in a thread of its own until the block ends."""
    with HubServer() as server:
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """Finds the function of an endpoint and sends its answer: `(content, headers)`, or `(content, headers, status)`."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        path, _, self.query = self.path.partition("?")
        self.body = self.read_body()
        try:
            for method, pattern, function in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in method.split():
                    content, headers, *status = function(self, *(unquote(part or "") for part in match.groups()))
                    status = status[0] if status else 200
                    break
            else:
                raise Refusal(404, f"No such endpoint: {self.command} {path}")
        except Refusal as refusal:
            content, headers, status = {"error": refusal.message}, refusal.headers, refusal.status
        if not isinstance(content, bytes):
            content, headers = json.dumps(content).encode(), {"Content-Type": "application/json", **headers}
        self.server.log.append((self.command, path, status))
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def log_message(self, *args):
        """Nothing on the terminal: `HubServer.log` has it."""

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    @property
    def token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    @property
    def user(self) -> str | None:
        """Whose token it is; `None` without a token."""
        if self.token is not None and self.token not in TOKENS:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return TOKENS.get(self.token)

    @property
    def role(self) -> str:
        return "read" if self.token in READ_ONLY else "write"

    def check_writer(self, namespace: str) -> None:
        if self.user is None:
            raise Refusal(401, "Invalid username or password.")
        if self.user != namespace or self.role == "read":
            raise Refusal(403, f"You don't have the rights to write in the namespace {namespace!r}")

    def repository(self, name: str, write: bool = False) -> Repository:
        user, found = self.user, self.server.repositories.get(name)
        if found is None or (found.private and user != name.split("/")[0]):
            raise Refusal(401 if user is None else 404, "Repository not found", "RepoNotFound")
        if write:
            self.check_writer(name.split("/")[0])
        return found

    def commit(self, name: str, revision: str) -> Commit:
        found = self.repository(name).find(revision or "main")
        if found is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found
