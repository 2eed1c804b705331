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
    """An error response.

    The message never repeats what the client sent, since that may contain a key.

    Args:
        code: short stable name of the error, for programs.
        message: what was expected, what was found and what to do, for people.
        param: the part of the request that caused the error, e.g. ``input[3]``.
        retry_after: seconds to wait before a retry; None if a retry is useless.
    """

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_after = retry_after

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON of the response, in the format of OpenAI."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers that state whether and when to retry."""
        headers = {"x-should-retry": "true" if self.status in TRANSIENT else "false"}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, ceil(self.retry_after)))
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return headers


def schema(message: str, param: str | None = None, code: str = "invalid_request") -> ApiError:
    """Return error 422, for a request that does not follow the protocol."""
    return ApiError(422, code, message, param=param)


def bad_image(message: str, param: str | None = None, code: str = "invalid_image") -> ApiError:
    """Return error 400, for an unusable image."""
    return ApiError(400, code, message, param=param)


def too_large(message: str, param: str | None = None, code: str = "too_large") -> ApiError:
    """Return error 413, for too many bytes, pixels or characters."""
    return ApiError(413, code, message, param=param)
