"""``fluxsr adapter``: work with adapters that others have published."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fluxsr.cli.arguments import Debug, Device
from fluxsr.cli.cli_errors import report_errors
from fluxsr.cli.replaced_folder import replaced_folder
from fluxsr.errors import OutputError

adapter = typer.Typer(help="Work with adapters that others have published.", no_args_is_help=True)

# The files that an import writes.
_WRITTEN = {"fluxsr_config.json", "prompt_embeds.safetensors", "pytorch_lora_weights.safetensors", "NOTICE"}
_WRITTEN |= {"adapter_model.safetensors", "adapter_config.json", "vae_encoder_lora.safetensors"}


@adapter.callback()
def _group() -> None:
    """Keep the group, although it has one command."""


@adapter.command("import")
def import_(
    source: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder or Hub id of the published adapter.")],
    base: Annotated[str, typer.Option(help="Folder or Hub id of the model that the adapter was made for.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write, for use with --adapter.")],
    t_l: Annotated[
        float | None, typer.Option("--t-l", help="Time between 0 and 1 at which the LR latent enters.")
    ] = None,
    mid_timestep: Annotated[
        int | None, typer.Option(help="OMGSR's own way to give the time. Defaults to 244; an older adapter has 295.")
    ] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Guidance with which the adapter was trained.")] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Text of the fixed prompt. The base's text encoders encode it once.")
    ] = None,
    prompt_folder: Annotated[
        Path | None, typer.Option(help="Folder with the embeddings of the fixed prompt, as fluxsr prompt writes it.")
    ] = None,
    tile_size: Annotated[
        int | None, typer.Option(min=64, max=4096, help="Largest tile, in output pixels, that the adapter works on.")
    ] = None,
    license: Annotated[str, typer.Option(help="Licence of the adapter, if you know it.")] = "",
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Turn a published adapter into one that fluxsr can use.

    The layout is recognised by the files. OMGSR-F, the community's FluxSR, StrSR with a text, and any LoRA that
    diffusers reads are known (docs/inference.md). Run the same command again to get the same files.
    """
    with report_errors(debug):
        _check_replaceable(output, Path(source))
        from fluxsr.backbones.importing import import_adapter
        from fluxsr.backbones.published import ImportOverrides

        given = ImportOverrides(t_l, mid_timestep, guidance, prompt, tile_size, license)
        with replaced_folder(output) as folder:
            layout, made = import_adapter(source, base, folder, given, prompt_folder, device)
        guided = "" if made.guidance is None else f", guidance {made.guidance:g}"
        typer.echo(f"{layout}: rank {made.rank}, t_l {made.t_l:.5g}{guided}, prompt '{made.prompt}', in {output}")
        for entry in made.licences:
            typer.echo(f"licence of {entry['model']}: {entry['name']}")


def _check_replaceable(output: Path, source: Path) -> None:
    """Check that the output folder is free, or holds an adapter and nothing else, and is not the source."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if source.exists() and (source.resolve() == output.resolve() or output.resolve() in source.resolve().parents):
        raise OutputError(f"{output} holds the adapter that is imported; choose another -o")
    names = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
    others = [name for name in names if name not in _WRITTEN and not name.startswith("LICENSE")]
    if others or "fluxsr_config.json" not in names:
        raise OutputError(f"{output} holds {', '.join(others) or 'no adapter'}, so it is not replaced")
