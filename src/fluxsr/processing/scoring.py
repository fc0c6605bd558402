"""Scores of folders for ``fluxsr evaluate``, behind a progress bar; loads no model of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fluxsr.backbones.device import best_device
from fluxsr.errors import InputError
from fluxsr.evaluation import Report, score_folders
from fluxsr.evaluation.catalogue import select_metrics
from fluxsr.names import printable
from fluxsr.progress import progress


@dataclass(frozen=True)
class Setup:
    """How everything is scored; the meanings are those of ``score_folders``."""

    metrics: list[str] | None
    crop: int
    niqe_params: Path | None
    lpips_weights: Path | None
    workers: int | None
    device: str


@dataclass(frozen=True)
class Method:
    """A row: a folder of images and their ground truth. `truth`: it is the ground truth itself."""

    name: str
    folder: Path
    hr: Path | None
    truth: bool = False


def given(folders: Sequence[Path], hr: Path | None, no_hr: bool) -> list[Method]:
    """The methods of a command line without a model.

    Raises:
        InputError: more folders than SR and HR, without --hr or --no-hr.
    """
    if hr is None and not no_hr:
        if len(folders) > 2:
            raise InputError(f"{len(folders)} folders: give METHOD... --hr HR, or --no-hr where there is none")
        folders, hr = folders[:1], (folders[1] if len(folders) == 2 else None)
    count = Counter(folder.name for folder in folders)
    names = [folder.name if count[folder.name] == 1 else str(folder) for folder in folders]
    return [Method(printable(name), folder, hr) for name, folder in zip(names, folders, strict=True)]


def scored(methods: Sequence[Method], setup: Setup) -> list[Report]:
    """The scores of every method; ground truth stands only in the columns that need none, if there are any.

    Raises:
        FluxSRError: as ``score_folders``.
    """
    alone = [metric.name for metric in select_metrics(setup.metrics) if not metric.needs_hr]
    wanted = [(method, alone if method.truth else setup.metrics) for method in methods]
    return [_scored(method, metrics, setup) for method, metrics in wanted if metrics != []]


def _scored(method: Method, metrics: list[str] | None, setup: Setup) -> Report:
    with progress(transient=True) as bar:
        task = bar.add_task(f"score {method.name}", total=None)
        return score_folders(
            method.folder,
            method.hr,
            name=method.name,
            crop=setup.crop,
            niqe_params=setup.niqe_params,
            lpips_weights=setup.lpips_weights,
            metrics=metrics,
            workers=setup.workers,
            device=str(best_device(setup.device)),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
