"""The routes: upscale, jobs, and what an operator asks for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from fluxsr.names import printable
from fluxsr.serving.api.bodies import received
from fluxsr.serving.api.desk import Desk
from fluxsr.serving.api.jobs import Job
from fluxsr.serving.api.limits import Limits
from fluxsr.serving.api.metrics import Metrics
from fluxsr.serving.api.problems import Problem, described, problem_of
from fluxsr.serving.api.schema import BODY, IMAGE, JOB, LOCATION, ErrorBody, JobView
from fluxsr.serving.api.work import check_output

GONE = 499  # nginx's number for a client that did not wait; seen in the metrics alone
MEDIA = {".png": "png", ".jpg": "jpeg", ".webp": "webp", ".tif": "tiff", ".avif": "avif", ".bmp": "bmp"}
_KEYED = ("unauthorized",)
_OF_JOBS = ("not_found", "invalid_option", *_KEYED)
_WORK = (
    *("unusable_input", "too_many_pixels", "no_room", "internal", "model", "out_of_memory", "accelerator_lost"),
    "shutting_down",
)

Id = Annotated[str, Path(description="Of the answer 202.", pattern="^[A-Za-z0-9_-]{1,64}$")]
Wait = Annotated[bool, Query(description="false: answer 202 at once; 'Prefer: respond-async' asks for the same.")]


def upscaling(desk: Desk, limits: Limits) -> APIRouter:
    """The route that takes pictures."""
    routes = APIRouter(prefix="/v1", tags=["upscale"])

    @routes.post(
        "/upscale",
        summary="Upscale one image",
        response_class=Response,
        openapi_extra={"requestBody": BODY},
        responses={
            200: IMAGE,
            202: {"description": "A job: asked for, or the result is large", "headers": LOCATION, **JOB},
            **described(
                *("malformed", "upload_too_slow", "body_too_large", "unsupported_body", "invalid_option"),
                *("busy", "storage_full", *_KEYED, *_WORK),
            ),
        },
    )
    async def upscale(request: Request, wait: Wait = True) -> Response:
        """The answer is the picture, with all that belongs to it; or a job, to be asked for later."""
        preferred = "respond-async" in request.headers.get("prefer", "").lower()
        job = await run_in_threadpool(desk.admit)  # what has expired is deleted there
        try:
            job.options, size = await received(request, job.folder / "image", limits)
            job.kept = not wait or preferred
            if size is not None:
                check_output(size, job.options.scale, limits)
                job.kept |= size[0] * size[1] * job.options.scale**2 > limits.sync_pixels
            desk.begin(job)
        except BaseException as error:  # whatever it is, the place must be given back
            desk.drop(job)
            if isinstance(error, ClientDisconnect):
                return Response(status_code=GONE)
            raise problem_of(error, job.folder) if isinstance(error, Exception) else error from None
        if not job.kept:
            return await waited(request, job, desk)
        headers = {"Location": f"/v1/jobs/{job.id}"}
        if preferred:
            headers["Preference-Applied"] = "respond-async"
        return JSONResponse(view(job, desk).model_dump(), 202, headers)

    return routes


def following(desk: Desk) -> APIRouter:
    """The routes of jobs; no coroutines, so they run in threads, as they may delete files."""
    routes = APIRouter(prefix="/v1", tags=["jobs"])

    @routes.get(
        "/jobs/{id}",
        summary="What became of a job",
        response_model=JobView,
        responses={200: {"description": "Its state", **JOB}, **described(*_OF_JOBS)},
    )
    def job(id: Id) -> JobView:
        """Ask as often as you like; once it is done, fetch its result."""
        return view(desk.find(id), desk)

    @routes.get(
        "/jobs/{id}/result",
        summary="The result of a job",
        response_class=Response,
        responses={200: IMAGE, **described(*_OF_JOBS, "not_finished", "cancelled", *_WORK)},
    )
    def result(id: Id) -> Response:
        """The picture; of a job that failed, its error. It can be fetched again until it expires or makes room."""
        found = desk.find(id)
        if found.ended is None:
            raise Problem("not_finished", f"the job is {found.state}; ask again", Retry_After="1")
        if found.problem is not None:
            found.fetched = True
            raise found.problem.again()
        return Handed(found, desk)

    @routes.delete(
        "/jobs/{id}",
        summary="Cancel a job, or forget its result",
        status_code=204,
        response_class=Response,
        responses={204: {"description": "Cancelled or forgotten"}, **described(*_OF_JOBS)},
    )
    def cancel(id: Id) -> Response:
        """A waiting job at once, a running one before its next tile."""
        desk.cancel(desk.find(id))
        return Response(status_code=204)

    return routes


def operations(desk: Desk, metrics: Metrics) -> tuple[APIRouter, APIRouter]:
    """Health, which anybody may ask for, and metrics, which want the key as all else does."""
    health, counts = APIRouter(tags=["operation"]), APIRouter(tags=["operation"])
    example = {"application/json": {"example": {"status": "ok"}}}

    @health.get("/healthz", summary="Whether the process lives", responses={200: {"content": example}})
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @health.get(
        "/readyz",
        summary="Whether it takes work",
        responses={200: {"content": example}, **described("accelerator_lost", "shutting_down")},
    )
    async def readyz() -> dict[str, str]:
        desk.check_ready()
        return {"status": "ok"}

    @counts.get(
        "/metrics",
        summary="For Prometheus",
        response_class=Response,
        responses={
            200: {
                "description": "Prometheus' text format",
                "content": {"text/plain": {"schema": {"type": "string"}, "example": "fluxsr_queue_depth 0.0\n"}},
            },
            **described(*_KEYED),
        },
    )
    async def metrics_() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return health, counts


async def waited(request: Request, job: Job, desk: Desk) -> Response:
    """The picture once it is there; a client that goes away before cancels its job."""
    assert job.future is not None
    try:
        if not await _finished(request, job):
            desk.cancel(job)
            return Response(status_code=GONE)
        if job.problem is not None:
            raise job.problem.again()
        return Handed(job, desk)
    finally:
        if job.state != "done":  # its files go once no thread works on them
            job.future.add_done_callback(lambda _: desk.forget(job))


async def _finished(request: Request, job: Job) -> bool:
    over, loop = asyncio.Event(), asyncio.get_running_loop()

    def tell(_: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the server has stopped, and its loop with it
            loop.call_soon_threadsafe(over.set)

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    assert job.future is not None
    job.future.add_done_callback(tell)
    tasks = [asyncio.create_task(over.wait()), asyncio.create_task(left())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    return over.is_set()


class Handed(FileResponse):
    """A job's result, lent by its desk while it goes out.

    In one piece: a range that cannot be had would be answered with another kind of error than all else.
    """

    def __init__(self, job: Job, desk: Desk) -> None:
        assert job.result is not None
        notes = printable("; ".join(job.notes)).encode("ascii", "replace").decode()
        super().__init__(
            job.result,
            media_type=f"image/{MEDIA[job.result.suffix]}",
            headers={"Accept-Ranges": "none", **({"X-FluxSR-Notes": notes} if notes else {})},
            filename=job.result.name,
            content_disposition_type="inline",
        )
        self._job, self._desk = job, desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if name not in (b"range", b"if-range")]
        with self._desk.lending(self._job):
            await super().__call__({**scope, "headers": headers}, receive, send)


def view(job: Job, desk: Desk) -> JobView:
    """A job as its client sees it."""
    return JobView(
        id=job.id,
        status=job.state,
        progress=1 if job.state == "done" else round(job.progress, 4),
        result=f"/v1/jobs/{job.id}/result" if job.state == "done" else None,
        notes=[printable(note) for note in job.notes],
        error=ErrorBody(**job.problem.body()) if job.problem else None,
        expires_in=desk.expires_in(job),
    )
