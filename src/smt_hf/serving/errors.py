"""Errors as clients of this interface expect them: one JSON form for all."""

import json

from ..errors import InputError
from ..inference import EngineFull, EngineStopped

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    499: "client_closed_request",
    503: "service_unavailable_error",
    504: "timeout_error",
}


class ApiError(Exception):
    """An answer other than 200.

    Args:
        status: of HTTP.
        message: one line: the value, the reason, the remedy.
        code: a word for programs.
        param: the field that is to blame.
        headers: of the answer.
    """

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None, headers=None):
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = headers or {}

    @property
    def content(self) -> dict:
        """What the client gets to read."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code or self.status}
        }

    @property
    def body(self) -> bytes:
        """The same as JSON."""
        return json.dumps(self.content, ensure_ascii=True).encode()


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of an error of the engine or of its own."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, EngineFull):
        return ApiError(429, str(error), "engine_full", headers={"Retry-After": "1"})
    if isinstance(error, EngineStopped):
        return ApiError(503, "the server is stopping", "stopping", headers={"Retry-After": "5"})
    if isinstance(error, InputError):
        return ApiError(400, str(error))
    return ApiError(500, "the server failed: see its log", "internal_error")


def ended_early(reason: str | None, error: str | None, stopping: bool) -> ApiError | None:
    """The error behind a finish reason that this interface has no word for; `None` for an answer that ended as it should."""
    if reason == "timeout":
        return ApiError(504, "the request took longer than this server allows: ask for fewer tokens", "timeout")
    if reason == "cancelled":
        return ApiError(503, "the server is stopping" if stopping else "the request was cancelled", "stopping")
    if reason == "error":
        return ApiError(500, error or "the answer failed", "generation_failed")
    return None
