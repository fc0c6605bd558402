"""Arguments that several commands share. Light to import."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from pydantic import BaseModel
from typer.models import OptionInfo

from fluxsr.errors import InputError
from fluxsr.imaging.formats import ENDINGS
from fluxsr.options import Format, ModelOptions, UpscaleOptions, checked_suffix, declared
from fluxsr.processing.inputs import Plan, plan

_OPPOSITES = {"lossless": "lossy"}


def expand_dataclass_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for typer with one option per field of each dataclass or pydantic model that it takes.

    A parameter of the command itself replaces the field of the same name. Parameters and fields of dataclasses are
    annotated for typer; fields of ``fluxsr.options`` need no annotation.
    """
    parameters = inspect.signature(command, eval_str=True).parameters
    groups = {name: one.annotation for name, one in parameters.items() if _is_group(one.annotation)}
    own = parameters.keys() - groups.keys()
    fields = {name: [field for field in _parameters(group) if field.name not in own] for name, group in groups.items()}
    options = [option for name, one in parameters.items() for option in fields.get(name, [one])]

    @wraps(command)
    def typed(**values: Any) -> None:
        try:
            for name, group in groups.items():
                values[name] = group(**{field.name: values.pop(field.name) for field in fields[name]})
        except InputError as error:
            name = str(error).split(" ")[0]  # the message begins with the name of the option
            raise typer.BadParameter(str(error), param_hint=f"--{name.replace('_', '-')}") from error
        command(**values)

    options = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    typed.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    typed.__annotations__ = {option.name: option.annotation for option in options}
    return typed


def typer_option(kind: type[UpscaleOptions | ModelOptions], name: str) -> OptionInfo:
    """Return the option of a command for a declared option: its flag, range and help."""
    option = declared(kind)[name]
    flags = [f"--{name.replace('_', '-')}"] if option.type is bool else []
    if flags and option.default is not False:  # a flag that is off by default needs no opposite
        flags[0] += f"/--{_OPPOSITES.get(name, f'no-{name}')}"
    made: OptionInfo = typer.Option(*flags, min=option.minimum, max=option.maximum, help=option.help)
    return made


def _is_group(annotation: Any) -> bool:
    return is_dataclass(annotation) or (isinstance(annotation, type) and issubclass(annotation, BaseModel))


def _parameters(group: Any) -> list[inspect.Parameter]:
    """Return the fields of a group as parameters that are annotated for typer."""
    if issubclass(group, BaseModel):
        return [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=Annotated[field.annotation, typer_option(group, name)],
            )
            for name, field in group.model_fields.items()
        ]
    hints = get_type_hints(group, include_extras=True)
    return [one.replace(annotation=hints[one.name]) for one in inspect.signature(group).parameters.values()]


Inputs = Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files, folders or glob patterns.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Output folder, or a file name for a single input.")]
Suffix = Annotated[str, typer_option(UpscaleOptions, "suffix")]
Mask = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        help="Grey image, or a folder of them by the names of the inputs. Black keeps the plain enlargement, white is "
        "full strength.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite/--skip-existing", help="Replace existing outputs, or skip them.")]
Model = Annotated[str, typer_option(ModelOptions, "model")]
Config = Annotated[str | None, typer_option(ModelOptions, "config")]
Adapter = Annotated[str | None, typer_option(ModelOptions, "adapter")]
Vae = Annotated[str | None, typer_option(ModelOptions, "vae")]
Device = Annotated[str, typer_option(ModelOptions, "device")]
Host = Annotated[str, typer.Option(help="Address to listen on. 0.0.0.0 accepts connections from other machines.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 chooses a free one.")]
Debug = Annotated[bool, typer.Option("--debug", help="Stop at the first error and print its traceback.")]


def planned(
    inputs: list[str],
    output: Path | None,
    format: Format | None,
    suffix: str,
    default: Format | None = None,
    mask: Path | None = None,
) -> Plan:
    """Return the plan of a command line. ``default`` is the format if none is given; None follows each input.

    Raises:
        typer.BadParameter: options contradict each other.
    """
    try:
        checked_suffix(suffix)
    except InputError as error:
        raise typer.BadParameter(str(error), param_hint="--suffix") from error
    as_file = output is not None and output.suffix.lower() in ENDINGS and not output.is_dir()
    if output and as_file and format and ENDINGS[f".{format}"] != ENDINGS[output.suffix.lower()]:
        raise typer.BadParameter(f"'{format}', but -o is {output.name}; leave one of them out", param_hint="--format")
    wanted = format or default
    try:
        work = plan(inputs, output, as_file=as_file, ending=f".{wanted}" if wanted else None, suffix=suffix, mask=mask)
    except InputError as error:
        raise typer.BadParameter(str(error)) from error
    count = len(work.jobs) + len(work.bad)
    if as_file and count > 1:
        message = f"{output} is a file name, but there are {count} inputs; give a folder"
        raise typer.BadParameter(message, param_hint="-o")
    return work
