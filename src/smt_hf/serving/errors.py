"""Errors in the format that clients of this interface expect: the same JSON for all."""

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
    """An answer with a status other than 200.

    Args:
        status: the HTTP status.
        message: one line with the value, the reason and the remedy.
        code: a short code for programs.
        param: the field that caused the error.
        headers: headers of the answer.
    """

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None, headers=None):
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = headers or {}

    @property
    def content(self) -> dict:
        """The content that the client receives."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code or self.status}
        }

    @property
    def body(self) -> bytes:
        """The content as JSON."""
        return json.dumps(self.content, ensure_ascii=True).encode()


def as_api_error(error: Exception) -> ApiError:
    """The error that a client receives for an error in the engine or in its request."""
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
    """The error for a finish reason that this interface does not know; `None` for an answer that ended normally."""
    if reason == "timeout":
        return ApiError(504, "the request took longer than this server allows: ask for fewer tokens", "timeout")
    if reason == "cancelled":
        return ApiError(503, "the server is stopping" if stopping else "the request was cancelled", "stopping")
    if reason == "error":
        return ApiError(500, error or "the answer failed", "generation_failed")
    return None
