"""``fluxsr pairs``: make teacher pairs, check them, look at them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fluxsr.cli.train import OutOption, Overrides, RecipeOption

pairs = typer.Typer(help="Make, check and show teacher pairs; run again to resume.", no_args_is_help=True)

StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of pairs.")]
BaseOption = Annotated[str, typer.Option("--base", help="The teacher, if it lies elsewhere than the manifest says.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, mps or xpu.")]


@pairs.command()
def generate(recipe: RecipeOption, out: OutOption, overrides: Overrides = None) -> None:
    """Pairs as the paper makes them: prompts and noise in, what the teacher paints out."""
    _make("sample", recipe, out, overrides)


@pairs.command()
def invert(recipe: RecipeOption, out: OutOption, overrides: Overrides = None) -> None:
    """Pairs of photographs: the noise from which the teacher would paint each of them."""
    _make("invert", recipe, out, overrides)


def _make(mode: Literal["sample", "invert"], recipe: Path, out: Path, overrides: list[str] | None) -> None:
    from fluxsr import recipe as recipes
    from fluxsr.errors import InputError
    from fluxsr.pairs.config import PairsConfig
    from fluxsr.pairs.make import make_pairs

    config = recipes.load(PairsConfig, recipe, overrides or [], base={"mode": mode})
    if config.mode != mode:
        commands = {"sample": "generate", "invert": "invert"}
        raise InputError(
            f"mode is {config.mode} in the recipe, but this is `fluxsr pairs {commands[mode]}`; "
            f"take `fluxsr pairs {commands[config.mode]}`, or leave mode out"
        )
    make_pairs(config, out)


@pairs.command()
def verify(
    store: StoreArgument,
    sample: Annotated[int, typer.Option(min=0, help="Pairs to sample again from their noise; 0 loads no teacher.")] = 4,
    base: BaseOption = "",
    device: DeviceOption = "auto",
) -> None:
    """Check files, hashes, shapes and values, and that eps still leads to z_0. Exit code 1 for any fault."""
    from fluxsr.pairs import verify as verification
    from fluxsr.pairs.store import PairStore

    there, count = PairStore(store), 0
    for fault in verification.faults(there):
        typer.echo(f"error: {fault}", err=True)
        count += 1
    manifest = there.manifest()
    if not count and sample:
        found, results = verification.reintegrate(there, sample, base, device)
        for pair, error in results:
            typer.echo(f"{pair.name}: eps leads to z_0 within {error:.2%} of its size")
        for fault in found:
            typer.echo(f"error: {fault}", err=True)
        count += len(found)
    licence = (manifest.get("licence") or {}).get("name") or "not stated"
    typer.echo(f"{manifest['count']} pairs, mode {manifest['mode']}, teacher's licence: {licence}; {count} faults")
    raise typer.Exit(1 if count else 0)


@pairs.command()
def show(
    store: StoreArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture to write.")] = Path("contact_sheet.png"),
    count: Annotated[int, typer.Option(min=1, help="Pairs to show, spread over the store.")] = 8,
    base: BaseOption = "",
    device: DeviceOption = "auto",
) -> None:
    """Save a contact sheet: clean latents decoded, each over its noise."""
    from fluxsr.backbones.device import best_device
    from fluxsr.backbones.loading import load_autoencoder
    from fluxsr.pairs.show import contact_sheet
    from fluxsr.pairs.store import PairStore

    there = PairStore(store)
    vae = load_autoencoder(base or there.manifest()["base"], best_device(device))
    contact_sheet(there, vae, output, count)
    typer.echo(f"{output}")
