"""``fluxsr export``: save a model with its adapter merged, folded and quantized."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import typer

from fluxsr.cli.arguments import Adapter, Config, Debug, Device, Model, Vae
from fluxsr.cli.cli_errors import report_errors
from fluxsr.cli.replaced_folder import replaced_folder
from fluxsr.errors import ModelError, OutputError
from fluxsr.options import Dtype

# The files that an export writes. With --fuse, --overwrite does not delete a LoRA: it may be the only copy.
_EXPORTED = ["model_index.json", "fluxsr_config.json", "prompt_embeds.safetensors", "NOTICE", "LICENSE*"]
_EXPORTED += [f"{part}/*.{end}" for part in ("transformer", "vae", "prompt") for end in ("json", "safetensors")]
_UNFUSED = ["pytorch_lora_weights.safetensors", "adapter_model.safetensors", "adapter_config.json"]
_UNFUSED += ["vae_encoder_lora.safetensors"]


def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write, for use with --model.")],
    model: Model = "bundled",
    config: Config = None,
    adapter: Adapter = None,
    vae: Vae = None,
    fuse: Annotated[bool, typer.Option(help="Merge the adapter into the weights, or keep it in its own file.")] = True,
    fold: Annotated[bool, typer.Option(help="Replace the modulation layers by constants.")] = True,
    dtype: Annotated[Dtype, typer.Option(help="Number format of weights that are not quantized.")] = "bf16",
    quantize: Annotated[
        Literal["none", "int8", "fp8", "nf4"],
        typer.Option(help="Quantize the transformer to 8 bits (torchao) or 4 bits (bitsandbytes, needs a GPU)."),
    ] = "none",
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    debug: Debug = False,
) -> None:
    """Load, fuse, fold, quantize and save a model. The result is smaller."""
    if not debug:  # advice for programmers
        logging.getLogger("diffusers").setLevel(logging.ERROR)
    with report_errors(debug):
        _check_replaceable(output, overwrite, [*_EXPORTED, *([] if fuse else _UNFUSED)])
        from fluxsr.backbones.device import best_device, best_dtype
        from fluxsr.backbones.licence import licence_of, pass_on, stated, write_notice
        from fluxsr.backbones.loading import adapter_folder, load, source_of
        from fluxsr.backbones.lora import check_lora, lora_file, read_lora
        from fluxsr.backbones.parts import parameter_count, part_config, skeleton
        from fluxsr.backbones.places import ENCODER_FILE, PEFT_FILES, public_name
        from fluxsr.backbones.single_file import is_gguf
        from fluxsr.pipeline import FluxSRPipeline

        place, file = source_of(model, config)
        source = part_config(place, "transformer")
        if source.get("quantization_config") or (file and is_gguf(file)):
            raise ModelError(f"the transformer of {model} is already quantized; export the model it was made from")
        target = best_device(device)
        number, count = best_dtype(target, dtype), parameter_count(skeleton(source))
        name = {"torch.bfloat16": "bf16", "torch.float16": "fp16", "torch.float32": "fp32"}[str(number)]
        typer.echo(f"before: {count:,} parameters, {count * number.itemsize / 1e9:.3f} GB in {name}")

        parts = load(model, adapter, target, number, fold, fuse, quantize, config_folder=config, vae=vae)
        adapted = adapter_folder(place, file, adapter)
        lora = None if fuse else lora_file(adapted)
        if lora:
            check_lora(parts.transformer, read_lora(lora)[0], lora)
        own = replace(licence_of(place, parts.transformer.config), model=public_name(model))
        terms = [entry.as_dict() for entry in stated(own, *parts.config.licences)]
        parts.config = replace(parts.config, licences=terms)
        with replaced_folder(output) as folder:
            FluxSRPipeline.of(parts).save_pretrained(folder)
            for name in (lora.name, PEFT_FILES[1], ENCODER_FILE) if lora else ():
                if (adapted / name).is_file():
                    shutil.copy(adapted / name, folder)
            write_notice(folder, *terms)
            pass_on(folder, str(place), adapted)
        size = sum(file.stat().st_size for file in (output / "transformer").glob("*.safetensors"))
        count = parameter_count(skeleton(part_config(str(output), "transformer")))
        typer.echo(f"after: {count:,} parameters, {size / 1e9:.3f} GB of weights in {output}")


def _check_replaceable(output: Path, overwrite: bool, patterns: list[str]) -> None:
    """Check before the work that the output folder is free, or holds an earlier export and nothing else."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise OutputError(f"{output} exists already; choose another -o, or --overwrite")
    if not (output / "model_index.json").is_file():
        raise OutputError(f"{output} is not an exported model, so --overwrite does not replace it; choose another -o")
    names = sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if not path.is_dir())
    if others := [name for name in names if not any(fnmatchcase(name, pattern) for pattern in patterns)]:
        raise OutputError(f"{output} holds {others[0]}, which no export wrote; move it away, or choose another -o")
