"""The application: routes, the key, errors in one shape, and a count of every request."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fluxsr import __version__
from fluxsr.serving.api import heap
from fluxsr.serving.api.desk import Desk
from fluxsr.serving.api.limits import Limits
from fluxsr.serving.api.metrics import Metrics
from fluxsr.serving.api.problems import PROBLEMS, Problem
from fluxsr.serving.api.routes import following, operations, upscaling
from fluxsr.serving.api.schema import Error

_BEARER, _HEADER = HTTPBearer(auto_error=False), APIKeyHeader(name="X-API-Key", auto_error=False)
_SWEEP = 10.0  # seconds between two
_CODES = {404: "not_found", 405: "method_not_allowed"}


def application(desk: Desk, metrics: Metrics, limits: Limits, keys: Sequence[str] = ()) -> FastAPI:
    """Put the server together.

    Args:
        desk: takes the jobs.
        metrics: counts.
        limits: what is taken on.
        keys: any of them opens; none are asked for without one.
    """
    app = FastAPI(
        title="fluxsr",
        version=__version__,
        description="One-step super-resolution of photographs over HTTP.",
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        lifespan=partial(_sweeping, desk),
    )
    guarded = [Depends(guard(keys))] if keys else []
    health, counts = operations(desk, metrics)
    for routes in (upscaling(desk, limits), following(desk), counts):
        app.include_router(routes, dependencies=guarded)
    app.include_router(health)
    _errors(app)
    _schema(app)
    app.add_middleware(Counted, metrics=metrics)
    return app


@asynccontextmanager
async def _sweeping(desk: Desk, _app: FastAPI) -> AsyncIterator[None]:
    """What has expired goes from the disk, and what is free from the process, whether anybody asks or not."""

    async def sweep() -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            await asyncio.to_thread(desk.sweep)
            await asyncio.to_thread(heap.trim)

    task = asyncio.create_task(sweep())
    try:
        yield
    finally:
        task.cancel()


def guard(keys: Sequence[str]) -> Callable[..., None]:
    """A dependency that lets requests with one of the keys pass."""
    known = [hashlib.sha256(key.encode()).digest() for key in keys]

    def check(
        token: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        key: Annotated[str | None, Security(_HEADER)],
    ) -> None:
        given = hashlib.sha256((token.credentials if token else key or "").encode()).digest()
        # digests have one length, and every key is compared: time tells nothing of them
        if not any([hmac.compare_digest(given, digest) for digest in known]):
            raise Problem("unauthorized", PROBLEMS["unauthorized"][1], WWW_Authenticate="Bearer")

    return check


def _errors(app: FastAPI) -> None:
    def answer(problem: Problem, status: int | None = None) -> Response:
        return JSONResponse({"error": problem.body()}, status or problem.status, problem.headers)

    @app.exception_handler(Problem)
    async def ours(_: Request, error: Problem) -> Response:
        return answer(error)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "malformed")
        what = "there is nothing at this path" if error.status_code == 404 else f"{error.detail}: {request.method}"
        response = answer(Problem(code, what), error.status_code)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return answer(Problem("invalid_option", f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"))

    @app.exception_handler(Exception)  # the trace goes into the server's log, where uvicorn puts it
    async def bug(_: Request, error: Exception) -> Response:
        return answer(Problem("internal", PROBLEMS["internal"][1]))


def _schema(app: FastAPI) -> None:
    """Our error in the place of FastAPI's own, which is never sent."""
    made = app.openapi

    def openapi() -> dict[str, object]:
        if app.openapi_schema is None:
            schema = made()
            parts = schema["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                parts.pop(name, None)
            own = Error.model_json_schema(ref_template="#/components/schemas/{model}")
            parts.update(own.pop("$defs"))
            parts["Error"] = own
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


class Counted:
    """Counts requests. uvicorn reads on for seconds where an answer comes before the end of its body, so it arrives."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 500

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            route = getattr(scope.get("route"), "path", "other")  # not the path: clients could invent as many
            self._metrics.request(route, scope["method"], status, time.monotonic() - start)
