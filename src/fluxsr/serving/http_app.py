"""The FastAPI application: routes, the API key, and one format for all errors."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

from fastapi import Depends, FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from fluxsr import __version__
from fluxsr.serving.errors import ServiceError
from fluxsr.serving.http_metrics import CountRequests, Metrics
from fluxsr.serving.http_routes import ServerState, health_routes, protected_routes
from fluxsr.serving.jobs import JobStore
from fluxsr.serving.limits import HttpLimits
from fluxsr.serving.service import UpscaleService

_BEARER, _HEADER = HTTPBearer(auto_error=False), APIKeyHeader(name="X-API-Key", auto_error=False)
_SWEEP_SECONDS = 10.0


def application(
    store: JobStore,
    service: UpscaleService,
    metrics: Metrics,
    limits: HttpLimits,
    keys: Sequence[str] = (),
    origins: Sequence[str] = (),
) -> FastAPI:
    """Return the application of the HTTP API.

    Args:
        store: accepts and runs the jobs.
        service: upscales the images.
        metrics: counts requests.
        limits: what clients may ask for.
        keys: API keys, any of which is accepted; without one, no key is asked for.
        origins: origins of web pages that may call the server; "*" for all.
    """
    app = FastAPI(
        title="fluxsr",
        version=__version__,
        description="One-step super-resolution of photographs over HTTP.",
        docs_url=None,  # the page would load scripts from other servers
        redoc_url=None,
        lifespan=partial(_sweep_regularly, store),
    )
    protected = [Depends(require_key(keys))] if keys else []
    app.state.server = ServerState(store, service, metrics, limits)
    app.include_router(protected_routes, dependencies=protected)
    app.include_router(health_routes)
    _add_error_handlers(app)
    app.add_middleware(CountRequests, metrics=metrics)
    if origins:
        exposed = ["Content-Disposition", "Location", "Preference-Applied", "Retry-After", "X-FluxSR-Notes"]
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=exposed,
        )
    return app


@asynccontextmanager
async def _sweep_regularly(store: JobStore, _app: FastAPI) -> AsyncIterator[None]:
    """Delete expired results and return free memory to the system while no request does."""

    async def sweep() -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            await asyncio.to_thread(store.sweep)
            await asyncio.to_thread(trim_heap)

    task = asyncio.create_task(sweep())
    try:
        yield
    finally:
        task.cancel()


def trim_heap() -> bool:
    """Return free memory to the system; glibc keeps it where many threads allocate. Return False without glibc."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # TypeError: Windows does not accept None
        return False
    return True


def require_key(keys: Sequence[str]) -> Callable[..., None]:
    """Return a dependency that accepts requests with one of the keys."""
    digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def check(
        token: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        key: Annotated[str | None, Security(_HEADER)],
    ) -> None:
        sent = hashlib.sha256((token.credentials if token else key or "").encode()).digest()
        # digests have one length and every key is compared, so the time tells nothing about the keys
        if not any([hmac.compare_digest(sent, digest) for digest in digests]):
            raise ServiceError("unauthorized", headers={"WWW-Authenticate": "Bearer"})

    return check


def _add_error_handlers(app: FastAPI) -> None:
    def answer(error: ServiceError, status: int | None = None) -> Response:
        return JSONResponse({"error": error.body()}, status or error.status, error.headers)

    @app.exception_handler(ServiceError)
    async def service(_: Request, error: ServiceError) -> Response:
        return answer(error)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == 404:
            return answer(ServiceError("not_found", "there is nothing at this path", headers))
        code = "method_not_allowed" if error.status_code == 405 else "malformed"
        return answer(ServiceError(code, f"{error.detail}: {request.method}", headers), error.status_code)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return answer(ServiceError("invalid_option", f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"))

    @app.exception_handler(Exception)  # uvicorn writes the traceback to the log
    async def bug(_: Request, error: Exception) -> Response:
        return answer(ServiceError("internal"))
