"""What of OpenAPI FastAPI cannot see: bodies that are read as they come, pictures, examples."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from fluxsr.options import UpscaleOptions
from fluxsr.serving.api.jobs import State
from fluxsr.serving.api.options import OFFERED
from fluxsr.serving.api.problems import PROBLEMS

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAFklEQVR42mNkqPvPQApgYhjVMKph2GoAAFUTAZ1L8HQnAAAAAElFTkSuQmCC"
"""A picture of 16x16 pixels in base64, for the examples."""


class ErrorBody(BaseModel):
    """What went wrong."""

    code: Literal[tuple(PROBLEMS)] = Field(description="For programs; one of a fixed list.")  # type: ignore[valid-type]
    message: str = Field(description="For people: what was found, what to do.")


class Error(BaseModel):
    """Every answer that is no success."""

    error: ErrorBody


class JobView(BaseModel):
    """A job."""

    id: str
    status: State
    progress: float = Field(ge=0, le=1, description="Share of its tiles that are done.")
    result: str | None = Field(description="Where the picture is, once it is done.")
    notes: list[str] = Field(description="What of the photograph the result could not hold.")
    error: ErrorBody | None = Field(description="Of a job that failed or was cancelled.")
    expires_in: float | None = Field(description="Seconds until a job that has ended is forgotten.")


_DONE = {
    "id": "q3Jd0aXw6mJ8b1kYc2ZrVQ",
    "status": "done",
    "progress": 1.0,
    "result": "/v1/jobs/q3Jd0aXw6mJ8b1kYc2ZrVQ/result",
    "notes": [],
    "error": None,
    "expires_in": 600.0,
}
_QUEUED = {**_DONE, "status": "queued", "progress": 0.0, "result": None, "expires_in": None}

JOB: dict[str, Any] = {
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/JobView"},
            "examples": {"queued": {"value": _QUEUED}, "done": {"value": _DONE}},
        }
    }
}
LOCATION = {"Location": {"description": "Of the job", "schema": {"type": "string"}}}
IMAGE: dict[str, Any] = {
    "description": "The picture",
    "headers": {
        "X-FluxSR-Notes": {"description": "What the result could not hold, if anything", "schema": {"type": "string"}}
    },
    "content": {
        f"image/{kind}": {"schema": {"type": "string", "format": "binary"}}
        for kind in ("png", "jpeg", "webp", "tiff", "avif", "bmp")
    },
}

_SCHEMA: dict[str, dict[str, Any]] = UpscaleOptions.model_json_schema()["properties"]
_OPTIONS = {name: _SCHEMA[name] for name in OFFERED}


def _of_form(option: dict[str, Any]) -> dict[str, Any]:
    """A form has no null: what is not asked for is left out."""
    rest = {name: value for name, value in option.items() if name not in ("anyOf", "default")}
    return {**option["anyOf"][0], **rest} if "anyOf" in option else option


def _body(image: dict[str, Any], options: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["image"],
        "properties": {"image": image, **options},
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
                {"type": "string", "format": "byte", "minLength": 4, "description": "The image file in base64."},
                _OPTIONS,
            ),
            "example": {"image": PIXEL, "scale": 2, "strength": 0.5, "format": "png"},
        },
    },
}
"""Of ``POST /v1/upscale``."""
