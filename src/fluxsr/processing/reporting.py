"""What a run tells of its files: one line for each failure, and a summary."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from fluxsr.errors import AcceleratorLost, FluxSRError, is_out_of_memory, lost_accelerator
from fluxsr.imaging.listing import PassedOver
from fluxsr.names import printable


@dataclass
class Report:
    """What became of a plan.

    Attributes:
        done: outputs written.
        skipped: outputs that were there.
        bad: inputs that failed.
        left: how many jobs were not begun.
        full: whether that is because the disk is full, or cannot be written.
        passed: what the search for inputs did not look at.
        lost: what the accelerator said when it failed for good; empty otherwise.
    """

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    left: int = 0
    full: bool = False
    passed: PassedOver = field(default_factory=PassedOver)
    lost: str = ""


@dataclass(frozen=True)
class CommandLabels:
    """How a command calls its work.

    Attributes:
        task: verb in the progress bar, such as "upscale".
        past: its past form in the summary, such as "upscaled".
        memory: advice to a user whose memory ran out.
    """

    task: str
    past: str
    memory: str = "try a smaller image"


def reason_of(error: Exception, source: Path, memory: str) -> str:
    """An error in one line that names the file."""
    name = printable(str(source))
    text = str(error).replace(str(source), name)
    text = printable((text or type(error).__name__).splitlines()[0])
    if not isinstance(error, FluxSRError):
        if is_out_of_memory(error):
            text = f"out of memory; {memory} ({text})"
        elif lost := lost_accelerator(error):
            text = str(AcceleratorLost(printable(lost)))
        else:
            text = f"unexpected {type(error).__name__}: {text} (--debug shows where)"
    return text if text.startswith(name) else f"{name}: {text}"


def print_summary(console: Console, report: Report, labels: CommandLabels) -> None:
    """Print how many files were done, skipped, left or not looked at, and which failed."""
    parts = [f"{len(report.done)} {labels.past}"]
    if report.skipped:
        parts.append(f"{len(report.skipped)} finished before (--overwrite redoes them)")
    if report.bad:
        parts.append(f"{len(report.bad)} failed")
    if report.left:
        parts.append(f"{report.left} left")
    console.print(", ".join(parts))
    if report.passed.line():
        console.print(printable(report.passed.line()))
    for name in report.bad:
        console.print(f"failed: {printable(name)}")
