"""The student of stage 5: build it from its recipe, and write it, or one of its checkpoints, as a model folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fluxsr import recipe as recipes
from fluxsr.backbones.adapter import AdapterConfig, has_config, load_config
from fluxsr.backbones.device import best_device
from fluxsr.backbones.encoder_lora import add_encoder_lora, encoder_lora, remove_encoder_lora, save_encoder_lora
from fluxsr.backbones.families import family_of
from fluxsr.backbones.licence import Licence, licence_of, pass_on, stated, write_notice
from fluxsr.backbones.loading import Backbone, load_base, save, save_base
from fluxsr.backbones.lora import add_lora, fuse_lora, save_lora
from fluxsr.backbones.places import folder_of
from fluxsr.degradation import load_settings
from fluxsr.errors import InputError, OutputError
from fluxsr.pairs.store import PairStore
from fluxsr.training import average, checkpoint, run_folder
from fluxsr.training.config import DistillConfig
from fluxsr.training.optimizer import trained_parameters
from fluxsr.training.processes import is_main
from fluxsr.training.steps.distill import trained_parts


def build_student(config: DistillConfig, scale: int, device: torch.device) -> Backbone:
    """Load the base and make trainable what the recipe says; most recipes add a LoRA to the transformer."""
    # The frozen parts are stored in bfloat16 on disk, so loading them in bfloat16 changes no value and saves casts.
    dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
    base = load_base(config.base, device, dtype, config.quantize_base, config.prompt_folder)
    if config.start:  # fused in float32, because bfloat16 would round much of a small adapter away
        fuse_lora(base.transformer.float(), config.start)
        if config.rank:  # frozen below a new LoRA, where float32 would only double its memory
            base.transformer.to(dtype)
    base.config = AdapterConfig(
        t_l=config.t_l,
        guidance=config.guidance,
        train_dtype=config.run.precision,
        scale=scale,
        tile_size=config.tile_size,
        strength=config.strength,
        rank=config.rank,
        alpha=config.alpha,
        base=config.name,
        prompt=base.prompt.text,
        licences=[terms.as_dict() for terms in _terms(config, base.transformer)],
    )
    if config.rank:
        torch.manual_seed(config.run.seed)  # for the initial LoRA weights; peft takes no generator
        add_lora(base.transformer, config.rank, config.alpha, config.targets)
    else:
        train_all(base.transformer)
    if config.train_encoder_lora:
        add_encoder_lora(base.vae, config.rank, config.alpha)
        if config.run.decoder_checkpointing and base.vae._supports_gradient_checkpointing:
            base.vae.enable_gradient_checkpointing()
    if config.train_decoder:  # trained weights are float32, and the autoencoder must have one dtype
        base.vae.float().decoder.requires_grad_(True)
    if config.run.gradient_checkpointing:
        base.transformer.enable_gradient_checkpointing()
    return base


def export(base: Backbone, config: DistillConfig, folder: Path) -> None:
    """Write a trained student in bfloat16, with the licences of all its sources.

    A student with a LoRA is written as base and LoRA, or as the LoRA alone (``export: adapter``). A student trained as
    a whole is written as a model.
    """
    _write(base, folder, alone=config.export == "adapter")
    if is_main():
        write_notice(folder, *base.config.licences)
        pass_on(folder, config.base, *filter(None, [config.start]))


def _write(base: Backbone, folder: Path, alone: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if base.config.rank:
        save_lora(base.transformer, folder, write=is_main())
    if is_main() and (pairs := encoder_lora(base.vae)):
        save_encoder_lora(pairs, folder)
    if alone and is_main():
        save(base, folder)
    if alone or not is_main():
        return
    if base.config.rank:
        base.transformer.unload_lora()
    remove_encoder_lora(base.vae)
    base.transformer.to(torch.bfloat16)
    base.vae.to(torch.bfloat16)
    save_base(base, folder)


def train_all(transformer: Any) -> None:
    """Make a transformer trainable in float32, except its modulation layers.

    Modulation depends only on time, guidance and prompt, so at inference it is a constant and is folded away.
    """
    transformer.float().requires_grad_(True)
    family = family_of(transformer)
    for name, part in transformer.named_modules():
        if family.is_modulation(name):
            part.requires_grad_(False)


def _terms(config: DistillConfig, transformer: Any) -> list[Licence]:
    """Return the licences that apply to the student: the base's, its sources', and that of the pairs' teacher.

    The base's licence is recorded under the name that the adapter's config gives to the base.
    """
    own = replace(licence_of(config.base, transformer.config), model=config.name)
    earlier = [terms for source in _sources(config) for terms in load_config(source).licences]
    return stated(own, *earlier, PairStore(config.pairs).manifest().get("licence") if config.pairs else None)


def _sources(config: DistillConfig) -> list[Path]:
    """Return the folders of the models that the student starts from, if they have a config."""
    folders = [folder_of(model) for model in (config.base, config.start) if model]
    return [folder for folder in folders if isinstance(folder, Path) and has_config(folder)]


def export_checkpoint(source: Path, folder: Path, device: str = "auto") -> Path:
    """Write what a run would have written to ``model`` if it had ended at a checkpoint. With EMA, that is the average.

    Args:
        source: a checkpoint, or a run's folder for its best checkpoint (the newest, if none was scored).
        folder: folder to write; it must be new or empty.
        device: device on which the base is loaded.

    Returns:
        The checkpoint.

    Raises:
        InputError: no such checkpoint, or it belongs to another stage.
        OutputError: the folder is not empty.
    """
    path = (source if source.is_dir() else source.parent) / run_folder.RECIPE
    if not source.exists() or not path.is_file():
        raise InputError(f"no checkpoint of a run at {source}; give a step-*.pt file, or the folder of a run")
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder} already exists and is not empty; choose another -o")
    stage = recipes.read(path).get("stage")
    if stage != "distill":
        raise InputError(f"{source} is a checkpoint of stage {stage}; only those of distill become adapters")
    config = recipes.load(DistillConfig, path)
    source = checkpoint.best(source, config.run.best) if source.is_dir() else source
    student = build_student(
        replace(config, quantize_base="none"), load_settings(config.degradation).scale, best_device(device)
    )
    modules = trained_parts(config, student)
    state = checkpoint.load(source)
    checkpoint.restore_modules(source, state, modules)
    average.put(state["average"], [p for group in trained_parameters(modules).values() for p in group])
    export(student, config, folder)
    return source
