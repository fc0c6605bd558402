"""Upscaling over HTTP, against a real server."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from fluxsr.imaging import io as files
from fluxsr.imaging.formats import result_ending
from fluxsr.imaging.resize import bicubic
from fluxsr.options import REPAIRED, ModelOptions, UpscaleOptions
from fluxsr.processing import upscale_file
from fluxsr.processing.inputs import Job
from fluxsr.serving.errors import ServiceError
from fluxsr.serving.http_routes import JobResultResponse
from fluxsr.serving.http_schema import JobView
from fluxsr.serving.jobs import Job as StoredJob
from fluxsr.serving.jobs import JobStore
from fluxsr.serving.service import UpscaledFile, UpscaleService

SLOW = {"scale": "8", "tile_size": "64", "tile_overlap": "32"}  # thousands of tiles for an image of 200x200


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def posted(client: httpx.Client, image: bytes, wait: bool = True, **fields: Any) -> httpx.Response:
    return client.post(
        "/v1/upscale", params={} if wait else {"wait": "false"}, files={"image": ("a", image)}, data=fields
    )


def test_a_mask_is_a_second_file_and_a_size_replaces_the_scale(client: httpx.Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # 16x32 as displayed
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8))
    image, mask = io.BytesIO(), io.BytesIO()
    noise.save(image, "JPEG", quality=95, exif=exif)
    Image.new("L", (16, 32)).save(mask, "PNG")
    fields = {"width": 100, "format": "png"}
    form = client.post("/v1/upscale", files={"image": image.getvalue(), "mask": mask.getvalue()}, data=fields)
    encoded = {"image": base64.b64encode(image.getvalue()).decode(), "mask": base64.b64encode(mask.getvalue()).decode()}
    json = client.post("/v1/upscale", json={**fields, **encoded})
    upright = files.to_tensor(ImageOps.exif_transpose(Image.open(image)))
    plain = np.asarray(files.to_pil(bicubic(upright, (200, 100))))
    assert np.array_equal(pixels(form.content), plain) and np.array_equal(pixels(json.content), plain)
    bad = client.post("/v1/upscale", files={"image": image.getvalue(), "mask": b"x"})
    assert bad.json()["error"]["message"] == "the mask is not an image that can be read, whatever its name"
    size = posted(client, image.getvalue(), width=200).json()["error"]
    assert size["code"] == "unusable_input" and "enlarge 16x32 pixels" in size["message"]


def finished(client: httpx.Client, place: str, until: Callable[..., Any]) -> dict[str, Any]:
    until(lambda: client.get(place).json()["status"] not in ("queued", "running"))
    return dict(client.get(place).json())


@cache  # its profile holds the second in which it was made
def photograph() -> bytes:
    """Return a JPEG with EXIF, a colour profile and a resolution."""
    exif = Image.Exif()
    exif[0x010E] = "a garden"
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0)}
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(noise).save(file, "JPEG", quality=95, exif=exif, icc_profile=profile, dpi=(300, 300))
    return file.getvalue()


def test_a_photograph_comes_back_as_the_command_line_makes_it(
    client: httpx.Client, model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(photograph())
    model, options = (
        ModelOptions(model=str(model_folder), device="cpu", dtype="fp32"),
        UpscaleOptions(scale=3, guard=False),
    )
    picture, pipeline = files.read(tmp_path / "a.jpg"), upscale_file.load(model)
    for name in ("b.jpg", "b.png"):
        upscale_file.upscale(pipeline, options, Job(picture.path, tmp_path / name), picture, lambda *_: None)()
    answer = posted(client, photograph(), scale=3, guard="false")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg"
    got, expected = Image.open(io.BytesIO(answer.content)), Image.open(tmp_path / "b.jpg")
    assert got.size == (96, 72) and got.info["dpi"] == expected.info["dpi"]
    assert got.info["icc_profile"] == expected.info["icc_profile"]
    assert got.getexif() == expected.getexif() and got.getexif().get_ifd(0x8825)[1] == "N"
    exact = posted(client, photograph(), scale=3, guard="false", format="png").content
    assert np.abs(pixels(exact) - pixels((tmp_path / "b.png").read_bytes())).max() <= 1


def test_metadata_can_be_left_out(client: httpx.Client) -> None:
    without = Image.open(io.BytesIO(posted(client, photograph(), strip_gps="true").content))
    assert without.getexif()[0x010E] == "a garden" and not without.getexif().get_ifd(0x8825)
    bare = posted(client, photograph(), strip_metadata="true").content
    assert not Image.open(io.BytesIO(bare)).getexif() and b"compositeWithTrainedAlgorithmicMedia" in bare
    assert b"fluxsr" not in posted(client, photograph(), strip_metadata="true", provenance="false").content


def test_repaired_tiles_are_told(client: httpx.Client) -> None:
    white = io.BytesIO()
    Image.new("RGB", (20, 16), "white").save(white, "PNG")  # which an untrained model makes grey
    notes = f"{REPAIRED}: 1 shifted in colour, replaced by the plain enlargement"
    assert posted(client, white.getvalue()).headers["x-fluxsr-notes"] == notes
    assert "x-fluxsr-notes" not in posted(client, white.getvalue(), guard="false").headers


def test_json_and_a_form_give_the_same_result(client: httpx.Client, picture: Callable[..., bytes]) -> None:
    image = base64.b64encode(picture()).decode()
    by_json = client.post("/v1/upscale", json={"image": image, "scale": 2, "strength": 0.5, "format": "webp"})
    by_form = posted(client, picture(), scale=2, strength=0.5, format="webp")
    assert by_json.status_code == 200 and by_json.headers["content-type"] == "image/webp"
    assert np.abs(pixels(by_json.content) - pixels(by_form.content)).max() <= 2


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (base64.encodebytes(photograph()).decode(), 200),
        ("data:image/jpeg;base64," + base64.b64encode(photograph()).decode(), 200),
        ("data:image/svg+xml,%3Csvg%3E", 422),
    ],
    ids=["wrapped", "data", "plain"],
)
def test_base64_may_be_wrapped_or_a_data_url(client: httpx.Client, image: str, code: int) -> None:
    answer = client.post("/v1/upscale", json={"image": image, "scale": 1})
    assert answer.status_code == code, answer.text
    assert code != 200 or answer.content == posted(client, photograph(), scale=1).content


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream"])
def test_the_body_may_be_the_image_itself(client: httpx.Client, kind: str) -> None:
    headers = {"Content-Type": kind, "Content-Disposition": 'attachment; filename="a garden.jpg"'}
    options = {"scale": "2", "format": "png", "wrap": "true"}
    answer = client.post("/v1/upscale", params=options, content=photograph(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.content == posted(client, photograph(), **options).content
    assert answer.headers["content-disposition"] == "inline; filename*=utf-8''a%20garden_x2.png"
    assert client.post("/v1/upscale?scale=9", content=photograph(), headers=headers).status_code == 422
    assert client.post("/v1/upscale?scale=2&scale=3", content=photograph(), headers=headers).status_code == 400


def test_options_of_the_body_replace_those_of_the_query(client: httpx.Client) -> None:
    sent: tuple[dict[str, Any], ...] = (
        {"files": {"image": photograph()}, "data": {"scale": "1"}},
        {"json": {"image": base64.b64encode(photograph()).decode(), "scale": 1}},
        {"files": {"image": photograph()}, "data": {"width": "32"}},
    )
    for body, query in itertools.product(sent, ("scale=3&format=png", "longest=64&format=png", "format=png")):
        answer = client.post(f"/v1/upscale?{query}", **body)
        assert Image.open(io.BytesIO(answer.content)).size == (32, 24)
        assert answer.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("photo.jpg", 'filename="photo_x1.jpg"'),
        (r"C:\pictures\..\a.b.jpeg", 'filename="a.b_x1.jpg"'),
        ("../../etc/passwd", 'filename="passwd_x1.jpg"'),
        ("Hände.jpg", "filename*=utf-8''H%C3%A4nde_x1.jpg"),
        ("x" * 400, f'filename="{"x" * 150}_x1.jpg"'),
    ],
)
def test_the_result_is_named_after_the_image(client: httpx.Client, name: str, result: str) -> None:
    answer = client.post("/v1/upscale", files={"image": (name, photograph())}, data={"scale": "1"})
    assert answer.headers["content-disposition"] == f"inline; {result}"


def test_what_the_format_cannot_hold_is_noted(client: httpx.Client) -> None:
    file = io.BytesIO()
    Image.new("RGBA", (16, 16), (9, 9, 9, 99)).save(file, "PNG")
    assert "transparency is laid over white" in posted(client, file.getvalue(), format="jpg").headers["x-fluxsr-notes"]


@pytest.mark.parametrize("how", [{"params": {"wait": "false"}}, {"headers": {"Prefer": "respond-async"}}])
def test_a_job_can_be_followed_until_it_is_done(
    client: httpx.Client, picture: Callable[..., bytes], until: Callable[..., Any], how: dict[str, Any]
) -> None:
    answer = client.post("/v1/upscale", files={"image": picture()}, data={"scale": "2"}, **how)
    assert answer.status_code == 202 and answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    state = finished(client, answer.headers["location"], until)
    assert (state["status"], state["progress"], state["error"]) == ("done", 1, None) and state["expires_in"] > 0
    for _ in range(2):  # it can be fetched again
        result = client.get(state["result"], headers={"Range": "bytes=5-9"})
        assert result.status_code == 200 and Image.open(io.BytesIO(result.content)).size == (40, 32)
    assert client.delete(answer.headers["location"]).status_code == 204
    assert client.get(answer.headers["location"]).status_code == 404


def test_a_large_result_becomes_a_job_that_reports_its_progress(
    client: httpx.Client, picture: Callable[..., bytes], until: Callable[..., Any], metric: Callable[..., float]
) -> None:
    answer = posted(client, picture(240, 240), **SLOW)
    place = answer.headers["location"]
    assert answer.status_code == 202 and "preference-applied" not in answer.headers
    seen = until(lambda: client.get(place).json()["progress"])
    assert until(lambda: client.get(place).json()["progress"] > seen) and seen < 1
    early = client.get(f"{place}/result")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "not_finished")
    assert client.delete(place).status_code == 204
    assert client.get(place).json()["status"] == "cancelled"
    assert client.get(f"{place}/result").status_code == 410
    until(lambda: metric(client, 'fluxsr_jobs_worked_total{state="cancelled"}') >= 1)


def test_an_image_that_cannot_be_read_is_explained(
    client: httpx.Client, picture: Callable[..., bytes], until: Callable[..., Any]
) -> None:
    for image, words in ((b"not an image", "not an image that can be read"), (picture()[:-40], "damaged or cut off")):
        answer = posted(client, image)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "unusable_input")
        assert answer.json()["error"]["message"].startswith("the image is " + words[:6])
        assert words in answer.json()["error"]["message"] and "/" not in answer.json()["error"]["message"]
    place = posted(client, b"not an image", wait=False).headers["location"]
    state = finished(client, place, until)
    assert state["status"] == "failed" and state["error"]["code"] == "unusable_input" and state["result"] is None
    assert client.get(f"{place}/result").json() == {"error": state["error"]}


def test_too_much_work_is_refused_and_later_accepted(
    client: httpx.Client, picture: Callable[..., bytes], until: Callable[..., Any], metric: Callable[..., float]
) -> None:
    """Four places: two at work, two in the queue."""
    until(lambda: metric(client, 'fluxsr_jobs{state="running"}') == 0)
    taken = [posted(client, picture(200, 200), wait=False, **SLOW) for _ in range(4)]
    assert [answer.status_code for answer in taken] == [202] * 4
    assert metric(client, "fluxsr_queue_depth") == 2
    refused = posted(client, picture(250, 250))  # 190 kB that the server does not read
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
    assert int(refused.headers["retry-after"]) >= 1
    for answer in taken:
        client.delete(answer.headers["location"])
    assert until(lambda: posted(client, picture()).status_code == 200)


def test_tiles_of_two_requests_share_a_batch_without_changing_results(
    client: httpx.Client, picture: Callable[..., bytes], metric: Callable[..., float]
) -> None:
    images = [picture(60, 60, seed=seed) for seed in range(2)]
    options = {"scale": 4, "tile_size": 64, "tile_overlap": 16, "format": "png"}
    alone = [posted(client, image, **options) for image in images]
    before = metric(client, "fluxsr_shared_batches_total")
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda image: posted(client, image, **options), images))
    assert metric(client, "fluxsr_shared_batches_total") > before
    for one, other in zip(alone, both, strict=True):
        assert np.abs(pixels(one.content) - pixels(other.content)).max() <= 1


def test_metrics_count_what_happened(
    client: httpx.Client, picture: Callable[..., bytes], metric: Callable[..., float]
) -> None:
    ok = 'fluxsr_requests_total{method="POST",route="/v1/upscale",status="200"}'
    before = {name: metric(client, name) for name in (ok, "fluxsr_tiles_total", "fluxsr_job_seconds_count")}
    assert posted(client, picture()).status_code == 200
    client.get("/nothing/" + "x" * 50)
    assert {name: metric(client, name) - value for name, value in before.items()} == dict.fromkeys(before, 1)
    client.request("INVENTED", "/v1/upscale")
    text = client.get("/metrics").text
    assert 'method="other"' in text and "INVENTED" not in text
    assert 'route="other"' in text and "xxx" not in text, "clients cannot invent series"
    assert 'fluxsr_batch_tiles_bucket{le="4.0"}' in text and 'fluxsr_jobs{state="done"}' in text


def test_notes_with_any_text_can_be_sent(tmp_path: Path) -> None:
    (tmp_path / "result.png").write_bytes(b"a picture")
    notes = ("its title is 'two\nlines\udce9'", "\x07 caf\u00e9")
    result = UpscaledFile(tmp_path / "result.png", (1, 1), (4, 4), notes, 1)
    job, store = StoredJob("id", tmp_path, state="done", result=result), JobStore(tmp_path)
    header = JobResultResponse(job, store).headers["X-FluxSR-Notes"]
    assert header == "its title is 'two\\nlines\\udce9'; \\x07 caf?"
    assert JobView.of(job, store).model_dump_json().encode()
    store.close()


def test_the_format_is_the_input_s_unless_another_is_asked_for() -> None:
    for asked, found, ending in (
        (None, "JPEG", ".jpg"),
        (None, "GIF", ".png"),
        (None, "HEIF", ".jpg"),
        ("webp", "JPEG", ".webp"),
        (None, "TIFF", ".tif"),
    ):
        assert result_ending(asked, found) == ending


def test_an_animation_comes_back_whole_within_the_limit_for_all_its_frames(
    client: httpx.Client, tmp_path: Path
) -> None:
    frames = [Image.new("RGB", (20, 16), color) for color in ("teal", "olive", "navy")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=40)
    upload = (tmp_path / "a.gif").read_bytes()
    answers = [posted(client, upload, guard="false", **one).content for one in ({}, {"first_frame": "true"})]
    found = [Image.open(io.BytesIO(answer)) for answer in answers]
    assert [(image.format, image.n_frames) for image in found] == [("PNG", 3), ("PNG", 1)]  # type: ignore[attr-defined]
    service = UpscaleService({}, max_pixels=320, max_output_pixels=3 * 80 * 64 - 1)
    arguments = (service.read(tmp_path / "a.gif"), tmp_path / "b.png", UpscaleOptions(), "tiny", lambda *_: None)
    with pytest.raises(ServiceError, match="would have 3 frames of 80x64 pixels; .* choose scale up to 3.9"):
        service.upscale(*arguments)
