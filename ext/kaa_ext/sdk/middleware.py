"""Log lines of requests, for most services.

    extension.middleware(log_requests)  # or extension.on_error(log_error)

They name endpoints, and show no payload.
"""

import time
from typing import Any

import structlog

from kaa_ext.sdk.handlers import CallNext
from kaa_ext.sdk.requests import Request, Response

_log: Any = structlog.get_logger("ext.requests")


async def log_requests(request: Request, call_next: CallNext) -> Response:
    """Log each request: debug for success, info for 4xx, warning for 5xx."""
    started = time.perf_counter()
    response = await call_next(request)
    status_code = response.status_code
    write = _log.debug if status_code < 400 else _log.info if status_code < 500 else _log.warning
    write(
        "request",
        endpoint=request.endpoint_id,
        resource_path=request.resource_path,
        status=status_code,
        reason=response.reason_phrase,
        ms=round((time.perf_counter() - started) * 1000, 1),
    )
    return response


def log_error(request: Request, status_code: int, reason_phrase: str | None) -> None:
    """Log a request that was answered with an error: info for 4xx, warning for 5xx. For `Extension.on_error`."""
    write = _log.info if status_code < 500 else _log.warning
    write(
        "request",
        endpoint=request.endpoint_id,
        resource_path=request.resource_path,
        status=status_code,
        reason=reason_phrase,
    )
