"""``fluxsr export``: a model made once what every run would make of it, smaller and without its adapter's file."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluxsr.cli.arguments import Adapter, Config, Debug, Device, Model
from fluxsr.cli.cli_errors import report_errors
from fluxsr.errors import ModelError, OutputError
from fluxsr.options import Dtype

if TYPE_CHECKING:
    import torch


# What an export writes. One that merges the adapter leaves a LoRA alone: it may be the only copy.
_EXPORTED: tuple[str, ...] = (
    "model_index.json",
    "fluxsr_config.json",
    "prompt_embeds.safetensors",
    "NOTICE",
    "LICENSE*",
)
_EXPORTED += tuple(f"{part}/*.{end}" for part in ("transformer", "vae", "prompt") for end in ("json", "safetensors"))
_UNFUSED = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors", "adapter_config.json")


class Quantize(str, Enum):
    none = "none"
    int8 = "int8"
    fp8 = "fp8"
    nf4 = "nf4"


def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make; --model takes it afterwards.")],
    model: Model = "bundled",
    config: Config = None,
    adapter: Adapter = None,
    fuse: Annotated[bool, typer.Option(help="Merge the adapter's LoRA, or copy its file beside the weights.")] = True,
    fold: Annotated[bool, typer.Option(help="Replace the modulation by its constants.")] = True,
    dtype: Annotated[Dtype, typer.Option(help="Number format of the weights that are not quantized.")] = "bf16",
    quantize: Annotated[
        Quantize, typer.Option(help="Weights of the transformer in 8 bits (torchao) or 4 (bitsandbytes, GPU).")
    ] = Quantize.none,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an export that is there.")] = False,
    debug: Debug = False,
) -> None:
    """Load, fuse, fold, quantize and save a model, in that order: smaller, and ready sooner."""
    if not debug:  # their advice is for programmers
        logging.getLogger("diffusers").setLevel(logging.ERROR)
    with report_errors(debug):
        for line in exported(output, model, config, adapter, fuse, fold, dtype, quantize.value, device, overwrite):
            typer.echo(line)


def exported(
    output: Path,
    model: str,
    config: str | None,
    adapter: str | None,
    fuse: bool,
    fold: bool,
    dtype: str,
    quantize: str,
    device: str,
    overwrite: bool,
) -> Iterator[str]:
    """Do it; gives lines on the transformer before and after.

    Raises:
        ModelError: a model or adapter that cannot be used, or cannot be exported so.
        InputError: a device or quantization that cannot be had here.
        OutputError: a folder that is there, or cannot be written.
    """
    _check_free(output, overwrite, fuse)
    from fluxsr.backbones.device import best_device, best_dtype
    from fluxsr.backbones.licence import licence_of, pass_on, public_name, stated, write_notice
    from fluxsr.backbones.loading import adapter_folder, load, source_of
    from fluxsr.backbones.lora import check_lora, lora_file, read_lora
    from fluxsr.backbones.parts import parameter_count, part_config, skeleton
    from fluxsr.backbones.places import PEFT_FILES
    from fluxsr.backbones.single_file import is_gguf
    from fluxsr.pipeline import FluxSRPipeline

    place, file = source_of(model, config)
    source = part_config(place, "transformer")
    if source.get("quantization_config") or (file and is_gguf(file)):
        raise ModelError(f"the transformer of {model} is quantized already; export what it was made from")
    target = best_device(device)
    number, count = best_dtype(target, dtype), parameter_count(skeleton(source))
    yield f"before: {count:,} parameters, {count * number.itemsize / 1e9:.3f} GB in {_name(number)}"

    parts = load(model, adapter, target, number, folded=fold, fused=fuse, quantize=quantize, config_folder=config)
    adapted = adapter_folder(place, file, adapter)
    lora = None if fuse else lora_file(adapted)
    if lora:
        check_lora(parts.transformer, read_lora(lora)[0], lora)
    own = replace(licence_of(place, parts.transformer.config), model=public_name(model))
    terms = [entry.as_dict() for entry in stated(own, *parts.config.licences)]
    parts.config = replace(parts.config, licences=terms)
    with _replaced(output) as folder:
        FluxSRPipeline.of(parts).save_pretrained(folder)
        if lora:
            for name in (lora.name, PEFT_FILES[1]):
                if (adapted / name).is_file():
                    shutil.copy(adapted / name, folder)
        write_notice(folder, *terms)
        pass_on(folder, str(place), adapted)
    size = sum(file.stat().st_size for file in (output / "transformer").glob("*.safetensors"))
    count = parameter_count(skeleton(part_config(str(output), "transformer")))
    yield f"after: {count:,} parameters, {size / 1e9:.3f} GB of weights in {output}"


def _name(number: torch.dtype) -> str:
    return {"torch.bfloat16": "bf16", "torch.float16": "fp16", "torch.float32": "fp32"}[str(number)]


def _check_free(output: Path, overwrite: bool, fuse: bool) -> None:
    """Before any work is done: nothing is at the place, or an earlier export that may go, and nothing else with it."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise OutputError(f"{output} is there already; choose another -o, or --overwrite")
    if not (output / "model_index.json").is_file():  # a folder of other things, named by mistake
        raise OutputError(f"{output} is no exported model, so --overwrite leaves it; choose another -o")
    patterns = (*_EXPORTED, *(() if fuse else _UNFUSED))
    names = sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if not path.is_dir())
    if others := [name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns)]:
        raise OutputError(f"{output} holds {others[0]}, which is of no export; move it away, or choose another -o")


@contextmanager
def _replaced(output: Path) -> Iterator[Path]:
    """A folder beside the output that takes its place once all is written, and goes if anything fails.

    An earlier export goes with it; ``_check_free`` has looked that it is nothing else.
    """
    partial, old = (output.with_name(f".{output.name}.{word}-{os.getpid()}") for word in ("partial", "old"))
    try:
        partial.mkdir(parents=True)
        yield partial
        if output.exists():
            os.replace(output, old)
        os.replace(partial, output)
    except OSError as error:
        raise OutputError(f"cannot write {output}: {error}") from error
    finally:
        if old.exists() and not output.exists():  # the second rename failed
            os.replace(old, output)
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
