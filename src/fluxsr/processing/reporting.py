"""Messages about the files of a run: one line per failure, and a summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from fluxsr.errors import AcceleratorLost, FluxSRError, is_out_of_memory, lost_accelerator
from fluxsr.imaging.listing import PassedOver
from fluxsr.names import printable


@dataclass
class Report:
    """Result of a run."""

    done: list[Path] = field(default_factory=list)  # outputs written
    skipped: list[Path] = field(default_factory=list)  # outputs that existed
    bad: list[str] = field(default_factory=list)  # inputs that failed
    repaired: int = 0  # outputs with tiles that the output guard has repaired
    left: int = 0  # jobs that were not started
    full: bool = False  # whether they were not started because the disk is full or read-only
    passed: PassedOver = field(default_factory=PassedOver)  # files that the search for inputs skipped
    lost: str = ""  # message of the accelerator, if it failed
    seconds: float = 0  # duration of the work, without loading the model
    listener: Callable[[dict[str, Any]], None] | None = None  # called with a record of each file, and one at the end

    def finish(
        self,
        status: Literal["done", "skipped", "failed"],
        name: str,
        target: Path | None = None,
        *,
        seconds: float | None = None,
        notes: Sequence[str] = (),
        error: str | None = None,
    ) -> None:
        """Count a file, and send its record to the listener."""
        if status == "failed":
            self.bad.append(name)
        elif target is not None:
            (self.done if status == "done" else self.skipped).append(target)
        if self.listener:
            written = None if target is None or status == "failed" else str(target)
            record = {"event": "file", "input": name, "output": written, "status": status}
            self.listener({**record, "seconds": seconds and round(seconds, 3), "notes": list(notes), "error": error})

    def end(self) -> None:
        """Send the last record to the listener."""
        if self.listener:
            counts = {"done": len(self.done), "skipped": len(self.skipped), "failed": len(self.bad), "left": self.left}
            self.listener({"event": "end", **counts})


@dataclass(frozen=True)
class CommandLabels:
    """Words for a command's work."""

    task: str  # verb in the progress bar, such as "upscale"
    past: str  # its past form in the summary, such as "upscaled"
    memory: str = "try a smaller image"  # advice to a user whose memory ran out


def terminal() -> Console:
    """Return the console for messages: standard error, without colours or line breaks of its own."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def reason_of(error: Exception, source: Path, memory: str, label: str = "") -> str:
    """Return an error as one line that names the file, by its label if it has one."""
    name = printable(label or str(source))
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


def summary(done: str, *, skipped: int = 0, failed: int = 0, failed_before: int = 0, left: int = 0) -> str:
    """Return the line that counts the images of a run; ``done`` is its first part, such as "3 upscaled"."""
    parts = {
        "finished before (--overwrite redoes them)": skipped,
        "failed": failed,
        "failed before (--retry-failed tries them again)": failed_before,
        "left": left,
    }
    return ", ".join([done, *(f"{count} {what}" for what, count in parts.items() if count)])


def print_summary(console: Console, report: Report, labels: CommandLabels) -> None:
    """Print the summary, what the search for inputs skipped, and which inputs failed."""
    done = f"{len(report.done)} {labels.past}" + (f", {report.repaired} with repaired tiles" * bool(report.repaired))
    console.print(summary(done, skipped=len(report.skipped), failed=len(report.bad), left=report.left))
    if report.passed.line():
        console.print(printable(report.passed.line()))
    for name in report.bad:
        console.print(f"failed: {printable(name)}")
