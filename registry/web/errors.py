"""Errors as problem+json (RFC 9457): the one place where ours, and the framework's, become answers.

Guarantees: every answer that is not a success has the same members: type, title, status, detail,
and ours: family, reason, what, why, fix, data. What went wrong inside is logged and not shown.
"""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from protocol.errors import FirmledgerError, LocalFault, Malformed, Misuse, Refused

MEDIA_TYPE = "application/problem+json"

_BY_FAMILY = {
    "misuse": 400,
    "malformed": 400,
    "untrusted": 422,
    "unreachable": 503,
    "ledger": 409,
    "refused": 409,
    "local": 500,
}
_BY_REASON = {
    "oversized": 413,
    "blob-oversized": 413,
    "unauthorized": 401,
    "unknown-product": 404,
    "unknown-release": 404,
    "unknown-blob": 404,
    "unknown-row": 404,
    "receipt-unknown": 404,
    "no-artifacts": 404,
    "not-found": 404,
    "method": 405,
    "media-type": 415,
    "range-beyond": 416,
    "release-not-indexed": 503,
    "not-enrolled": 429,
    "name-taken": 409,
    "key-reused": 409,
}

log = logging.getLogger(__name__)


def unauthorized() -> Refused:
    """The answer to a missing or wrong operator's token."""
    return Refused(
        "unauthorized",
        "request refused",
        "it brings no operator's token that this registry knows",
        "send 'Authorization: Bearer <token>' with the content of operator.token",
    )


def problem(error: FirmledgerError) -> JSONResponse:
    """The answer for one of our errors."""
    status = _BY_REASON.get(error.reason, _BY_FAMILY.get(error.family, 500))
    members: dict[str, Any] = {
        "type": f"urn:firmledger:problem:{error.reason}",
        "title": error.what,
        "status": status,
        "detail": f"{error.why} / {error.fix}",
        **error.as_dict(),
    }
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 503:
        headers["Retry-After"] = "5"
    return JSONResponse(_plain(members), status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Lets every error of ``app`` end as a problem."""

    @app.exception_handler(FirmledgerError)
    async def _ours(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, FirmledgerError)  # noqa: S101 - what it is registered for
        if isinstance(error, LocalFault):
            log.error("%s: %s", error.reason, error)
        return problem(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return problem(_sentence(error))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101
        return problem(_from_framework(request, error))

    @app.exception_handler(Exception)
    async def _bug(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return problem(
            LocalFault(
                "internal",
                "request not answered",
                "the registry failed inside; its log says how",
                "try again, and report it if it stays",
            )
        )


def _sentence(error: RequestValidationError) -> Misuse | Malformed:
    """What was wrong first, in words; values sent are not repeated."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    kind = Malformed if first["loc"][0] == "body" else Misuse
    return kind(
        "bad-request",
        "request refused",
        f"{where[:200]}: {first['msg'][:300]}",
        "see /v1/openapi.json for what is expected",
    )


def _from_framework(request: Request, error: HTTPException) -> FirmledgerError:
    path = request.url.path[:200]
    if error.status_code == 404:
        return Misuse("not-found", "request refused", f"there is nothing at {path}", "check it")
    if error.status_code == 405:
        why = f"{path} does not take {request.method}"
        return Misuse("method", "request refused", why, "see /v1/openapi.json")
    return Malformed("bad-request", "request refused", str(error.detail)[:300], "check it")


def _plain(value: Any) -> Any:
    """Data of errors as JSON has it: bytes as hex."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value if isinstance(value, str | int | float | bool | None) else str(value)
