"""Error responses."""

from __future__ import annotations

from math import ceil

TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
TRANSIENT = frozenset({408, 429, 503})


class ApiError(Exception):
    """A refusal, as the client will read it.

    Its words never repeat what the client sent: that may hold a key.

    Args:
        status: HTTP status.
        code: a short stable name of the fault, for programs.
        message: what was expected, found, and what to do; for people.
        param: which part of the request is meant, e.g. ``input[3]``.
        retry_after: seconds until another try makes sense; None if no try will.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_after = retry_after

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        """The answer's JSON, in the shape that OpenAI's clients know."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers that tell a client whether, and when, to try again."""
        headers = {"x-should-retry": "true" if self.status in TRANSIENT else "false"}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, ceil(self.retry_after)))
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers


def schema(message: str, param: str | None = None, code: str = "invalid_request") -> ApiError:
    """A request that is not built as the protocol says: 422."""
    return ApiError(422, code, message, param=param)


def bad_image(message: str, param: str | None = None, code: str = "invalid_image") -> ApiError:
    """An image that cannot be used: 400."""
    return ApiError(400, code, message, param=param)


def too_large(message: str, param: str | None = None, code: str = "too_large") -> ApiError:
    """More bytes, pixels or characters than are taken: 413."""
    return ApiError(413, code, message, param=param)
