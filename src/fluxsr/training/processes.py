"""Data-parallel training with accelerate, which no other module imports.

A run has one process, or many that ``accelerate launch`` starts. A single process uses the same code. The
configuration file of accelerate chooses DDP or FSDP2 (recipes/accelerate/).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from fluxsr.backbones.device import best_device
from fluxsr.errors import InputError

PATIENCE = timedelta(hours=2)  # how long processes wait while the main process validates


def is_distributed() -> bool:
    """Return whether the run has more than one process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _state(device: str) -> PartialState:
    """Join the process group; the first call decides the device."""
    return PartialState(cpu=device == "cpu", timeout=PATIENCE)


def training_device(name: str) -> torch.device:
    """Return the device of this process: ``run.device``, or the process's own GPU in a distributed run."""
    # cuDNN's attention fails in the backward pass (torch 2.11, H100: "mha_graph.execute"), flash attention works.
    torch.backends.cuda.enable_cudnn_sdp(False)
    return _state(name).device if is_distributed() else best_device(name)


def is_main() -> bool:
    """Return whether this process writes the results; True if it is the only one."""
    return bool(PartialState().is_main_process) if is_distributed() else True


@contextmanager
def main_first() -> Iterator[bool]:
    """Let one process of each machine run the block first, so that the others find what it writes. Yield True in it.

    If the first process fails, the others continue and fail themselves, so no process waits for one that has ended.
    """
    state = PartialState() if is_distributed() else None
    if state is not None and not state.is_local_main_process:
        state.wait_for_everyone()
    try:
        yield state is None or state.is_local_main_process
    finally:
        if state is not None and state.is_local_main_process:
            state.wait_for_everyone()


def refuse_sharding(what: str) -> None:
    """Check that the weights are not sharded.

    Args:
        what: the operation that needs whole weights, for the message.

    Raises:
        InputError: the run uses FSDP.
    """
    if is_distributed() and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise InputError(f"{what} needs whole weights, but FSDP shards them; use a DDP configuration of accelerate")


class Whole(nn.Module):
    """A stage as one module, because DDP and FSDP2 must see every use of a parameter in one forward pass."""

    def __init__(self, stage: Any):
        super().__init__()
        self.parts = nn.ModuleDict(stage.modules)
        self.stage = stage

    def forward(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        return self.stage.losses(step, samples)


class Processes:
    """The processes of a run, seen from one of them.

    Attributes:
        count, index: world size and rank.
        main: whether this process writes the results.
        sharded: whether FSDP2 shards the weights.
    """

    def __init__(self, device: str):
        """Join the process group.

        Args:
            device: ``run.device``.

        Raises:
            InputError: accelerate is configured for an engine other than DDP or FSDP2.
        """
        if is_distributed():
            _state(device)
        # The loop sets autocast and placement itself, the same for any number of processes.
        self.accelerator = Accelerator(
            cpu=not is_distributed() or device == "cpu",
            mixed_precision="no",
            device_placement=False,
        )
        self.count, self.index = self.accelerator.num_processes, self.accelerator.process_index
        self.main = bool(self.accelerator.is_main_process)
        self.sharded = bool(self.accelerator.is_fsdp2)
        kind = self.accelerator.distributed_type
        if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM) or (
            kind == DistributedType.FSDP and not self.sharded
        ):
            raise InputError(
                f"accelerate is configured for {kind.value}, which does not work here; use DDP, or FSDP with "
                "fsdp_version: 2"
            )

    def shares(self, batch: int, accumulate: int) -> list[list[int]]:
        """Return the sample indices of each micro-batch of this process.

        Raises:
            InputError: the batch cannot be divided evenly among processes and micro-batches.
        """
        parts = self.count * accumulate
        if accumulate < 1 or batch < 1 or batch % parts:
            raise InputError(
                f"run.batch is {batch}; it must be a multiple of {parts} "
                f"({self.count} processes x run.accumulate {accumulate})"
            )
        size = batch // parts
        first = self.index * accumulate * size
        return [list(range(first + k * size, first + (k + 1) * size)) for k in range(accumulate)]

    def prepare(self, stage: Any, optimizer: torch.optim.Optimizer) -> nn.Module:
        """Wrap a stage as a module with synchronised gradients. FSDP2 also replaces parameters in the optimizer."""
        model = Whole(stage)
        if self.sharded:  # FSDP2 does not support channels_last
            for parameter in model.parameters():
                parameter.data = parameter.data.contiguous()
        prepared, _ = self.accelerator.prepare(model, optimizer)
        return prepared

    @contextmanager
    def sharing(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Context manager that synchronises gradients in the last micro-batch of a step only."""
        if last or self.count == 1:
            yield
        else:
            with self.accelerator.no_sync(model):
                yield

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over all processes."""
        return self.accelerator.reduce(values, "sum") if self.count > 1 else values

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process. Every process must call this."""
        return bool(self.total(torch.tensor(float(flag), device=self.accelerator.device)) > 0)

    def wait(self) -> None:
        """Wait for all processes."""
        self.accelerator.wait_for_everyone()


def whole(value: Tensor) -> Tensor:
    """Return an unsharded tensor. Every process must call this."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def place(target: Tensor, value: Tensor) -> None:
    """Copy an unsharded tensor into one that may be sharded. Every process must call this."""
    target.data.copy_(like(target, value))


def like(target: Tensor, value: Tensor) -> Tensor:
    """Move an unsharded tensor to the target's device and, if the shapes agree, shard it like the target."""
    value = value.to(target.device)
    if isinstance(target, DTensor) and value.shape == target.shape:
        return distribute_tensor(value, target.device_mesh, target.placements)
    return value


def whole_tree(values: Any) -> Any:
    """Apply ``whole`` to every tensor of nested dicts, lists and tuples."""
    if isinstance(values, Mapping):
        return {key: whole_tree(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(whole_tree(value) for value in values)
    return whole(values.detach()) if isinstance(values, Tensor) else values


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Context manager in which an FSDP2 model is unsharded, so that one process can run it alone; else a no-op."""
    parts: list[Any] = [module for module in model.modules() if hasattr(module, "unshard")]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not parts[0], recurse=False)  # FSDP2 keeps the root by default
            part.reshard()
