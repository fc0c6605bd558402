"""Upscale files: load the pipeline once, then run all jobs of a plan."""

from __future__ import annotations

import logging
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from PIL import Image
from rich.console import Console

from fluxsr.backbones.device import DTYPES, best_device, best_dtype, free_bytes
from fluxsr.backbones.identity import contents_of
from fluxsr.errors import TooLargeError
from fluxsr.extensions.guard import repair_notes
from fluxsr.imaging import frames, io
from fluxsr.imaging.atomic import check_writable
from fluxsr.imaging.formats import format_of
from fluxsr.imaging.mask import masked
from fluxsr.imaging.picture import Picture
from fluxsr.imaging.settings import Settings, Step
from fluxsr.imaging.tiling.bands import STREAMABLE
from fluxsr.names import printable
from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing.inputs import Job, Plan
from fluxsr.processing.reporting import CommandLabels, Report
from fluxsr.processing.runner import ProgressCallback, Stages, run_jobs
from fluxsr.version import __version__

if TYPE_CHECKING:
    from fluxsr.pipeline import FluxSRPipeline

WHOLE = 32_000_000  # pixels of the largest result that is held in memory as a whole
ROWS = 512  # rows of a result that are converted at once
LABELS = CommandLabels("upscale", "upscaled", memory="free some, or try --memory 8gb")


def run(
    work: Plan,
    model: ModelOptions,
    options: UpscaleOptions,
    *,
    overwrite: bool = False,
    debug: bool = False,
    listener: Callable[[dict[str, Any]], None] | None = None,
) -> Report:
    """Upscale all images of a plan; see ``run_jobs``.

    Raises:
        ModelError: the model cannot be loaded.
    """
    quieten(options.max_pixels, debug)

    def start(console: Console) -> Stages[Picture]:
        pipeline = load(model)
        console.print(f"model: {describe(pipeline)}")
        console.print(f"plan: {pipeline.plan.line()}")
        return Stages(lambda job: read(job, options), lambda *what: upscale(pipeline, options, *what))

    return run_jobs(
        *(work, start, LABELS),
        settings=settings_of(model, options),
        overwrite=overwrite,
        debug=debug,
        listener=listener,
    )


def quieten(max_pixels: int, debug: bool = False) -> None:
    """Silence the advice of libraries, which is for programmers, and raise Pillow's limit of pixels to ours."""
    if not debug:  # loading.py and decode.py check what they load
        for library in ("diffusers", "tifffile"):
            logging.getLogger(library).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module="PIL")  # about oddities in a file that it reads nevertheless
        warnings.filterwarnings("ignore", "The `local_dir_use_symlinks`")  # diffusers passes this argument
    Image.MAX_IMAGE_PIXELS = max(max_pixels, Image.MAX_IMAGE_PIXELS or 0)  # otherwise Pillow refuses first


def load(model: ModelOptions) -> FluxSRPipeline:
    """Load the pipeline that the options name; errors are those of ``fluxsr.load``."""
    from fluxsr import single  # imported here because it takes seconds, even if nothing is to do

    return single.load(
        model.model,
        adapter=model.adapter,
        device=model.device,
        dtype=model.dtype,
        memory=model.memory,
        config_folder=model.config,
        compile=model.compile,
        vae=model.vae,
    )


def settings_of(model: ModelOptions, options: UpscaleOptions, *, here: bool = True) -> dict[str, Any]:
    """Return everything besides the input that changes an output. If it changes, the output is made again.

    Args:
        model: options of the model; they count by their effect, the model's files and its number format.
        options: options of the images; those marked in ``fluxsr.options`` count.
        here: whether the model runs on this machine, so that its number format and quantization are known.

    Raises:
        InputError, ModelError: the model, the device or the number format cannot be used.
    """
    return {
        **options.result_settings(),
        "numbers": numbers_of(model, options.tile_size) if here else [model.dtype, model.memory, str(model.compile)],
        "contents": contents_of(model.model, model.adapter, model.config, model.vae),
    }


def with_dtype(model: ModelOptions) -> ModelOptions:
    """Return the options with the number format that "auto" stands for on this machine."""
    chosen = best_dtype(best_device(model.device), model.dtype)
    return model.model_copy(update={"dtype": next(name for name, dtype in DTYPES.items() if dtype == chosen)})


def numbers_of(model: ModelOptions, tile_size: int | None = None) -> list[str]:
    """Return number format, quantization and compilation on this machine, and the plan's tiles without a tile size."""
    device = best_device(model.device)
    dtype, quantize, tiles = best_dtype(device, model.dtype), "none", list[str]()
    if free_bytes(device) is not None:  # otherwise memory has no effect
        from fluxsr.backbones.loading import plan_for  # takes seconds

        plan = plan_for(
            *(model.model, model.adapter, device, dtype, model.memory, model.config, model.compile, model.vae)
        )
        dtype, quantize = plan.dtype, plan.quantize
        tiles = [] if tile_size else [f"tiles of {plan.tile_size}"]
    return [str(dtype).removeprefix("torch."), quantize, "compiled" if model.compile else "eager", *tiles]


def read(job: Job, options: UpscaleOptions) -> Picture:
    """Read an input and its mask, after checking that its output can be written."""
    check_writable(job.target)
    return masked(io.read(job.source, options.max_pixels), job.mask, options.max_pixels)


def upscale(
    pipeline: FluxSRPipeline,
    options: UpscaleOptions,
    job: Job,
    picture: Picture,
    progress: ProgressCallback,
    *,
    step: Step | None = None,
    whole: int = WHOLE,
    most: float = math.inf,
) -> Callable[[], list[str]]:
    """Upscale one file and return the function that writes it.

    A large result is written at once, in bands, and so are several frames or pages, one after the other.

    Args:
        pipeline, options, job: the model, how the file is upscaled and written, the output.
        picture: the input, or the first of its frames or pages.
        progress: progress callback; an error that it raises ends the work.
        step: see ``Settings``.
        whole: largest result in pixels that is held in memory as a whole.
        most: pixels of all frames or pages of a result together.

    Raises:
        TooLargeError: the frames or pages have more pixels than ``most``.
    """
    form, repairs, found = format_of(job.target), Counter[tuple[str, str]](), dict[str, None]()
    total = frames.count(picture, form, options)

    def results() -> Iterator[io.Enlarged]:
        pixels = 0
        for number, one in enumerate(frames.of(picture, form, options)):
            pixels += math.prod(options.size_of(*one.lr.shape[-2:]))
            if pixels > most:
                raise TooLargeError(f"{job.name}: its first {number + 1} results exceed the limit of {most} pixels")

            def advance(done: int, tiles: int, number: int = number) -> None:
                progress((number + done / tiles) / total, f"frame {number + 1} of {total}" if total > 1 else "")

            how = Settings(options, progress=advance, step=step, mask=one.mask, repairs=repairs)
            found.update(dict.fromkeys(one.notes))
            yield _enlarged(pipeline, one, how, whole)

    def written(results: Iterable[io.Enlarged]) -> list[str]:
        notes = io.write_frames(results, job.target, options)
        return [*found, *repair_notes(repairs), *notes]  # last, because rows may be made while written

    if total > 1 or _is_large(picture, options, whole):
        notes = written(results())
        return lambda: notes
    upscaled = list(results())
    return lambda: written(upscaled)


def _enlarged(pipeline: FluxSRPipeline, picture: Picture, how: Settings, whole: int) -> io.Enlarged:
    """Return the result for one picture, whose rows are freed once they are written."""
    if _is_large(picture, how.options, whole):
        size, bands = pipeline.upscale_streaming(picture.lr, how)
    else:
        hr = pipeline.upscale_tensor(picture.lr, how)  # (1,3,H,W)
        size, bands = (hr.shape[-2], hr.shape[-1]), iter(hr.split(ROWS, dim=-2))
    return io.Enlarged(picture, bands, size, provenance_of(pipeline, how.options, size[1] / picture.lr.shape[-1]))


def _is_large(picture: Picture, options: UpscaleOptions, whole: int) -> bool:
    """Return whether a result is made and written from top to bottom, because it is too large to be held."""
    large = math.prod(options.size_of(*picture.lr.shape[-2:])) > whole
    return large and options.color_fix in STREAMABLE and not options.wrap


def provenance_of(pipeline: FluxSRPipeline, options: UpscaleOptions, scale: float) -> dict[str, str]:
    """Return what an output states about how it was made. There is no time, so that outputs stay reproducible."""
    model, adapter = map(printable, pipeline.sources)
    strength = pipeline.adapter_config.strength if options.strength is None else options.strength
    return {
        "Model": model,
        "Adapter": adapter,
        "Scale": f"{scale:.3g}",
        "Strength": f"{strength:g}",
        "Version": __version__,
    }


def describe(pipeline: FluxSRPipeline) -> str:
    """Return name, size, device and number format of the model in one line."""
    parameters = sum(p.numel() for p in pipeline.transformer.parameters())
    parameters += sum(p.numel() for p in pipeline.vae.parameters())
    dtype = str(pipeline.transformer.dtype).removeprefix("torch.")
    return f"{printable(pipeline.name)}, {parameters / 1e6:.1f} M parameters, {pipeline.device}, {dtype}"
