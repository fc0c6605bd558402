"""The server follows its own OpenAPI document, from which schemathesis makes good and bad requests."""

from __future__ import annotations

import base64
import io
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode

from fluxsr.options import SIZES
from fluxsr.serving.errors import ERROR_CODES

KEY = "correct horse battery staple"


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "teal").save(file, "PNG")
    return file.getvalue()


# a schema cannot say which bytes are an image
schemathesis.openapi.format("byte", st.just(base64.b64encode(picture()).decode()))
schemathesis.openapi.format("binary", st.just(picture()))


@pytest.fixture(scope="session")
def api(server: Any) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_requests_by_the_schema(api: Any, mode: GenerationMode) -> None:
    """Statuses, types and bodies are those of the schema; good requests are accepted and bad ones refused."""
    operations = [result.ok() for result in api.get_all_operations()]
    assert len(operations) == 7
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and operation.path in ("/healthz", "/readyz", "/metrics"):
            continue  # they have no input that could be wrong

        @given(operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=6, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
        )
        def sent(case: Any) -> None:
            if mode is GenerationMode.POSITIVE:
                # a schema cannot say how these depend on each other and on the picture
                for values in (case.body, case.query):
                    for name in ("tile_size", "tile_overlap", *SIZES[1:]) if isinstance(values, dict) else ():
                        values.pop(name, None)
            case.call_and_validate(headers={"Authorization": f"Bearer {KEY}"}, timeout=60)

        sent()


def test_every_route_has_examples_of_success_and_of_every_error(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    assert set(schema["components"]["schemas"]) == {"Error", "ErrorBody", "JobView"}, (
        "FastAPI's own errors are not sent"
    )
    assert "example" in schema["components"]["schemas"]["JobView"]
    codes = set[str]()
    for path, methods in schema["paths"].items():
        for method, route in methods.items():
            assert route["summary"], (method, path)
            for status, answer in route["responses"].items():
                for kind, content in answer.get("content", {}).items():
                    job = content["schema"].get("$ref", "").endswith("/JobView")
                    assert job or kind.startswith("image/") or {"example", "examples"} & set(content), (path, status)
                    codes |= set(content.get("examples", {}))
    assert set(ERROR_CODES) - codes == {"method_not_allowed"}, "no route has it"


def test_the_example_of_a_request_works(client: httpx.Client) -> None:
    schema = client.get("/openapi.json").json()
    body = schema["paths"]["/v1/upscale"]["post"]["requestBody"]["content"]["application/json"]["example"]
    answer = client.post("/v1/upscale", json=body)
    assert answer.status_code == 200 and Image.open(io.BytesIO(answer.content)).size == (32, 32)
