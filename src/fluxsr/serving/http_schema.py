"""The parts of the OpenAPI document that FastAPI cannot derive: bodies, images and examples."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fluxsr.names import printable
from fluxsr.options import UpscaleOptions
from fluxsr.serving.errors import ERROR_CODES
from fluxsr.serving.http_body import OFFERED
from fluxsr.serving.jobs import Job, JobStore, State

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFklEQVR42mNkqPvPQApgYhjVMKph2GoAAFUTAZ1L8HQnAAAAAElFTkSuQmCC"
"""An image of 16x16 pixels in base64, for the examples."""

NOTES = "What the result could not hold of the input, and which of its tiles were repaired."


class ErrorBody(BaseModel):
    """What went wrong."""

    code: Literal[tuple(ERROR_CODES)] = Field(description="One of a fixed list, for programs.")  # type: ignore[valid-type]
    message: str = Field(description="What was found and what to do, for people.")


class Error(BaseModel):
    """The body of every answer that reports an error."""

    error: ErrorBody


class JobView(BaseModel):
    """A job."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "q3Jd0aXw6mJ8b1kYc2ZrVQ",
                "status": "done",
                "progress": 1.0,
                "result": "/v1/jobs/q3Jd0aXw6mJ8b1kYc2ZrVQ/result",
                "notes": [],
                "error": None,
                "expires_in": 600.0,
            }
        }
    )

    id: str
    status: State
    progress: float = Field(ge=0, le=1, description="Part of the tiles that is done.")
    result: str | None = Field(description="Path of the image, once the job is done.")
    notes: list[str] = Field(description=NOTES)
    error: ErrorBody | None = Field(description="Why the job failed or was cancelled.")
    expires_in: float | None = Field(description="Seconds until a job that has ended is forgotten.")

    @classmethod
    def of(cls, job: Job, store: JobStore) -> JobView:
        """Return a job as its client sees it."""
        done = job.state == "done"
        return cls(
            id=job.id,
            status=job.state,
            progress=1 if done else round(job.progress, 4),
            result=f"/v1/jobs/{job.id}/result" if done else None,
            notes=[printable(note) for note in job.result.notes] if done else [],
            error=ErrorBody(**job.error.body()) if job.error else None,
            expires_in=store.expires_in(job),
        )


def error_responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of a route, with an example of every code."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, message = ERROR_CODES[code]
        entry = found.setdefault(status, {"description": "", "model": Error, "content": {"application/json": {}}})
        entry["description"] = f"{entry['description']}, {code}".removeprefix(", ")
        examples = entry["content"]["application/json"].setdefault("examples", {})
        examples[code] = {"value": {"error": {"code": code, "message": message}}}
        if status in (429, 503):
            entry["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    return found


LOCATION = {"Location": {"description": "Path of the job", "schema": {"type": "string"}}}
IMAGE: dict[str, Any] = {
    "description": "The image",
    "headers": {"X-FluxSR-Notes": {"description": NOTES, "schema": {"type": "string"}}},
    "content": {
        f"image/{kind}": {"schema": {"type": "string", "format": "binary"}}
        for kind in ("png", "jpeg", "webp", "tiff", "avif", "bmp", "gif")
    },
}

_SCHEMA: dict[str, dict[str, Any]] = UpscaleOptions.model_json_schema()["properties"]
_BASE64 = "The image file in base64, with or without line breaks, or as a data: URL."
_MASK = "A grey image file, sent as the image is: black keeps the plain enlargement, white is full strength."
_OPTIONS = {name: _SCHEMA[name] for name in OFFERED}


def _of_form(option: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an option in a form, which has no null."""
    rest = {name: value for name, value in option.items() if name not in ("anyOf", "default")}
    return {**option["anyOf"][0], **rest} if "anyOf" in option else option


def _body(image: dict[str, Any], options: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["image"],
        "properties": {"image": image, "mask": {**image, "description": _MASK}, **options},
        "additionalProperties": False,
    }


BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": _body(
                {"type": "string", "format": "binary", "description": "The image file."},
                {name: _of_form(option) for name, option in _OPTIONS.items()},
            ),
            "example": {"scale": 4, "format": "png"},
        },
        "application/json": {
            "schema": _body(
                {"type": "string", "format": "byte", "minLength": 4, "description": _BASE64},
                _OPTIONS,
            ),
            "example": {"image": PIXEL, "scale": 2, "strength": 0.5, "format": "png"},
        },
        **{
            kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/*", "application/octet-stream")
        },
    },
}
"""The request body of ``POST /v1/upscale``."""

QUERY: list[dict[str, Any]] = [
    {"name": name, "in": "query", "required": False, "schema": _of_form(option)} for name, option in _OPTIONS.items()
]
"""Its options in the query. Those of a form or of JSON replace them."""
