"""The layout of the page."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import gradio as gr

from fluxsr.imaging.formats import READABLE
from fluxsr.options import SIZES, Option, UpscaleOptions, declared
from fluxsr.serving.jobs import JobStore
from fluxsr.serving.limits import WebLimits
from fluxsr.serving.service import UpscaleService
from fluxsr.serving.web_handlers import Handlers
from fluxsr.serving.web_jobs import OFFERED

HERE = Path(__file__).parent
CSS = HERE / "web_page.css"
BRUSH = HERE / "web_brush.html"

# A phone that is not offered HEIC sends JPEG instead.
_EXTRAS = {".heic": "pillow_heif", ".heif": "pillow_heif", ".jxl": "pillow_jxl"}
_ACCEPTED = [end for end in READABLE if end not in _EXTRAS or importlib.util.find_spec(_EXTRAS[end])]

# The page has no public endpoints (the HTTP API has), and one job runs at a time, from whichever tab.
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_WORK: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}

_WEIGHT = "0 keeps the plain enlargement, 1 is full strength."
_STEPS = {"scale": 0.5, "strength": 0.05}
_LABELS = {
    "scale": "Scale",
    "width": "Width",
    "height": "Height",
    "longest": "Longer side",
    "megapixels": "Megapixels",
    "strength": "Strength",
    "color_fix": "Colour fix",
    "wrap": "Seamless texture",
    "first_frame": "Only the first frame or page",
    "format": "Format",
    "strip_metadata": "Leave out EXIF and other metadata",
    "strip_gps": "Leave out the GPS position",
}


def page(service: UpscaleService, store: JobStore, limits: WebLimits) -> gr.Blocks:
    """Return the page with its queue set up."""
    handlers = Handlers(service, store, limits)
    keep_uploads = int(store.keep_seconds) + limits.queue * limits.time_limit  # longer than a visitor can wait
    with gr.Blocks(title="fluxsr", analytics_enabled=False, delete_cache=(300, keep_uploads)) as blocks:
        _text("# fluxsr\nUpscale photographs in one step. The added detail is invented, not recovered.")
        with gr.Tab("One image"):
            _one(service, handlers)
        with gr.Tab("Batch"):
            _batch(service, handlers, limits)
        _text(_small_print(limits), elem_classes="quiet")
        blocks.unload(handlers.leave)
    return blocks.queue(max_size=limits.queue, api_open=False, default_concurrency_limit=1)


def examples() -> list[Path]:
    """Return example images from the wheel or from the checkout."""
    folders = (HERE / "examples", HERE.parents[2] / "examples")
    return next((found for folder in folders if (found := sorted(folder.glob("*_lr.jpg")))), [])


def _one(service: UpscaleService, handlers: Handlers) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            sent = gr.File(label="Drop an image here", file_types=_ACCEPTED, height=150, elem_id="one-file")
            tries = gr.Dataset(
                label="Or try one of these",
                components=[gr.Image(render=False)],
                samples=[[str(path)] for path in examples()],
                visible=bool(examples()),
            )
            widgets = _widgets(service)
            with gr.Accordion("Keep parts of it plain", open=False):
                _text("Paint on your image over faces, text or whatever should not change.")
                gr.Slider(
                    1,
                    40,
                    value=10,
                    step=1,
                    label="Brush width",
                    info="In percent of the image's width.",
                    elem_id="one-width",
                    interactive=True,
                )
                weight = gr.Slider(0, 1, value=0, step=0.05, label="Strength under the paint", info=_WEIGHT)
                strokes = gr.Textbox(visible="hidden", elem_id="one-strokes")
                with gr.Row():
                    more = gr.Button("Paint more", size="sm", min_width=80)
                    gr.Button("Clear", size="sm", min_width=80, elem_id="one-clear")  # web_brush.html listens
            start, stop = _buttons("one")
        with gr.Column(scale=2, min_width=300, elem_classes="stays"):
            before = gr.Image(
                label="Your image", interactive=False, buttons=[], height="min(480px, 75vw)", elem_id="one-before"
            )
            slider = gr.ImageSlider(
                label="Before | after",
                type="filepath",
                buttons=["fullscreen"],
                max_height=640,
                visible=False,
                elem_id="one-slider",
            )
            report = _text("", min_height=64, elem_id="one-report")
            load = gr.DownloadButton("Download", variant="primary", visible=False, elem_id="one-load")

    shown = [before, slider, report, load]
    gr.on([sent.change, more.click], handlers.preview, sent, shown, concurrency_id="preview", **_QUIET)
    tries.click(lambda sample: sample[0], tries, sent, **_QUIET)
    working = start.click(
        handlers.upscale_one,
        [sent, strokes, weight, *widgets],
        shown,
        show_progress_on=report,
        scroll_to_output=True,
        **_WORK,
    )
    stop.click(handlers.stop_one, None, report, cancels=[working], queue=False, **_QUIET)


def _batch(service: UpscaleService, handlers: Handlers, limits: WebLimits) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            sent = gr.File(
                label=f"Drop up to {limits.batch_limit} images here",
                file_types=_ACCEPTED,
                file_count="multiple",
                height=220,
                elem_id="batch-files",
            )
            widgets = _widgets(service)
            start, stop = _buttons("batch")
        with gr.Column(scale=2, min_width=300):
            report = _text("<p>The results are listed here.</p>", min_height=120, elem_id="batch-report")
            load = gr.DownloadButton("Download all (zip)", variant="primary", visible=False, elem_id="batch-load")

    working = start.click(
        handlers.upscale_batch,
        [sent, *widgets],
        [report, load],
        show_progress_on=report,
        scroll_to_output=True,
        **_WORK,
    )
    stop.click(handlers.stop_batch, None, [report, load], cancels=[working], queue=False, **_QUIET)


def _widgets(service: UpscaleService) -> list[Any]:
    """Return the widgets for the model and for ``OFFERED``, in their order."""
    names, options = list(service.pipelines), declared(UpscaleOptions)
    own = {name: pipeline.adapter_config.strength for name, pipeline in service.pipelines.items()}
    model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
    widgets = {"scale": widget(options["scale"], UpscaleOptions().scale)}
    with gr.Accordion("A size instead of the scale", open=False):
        _text("Fill in one of these. The aspect ratio is kept.")
        with gr.Row():
            widgets |= {name: widget(options[name]) for name in SIZES[1:]}
    widgets["strength"] = widget(options["strength"], own[names[0]])
    with gr.Accordion("More", open=False):
        widgets |= {name: widget(options[name]) for name in OFFERED if name not in widgets}
    model.change(own.get, model, widgets["strength"], **_QUIET)
    return [model, *(widgets[name] for name in OFFERED)]


def widget(option: Option, value: float | None = None) -> Any:
    """Return the widget of an option, with its range, choices and help; the value defaults to the option's."""
    named: dict[str, Any] = {"label": _LABELS[option.name], "info": option.help}
    value = option.default if value is None else value
    if option.type is bool:
        return gr.Checkbox(value, **named)
    if option.choices and option.optional:
        choices = [("as the input", ""), *((choice.upper(), choice) for choice in option.choices)]
        return gr.Dropdown(choices, value="", filterable=False, **named)
    if option.choices:
        return gr.Radio(list(option.choices), value=value, **named)
    if option.name not in _STEPS:
        return gr.Number(label=_LABELS[option.name], precision=0 if option.type is int else None, min_width=130)
    return gr.Slider(option.minimum, option.maximum, value=value, step=_STEPS[option.name], **named)


def _buttons(name: str) -> tuple[gr.Button, gr.Button]:
    with gr.Row():
        start = gr.Button("Upscale", variant="primary", min_width=120, scale=2, elem_id=f"{name}-start")
        stop = gr.Button("Stop", variant="stop", min_width=80, scale=1, elem_id=f"{name}-stop")
    return start, stop


def _text(text: str, **options: Any) -> gr.Markdown:
    """Return Markdown that the browser cleans. gr.HTML would run scripts; formulas are off, as names may hold a $."""
    return gr.Markdown(text, latex_delimiters=[], **options)


def _small_print(limits: WebLimits) -> str:
    return (
        f"Images may have up to {limits.max_pixels / 1e6:g} million pixels and {limits.max_upload} MB, results up to "
        f"{limits.max_output_pixels / 1e6:g} million pixels. An image or a batch may take {limits.time_limit} seconds. "
        "This server sends nothing on. Your images and results are deleted soon after you leave."
    )
