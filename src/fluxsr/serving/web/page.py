"""The page: what stands where."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import gradio as gr

from fluxsr.imaging.formats import READABLE
from fluxsr.options import Option, UpscaleOptions, declared
from fluxsr.serving.web.clicks import Clicks
from fluxsr.serving.web.desk import KEEP, Desk
from fluxsr.serving.web.limits import Limits
from fluxsr.serving.web.work import OFFERED, Studio

HERE = Path(__file__).parent
CSS = HERE / "page.css"

# A phone that is not offered HEIC sends JPEG instead.
_EXTRAS = {".heic": "pillow_heif", ".heif": "pillow_heif", ".jxl": "pillow_jxl"}
TAKEN = [end for end in READABLE if end not in _EXTRAS or importlib.util.find_spec(_EXTRAS[end])]

# Nobody scripts this page (there is an API for that), and one job at a time is let in, from whichever tab.
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_WORK: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}

_STEPS = {"scale": 0.5, "strength": 0.05}
_LABELS = {
    "scale": "Scale",
    "strength": "Strength",
    "color_fix": "Colour fix",
    "format": "Format",
    "strip_metadata": "Leave out EXIF and other metadata",
    "strip_gps": "Leave out the place",
}


def page(studio: Studio, desk: Desk) -> gr.Blocks:
    """The page of a studio, its queue set up."""
    clicks, limits = Clicks(studio, desk), studio.limits
    longest = KEEP + limits.queue * limits.time_limit  # who waits must not lose what they sent
    with gr.Blocks(title="fluxsr", analytics_enabled=False, delete_cache=(300, longest)) as blocks:
        _text("# fluxsr\nPhotographs enlarged in one step. Detail is invented, not recovered.")
        with gr.Tab("One picture"):
            _one(studio, clicks)
        with gr.Tab("Batch"):
            _many(studio, clicks)
        _text(_small_print(limits), elem_classes="quiet")
        blocks.unload(clicks.leave)
    return blocks.queue(max_size=limits.queue, api_open=False, default_concurrency_limit=1)


def examples() -> list[Path]:
    """Pictures to try: of the wheel, or of the checkout that this runs from."""
    folders = (HERE / "examples", HERE.parents[3] / "examples")
    return next((found for folder in folders if (found := sorted(folder.glob("*_lr.jpg")))), [])


def _one(studio: Studio, clicks: Clicks) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            sent = gr.File(label="Drop a picture here", file_types=TAKEN, height=150, elem_id="one-file")
            tries = gr.Dataset(
                label="Or try one of these",
                components=[gr.Image(render=False)],
                samples=[[str(path)] for path in examples()],
                visible=bool(examples()),
            )
            widgets = _widgets(studio)
            start, stop = _buttons("one")
        with gr.Column(scale=2, min_width=300):
            before = gr.Image(
                label="Your picture", interactive=False, buttons=[], height="min(480px, 75vw)", elem_id="one-before"
            )
            slider = gr.ImageSlider(
                label="Before | after",
                type="filepath",
                buttons=["fullscreen"],
                max_height=640,
                visible=False,
                elem_id="one-slider",
            )
            told = _text("", min_height=64, elem_id="one-told")
            load = gr.DownloadButton("Download", variant="primary", visible=False, elem_id="one-load")

    shown = [before, slider, told, load]
    sent.change(clicks.look, sent, shown, concurrency_id="look", **_QUIET)
    tries.click(lambda sample: sample[0], tries, sent, **_QUIET)
    working = start.click(clicks.one, [sent, *widgets], shown, show_progress_on=told, scroll_to_output=True, **_WORK)
    stop.click(clicks.stop_one, None, told, cancels=[working], queue=False, **_QUIET)


def _many(studio: Studio, clicks: Clicks) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            sent = gr.File(
                label=f"Drop up to {studio.limits.batch_limit} pictures here",
                file_types=TAKEN,
                file_count="multiple",
                height=220,
                elem_id="many-files",
            )
            widgets = _widgets(studio)
            start, stop = _buttons("many")
        with gr.Column(scale=2, min_width=300):
            told = _text("<p>What becomes of them is listed here.</p>", min_height=120, elem_id="many-told")
            load = gr.DownloadButton("Download all (zip)", variant="primary", visible=False, elem_id="many-load")

    working = start.click(
        clicks.many, [sent, *widgets], [told, load], show_progress_on=told, scroll_to_output=True, **_WORK
    )
    stop.click(clicks.stop_many, None, [told, load], cancels=[working], queue=False, **_QUIET)


def _widgets(studio: Studio) -> list[Any]:
    """Return the widgets of the model and of ``OFFERED``, in this order."""
    names, options = list(studio.pipelines), declared(UpscaleOptions)
    own = {name: pipeline.adapter_config.strength for name, pipeline in studio.pipelines.items()}
    model = gr.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
    widgets = {"scale": widget(options["scale"]), "strength": widget(options["strength"], own[names[0]])}
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
    return gr.Slider(option.minimum, option.maximum, value=value, step=_STEPS[option.name], **named)


def _buttons(name: str) -> tuple[gr.Button, gr.Button]:
    with gr.Row():
        start = gr.Button("Upscale", variant="primary", min_width=120, scale=2, elem_id=f"{name}-start")
        stop = gr.Button("Stop", variant="stop", min_width=80, scale=1, elem_id=f"{name}-stop")
    return start, stop


def _text(text: str, **options: Any) -> gr.Markdown:
    """Markdown, cleaned by the browser. Not gr.HTML, which evaluates scripts, nor formulas: names may hold a $."""
    return gr.Markdown(text, latex_delimiters=[], **options)


def _small_print(limits: Limits) -> str:
    return (
        f"Pictures up to {limits.max_pixels / 1e6:g} million pixels and {limits.max_upload} MB, results up to "
        f"{limits.max_output_pixels / 1e6:g} million, {limits.time_limit} seconds for a picture or a batch. Nothing is "
        "sent on from this server. What you send, and what is made of it, is deleted soon after you leave."
    )
