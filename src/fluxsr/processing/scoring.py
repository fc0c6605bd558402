"""Scores of folders for ``fluxsr evaluate``, with a progress bar. No model of ours is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fluxsr.errors import InputError
from fluxsr.evaluation import Report
from fluxsr.evaluation.catalogue import select_metrics
from fluxsr.names import printable
from fluxsr.progress import progress


@dataclass(frozen=True)
class Method:
    """One row of a table: a folder of images and their ground truth.

    Attributes:
        name, folder, hr: name of the row, folder of the images, and of their ground truth.
        truth: whether the images are the ground truth itself.
        cost: columns that were measured while the images were made.
    """

    name: str
    folder: Path
    hr: Path | None
    truth: bool = False
    cost: dict[str, float] = field(default_factory=dict)


def methods_of(folders: Sequence[Path], hr: Path | None, no_hr: bool, taken: Sequence[str] = ()) -> list[Method]:
    """Return the folders of a command line as methods. A folder whose name is not unique is named by its path.

    Args:
        folders: image folders; the second is the ground truth if there are two, and neither `hr` nor `no_hr`.
        hr: ground truth.
        no_hr: whether every folder is a method.
        taken: names of other rows.

    Raises:
        InputError: more folders than SR and HR, without --hr or --no-hr.
    """
    if hr is None and not no_hr:
        if len(folders) > 2:
            raise InputError(f"{len(folders)} folders were given: add --hr HR, or --no-hr if there is no ground truth")
        folders, hr = folders[:1], (folders[1] if len(folders) == 2 else None)
    count = Counter([*taken, *(folder.name for folder in folders)])
    names = [folder.name if count[folder.name] == 1 else str(folder) for folder in folders]
    return [Method(printable(name), folder, hr) for name, folder in zip(names, folders, strict=True)]


def scores(methods: Sequence[Method], metrics: list[str] | None, score: Callable[..., Report]) -> list[Report]:
    """Return the scores of every method. The ground truth has only the metrics that need none, if there are any.

    Args:
        methods: the rows.
        metrics: names of metrics; None takes the default ones.
        score: ``evaluation.score_folders`` with its options.
    """
    alone = [metric.name for metric in select_metrics(metrics) if not metric.needs_hr]
    wanted = [(method, alone if method.truth else metrics) for method in methods]
    return [_scored(method, names, score) for method, names in wanted if names != []]


def _scored(method: Method, metrics: list[str] | None, score: Callable[..., Report]) -> Report:
    with progress(transient=True) as bar:
        task = bar.add_task(f"score {method.name}", total=None)
        report = score(
            method.folder,
            method.hr,
            name=method.name,
            metrics=metrics,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    return replace(report, mean={**report.mean, **method.cost})
