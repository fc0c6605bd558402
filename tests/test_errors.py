"""What errors say, and which of them may be turned into another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fluxsr
from fluxsr.errors import (
    AcceleratorLost,
    InputError,
    ModelError,
    OutputError,
    is_out_of_memory,
    is_untranslatable,
    lost_accelerator,
    needed,
)

LOST = (
    torch.AcceleratorError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later"),
    torch.AcceleratorError("an accelerator of another kind is gone"),
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
    RuntimeError("HIP error: unspecified launch failure"),
    RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
)
USABLE = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    torch.AcceleratorError("CUDA error: out of memory"),
    torch.AcceleratorError("CUDA error: invalid configuration argument"),
    RuntimeError("CUDA error: no kernel image is available for execution on the device"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ValueError("CUDA error: these are words of a file"),
    InputError("a.png is damaged or cut off: CUDA error: no"),
)


def test_all_that_is_missing_is_named_at_once(uninstall: Callable[..., None]) -> None:
    uninstall("torch", "numpy")
    needed("it", "extra", "PIL")
    with pytest.raises(InputError) as found:
        needed("fluxsr fly", "wings", "torch", "PIL", "numpy")
    assert str(found.value) == 'fluxsr fly needs torch, numpy; pip install "fluxsr[wings]"'


@pytest.mark.parametrize("error", LOST, ids=str)
def test_a_lost_accelerator_is_known_and_reported_in_one_line(error: Exception) -> None:
    line = lost_accelerator(error)
    assert line == str(error).splitlines()[0] and "\n" not in str(AcceleratorLost(line))
    outer = OutputError("a.png cannot be written")
    outer.__cause__ = error
    assert lost_accelerator(outer) == line
    assert not is_out_of_memory(error) and is_untranslatable(error)


@pytest.mark.parametrize("error", USABLE, ids=str)
def test_other_errors_leave_the_accelerator_usable(error: Exception) -> None:
    assert lost_accelerator(error) == ""
    assert is_out_of_memory(error) == ("memory" in str(error) or "ALLOC" in str(error))


class TestBugsStayBugs:
    """A mistake of the package behind a broad ``except`` reaches the caller, and is not blamed on a file."""

    @pytest.mark.parametrize("name", ["known_class", "check_complete"])
    def test_of_a_part(self, model_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        from fluxsr.backbones import parts

        monkeypatch.setattr(parts, name, None)
        with pytest.raises(TypeError):
            parts.load_part(model_folder, "vae", torch.float32)

    def test_of_a_configuration(self, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from fluxsr.backbones import parts

        monkeypatch.setattr(parts, "json", None)
        with pytest.raises(AttributeError):
            parts.part_config(model_folder, "vae")

    @pytest.mark.parametrize(
        "error", [ValueError("a bug"), torch.OutOfMemoryError("CUDA out of memory"), LOST[0], KeyError("a bug")]
    )
    def test_of_a_transformer_that_is_streamed(
        self, model_folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        from fluxsr.backbones import streaming

        monkeypatch.setattr(streaming, "quantize_", raising(error))
        with pytest.raises(type(error)) as found:
            fluxsr.load(model_folder, device="cpu", dtype="fp32")
        assert found.value is error

    def test_of_an_adapter_s_file(self, make_adapter: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
        from fluxsr.backbones import lora

        monkeypatch.setattr(lora, "safe_open", None)
        with pytest.raises(TypeError):
            lora.read_lora(make_adapter() / lora.WEIGHTS_FILE)

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), LOST[0]])
    def test_of_an_adapter_that_is_attached(
        self, make_adapter: Callable[..., Path], transformer: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        from fluxsr.backbones import lora

        monkeypatch.setattr(type(transformer), "load_lora_adapter", raising(error))
        with pytest.raises(type(error)):
            lora.attach_lora(transformer, make_adapter())

    def test_of_a_decoder_of_ours(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from fluxsr.imaging import decode, pillow

        Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
        monkeypatch.setattr(pillow, "_lossless", None)
        with pytest.raises(TypeError):
            decode.decode(tmp_path / "a.png")

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), LOST[2]])
    def test_of_a_checkpoint(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        from fluxsr.training import checkpoint

        module = torch.nn.Linear(2, 2)
        optimizer = torch.optim.SGD(module.parameters())
        path = checkpoint.save(tmp_path, 1, checkpoint.state_of({"m": module}, optimizer), keep=1)
        monkeypatch.setattr(checkpoint, "place", raising(error))
        with pytest.raises(type(error)):
            checkpoint.restore(path, {"m": module}, optimizer)

    @pytest.mark.parametrize("error", [AttributeError("a bug"), MemoryError()])
    def test_of_a_hub_s_answer(
        self, make_adapter: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        from fluxsr.backbones import places

        monkeypatch.setattr(places, "snapshot_download", None if isinstance(error, AttributeError) else raising(error))
        with pytest.raises((TypeError, MemoryError)):
            places.download("owner/name", [], "adapter")

    def test_of_a_contact_sheet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from fluxsr.pairs import show

        pair = SimpleNamespace(z_0=torch.zeros(4, 4, 4), eps=torch.zeros(4, 4, 4))
        monkeypatch.setattr(show.latents, "decode", lambda *_: torch.zeros(1, 3, 8, 8))
        monkeypatch.setattr(show, "image_sheet", raising(ValueError("a bug")))
        store: Any = SimpleNamespace(sample_evenly=lambda count: [pair])
        with pytest.raises(ValueError, match="a bug"):
            show.contact_sheet(store, torch.nn.Linear(1, 1), tmp_path / "a.png")

    def test_and_a_file_of_bad_bytes_is_still_the_file_s(self, tmp_path: Path, model_folder: Path) -> None:
        from fluxsr.backbones import parts
        from fluxsr.imaging import decode

        noise = np.random.default_rng(0).bytes(500)
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + noise)
        with pytest.raises(InputError):
            decode.decode(tmp_path / "a.png")
        (tmp_path / "vae").mkdir()
        (tmp_path / "vae" / "config.json").write_bytes((model_folder / "vae" / "config.json").read_bytes())
        (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(noise)
        with pytest.raises(ModelError):
            parts.load_part(tmp_path, "vae", torch.float32)


def raising(error: BaseException) -> Callable[..., Any]:
    """A function that only raises."""

    def call(*_: Any, **__: Any) -> Any:
        raise error

    return call
