from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from fluxsr.backbones import device
from fluxsr.backbones.device import best_device, best_dtype, choose_dtype, free_bytes
from fluxsr.errors import InputError

CPU = torch.device("cpu")


def test_the_named_device_or_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_device("cpu") == CPU
    for backend in (torch.cuda, torch.xpu, torch.backends.mps):
        monkeypatch.setattr(backend, "is_available", lambda: False)
    assert best_device("auto") == CPU
    with pytest.raises(InputError, match=r"device 'cuda' is not available; this machine has cpu$"):
        best_device("cuda")
    with pytest.raises(InputError, match="no device is called 'gpu'; choose from auto, cpu$"):
        best_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert best_device("auto") == torch.device("cuda")
    assert best_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(InputError, match="device 'cuda:7' is not available"):
        best_device("cuda:7")
    assert best_device(torch.device("cuda", 0)) == torch.device("cuda:0")
    with pytest.raises(InputError, match="device 'cuda:7' is not available"):
        best_device(torch.device("cuda", 7))


def test_memory_is_counted_on_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_bytes(CPU) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 8))
    assert free_bytes(torch.device("cuda", 0)) == 5


def test_the_named_number_format_or_the_one_the_device_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert best_dtype(CPU, "fp32") == torch.float32
    assert best_dtype(CPU, "bf16") == torch.bfloat16
    assert best_dtype(CPU, "fp16") == torch.float16
    assert best_dtype(torch.device("mps")) == torch.float32
    assert best_dtype(CPU, torch.float16) == torch.float16
    with pytest.raises(InputError, match="dtype 'torch.int8' is not known"):
        best_dtype(CPU, torch.int8)
    with pytest.raises(InputError, match="dtype 'float8' is not known; choose from auto, bf16, fp16, fp32"):
        best_dtype(CPU, "float8")


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[torch.dtype]]]:
    """cpu("amx", ..., bf16=milliseconds, fp32=milliseconds): a CPU with these; gives what is measured on it."""

    def make(*features: str, bf16: float = 0.0, fp32: float = 0.0) -> list[torch.dtype]:
        measured: list[torch.dtype] = []

        def milliseconds(dtype: torch.dtype) -> float:
            measured.append(dtype)
            return bf16 if dtype == torch.bfloat16 else fp32

        monkeypatch.setattr(device, "milliseconds", milliseconds)
        for feature, check in (("amx", "_is_amx_tile_supported"), ("avx512_bf16", "_is_avx512_bf16_supported")):
            monkeypatch.setattr(torch.cpu, check, lambda feature=feature: feature in features)
        device._of_cpu.cache_clear()
        return measured

    yield make
    device._of_cpu.cache_clear()


@pytest.mark.parametrize(
    ("features", "bf16", "fp32", "dtype", "reason"),
    [
        (("amx", "avx512_bf16"), 9.0, 1.0, torch.bfloat16, "this CPU has AMX"),
        ((), 1.0, 9.0, torch.float32, "this CPU has neither AMX nor AVX512-BF16"),
        (("avx512_bf16",), 5.7, 3.7, torch.float32, "measured on this CPU: 5.7 ms in bfloat16, 3.7 ms in float32"),
        (("avx512_bf16",), 1.5, 3.2, torch.bfloat16, "measured on this CPU: 1.5 ms in bfloat16, 3.2 ms in float32"),
        (("avx512_bf16",), 3.1, 3.2, torch.float32, "measured on this CPU: 3.1 ms"),  # in doubt the exact one
    ],
)
def test_auto_takes_what_is_faster_on_the_cpu_at_hand(
    cpu: Callable[..., list[torch.dtype]],
    features: tuple[str, ...],
    bf16: float,
    fp32: float,
    dtype: torch.dtype,
    reason: str,
) -> None:
    measured = cpu(*features, bf16=bf16, fp32=fp32)
    assert best_dtype(CPU) == dtype
    chosen, why = choose_dtype(CPU)
    assert chosen == dtype and why.startswith(reason)
    assert len(measured) == (2 if features == ("avx512_bf16",) else 0), "measured once per process, and only in doubt"
    assert choose_dtype(CPU, "fp32") == (torch.float32, "as asked for")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_measurement_takes_either_number_format(dtype: torch.dtype) -> None:
    assert device.milliseconds(dtype, rounds=1) > 0
