"""The processes of a run: one, or many by ``accelerate launch``. The only file that knows accelerate.

One process takes the same path; there is nothing to wait for and nobody to share with. DDP and FSDP2 are chosen by
accelerate's own configuration file (recipes/accelerate/).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from fluxsr.backbones.device import best_device
from fluxsr.errors import InputError

PATIENCE = timedelta(hours=2)  # how long processes wait for the main one, which validates alone


def several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _state(device: str) -> PartialState:
    """Join the other processes; the first call decides the device."""
    return PartialState(cpu=device == "cpu", timeout=PATIENCE)


def training_device(name: str) -> torch.device:
    """The device of this process: ``run.device``, or its own GPU where there are several processes."""
    # cuDNN's attention fails in the backward pass (torch 2.11, H100: "mha_graph.execute"); flash attention does not.
    torch.backends.cuda.enable_cudnn_sdp(False)
    return _state(name).device if several() else best_device(name)


def is_main() -> bool:
    """Whether this process writes the results; True where it is the only one."""
    return bool(PartialState().is_main_process) if several() else True


@contextmanager
def main_first() -> Iterator[None]:
    """Let one process of each machine go first, so that the others find what it downloads.

    Where it fails the others go on all the same, and fail for themselves: nobody waits for a process that is gone.
    """
    state = PartialState() if several() else None
    if state is not None and not state.is_local_main_process:
        state.wait_for_everyone()
    try:
        yield
    finally:
        if state is not None and state.is_local_main_process:
            state.wait_for_everyone()


def refuse_sharding(what: str) -> None:
    """
    Raises:
        InputError: FSDP is asked for, and ``what`` cannot be done with sharded weights.
    """
    if several() and os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise InputError(f"{what} needs whole weights, but FSDP shards them; take a DDP configuration of accelerate")


class Whole(nn.Module):
    """A stage as one module: DDP and FSDP2 must see every use of a parameter within one forward."""

    def __init__(self, stage: Any):
        super().__init__()
        self.parts = nn.ModuleDict(stage.modules)
        self.stage = stage

    def forward(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        return self.stage.losses(step, samples)


class Processes:
    """This process among its fellows."""

    def __init__(self, device: str, resting: bool = False):
        """``resting``: some trained parameters take no part in some steps, as a critic that sets in later."""
        if several():
            _state(device)
        # Our own autocast and placement are the same for one process and many, so accelerate's are off.
        unused = DistributedDataParallelKwargs(find_unused_parameters=resting)
        self.accelerator = Accelerator(
            cpu=not several() or device == "cpu",
            mixed_precision="no",
            device_placement=False,
            kwargs_handlers=[unused],
        )
        self.count, self.index = self.accelerator.num_processes, self.accelerator.process_index
        self.main = bool(self.accelerator.is_main_process)
        self.sharded = bool(self.accelerator.is_fsdp2)
        kind = self.accelerator.distributed_type
        if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM) or (
            kind == DistributedType.FSDP and not self.sharded
        ):
            raise InputError(
                f"accelerate's configuration asks for {kind.value}; take DDP, or FSDP with fsdp_version: 2"
            )

    def shares(self, batch: int, accumulate: int) -> list[list[int]]:
        """Indices of the samples of a step that this process takes, micro-batch by micro-batch.

        Raises:
            InputError: the batch does not split evenly; means over it would be lopsided.
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
        """The stage as a module whose gradients are shared; FSDP2 replaces its parameters, in the optimizer too."""
        model = Whole(stage)
        if self.sharded:  # it takes no channels_last
            for parameter in model.parameters():
                parameter.data = parameter.data.contiguous()
        prepared, _ = self.accelerator.prepare(model, optimizer)
        return prepared

    @contextmanager
    def sharing(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Gradients travel with the last micro-batch of a step only."""
        if last or self.count == 1:
            yield
        else:
            with self.accelerator.no_sync(model):
                yield

    def total(self, values: Tensor) -> Tensor:
        """Sum over the processes."""
        return self.accelerator.reduce(values, "sum") if self.count > 1 else values

    def any(self, flag: bool) -> bool:
        """Whether any process says so. All must ask."""
        return bool(self.total(torch.tensor(float(flag), device=self.accelerator.device)) > 0)

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()


def whole(value: Tensor) -> Tensor:
    """A tensor without its sharding. All processes must ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def place(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into one that may be sharded. All processes must do so."""
    target.data.copy_(like(target, value))


def like(target: Tensor, value: Tensor) -> Tensor:
    """A whole tensor on the device and, if it has its shape, in the sharding of another."""
    value = value.to(target.device)
    if isinstance(target, DTensor) and value.shape == target.shape:
        return distribute_tensor(value, target.device_mesh, target.placements)
    return value


def whole_tree(values: Any) -> Any:
    """``whole`` for every tensor of nested dicts, lists and tuples."""
    if isinstance(values, Mapping):
        return {key: whole_tree(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(whole_tree(value) for value in values)
    return whole(values.detach()) if isinstance(values, Tensor) else values


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Hold all parameters of an FSDP2 model whole, so that one process can run it alone; else nothing happens."""
    parts: list[Any] = [module for module in model.modules() if hasattr(module, "unshard")]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part is not parts[0], recurse=False)  # the root stays, as by default
            part.reshard()
