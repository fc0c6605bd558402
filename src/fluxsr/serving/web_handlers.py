"""Event handlers of the page: from gradio's values to jobs, and from results to updates of the page."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from fluxsr.names import printable
from fluxsr.serving.errors import ServiceError, service_error
from fluxsr.serving.jobs import Job, JobStore
from fluxsr.serving.limits import WebLimits
from fluxsr.serving.service import UpscaleService
from fluxsr.serving.web_jobs import Brush, check_batch, options_of, upscale_batch, upscale_one
from fluxsr.serving.web_report import describe_batch, describe_input, describe_result

_PREVIEW_SIZE = (1600, 1600)  # of an image that was just chosen
_POLL_SECONDS = 0.1  # between two looks at the progress of a job
_HIDDEN = {"visible": False}
_STOPPED = "<p>Stopped.</p>"


class Handlers:
    """Handlers of the page's events. gradio passes the request and the progress bar by annotation and default."""

    def __init__(self, service: UpscaleService, store: JobStore, limits: WebLimits) -> None:
        self.service, self.store, self.limits = service, store, limits

    def preview(self, path: str | None) -> list[Any]:
        """Show an image that was chosen, or clear the page if it was removed."""
        shown, text = None, ""
        try:
            if path:
                picture = self.service.read(Path(path))
                shown, text = picture.image, describe_input(picture)
                shown.thumbnail(_PREVIEW_SIZE)
        except Exception as error:  # not a gr.Error, which would leave the previous image where it is
            message = service_error(error, self.store.folder).message
            gr.Warning(escape(message), title="This image cannot be used")
        return [gr.update(value=shown, visible=True), gr.update(value=None, **_HIDDEN), text, gr.update(**_HIDDEN)]

    def upscale_one(
        self,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
        path: str | None = None,
        strokes: str = "",
        weight: float = 0,
        model: str = "",
        *values: Any,
    ) -> list[Any]:
        """Upscale an image; return the comparison, the description and the download. ``values`` follow ``OFFERED``."""
        if not path:
            raise gr.Error("Choose an image first.", title="No image", print_exception=False)

        def work(job: Job) -> Any:
            return upscale_one(self.service, Path(path), model, options_of(values), job, Brush(strokes, weight))

        found, pair = self._run(request, "one", work, progress)
        compared = gr.update(value=tuple(map(str, pair)), visible=True)
        download = gr.update(value=str(found.path), visible=True)
        return [gr.update(**_HIDDEN), compared, describe_result(found), download]

    def upscale_batch(
        self,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
        paths: list[str] | None = None,
        model: str = "",
        *values: Any,
    ) -> list[Any]:
        """Upscale several images; return the table of results and the zip file."""
        if not paths:
            raise gr.Error("Choose some images first.", title="No images", print_exception=False)

        def work(job: Job) -> Any:
            sources = [Path(path) for path in paths]
            check_batch(sources, self.limits.batch_limit)
            return upscale_batch(self.service, sources, model, options_of(values), job)

        return _batch_updates(self._run(request, "batch", work, progress))

    def stop_one(self, request: gr.Request) -> str:
        """Stop the image at work; answer once its current tile is done."""
        self._stop(request, "one")
        return _STOPPED

    def stop_batch(self, request: gr.Request) -> list[Any]:
        """Stop the batch; return what is finished of it."""
        job = self._stop(request, "batch")
        return _batch_updates(job.result) if job and job.result else [_STOPPED, gr.update(**_HIDDEN)]

    def leave(self, request: gr.Request) -> None:
        """Delete what a visitor made, after the tab was closed or its connection was lost."""
        for job in self.store.owned(str(request.session_hash)):
            self.store.forget(job)

    def _run(self, request: gr.Request, kind: str, work: Callable[[Job], Any], progress: Any) -> Any:
        """Run a job and return its result; a visitor's earlier job of the same kind is forgotten."""
        try:
            job = self.store.admit((str(request.session_hash), kind))
            self.store.start(job, work)
        except ServiceError as error:
            raise _gradio_error(error) from None
        while not job.finished.done():
            progress(job.progress, desc=printable(job.label))
            time.sleep(_POLL_SECONDS)
        if job.error is not None and job.result is None:
            raise _gradio_error(job.error)
        return job.result

    def _stop(self, request: gr.Request, kind: str) -> Job | None:
        """Cancel a job and wait for its end; return None if none was at work."""
        for job in self.store.owned(str(request.session_hash), kind):
            if self.store.cancel(job):
                job.finished.result()
                return job
        return None


def _batch_updates(batch: Any) -> list[Any]:
    return [describe_batch(batch), gr.update(value=batch.zip and str(batch.zip), visible=batch.zip is not None)]


def _gradio_error(error: ServiceError) -> gr.Error:
    if error.code == "cancelled":
        return gr.Error("Stopped.", title="Stopped", duration=3, print_exception=False)
    return gr.Error(escape(error.message), title="That did not work", print_exception=False)
