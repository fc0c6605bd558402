"""The routes of the HTTP API: upscaling, jobs, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from fluxsr.imaging.formats import WRITTEN
from fluxsr.names import printable
from fluxsr.options import UpscaleOptions
from fluxsr.serving.errors import ServiceError, error_responses, service_error
from fluxsr.serving.http_body import read_body
from fluxsr.serving.http_metrics import Metrics
from fluxsr.serving.http_schema import BODY, IMAGE, JOB, LOCATION, JobView
from fluxsr.serving.jobs import Job, JobStore
from fluxsr.serving.limits import HttpLimits
from fluxsr.serving.service import UpscaledFile, UpscaleService

_CLIENT_LEFT = 499  # nginx's status for a client that did not wait; only the metrics show it
_MEDIA_TYPES = {".jpg": "image/jpeg", ".tif": "image/tiff"}
_OF_JOBS = ("not_found", "invalid_option", "unauthorized")
_WHILE_WORKING = ("unusable_input", "too_many_pixels", "no_room", "internal", "model", "out_of_memory")
_UNAVAILABLE = ("accelerator_lost", "shutting_down")
_OF_BODIES = ("malformed", "upload_too_slow", "body_too_large", "unsupported_body", "invalid_option")
_OF_UPSCALE = error_responses(*_OF_BODIES, "busy", "storage_full", "unauthorized", *_WHILE_WORKING, *_UNAVAILABLE)
_OK: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"example": {"status": "ok"}}}}}

Id = Annotated[str, Path(description="Id from the answer 202.", pattern="^[A-Za-z0-9_-]{1,64}$")]
Wait = Annotated[bool, Query(description="false: answer 202 at once; 'Prefer: respond-async' asks for the same.")]


def upscale_routes(store: JobStore, service: UpscaleService, limits: HttpLimits) -> APIRouter:
    """Return the route that takes images."""
    routes = APIRouter(prefix="/v1", tags=["upscale"])

    @routes.post(
        "/upscale",
        summary="Upscale one image",
        response_class=Response,
        openapi_extra={"requestBody": BODY},
        responses={
            200: IMAGE,
            202: {"description": "A job: asked for, or the result is large", "headers": LOCATION, **JOB},
            **_OF_UPSCALE,
        },
    )
    async def upscale(request: Request, wait: Wait = True) -> Response:
        """Answer with the upscaled image, or with a job whose result can be fetched later."""
        preferred = "respond-async" in request.headers.get("prefer", "").lower()
        job = await run_in_threadpool(store.admit)  # deletes expired results
        try:
            options, size = await read_body(request, job.folder / "image", limits)
            job.kept = not wait or preferred
            if size is not None:
                width, height = service.result_size(size, options.scale)
                job.kept |= width * height > limits.sync_pixels
            store.start(job, partial(upscale_upload, service, options))
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

    return routes


def upscale_upload(service: UpscaleService, options: UpscaleOptions, job: Job) -> UpscaledFile:
    """Upscale the image in the folder of a job; called in a thread of the job store."""
    source = job.folder / "image"
    try:
        picture = service.read(source)
        target = job.folder / f"result{result_ending(options, picture.format)}"
        found = service.upscale(picture, target, options, next(iter(service.pipelines)), job.report)
        job.report(1)  # a job that was cancelled during its last tile keeps no result
        return found
    finally:
        source.unlink(missing_ok=True)


def result_ending(options: UpscaleOptions, found: str) -> str:
    """Return the file ending of a result, with its dot.

    Args:
        options: their format decides, if there is one.
        found: Pillow's name of the input's format.
    """
    if options.format is not None:
        return f".{options.format}"
    written = {form.name: form.endings[0] for form in WRITTEN}
    return written.get(found, ".jpg" if found == "HEIF" else ".png")


def job_routes(store: JobStore) -> APIRouter:
    """Return the routes of jobs. They are not coroutines, so that deleting files blocks no other request."""
    routes = APIRouter(prefix="/v1", tags=["jobs"])

    @routes.get(
        "/jobs/{id}",
        summary="Get the state of a job",
        response_model=JobView,
        responses={200: {"description": "Its state", **JOB}, **error_responses(*_OF_JOBS)},
    )
    def job(id: Id) -> JobView:
        """Ask as often as you like. Fetch the result once the job is done."""
        return JobView.of(store.find(id), store)

    @routes.get(
        "/jobs/{id}/result",
        summary="Get the result of a job",
        response_class=Response,
        responses={
            200: IMAGE,
            **error_responses(*_OF_JOBS, "not_finished", "cancelled", *_WHILE_WORKING, *_UNAVAILABLE),
        },
    )
    def result(id: Id) -> Response:
        """Answer with the image, or with the error of a failed job, until the job expires or makes room for others."""
        found = store.find(id)
        if found.ended is None:
            raise ServiceError("not_finished", f"the job is {found.state}; ask again", {"Retry-After": "1"})
        if found.error is not None:
            found.fetched = True
            raise found.error.copy()
        return JobResultResponse(found, store)

    @routes.delete(
        "/jobs/{id}",
        summary="Cancel a job, or forget its result",
        status_code=204,
        response_class=Response,
        responses={204: {"description": "The job was cancelled or forgotten"}, **error_responses(*_OF_JOBS)},
    )
    def cancel(id: Id) -> Response:
        """Cancel a waiting job at once and a running one before its next tile. Forget a job that has ended."""
        found = store.find(id)
        if not store.cancel(found):
            store.forget(found)
        return Response(status_code=204)

    return routes


def health_routes(store: JobStore) -> APIRouter:
    """Return the routes that need no API key."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/healthz", summary="Check that the process answers", responses=_OK)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @routes.get(
        "/readyz",
        summary="Check that the server accepts work",
        responses={**_OK, **error_responses(*_UNAVAILABLE)},
    )
    async def readyz() -> dict[str, str]:
        store.check_ready()
        return {"status": "ok"}

    return routes


def metrics_routes(metrics: Metrics) -> APIRouter:
    """Return the route of the metrics."""
    routes = APIRouter(tags=["operation"])
    content = {"text/plain": {"schema": {"type": "string"}, "example": "fluxsr_queue_depth 0.0\n"}}

    @routes.get(
        "/metrics",
        summary="Get the metrics for Prometheus",
        response_class=Response,
        responses={
            200: {"description": "Prometheus' text format", "content": content},
            **error_responses("unauthorized"),
        },
    )
    async def metrics_() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes


async def _result_when_done(request: Request, job: Job, store: JobStore) -> Response:
    """Answer with the result once it is there; cancel the job if the client leaves before."""
    try:
        if not await _has_finished(request, job):
            store.cancel(job)
            return Response(status_code=_CLIENT_LEFT)
        if job.error is not None:
            raise job.error.copy()
        return JobResultResponse(job, store)
    finally:
        if job.state != "done":
            job.finished.add_done_callback(lambda _: store.forget(job))


async def _has_finished(request: Request, job: Job) -> bool:
    """Wait for the end of a job; return False if the client leaves before."""
    finished, loop = asyncio.Event(), asyncio.get_running_loop()

    def notify(_: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has stopped with the server
            loop.call_soon_threadsafe(finished.set)

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    job.finished.add_done_callback(notify)
    tasks = [asyncio.create_task(finished.wait()), asyncio.create_task(disconnected())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    return finished.is_set()


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
            filename=path.name,
            content_disposition_type="inline",
        )
        self._job, self._store = job, store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name not in (b"range", b"if-range")]
        with self._store.sending(self._job):
            await super().__call__({**scope, "headers": headers}, receive, send)
