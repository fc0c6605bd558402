"""Errors as clients see them: a code, one line and an HTTP status, never a traceback or a path of the server."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from fluxsr.errors import FluxSRError, ModelError, OutputError, TooLargeError, is_out_of_memory, lost_accelerator
from fluxsr.names import printable
from fluxsr.processing.runner import NO_ROOM

log = logging.getLogger("fluxsr.serving")

ERROR_CODES: dict[str, tuple[int, str]] = {
    "malformed": (400, "the body is not valid JSON: Expecting value at character 0"),
    "unauthorized": (401, "send the API key as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"),
    "not_found": (404, "there is no such job; results are kept for 600 s"),
    "method_not_allowed": (405, "Method Not Allowed"),
    "upload_too_slow": (408, "the body did not arrive within 60 s"),
    "not_finished": (409, "the job is running; ask again"),
    "cancelled": (410, "the job was cancelled"),
    "body_too_large": (413, "the image is larger than 67108864 bytes"),
    "too_many_pixels": (413, "the image has 9000x9000 pixels; the limit is 25000000"),
    "unsupported_body": (
        415,
        "the body is text/plain; send multipart/form-data, application/json or an image of type image/*",
    ),
    "invalid_option": (422, "scale is 9; choose a number from 1 to 8"),
    "unusable_input": (422, "the image is not an image that can be read, whatever its name"),
    "busy": (429, "the server already has 36 jobs; try again in 3 s"),
    "storage_full": (429, "the results that wait to be fetched fill the disk; try again in 60 s"),
    "internal": (500, "something went wrong in the server; its log has the details"),
    "model": (500, "the model gave values that are not finite; try --dtype fp32"),
    "shutting_down": (503, "the server is shutting down; try again"),
    "out_of_memory": (503, "out of memory; try a smaller image or scale"),
    "accelerator_lost": (503, "the server's accelerator failed; the server stops and must be started again"),
    "no_room": (507, "the server cannot write: No space left on device"),
}
"""HTTP status and example message of every code that a client can receive."""

_RETRY_AFTER = {"shutting_down": "5", "out_of_memory": "10", "accelerator_lost": "30"}
_FOLDERS = re.compile(r"(?<!\S)(?:[A-Za-z]:)?[\\/](?:[^\\/\s]+[\\/])*")  # the folders of an absolute path


class ServiceError(Exception):
    """Error that a client or visitor sees.

    Args:
        code: key of ``ERROR_CODES``.
        message: one line that says what was found and what to do. Defaults to the example of the code.
        headers: further headers of the HTTP answer.
    """

    def __init__(self, code: str, message: str = "", headers: dict[str, str] | None = None) -> None:
        self.code, self.message = code, printable(message or ERROR_CODES[code][1])
        super().__init__(self.message)
        retry = {"Retry-After": _RETRY_AFTER[code]} if code in _RETRY_AFTER else {}
        self.headers = {**retry, **(headers or {})}

    @property
    def status(self) -> int:
        """The HTTP status."""
        return ERROR_CODES[self.code][0]

    def body(self) -> dict[str, Any]:
        """Return the value of "error" in the JSON answer."""
        return {"code": self.code, "message": self.message}

    def copy(self) -> ServiceError:
        """Return the error without its traceback, which would keep the images of a failed job in memory."""
        return ServiceError(self.code, self.message, self.headers)


def service_error(error: Exception, folder: Path) -> ServiceError:
    """Return what a client may know of an error. A bug goes to the log with its traceback.

    Args:
        error: the error of a job.
        folder: temporary folder of the job, which messages must not name.
    """
    if isinstance(error, ServiceError):
        return error.copy()
    cause = error.__cause__ if isinstance(error, OutputError) else error
    if isinstance(cause, OSError) and (isinstance(error, OutputError) or cause.errno in NO_ROOM):
        return ServiceError("no_room", f"the server cannot write: {cause.strerror or type(cause).__name__}")
    if is_out_of_memory(error):
        return ServiceError("out_of_memory")
    text = str(error).replace(str(folder / "image"), "the image").replace(str(folder / "mask"), "the mask")
    text = text.replace(str(folder.parent), "")
    text = _FOLDERS.sub("", (text.splitlines() or [type(error).__name__])[0]).removesuffix(" (--max-pixels)")
    if isinstance(error, FluxSRError) and not isinstance(error, ModelError) and not lost_accelerator(error):
        return ServiceError("too_many_pixels" if isinstance(error, TooLargeError) else "unusable_input", text)
    log.error("a job failed", exc_info=error)
    if lost_accelerator(error):
        return ServiceError("accelerator_lost")
    return ServiceError("model", text) if isinstance(error, ModelError) else ServiceError("internal")
