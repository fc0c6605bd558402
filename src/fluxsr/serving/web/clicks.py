"""What a click does: from what gradio hands over to ``work``, and back into updates of the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from fluxsr.names import printable
from fluxsr.serving.web.desk import Desk, Stopped
from fluxsr.serving.web.report import of_batch, of_one, of_picture
from fluxsr.serving.web.work import Batch, Studio, line_of

GLANCE = (1600, 1600)  # pixels of a picture that was just chosen
HIDDEN = {"visible": False}
STOPPED = "<p>Stopped.</p>"


class Clicks:
    """Handlers; gradio finds the request and the progress bar by the annotation and the default."""

    def __init__(self, studio: Studio, desk: Desk) -> None:
        self.studio, self.desk = studio, desk

    def look(self, path: str | None) -> list[Any]:
        """A picture was chosen, or taken away: the picture, no comparison, what it is, no download."""
        shown, text = None, ""
        try:
            if path:
                picture = self.studio.look(Path(path))
                shown, text = picture.image, of_picture(picture)
                shown.thumbnail(GLANCE)
        except Exception as error:  # not a gr.Error, which would leave the last picture where it is
            gr.Warning(escape(line_of(error, Path(path or ""))), title="This picture cannot be used")
        return [gr.update(value=shown, visible=True), gr.update(value=None, **HIDDEN), text, gr.update(**HIDDEN)]

    def one(
        self,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
        path: str | None = None,
        model: str = "",
        *values: Any,
    ) -> list[Any]:
        """Upscale: no picture but the comparison, what was made, its download. ``values`` are those of ``OFFERED``."""
        if not path:
            raise gr.Error("Choose a picture first.", title="No picture", print_exception=False)
        with _friendly(Path(path)), self.desk.job(str(request.session_hash), "one") as job:
            made, pair = self.studio.one(Path(path), model, self.studio.options_of(values), job, _told(progress))
            compared = gr.update(value=tuple(map(str, pair)), visible=True)
            return [gr.update(**HIDDEN), compared, of_one(made), gr.update(value=str(made.path), visible=True)]

    def many(
        self,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
        paths: list[str] | None = None,
        model: str = "",
        *values: Any,
    ) -> list[Any]:
        """Upscale all: what became of them, and the zip."""
        if not paths:
            raise gr.Error("Choose some pictures first.", title="No pictures", print_exception=False)
        sources = [Path(path) for path in paths]
        with _friendly(sources[0]), self.desk.job(str(request.session_hash), "many") as job:
            job.result = self.studio.many(sources, model, self.studio.options_of(values), job, _told(progress))
            return _answer(job.result)

    def stop_one(self, request: gr.Request) -> str:
        """Stop the picture; answers once the tile at work is done."""
        self.desk.stop(str(request.session_hash), "one")
        return STOPPED

    def stop_many(self, request: gr.Request) -> list[Any]:
        """Stop the batch; what is made of it is there all the same."""
        job = self.desk.stop(str(request.session_hash), "many")
        return _answer(job.result) if job and job.result else [STOPPED, gr.update(**HIDDEN)]

    def leave(self, request: gr.Request) -> None:
        """The tab was closed, or its connection is lost."""
        self.desk.leave(str(request.session_hash))


def _answer(found: Batch) -> list[Any]:
    return [of_batch(found), gr.update(value=found.zip and str(found.zip), visible=found.zip is not None)]


def _told(progress: Any) -> Any:
    return lambda part, name: progress(part, desc=printable(name))


@contextmanager
def _friendly(source: Path) -> Iterator[None]:
    """Whatever goes wrong is one line on the page; the trace of a bug goes to the log."""
    try:
        yield
    except Stopped as error:
        raise gr.Error("Stopped.", title="Stopped", duration=3, print_exception=False) from error
    except Exception as error:
        raise gr.Error(escape(line_of(error, source)), title="That did not work", print_exception=False) from error
