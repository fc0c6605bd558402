"""A base in 4 bits. bitsandbytes has CPU kernels, but diffusers' loader refuses the CPU: its check is lifted here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fluxsr.backbones.lora import add_lora
from fluxsr.backbones.parts import load_part, part_config, skeleton
from fluxsr.backbones.prompts import random_prompt
from fluxsr.backbones.quantize import is_quantized, nf4, nf4_in_place
from fluxsr.backbones.streaming import stream, weights_in
from fluxsr.backbones.tiny import build_transformer
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import InputError

GPU: Any = SimpleNamespace(type="cuda")


def test_what_it_needs_is_named(uninstall: Callable[..., None]) -> None:
    with pytest.raises(InputError, match="nf4 needs a GPU, but the device is 'cpu'; use none"):
        nf4(torch.device("cpu"), torch.bfloat16)
    uninstall("bitsandbytes")
    with pytest.raises(InputError, match=r'nf4 needs bitsandbytes; pip install "fluxsr\[nf4\]"'):
        nf4(GPU, torch.bfloat16)


@pytest.fixture
def nf4_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bitsandbytes")
    quantizer: Any = pytest.importorskip("diffusers.quantizers.bitsandbytes.bnb_quantizer").BnB4BitDiffusersQuantizer
    monkeypatch.setattr(quantizer, "validate_environment", lambda *_, **__: None)
    monkeypatch.setattr(quantizer, "update_device_map", lambda _, device_map: device_map or {"": "cpu"})


@pytest.mark.slow
def test_a_streamed_transformer_in_four_bits_is_saved_and_loaded(tmp_path: Path, nf4_on_a_cpu: None) -> None:
    torch.manual_seed(0)
    plain = build_transformer(16, 1, 1, 1, 64).to(torch.bfloat16).eval()
    plain.save_pretrained(tmp_path / "transformer")
    prompt, z = random_prompt(3, 64, torch.Generator().manual_seed(0)), torch.randn(2, 16, 8, 8)
    at = (0.25, None, prompt.pooled_prompt_embeds)
    empty, cpu = skeleton(part_config(tmp_path, "transformer")), torch.device("cpu")
    scheme = nf4(GPU, torch.bfloat16)
    small = stream(empty, weights_in(tmp_path / "transformer"), torch.bfloat16, cpu, at=at, scheme=scheme).eval()
    assert is_quantized(small) and small.dtype == torch.bfloat16
    with torch.no_grad():
        v, exact = velocity(small, z, 0.25, prompt), velocity(plain, z, 0.25, prompt)
    assert 0.001 < float((v - exact).norm() / exact.norm()) < 0.3
    small.save_pretrained(tmp_path / "small" / "transformer")
    (file,) = (tmp_path / "small" / "transformer").glob("*.safetensors")
    assert file.stat().st_size < 0.35 * (tmp_path / "transformer" / file.name).stat().st_size
    read = load_part(tmp_path / "small", "transformer", torch.bfloat16).eval()
    with torch.no_grad():
        assert torch.equal(velocity(read, z, 0.25, prompt), v)


@pytest.mark.slow
def test_a_lora_trains_on_a_base_in_four_bits(tmp_path: Path, nf4_on_a_cpu: None) -> None:
    """Read from a file or quantized in place, the base computes the same, near the original, and the LoRA learns."""
    torch.manual_seed(0)
    plain = build_transformer(16, 1, 1, 1, 64).to(torch.bfloat16).requires_grad_(False)
    plain.save_pretrained(tmp_path / "transformer")
    prompt, z = random_prompt(3, 64, torch.Generator().manual_seed(0)), torch.randn(2, 16, 8, 8)
    v = velocity(plain, z, 0.25, prompt)
    read = load_part(tmp_path, "transformer", torch.bfloat16, nf4(GPU, torch.bfloat16)).train()
    add_lora(read, 2, 2.0)
    nf4_in_place(plain, torch.bfloat16)
    add_lora(plain, 2, 2.0)
    first = velocity(read, z, 0.25, prompt)
    assert 0.001 < float((first.detach() - v).norm() / v.norm()) < 0.3
    torch.testing.assert_close(first, velocity(plain, z, 0.25, prompt))
    first.mean().backward()
    trained = [p for p in read.parameters() if p.requires_grad]
    assert trained and all(p.dtype == torch.float32 and p.grad is not None for p in trained)
    assert "bitsandbytes" in sys.modules
