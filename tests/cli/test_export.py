"""What ``fluxsr export`` writes is the model it was given, smaller; and nothing is left of an export that failed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from fluxsr.backbones.flux1 import Flux1
from fluxsr.backbones.places import WEIGHTS_FILE
from fluxsr.backbones.quantize import is_quantized
from fluxsr.cli.main import app
from fluxsr.single import load

IMAGE = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def lora(make_adapter: Callable[..., Path]) -> Path:
    """An adapter of the tiny model, with NOTICE and LICENSE."""
    folder = make_adapter("lora")
    (folder / "NOTICE").write_text("made by somebody\n")
    (folder / "LICENSE.md").write_text("the terms\n")
    return folder


def picture(folder: Path | str, **options: Any) -> torch.Tensor:
    pipe = load(folder, device="cpu", dtype="fp32", **options)
    return pipe(IMAGE, 2, output_type="pt").images


def command(folder: Path, output: Path, *more: Any) -> Result:
    arguments = ("export", "--model", folder, "-o", output, "--dtype", "fp32", "--device", "cpu", *more)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def error_lines(result: Result) -> list[str]:
    assert "Traceback" not in result.output
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize(("fuse", "fold"), [("--fuse", "--fold"), ("--no-fuse", "--no-fold")])
def test_an_export_is_the_same_model(fuse: str, fold: str, model_folder: Path, lora: Path, tmp_path: Path) -> None:
    done = command(model_folder, tmp_path / "out", "--adapter", lora, fuse, fold)
    assert done.exit_code == 0, done.output
    expected = picture(model_folder, adapter=lora)
    assert not torch.allclose(expected, picture(model_folder), atol=1e-3)
    torch.testing.assert_close(picture(tmp_path / "out"), expected, rtol=1e-5, atol=1e-5)
    assert (tmp_path / "out" / WEIGHTS_FILE).is_file() == (fuse == "--no-fuse")
    names = load_file(tmp_path / "out/transformer/diffusion_pytorch_model.safetensors")
    assert any("modulation" in name for name in names) == (fold == "--fold")
    assert not [name for name in names if "lora" in name or "base_layer" in name]


def test_an_export_has_the_autoencoder_in_use(model_folder: Path, tmp_path: Path) -> None:
    widths = {"encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4}
    AutoencoderTiny(latent_channels=4, **widths).save_pretrained(tmp_path / "vae")
    assert command(model_folder, tmp_path / "out", "--vae", tmp_path / "vae").exit_code == 0
    expected = picture(model_folder, vae=tmp_path / "vae")
    torch.testing.assert_close(picture(tmp_path / "out"), expected, rtol=1e-5, atol=1e-5)


def test_sizes_are_told_before_and_after(model_folder: Path, transformer: Any, tmp_path: Path) -> None:
    before, after = command(model_folder, tmp_path / "out").stdout.splitlines()
    count = sum(p.numel() for p in transformer.parameters())
    assert before == f"before: {count:,} parameters, {4 * count / 1e9:.3f} GB in fp32"
    (file,) = (tmp_path / "out/transformer").glob("*.safetensors")
    kept = sum(x.numel() for x in load_file(file).values())
    assert kept < count and after.startswith(f"after: {kept:,} parameters, {file.stat().st_size / 1e9:.3f} GB")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "near"), [("int8", 0.02), ("fp8", 0.1)])
def test_a_quantized_export_is_smaller_and_near(
    kind: str, near: float, model_folder: Path, lora: Path, tmp_path: Path
) -> None:
    done = command(model_folder, tmp_path / "out", "--quantize", kind, "--adapter", lora)
    assert done.exit_code == 0, done.output
    pipe = load(tmp_path / "out", device="cpu", dtype="fp32")
    assert is_quantized(pipe.transformer) and pipe.transformer.config.folded_t == 0.25
    expected = picture(model_folder, adapter=lora)
    assert 0 < (pipe(IMAGE, 2, output_type="pt").images - expected).norm() / expected.norm() < near
    again = command(tmp_path / "out", tmp_path / "again")
    assert "is already quantized; export the model it was made from" in error_lines(again)[0]
    # an adapter stays beside weights that nothing can be merged into, as in a model that was exported with --no-fuse
    command(model_folder, tmp_path / "apart", "--quantize", kind, "--adapter", lora, "--no-fuse")
    assert (picture(tmp_path / "apart") - expected).norm() / expected.norm() < near
    # a model that was quantized unfolded is folded when it is loaded
    command(model_folder, tmp_path / "unfolded", "--quantize", kind, "--no-fold")
    pipe = load(tmp_path / "unfolded", device="cpu", dtype="fp32")
    assert is_quantized(pipe.transformer) and pipe.transformer.config.folded_t == 0.25
    pipe.save_pretrained(tmp_path / "again")
    assert torch.equal(picture(tmp_path / "again"), picture(tmp_path / "unfolded"))


def test_an_adapter_of_the_modulation_must_be_fused_before_folding(
    model_folder: Path, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    lora = make_adapter("m", targets=(*Flux1.lora_targets, "norm1.linear"))
    refused = command(model_folder, tmp_path / "out", "--adapter", lora, "--no-fuse")
    assert refused.exit_code == 1 and "the transformer is folded, use the unfolded model" in error_lines(refused)[0]
    assert not (tmp_path / "out").exists()
    assert command(model_folder, tmp_path / "out", "--adapter", lora, "--no-fuse", "--no-fold").exit_code == 0
    assert command(model_folder, tmp_path / "fused", "--adapter", lora).exit_code == 0
    torch.testing.assert_close(picture(tmp_path / "fused"), picture(tmp_path / "out"), rtol=1e-5, atol=1e-5)
    folded = command(tmp_path / "fused", tmp_path / "twice", "--adapter", lora)
    assert folded.exit_code == 1 and "the transformer is folded" in error_lines(folded)[0]


def test_terms_travel(model_folder: Path, lora: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(model_folder, tmp_path / "base"))
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    (base / "LICENSE").write_text("terms of the base")
    command(base, tmp_path / "out", "--adapter", lora)
    notice = (tmp_path / "out" / "NOTICE").read_text()
    assert f"\n{base.name}, under: apache-2.0" in notice and "made by somebody" in notice
    assert (tmp_path / "out" / "LICENSE").read_text() == "terms of the base"
    assert (tmp_path / "out" / "LICENSE.md").read_text() == "the terms\n"
    command(Path("bundled"), tmp_path / "bundled")
    assert "bundled, under: apache-2.0" in (tmp_path / "bundled" / "NOTICE").read_text()


def test_only_an_export_is_replaced_and_only_if_asked(model_folder: Path, lora: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command(model_folder, out).exit_code == 0
    refused = command(model_folder, out)
    assert refused.exit_code == 1 and "exists already; choose another -o, or --overwrite" in error_lines(refused)[0]
    for name in (WEIGHTS_FILE, "transformer/letter.txt", "README.md"):
        (out / name).write_text("trained for days")
        refused = command(model_folder, out, "--overwrite")
        assert f"{out} holds {name}, which no export wrote; move it away" in error_lines(refused)[0]
        assert (out / name).read_text() == "trained for days"
        (out / name).unlink()
    for _ in range(2):
        assert command(model_folder, out, "--overwrite", "--adapter", lora, "--no-fuse").exit_code == 0
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter").touch()
    refused = command(model_folder, tmp_path / "other", "--overwrite")
    assert "is not an exported model" in error_lines(refused)[0] and (tmp_path / "other" / "letter").exists()


def test_an_export_that_fails_leaves_what_was_there(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command(model_folder, out)
    before = json.loads((out / "transformer/config.json").read_text())

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("fluxsr.backbones.prompts.PromptEmbeddings.save_pretrained", full)
    failed = command(model_folder, out, "--overwrite", "--no-fold")
    assert failed.exit_code == 1 and "No space left" in error_lines(failed)[0]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert json.loads((out / "transformer/config.json").read_text()) == before


def test_a_rename_that_fails_puts_the_old_export_back(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(model_folder, tmp_path / "out")
    rename = os.replace

    def fails(source: Path, target: Path) -> None:
        if "partial" in source.name:
            raise OSError("Device or resource busy")
        rename(source, target)

    monkeypatch.setattr("fluxsr.cli.replaced_folder.os.replace", fails)
    assert "busy" in error_lines(command(model_folder, tmp_path / "out", "--overwrite"))[0]
    assert (tmp_path / "out" / "model_index.json").exists() and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_package_that_is_missing_is_named(model_folder: Path, tmp_path: Path, uninstall: Callable[..., None]) -> None:
    uninstall("torchao")
    for kind, extra in (("int8", "torchao"), ("fp8", "torchao")):
        failed = command(model_folder, tmp_path / "out", "--quantize", kind)
        assert failed.exit_code == 2 and f'pip install "fluxsr[{extra}]"' in error_lines(failed)[0]
