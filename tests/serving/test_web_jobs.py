"""What the page makes of images, and what it says about them, without a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxsr.errors import InputError
from fluxsr.imaging import io
from fluxsr.imaging.resize import bicubic
from fluxsr.options import UpscaleOptions
from fluxsr.serving.jobs import Job, JobStore
from fluxsr.serving.service import UpscaledFile, UpscaleService
from fluxsr.serving.web_jobs import OFFERED, Batch, Brush, check_batch, options_of, upscale_batch, upscale_one
from fluxsr.serving.web_report import describe_batch, describe_result

HOSTILE = "<script>$x$ & 'y'.jpg"
ESCAPED = "&lt;script&gt;$x$ &amp; &#x27;y&#x27;.jpg"
RESULT = UpscaledFile(Path(HOSTILE), (16, 24), (64, 96), ("has <b>notes",), 1.23)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(tmp_path / "store", time_limit=300)
    yield store
    store.close()


@pytest.fixture
def run(store: JobStore) -> Callable[..., Any]:
    """Run work in a job and return its result, or raise its error."""

    def run(work: Callable[..., Any], *arguments: Any) -> Any:
        job = store.admit(("visitor", "one"))
        store.start(job, lambda job: work(*arguments, job))
        job.finished.result(60)
        if job.error is not None:
            raise job.error
        return job.result

    return run


def images(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        Image.linear_gradient("L").resize((16, 24)).convert("RGB").save(folder / name)
    return [folder / name for name in names]


def test_before_is_the_bicubic_enlargement_of_the_input(service: UpscaleService, run: Any, tmp_path: Path) -> None:
    (source,) = images(tmp_path, "a.png")
    found, (before, after) = run(upscale_one, service, source, "tiny", UpscaleOptions(scale=4))
    assert found.path.name == "a_x4.png" and (found.before, found.after) == ((16, 24), (64, 96))
    expected = Image.open(source).resize((64, 96), Image.Resampling.BICUBIC).tobytes()
    shown = Image.open(before)
    error = sum(abs(a - b) for a, b in zip(expected, shown.tobytes(), strict=True)) / len(expected)
    assert error < 1 and Image.open(after).size == shown.size  # a JPEG of quality 95


def test_progress_rises_to_the_end(service: UpscaleService, run: Any, tmp_path: Path) -> None:
    seen: list[tuple[float, str]] = []

    class Watched:
        def __init__(self, job: Job) -> None:
            self.folder, self.job = job.folder, job

        def report(self, progress: float, label: str) -> None:
            seen.append((progress, label))

    def work(*arguments: Any) -> Batch:
        return upscale_batch(*arguments[:-1], Watched(arguments[-1]))  # type: ignore[arg-type]

    run(work, service, images(tmp_path, "a.png", "b.png"), "tiny", UpscaleOptions())
    parts = [part for part, _ in seen]
    assert parts == sorted(parts) and parts[0] == 0 and parts[-1] == 1
    assert seen[0][1] == "a.png (1 of 2)" and seen[-1][1] == "b.png (2 of 2)"


def test_results_of_equal_names_get_different_ones(service: UpscaleService, run: Any, tmp_path: Path) -> None:
    sources = images(tmp_path, "1/a.png", "2/A.png", "3/a.png")
    batch = run(upscale_batch, service, sources, "tiny", UpscaleOptions(scale=1, format="webp"))
    assert [found.path.name for _, found in batch.done] == ["a_x1.webp", "A_x1 (2).webp", "a_x1 (3).webp"]


def test_a_batch_keeps_its_results_when_its_time_is_up(
    service: UpscaleService, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*arguments: Any) -> Batch:
        job: Job = arguments[-1]
        report = job.report

        def late(progress: float, label: str) -> None:
            if progress >= 0.5:
                job.time_limit = 0
            report(progress, label)

        monkeypatch.setattr(job, "report", late)
        return upscale_batch(*arguments)

    batch = run(work, service, images(tmp_path, "a.png", "b.png", "c.png"), "tiny", UpscaleOptions(scale=1))
    assert [name for name, _ in batch.done] == ["a.png"] and batch.left == ["b.png", "c.png"]
    assert "time limit of 0 seconds" in batch.reason and batch.zip is not None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": 9}, "scale is 9; choose a number from 1 to 8"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"scale": "4"}, "scale is '4'"),
        ({"strength": -1}, "strength is -1"),
        ({"color_fix": "x"}, "color_fix is 'x'"),
        ({"format": "/../x.png"}, "format is '/../x.png'"),
        ({"strip_gps": "x"}, "strip_gps is 'x'"),
    ],
)
def test_options_are_checked_without_the_page(values: dict[str, Any], message: str) -> None:
    """A request can be made without the page, whose widgets keep to the ranges."""
    offered = {name: getattr(UpscaleOptions(), name) for name in OFFERED}
    with pytest.raises(InputError, match=message):
        options_of(list((offered | values).values()))


def test_another_size_replaces_the_scale_and_names_the_result(
    service: UpscaleService, run: Any, tmp_path: Path
) -> None:
    options = options_of([4, 0, None, 50, 0, None, "wavelet", False, True, "", False, False])
    assert options == UpscaleOptions(longest=50, first_frame=True)
    found, _ = run(upscale_one, service, *images(tmp_path, "a.png"), "tiny", options)
    assert (found.path.name, found.after) == ("a_longest50.png", (33, 50))


def test_what_is_painted_stays_plain(service: UpscaleService, run: Any, tmp_path: Path) -> None:
    (source,) = images(tmp_path, "a.png")
    everywhere = Brush("[[0.5, 0, 0, 1, 0], [0.5, 0, 0.3, 1, 0.3], [0.5, 0, 0.6, 1, 0.6], [0.5, 0, 0.9, 1, 0.9]]")
    found, _ = run(lambda *job: upscale_one(*job, everywhere), service, source, "tiny", UpscaleOptions())
    plain = io.to_pil(bicubic(io.read(source).lr, (96, 64)))
    assert Image.open(found.path).tobytes() == plain.tobytes()
    corner = Brush("[[0.5, 0, 0, 0, 0]]", 0.5).mask(io.read(source))
    assert corner is not None and corner[0, 0, 0, 0] == 128 / 255 and corner[0, 0, -1, -1] == 1
    assert Brush().mask(io.read(source)) is None


@pytest.mark.parametrize("strokes", ["{", "[1]", '[["x", 1, 2]]', "[[0.1, 1]]", "[[]]", "[[1, 2, 3]" * 40_000])
def test_strokes_that_the_page_did_not_make_are_refused(strokes: str, tmp_path: Path) -> None:
    (source,) = images(tmp_path, "a.png")
    with pytest.raises(InputError, match="the strokes of the brush cannot be read"):
        Brush(strokes).mask(io.read(source))


def test_untouched_widgets_give_the_defaults() -> None:
    assert options_of([4, 0, None, 0, 0, None, "wavelet", False, False, "", False, False]) == UpscaleOptions()


@pytest.mark.parametrize("work", [upscale_one, upscale_batch])
def test_a_model_that_is_not_offered_is_refused(service: UpscaleService, run: Any, tmp_path: Path, work: Any) -> None:
    (source,) = images(tmp_path, "a.png")
    with pytest.raises(Exception, match="there is no model 'etc'; choose one of tiny, other"):
        run(work, service, source if work is upscale_one else [source], "etc", UpscaleOptions())


def test_too_many_images_are_refused() -> None:
    with pytest.raises(InputError, match="the batch has 4 images; this page takes up to 3"):
        check_batch([Path("a.png")] * 4, 3)


def test_too_large_an_image_is_refused_before_it_is_decoded(service: UpscaleService, run: Any, tmp_path: Path) -> None:
    Image.new("L", (300, 300)).save(tmp_path / "a.png")
    with pytest.raises(Exception, match=r"^a.png is too large: .*90000 pixels, the limit is 40000$"):
        run(upscale_one, service, tmp_path / "a.png", "tiny", UpscaleOptions())


def test_sixteen_bit_is_kept(service: UpscaleService, run: Any, tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((16, 16)).convert("I;16").save(tmp_path / "deep.png")
    found, _ = run(upscale_one, service, tmp_path / "deep.png", "tiny", UpscaleOptions(scale=2))
    assert io.read(found.path).sixteen


def test_names_and_notes_are_escaped() -> None:
    batch = Batch([(HOSTILE, RESULT)], [(HOSTILE, f"{HOSTILE} is <odd>")], [HOSTILE], "stopped")
    for text in (describe_result(RESULT), describe_batch(batch)):
        assert ESCAPED in text and "has &lt;b&gt;notes" in text and "<script>" not in text and "<odd>" not in text


def test_names_that_no_answer_can_hold_are_escaped() -> None:
    name = "caf\udce9\n.jpg"
    found = UpscaledFile(Path(name), (16, 24), (64, 96), ("has \udcff",), 1.23)
    batch = Batch([(name, found)], [(name, "caf\\udce9\\n.jpg: is odd\udcff")], [name], "stopped")
    for text in (describe_result(found), describe_batch(batch)):
        assert text.encode() and "caf\\udce9\\n.jpg" in text
    assert describe_batch(batch).count("caf") == 3


def test_a_batch_is_counted_and_each_row_has_its_name_once() -> None:
    text = describe_batch(Batch([("a.jpg", RESULT)], [("b.jpg", "b.jpg: out of memory")], ["c.jpg"], "stopped"))
    assert "1 done, 1 failed, 1 left" in text and "16 × 24 → 64 × 96, 1.2 s" in text
    assert text.count("b.jpg") == 1 and "out of memory" in text and "stopped" in text
