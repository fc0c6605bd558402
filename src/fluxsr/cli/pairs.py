"""``fluxsr pairs``: make, check and show teacher pairs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from fluxsr.cli.arguments import Device
from fluxsr.cli.train import OutOption, Overrides, RecipeOption

pairs = typer.Typer(
    help="Make, check and show teacher pairs. Run the same command again to resume.", no_args_is_help=True
)

StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="Folder of pairs.")]
BaseOption = Annotated[
    str, typer.Option("--base", help="Teacher model. Defaults to the one in the manifest of the pairs.")
]


@pairs.command()
def generate(recipe: RecipeOption, out: OutOption, overrides: Overrides = None) -> None:
    """Make pairs as in the paper: the teacher turns prompts and noise into images."""
    _make("sample", recipe, out, overrides)


@pairs.command()
def invert(recipe: RecipeOption, out: OutOption, overrides: Overrides = None) -> None:
    """Make pairs from photographs: find the noise that the teacher would turn into each of them."""
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
            f"run `fluxsr pairs {commands[config.mode]}`, or leave mode out"
        )
    make_pairs(config, out)


@pairs.command()
def verify(
    store: StoreArgument,
    sample: Annotated[
        int, typer.Option(min=0, help="Number of pairs to sample again from their noise; 0 loads no teacher.")
    ] = 4,
    base: BaseOption = "",
    device: Device = "auto",
) -> None:
    """Check files, hashes, shapes and values, and that the noise still leads to the image.

    The exit code is 1 if there is a fault.
    """
    from fluxsr.pairs import verify as verification
    from fluxsr.pairs.store import PairStore

    there, count = PairStore(store), 0

    def show_faults(faults: Iterable[str]) -> None:
        nonlocal count
        for fault in faults:
            typer.echo(f"error: {fault}", err=True)
            count += 1

    show_faults(verification.faults(there))
    if not count and sample:
        faults, results = verification.reintegrate(there, sample, base, device)
        for pair, error in results:
            typer.echo(f"{pair.name}: eps leads to z_0 within {error:.2%} of its size")
        show_faults(faults)
    manifest = there.manifest()
    licence = (manifest.get("licence") or {}).get("name") or "not stated"
    typer.echo(f"{manifest['count']} pairs, mode {manifest['mode']}, teacher's licence: {licence}; {count} faults")
    raise typer.Exit(1 if count else 0)


@pairs.command()
def show(
    store: StoreArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Image file to write.")] = Path("contact_sheet.png"),
    count: Annotated[int, typer.Option(min=1, help="Number of pairs, sampled evenly from the store.")] = 8,
    base: BaseOption = "",
    device: Device = "auto",
) -> None:
    """Save a contact sheet that shows each decoded image above its noise."""
    from fluxsr.backbones.device import best_device
    from fluxsr.backbones.loading import load_autoencoder
    from fluxsr.pairs.show import contact_sheet
    from fluxsr.pairs.store import PairStore

    there = PairStore(store)
    vae = load_autoencoder(base or there.manifest()["base"], best_device(device))
    contact_sheet(there, vae, output, count)
    typer.echo(f"{output}")


@pairs.command()
def screen(
    store: StoreArgument,
    flat: Annotated[float, typer.Option(min=0, max=1, help="Largest share of blocks without texture.")] = 0.8,
    detail: Annotated[
        float, typer.Option(min=0, max=1, help="Smallest contrast of the finest detail, relative to all contrast.")
    ] = 0.1,
    clipped: Annotated[float, typer.Option(min=0, max=1, help="Largest share of pure black or white pixels.")] = 0.3,
    base: BaseOption = "",
    device: Device = "auto",
) -> None:
    """Leave flat, blurred and broken pairs out of training, and report them.

    Nothing is deleted: the list is screened.json in the store. Delete it to use every pair again.
    """
    from fluxsr.backbones.device import best_device
    from fluxsr.backbones.loading import load_autoencoder
    from fluxsr.pairs import screen as screening
    from fluxsr.pairs.store import PairStore

    there = PairStore(store)
    vae = load_autoencoder(base or there.manifest()["base"], best_device(device))
    results = []
    for name, reason in screening.screen(there, vae, screening.Measures(flat, detail, clipped)):
        results.append(reason)
        if reason:
            typer.echo(f"{name}: {reason}")
    counts = {kind: sum(reason.startswith(kind) for reason in results) for kind in ("flat", "blurred", "broken")}
    shown = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    typer.echo(f"kept {results.count('')} of {len(results)} pairs; dropped {shown}")
