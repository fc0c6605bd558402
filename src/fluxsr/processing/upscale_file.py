"""Upscale a plan: the pipeline is loaded once, then ``runner`` takes file after file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image
from rich.console import Console
from torch import Tensor

from fluxsr.backbones.device import best_device, best_dtype, free_bytes
from fluxsr.backbones.identity import contents_of
from fluxsr.imaging import io
from fluxsr.imaging.atomic import check_writable
from fluxsr.imaging.bands import STREAMABLE
from fluxsr.imaging.decode import MAX_PIXELS
from fluxsr.imaging.picture import Delivery, Picture
from fluxsr.imaging.settings import Settings, Step
from fluxsr.names import printable
from fluxsr.processing.inputs import Job, Plan
from fluxsr.processing.reporting import Report, Words
from fluxsr.processing.runner import Share, Stages, Write, run_jobs

if TYPE_CHECKING:
    from fluxsr.pipeline import FluxSRPipeline

WHOLE = 32_000_000  # pixels of a result above which it is not held in one piece
ROWS = 512  # of a result, converted at once for its file
_RESULT = ("scale", "strength", "tile_size", "tile_overlap", "color_fix", "quality", "lossless", "profile", "strip")
"""Options that decide on the result by themselves; model, adapter and number format do by what they lead to."""
WORDS = Words("upscale", "upscaled", memory="free some, or try --memory 8gb")


@dataclass(frozen=True)
class Options:
    """What to upscale with; the meanings are those of ``FluxSRPipeline``, ``Delivery`` and ``decode``."""

    model: str = "bundled"
    config: str | None = None
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    memory: str = "auto"
    compile: bool = False
    scale: float = 4
    strength: float | None = None
    tile_size: int | None = None
    tile_overlap: int = 32
    color_fix: str = "wavelet"
    seed: int = 0
    quality: int | None = None
    lossless: bool | None = None
    profile: str = "keep"
    strip: str = "none"
    max_pixels: int = MAX_PIXELS


def run(work: Plan, options: Options, *, overwrite: bool = False, debug: bool = False) -> Report:
    """Upscale all of a plan; every failure is one line on stderr.

    Args:
        work: of ``jobs.plan``.
        options: of the pipeline.
        overwrite: redo outputs that exist.
        debug: raise the first error instead of reporting it.

    Raises:
        ModelError: the model cannot be loaded.
    """
    quieten(options.max_pixels, debug)

    settings = settings_of(options)

    def start(console: Console) -> Stages[Picture]:
        pipeline = load(options)
        console.print(f"model: {describe(pipeline)}")
        console.print(f"plan: {pipeline.plan.line()}")
        return Stages(lambda job: read(job, options), lambda *what: upscale(pipeline, options, *what))

    return run_jobs(work, start, WORDS, settings=settings, overwrite=overwrite, debug=debug)


def quieten(max_pixels: int, debug: bool = False) -> None:
    """Libraries keep their advice, which is for programmers, to themselves, and Pillow its own limit of pixels."""
    if not debug:  # loading.py and decode.py check what they load
        for library in ("diffusers", "tifffile"):
            logging.getLogger(library).setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", module="PIL")  # of what is odd in a file, which reads all the same
        warnings.filterwarnings("ignore", "The `local_dir_use_symlinks`")  # diffusers asks the Hub so
    Image.MAX_IMAGE_PIXELS = max(max_pixels, Image.MAX_IMAGE_PIXELS or 0)  # or Pillow refuses before us


def load(options: Options) -> FluxSRPipeline:
    """The pipeline that the options name.

    Raises:
        InputError, ModelError: as ``fluxsr.load``.
    """
    from fluxsr import single  # takes seconds, in vain where all is finished

    return single.load(
        options.model,
        adapter=options.adapter,
        device=options.device,
        dtype=options.dtype,
        memory=options.memory,
        config_folder=options.config,
        compile=options.compile,
    )


def settings_of(options: Options, *, here: bool = True) -> dict[str, Any]:
    """Return everything but the input that decides on an output; where it has changed, an output is made again.

    Args:
        options: of the run.
        here: whether the model runs on this machine, whose number format and quantization are known then.

    Raises:
        InputError, ModelError: the model, the device or the number format cannot be used.
    """
    values = asdict(options)
    numbers = numbers_of(options) if here else [options.dtype, options.memory, str(options.compile)]
    return {
        **{name: values[name] for name in _RESULT},
        "numbers": numbers,
        "contents": contents_of(options.model, options.adapter, options.config),
    }


def numbers_of(options: Options) -> list[str]:
    """Return the number format and the quantization that a run on this machine gets, and whether it is compiled."""
    device = best_device(options.device)
    dtype, quantize = best_dtype(device, options.dtype), "none"
    if free_bytes(device) is not None:  # else memory changes nothing
        from fluxsr.backbones.loading import plan_for  # seconds

        plan = plan_for(
            *(options.model, options.adapter, device, dtype, options.memory), options.config, options.compile
        )
        dtype, quantize = plan.dtype, plan.quantize
    return [str(dtype).removeprefix("torch."), quantize, "compiled" if options.compile else "eager"]


def read(job: Job, options: Options) -> Picture:
    """The input, once it is clear that the output can be written: not after a minute of work."""
    check_writable(job.target)
    return io.read(job.source, options.max_pixels)


def upscale(
    pipeline: FluxSRPipeline,
    options: Options,
    job: Job,
    picture: Picture,
    share: Share,
    *,
    step: Step | None = None,
    whole: int = WHOLE,
) -> Write:
    """Enlarge; gives what writes the file and returns notes on it. Large results are written here, as they come.

    Args:
        pipeline, options: what to enlarge with, and how.
        job: where the result goes.
        picture: the input.
        share: told how much is done; what it raises ends the work.
        step: of ``Settings``.
        whole: pixels of a result above which it is not held in one piece.
    """
    how = Settings(
        scale=options.scale,
        strength=options.strength,
        tile_size=options.tile_size,
        tile_overlap=options.tile_overlap,
        color_fix=options.color_fix,
        progress=lambda done, total: share(done / total),
        step=step,
    )
    delivery = Delivery(options.quality, options.lossless, options.profile, options.strip)

    def written(bands: Iterable[Tensor], size: tuple[int, int]) -> list[str]:
        return [*picture.notes, *io.write_enlarged(picture, bands, size, job.target, delivery)]

    if picture.lr[0, 0].numel() * options.scale**2 > whole and options.color_fix in STREAMABLE:
        size, bands = pipeline.rows(picture.lr, how)
        notes = written(bands, size)
        return lambda: notes
    hr = pipeline.whole(picture.lr, how)  # (1,3,H,W)
    return lambda: written(hr.split(ROWS, dim=-2), (hr.shape[-2], hr.shape[-1]))


def describe(pipeline: FluxSRPipeline) -> str:
    """The model in one line: name, size, device, number format."""
    parameters = sum(p.numel() for p in pipeline.transformer.parameters())
    parameters += sum(p.numel() for p in pipeline.vae.parameters())
    dtype = str(pipeline.transformer.dtype).removeprefix("torch.")
    return f"{printable(pipeline.name)}, {parameters / 1e6:.1f} M parameters, {pipeline.device}, {dtype}"
