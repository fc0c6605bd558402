from __future__ import annotations

import pytest
import torch

from fluxsr.backbone import device
from fluxsr.backbone.device import best_device, best_dtype, free_bytes
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
    for supported, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(device, "_cpu_has_bf16", lambda supported=supported: supported)
        assert best_dtype(CPU) == dtype
    assert best_dtype(torch.device("mps")) == torch.float32
    assert best_dtype(CPU, torch.float16) == torch.float16
    with pytest.raises(InputError, match="dtype 'torch.int8' is not known"):
        best_dtype(CPU, torch.int8)
    with pytest.raises(InputError, match="dtype 'float8' is not known; choose from auto, bf16, fp16, fp32"):
        best_dtype(CPU, "float8")
