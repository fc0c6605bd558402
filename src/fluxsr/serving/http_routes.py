"""The routes of the HTTP API: upscaling, jobs, health and metrics."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from fluxsr.imaging.formats import result_ending
from fluxsr.names import printable
from fluxsr.options import UpscaleOptions
from fluxsr.serving.errors import ServiceError, service_error
from fluxsr.serving.http_body import FILES, read_body
from fluxsr.serving.http_metrics import Metrics
from fluxsr.serving.http_schema import BODY, IMAGE, LOCATION, QUERY, JobView, error_responses
from fluxsr.serving.jobs import Job, JobStore
from fluxsr.serving.limits import HttpLimits
from fluxsr.serving.service import UpscaledFile, UpscaleService

_CLIENT_LEFT = 499  # nginx's status for a client that did not wait; only the metrics show it
_MEDIA_TYPES = {".jpg": "image/jpeg", ".tif": "image/tiff"}
_OF_JOBS = ("not_found", "invalid_option", "unauthorized")
_OF_BODIES = ("malformed", "upload_too_slow", "body_too_large", "unsupported_body", "invalid_option")
_OF_WORK = ("unusable_input", "too_many_pixels", "no_room", "internal", "model", "out_of_memory")
_OF_SERVER = ("accelerator_lost", "shutting_down")
_OK: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"example": {"status": "ok"}}}}}
_METRICS = {"text/plain": {"schema": {"type": "string"}, "example": "fluxsr_queue_depth 0.0\n"}}

Id = Annotated[str, Path(description="Id from the answer 202.", pattern="^[A-Za-z0-9_-]{1,64}$")]
Wait = Annotated[bool, Query(description="false: answer 202 at once; 'Prefer: respond-async' asks for the same.")]

protected_routes, health_routes = APIRouter(), APIRouter(tags=["operation"])


@dataclass(frozen=True)
class ServerState:
    """What the routes need of their server."""

    store: JobStore
    service: UpscaleService
    metrics: Metrics
    limits: HttpLimits


def _state(request: Request) -> ServerState:
    found: ServerState = request.app.state.server
    return found


State = Annotated[ServerState, Depends(_state)]


@protected_routes.post(
    "/v1/upscale",
    tags=["upscale"],
    summary="Upscale one image",
    response_class=Response,
    openapi_extra={"requestBody": BODY, "parameters": QUERY},
    responses={
        200: IMAGE,
        202: {"description": "A job: asked for, or the result is large", "headers": LOCATION, "model": JobView},
        **error_responses(*_OF_BODIES, "busy", "storage_full", "unauthorized", *_OF_WORK, *_OF_SERVER),
    },
)
async def upscale(request: Request, state: State, wait: Wait = True) -> Response:
    """Answer with the upscaled image, or with a job whose result can be fetched later."""
    preferred = "respond-async" in request.headers.get("prefer", "").lower()
    store = state.store
    job = await run_in_threadpool(store.admit)  # deletes expired results
    try:
        options, stem, size = await read_body(request, job.folder / "image", state.limits)
        job.name = f"{stem}{options.size_in_name}" if stem else "result"
        job.kept = not wait or preferred
        if size is not None:
            width, height = state.service.result_size(size, options)
            job.kept |= width * height > state.limits.sync_pixels
        store.start(job, partial(upscale_upload, state.service, options))
    except BaseException as error:  # whatever it is, the place must be given back
        await run_in_threadpool(store.forget, job)
        if isinstance(error, ClientDisconnect):
            return Response(status_code=_CLIENT_LEFT)
        raise service_error(error, job.folder) if isinstance(error, Exception) else error from None
    if not job.kept:
        return await _result_when_done(request, job, store)
    headers = {"Location": f"/v1/jobs/{job.id}"}
    if preferred:
        headers["Preference-Applied"] = "respond-async"
    return JSONResponse(JobView.of(job, store).model_dump(), 202, headers)


# The next three are not coroutines, so that deleting files blocks no other request.
@protected_routes.get(
    "/v1/jobs/{id}", tags=["jobs"], summary="Get the state of a job", responses=error_responses(*_OF_JOBS)
)
def get_job(id: Id, state: State) -> JobView:
    """Ask as often as you like. Fetch the result once the job is done."""
    return JobView.of(state.store.find(id), state.store)


@protected_routes.get(
    "/v1/jobs/{id}/result",
    tags=["jobs"],
    summary="Get the result of a job",
    response_class=Response,
    responses={200: IMAGE, **error_responses(*_OF_JOBS, "not_finished", "cancelled", *_OF_WORK, *_OF_SERVER)},
)
def get_result(id: Id, state: State) -> Response:
    """Answer with the image, or with the error of a failed job, until the job expires or makes room for others."""
    job = state.store.find(id)
    if job.ended is None:
        raise ServiceError("not_finished", f"the job is {job.state}; ask again", {"Retry-After": "1"})
    if job.error is not None:
        job.fetched = True
        raise job.error.copy()
    return JobResultResponse(job, state.store)


@protected_routes.delete(
    "/v1/jobs/{id}",
    tags=["jobs"],
    summary="Cancel a job, or forget its result",
    status_code=204,
    response_class=Response,
    responses={204: {"description": "The job was cancelled or forgotten"}, **error_responses(*_OF_JOBS)},
)
def cancel_job(id: Id, state: State) -> Response:
    """Cancel a waiting job at once and a running one before its next tile. Forget a job that has ended."""
    job = state.store.find(id)
    if not state.store.cancel(job):
        state.store.forget(job)
    return Response(status_code=204)


@protected_routes.get(
    "/metrics",
    tags=["operation"],
    summary="Get the metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"description": "Prometheus' text format", "content": _METRICS},
        **error_responses("unauthorized"),
    },
)
async def get_metrics(state: State) -> Response:
    """Answer in Prometheus' text format."""
    return Response(state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@health_routes.get("/healthz", summary="Check that the process answers", responses=_OK)
async def healthz() -> dict[str, str]:
    """Answer as long as the process lives."""
    return {"status": "ok"}


@health_routes.get(
    "/readyz", summary="Check that the server accepts work", responses={**_OK, **error_responses(*_OF_SERVER)}
)
async def readyz(state: State) -> dict[str, str]:
    """Answer 503 when no more work is accepted."""
    state.store.check_ready()
    return {"status": "ok"}


def upscale_upload(service: UpscaleService, options: UpscaleOptions, job: Job) -> UpscaledFile:
    """Upscale the image in the folder of a job; called in a thread of the job store."""
    source = job.folder / "image"
    try:
        mask = job.folder / "mask"
        picture = service.read(source, mask if mask.exists() else None)
        target = job.folder / f"result{result_ending(options.format, picture.format)}"
        found = service.upscale(picture, target, options, next(iter(service.pipelines)), job.report)
        job.report(1)  # a job that was cancelled during its last tile keeps no result
        return found
    finally:
        for name in FILES:
            (job.folder / name).unlink(missing_ok=True)


async def _result_when_done(request: Request, job: Job, store: JobStore) -> Response:
    """Answer with the result once it is there; cancel the job if the client leaves before."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    finished, left = asyncio.wrap_future(job.finished), asyncio.create_task(disconnected())
    try:
        await asyncio.wait([finished, left], return_when=asyncio.FIRST_COMPLETED)
        if not finished.done():
            store.cancel(job)
            return Response(status_code=_CLIENT_LEFT)
        if job.error is not None:
            raise job.error.copy()
        return JobResultResponse(job, store)
    finally:
        left.cancel()
        if job.state != "done":
            job.finished.add_done_callback(lambda _: store.forget(job))


class JobResultResponse(FileResponse):
    """The result of a job, which the job store keeps while it is sent.

    Ranges are not supported, because a wrong range would be answered with an error in another format than ours.
    """

    def __init__(self, job: Job, store: JobStore) -> None:
        path = job.result.path
        notes = printable("; ".join(job.result.notes)).encode("ascii", "replace").decode()
        super().__init__(
            path,
            media_type=_MEDIA_TYPES.get(path.suffix, f"image/{path.suffix[1:]}"),
            headers={"Accept-Ranges": "none", **({"X-FluxSR-Notes": notes} if notes else {})},
            filename=f"{job.name}{path.suffix}",
            content_disposition_type="inline",
        )
        self._job, self._store = job, store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name not in (b"range", b"if-range")]
        with self._store.sending(self._job):
            await super().__call__({**scope, "headers": headers}, receive, send)
