"""Upscale a plan: the pipeline is loaded once, then ``runner`` takes file after file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from PIL import Image
from rich.console import Console
from torch import Tensor

from fluxsr.backbones.device import DTYPES, best_device, best_dtype, free_bytes
from fluxsr.backbones.identity import contents_of
from fluxsr.imaging import io
from fluxsr.imaging.atomic import check_writable
from fluxsr.imaging.picture import OutputOptions, Picture
from fluxsr.imaging.settings import Settings, Step
from fluxsr.imaging.tiling.bands import STREAMABLE
from fluxsr.names import printable
from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing.inputs import Job, Plan
from fluxsr.processing.reporting import CommandLabels, Report
from fluxsr.processing.runner import ProgressCallback, Stages, Write, run_jobs

if TYPE_CHECKING:
    from fluxsr.pipeline import FluxSRPipeline

WHOLE = 32_000_000  # pixels of a result above which it is not held in one piece
ROWS = 512  # of a result, converted at once for its file
LABELS = CommandLabels("upscale", "upscaled", memory="free some, or try --memory 8gb")


def run(
    work: Plan, model: ModelOptions, options: UpscaleOptions, *, overwrite: bool = False, debug: bool = False
) -> Report:
    """Upscale all of a plan; every failure is one line on stderr.

    Args:
        work: of ``processing.inputs.plan``.
        model: which model is loaded, and how.
        options: how each image is upscaled and written.
        overwrite: redo outputs that exist.
        debug: raise the first error instead of reporting it.

    Raises:
        ModelError: the model cannot be loaded.
    """
    quieten(options.max_pixels, debug)

    settings = settings_of(model, options)

    def start(console: Console) -> Stages[Picture]:
        pipeline = load(model)
        console.print(f"model: {describe(pipeline)}")
        console.print(f"plan: {pipeline.plan.line()}")
        return Stages(lambda job: read(job, options), lambda *what: upscale(pipeline, options, *what))

    return run_jobs(work, start, LABELS, settings=settings, overwrite=overwrite, debug=debug)


def quieten(max_pixels: int, debug: bool = False) -> None:
    """Libraries keep their advice, which is for programmers, to themselves, and Pillow its own limit of pixels."""
    if not debug:  # loading.py and decode.py check what they load
        for library in ("diffusers", "tifffile"):
            logging.getLogger(library).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module="PIL")  # of what is odd in a file, which reads all the same
        warnings.filterwarnings("ignore", "The `local_dir_use_symlinks`")  # diffusers asks the Hub so
    Image.MAX_IMAGE_PIXELS = max(max_pixels, Image.MAX_IMAGE_PIXELS or 0)  # or Pillow refuses before us


def load(model: ModelOptions) -> FluxSRPipeline:
    """Load the pipeline that the options name.

    Raises:
        InputError, ModelError: as ``fluxsr.load``.
    """
    from fluxsr import single  # takes seconds, in vain where all is finished

    return single.load(
        model.model,
        adapter=model.adapter,
        device=model.device,
        dtype=model.dtype,
        memory=model.memory,
        config_folder=model.config,
        compile=model.compile,
    )


def settings_of(model: ModelOptions, options: UpscaleOptions, *, here: bool = True) -> dict[str, Any]:
    """Return everything but the input that decides on an output; where it has changed, an output is made again.

    Args:
        model: options of the model. They count by what they lead to: its files and its number format.
        options: options of the images. Those that are marked in ``fluxsr.options`` count.
        here: whether the model runs on this machine, whose number format and quantization are known then.

    Raises:
        InputError, ModelError: the model, the device or the number format cannot be used.
    """
    return {
        **options.result_settings(),
        "numbers": numbers_of(model, options.tile_size) if here else [model.dtype, model.memory, str(model.compile)],
        "contents": contents_of(model.model, model.adapter, model.config),
    }


def with_dtype(model: ModelOptions) -> ModelOptions:
    """Return the options with the number format that "auto" stands for on this machine."""
    chosen = best_dtype(best_device(model.device), model.dtype)
    return model.model_copy(update={"dtype": next(name for name, dtype in DTYPES.items() if dtype == chosen)})


def numbers_of(model: ModelOptions, tile_size: int | None = None) -> list[str]:
    """Return what this machine makes of the options: number format, quantization, compilation and the plan's tiles.

    Args:
        model: options of the model.
        tile_size: tile size that was asked for; None takes the plan's, which is then part of the result.
    """
    device = best_device(model.device)
    dtype, quantize, tiles = best_dtype(device, model.dtype), "none", list[str]()
    if free_bytes(device) is not None:  # else memory changes nothing
        from fluxsr.backbones.loading import plan_for  # seconds

        plan = plan_for(model.model, model.adapter, device, dtype, model.memory, model.config, model.compile)
        dtype, quantize = plan.dtype, plan.quantize
        tiles = [] if tile_size else [f"tiles of {plan.tile_size}"]
    return [str(dtype).removeprefix("torch."), quantize, "compiled" if model.compile else "eager", *tiles]


def read(job: Job, options: UpscaleOptions) -> Picture:
    """Read an input, after checking that its output can be written."""
    check_writable(job.target)
    return io.read(job.source, options.max_pixels)


def upscale(
    pipeline: FluxSRPipeline,
    options: UpscaleOptions,
    job: Job,
    picture: Picture,
    progress: ProgressCallback,
    *,
    step: Step | None = None,
    whole: int = WHOLE,
) -> Write:
    """Upscale one picture and return the function that writes it. A large result is written here, as it comes.

    Args:
        pipeline: model to upscale with.
        options: how the picture is upscaled and written.
        job: where the result goes.
        picture: the input.
        progress: called as the work goes on; an error that it raises ends the work.
        step: see ``Settings``.
        whole: largest result in pixels that is held in memory in one piece.
    """
    how = Settings(options, progress=lambda done, total: progress(done / total), step=step)
    output = OutputOptions(options.quality, options.lossless, options.profile, options.strip)

    def written(bands: Iterable[Tensor], size: tuple[int, int]) -> list[str]:
        return [*picture.notes, *io.write_enlarged(picture, bands, size, job.target, output)]

    if picture.lr[0, 0].numel() * options.scale**2 > whole and options.color_fix in STREAMABLE:
        size, bands = pipeline.upscale_streaming(picture.lr, how)
        notes = written(bands, size)
        return lambda: notes
    hr = pipeline.upscale_tensor(picture.lr, how)  # (1,3,H,W)
    return lambda: written(hr.split(ROWS, dim=-2), (hr.shape[-2], hr.shape[-1]))


def describe(pipeline: FluxSRPipeline) -> str:
    """The model in one line: name, size, device, number format."""
    parameters = sum(p.numel() for p in pipeline.transformer.parameters())
    parameters += sum(p.numel() for p in pipeline.vae.parameters())
    dtype = str(pipeline.transformer.dtype).removeprefix("torch.")
    return f"{printable(pipeline.name)}, {parameters / 1e6:.1f} M parameters, {pipeline.device}, {dtype}"
