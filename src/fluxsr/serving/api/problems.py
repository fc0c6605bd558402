"""Errors as clients see them: {"error": {"code", "message"}}, never a trace."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from fluxsr.errors import InputError, ModelError, OutputError, TooLargeError, is_out_of_memory, lost_accelerator
from fluxsr.names import printable
from fluxsr.processing.runner import NO_ROOM

log = logging.getLogger("fluxsr.serve")

PROBLEMS: dict[str, tuple[int, str]] = {
    "malformed": (400, "the body is no JSON object: Expecting value at character 0"),
    "unauthorized": (401, "send the API key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"),
    "not_found": (404, "there is no such job; results are kept for 600 s"),
    "method_not_allowed": (405, "Method Not Allowed"),
    "upload_too_slow": (408, "the body was not there within 60 s"),
    "not_finished": (409, "the job is running; ask again"),
    "cancelled": (410, "the job was cancelled"),
    "body_too_large": (413, "the image is larger than 67108864 bytes"),
    "too_many_pixels": (413, "the image has 9000x9000 pixels; the limit is 25000000"),
    "unsupported_body": (415, "the body is text/plain; send multipart/form-data or application/json"),
    "invalid_option": (422, "scale: Input should be less than or equal to 8"),
    "unusable_input": (422, "the image is not an image that can be read, whatever its name"),
    "busy": (429, "36 jobs are taken on already; try again in 3 s"),
    "storage_full": (429, "results wait to be fetched and fill the disk; try again in 60 s"),
    "internal": (500, "something went wrong in the server"),
    "model": (500, "the model gave values that are not finite; try --dtype fp32"),
    "shutting_down": (503, "the server is shutting down; try again"),
    "out_of_memory": (503, "out of memory; try a smaller image or tile_size"),
    "accelerator_lost": (503, "the server's accelerator failed; the server ends, try again"),
    "no_room": (507, "the server cannot write: No space left on device"),
}
"""Code -> HTTP status and an example of a message; all that a client can meet."""


class Problem(Exception):
    """An answer that is an error.

    Args:
        code: of ``PROBLEMS``.
        message: one line: what was found, what to do.
        headers: of the answer.
    """

    def __init__(self, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.code, self.message = code, printable(message)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def again(self) -> Problem:
        """The same without its trace: one that was raised holds all that was at work then, pictures too."""
        return Problem(self.code, self.message, **self.headers)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return PROBLEMS[self.code][0]

    def body(self) -> dict[str, Any]:
        """What stands under "error"."""
        return {"code": self.code, "message": self.message}


def shutting_down() -> Problem:
    """What clients are told whose work another server, or this one started again, will do."""
    return Problem("shutting_down", "the server is shutting down; try again", Retry_After="5")


def accelerator_lost() -> Problem:
    """What clients are told once the accelerator has failed: a server that is started again will do the work."""
    return Problem("accelerator_lost", PROBLEMS["accelerator_lost"][1], Retry_After="30")


def problem_of(error: Exception, folder: Path) -> Problem:
    """What went wrong in a job; no path of the server is in it. Bugs go into the log with their trace.

    Args:
        error: as it was raised.
        folder: the job's, whose files messages may name.
    """
    if isinstance(error, Problem):
        return error.again()
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    text = text.replace(str(folder / "image"), "the image")
    for result in folder.glob("result*"):
        text = text.replace(str(result), "the result")
    text = text.replace(str(folder) + os.sep, "").removesuffix(" (--max-pixels)")
    if isinstance(error, TooLargeError):
        return Problem("too_many_pixels", text)
    cause = error.__cause__ if isinstance(error, OutputError) else error
    if isinstance(cause, OSError) and (cause.errno in NO_ROOM or isinstance(error, OutputError)):
        return Problem("no_room", f"the server cannot write: {cause.strerror or type(cause).__name__}")
    if isinstance(error, (InputError, OutputError)):
        return Problem("unusable_input", text)
    if is_out_of_memory(error):
        return Problem("out_of_memory", "out of memory; try a smaller image or tile_size", Retry_After="10")
    log.error("a job failed", exc_info=error)
    if lost_accelerator(error):
        return accelerator_lost()
    return Problem("model", text) if isinstance(error, ModelError) else Problem("internal", PROBLEMS["internal"][1])


def described(*codes: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's responses of a route, with an example for every code."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, message = PROBLEMS[code]
        entry = found.setdefault(
            status,
            {
                "description": "",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}, "examples": {}}},
            },
        )
        entry["description"] = f"{entry['description']}, {code}".removeprefix(", ")
        example = {"error": {"code": code, "message": message}}
        entry["content"]["application/json"]["examples"][code] = {"value": example}
        if status in (429, 503):
            entry["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    return found
