"""Run the example workflows in a real ComfyUI server on the CPU, and compare them with FluxSRPipeline.

    python benchmarks/comfyui_server.py --comfyui PATH
    python benchmarks/comfyui_server.py --comfyui PATH --pictures docs/images

Use a Python that has ComfyUI's requirements and fluxsr. The models have FLUX.1-dev's widths and classes, random
weights, and only one double and one single block, so that ComfyUI's own loaders recognise them: UNETLoader (default
and fp8), LoraLoaderModelOnly and VAELoader. All files are in a temporary folder (1.6 GB), and ComfyUI's folder is not
changed. Pictures are compared in 8-bit levels, truncated as ComfyUI does. ``--pictures`` draws the workflows in the
web page with Chromium (playwright), for docs/comfyui.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import measuring
import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from PIL import Image

from fluxsr.backbones.adapter import AdapterConfig
from fluxsr.backbones.lora import add_lora, save_lora
from fluxsr.cli.comfyui import SOURCE, install
from fluxsr.pipeline import FluxSRPipeline
from fluxsr.single import load

HERE = Path(__file__).parents[1]
WORKFLOWS = SOURCE / "example_workflows"
PORT = 18288
URL = f"http://127.0.0.1:{PORT}"
NAME = "my_adapter"  # of the workflow
RANK, ALPHA = 4, 6.0  # a scale of 1.5, which ComfyUI must be given
TILE = 96


def make_models(base: Path) -> None:
    """Write a random model in diffusers' layout, link its files among ComfyUI's models, and write an adapter."""
    cpu, flux = torch.device("cpu"), base / "diffusers"
    torch.set_default_dtype(torch.bfloat16)
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(guidance_embeds=True, num_layers=1, num_single_layers=1)
    torch.set_default_dtype(torch.float32)
    vae = measuring.autoencoder(cpu)
    vae.decoder.conv_out.weight.data *= 0.1  # grey: ComfyUI clamps at black and white before the colour fix
    transformer.save_pretrained(flux / "transformer")
    vae.save_pretrained(flux / "vae")
    for part, kind, name in (("transformer", "diffusion_models", "flux1-dev"), ("vae", "vae", "ae")):
        (base / "models" / kind).mkdir(parents=True)
        os.link(flux / part / "diffusion_pytorch_model.safetensors", base / "models" / kind / f"{name}.safetensors")

    adapter = base / "models" / "loras" / NAME
    adapter.mkdir(parents=True)
    add_lora(transformer, RANK, ALPHA)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in transformer.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02, generator=generator)
    save_lora(transformer, adapter)
    for folder in (adapter, flux):
        measuring.prompt(cpu, tokens=64).save(folder)
        AdapterConfig(t_l=0.25, guidance=3.5, rank=RANK, alpha=ALPHA).save(folder)


@contextmanager
def serving(comfyui: Path, base: Path) -> Iterator[Path]:
    """Start a server with the nodes installed; yield its log file."""
    (base / "custom_nodes").mkdir()
    install(base)
    command = [sys.executable, "main.py", "--cpu", "--base-directory", str(base), "--port", str(PORT)]
    command += ["--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
    log = base / "log"
    with log.open("wb") as stream:
        server = subprocess.Popen(command, cwd=comfyui, stdout=stream, stderr=stream)
        try:
            wait(server)
            yield log
        except BaseException:
            print(log.read_text(errors="replace")[-4000:])
            raise
        finally:
            server.terminate()
            server.wait()


def wait(server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit("ComfyUI ended; its log is above")
        try:
            urllib.request.urlopen(f"{URL}/system_stats", timeout=5).read()
            return
        except OSError:
            time.sleep(1)
    raise SystemExit("ComfyUI did not start")


def run(prompt: dict[str, Any], output: Path) -> tuple[Image.Image, float]:
    """Run a workflow in API format; return the picture that it saves, and the seconds."""
    begun = time.perf_counter()
    request = urllib.request.Request(f"{URL}/prompt", json.dumps({"prompt": prompt}).encode())
    job = json.load(urllib.request.urlopen(request))["prompt_id"]
    for _ in range(1200):
        if (done := json.load(urllib.request.urlopen(f"{URL}/history/{job}")).get(job)) is not None:
            if done["status"]["status_str"] != "success":
                raise SystemExit(json.dumps(done["status"]["messages"], indent=1)[-3000:])
            [saved] = [image for node in done["outputs"].values() for image in node["images"]]
            return Image.open(output / saved["subfolder"] / saved["filename"]), time.perf_counter() - begun
        time.sleep(0.5)
    raise SystemExit("ComfyUI did not finish")


def levels(picture: Image.Image, pipe: FluxSRPipeline, lr: Image.Image, **options: Any) -> str:
    """Describe the difference between ComfyUI's picture and the pipeline's, in 8-bit levels."""
    [ours] = pipe(lr, output_type="pt", **options).images
    expected = (255 * ours).movedim(0, -1).numpy().astype(np.uint8)  # ComfyUI does not round
    off = np.abs(np.asarray(picture, np.int16) - expected)
    return f"{picture.width} x {picture.height}: at most {off.max()} levels, mean {off.mean():.5f}"


def draw(comfyui: Path, base: Path, folder: Path) -> None:
    """Draw the workflows in the web page: the bundled model's after a run, FLUX's with empty model files."""
    from playwright.sync_api import sync_playwright

    names = (
        "diffusion_models/flux1-dev",
        "vae/ae",
        f"loras/{NAME}/pytorch_lora_weights",
        f"loras/{NAME}/prompt_embeds",
    )
    for name in names:
        file = base / "models" / f"{name}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    with serving(comfyui, base), sync_playwright() as play:
        quiet = {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False}
        urllib.request.urlopen(urllib.request.Request(f"{URL}/api/settings", json.dumps(quiet).encode())).read()
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1010})
        page.set_default_timeout(240_000)  # ms
        page.goto(URL, wait_until="domcontentloaded")
        page.wait_for_function("() => window.app?.canvas?.graph")
        page.wait_for_timeout(5000)
        for name, height in (("fluxsr_flux_dev", 970), ("fluxsr_bundled", 560)):
            page.evaluate("graph => app.loadGraphData(graph)", json.loads((WORKFLOWS / f"{name}.json").read_text()))
            if name == "fluxsr_bundled":
                page.evaluate("() => app.queuePrompt(0)")
                page.wait_for_function("() => app.graph.getNodeById(3).imgs?.length")
            page.evaluate("() => { app.canvas.ds.scale = 0.95; app.canvas.ds.offset = [50, 130]; }")
            page.evaluate("() => app.graph.setDirtyCanvas(true, true)")
            page.wait_for_timeout(5000)
            page.keyboard.press("Escape")  # the templates, which a first start offers
            page.wait_for_timeout(2000)
            clip = {"x": 0, "y": 40, "width": 1400, "height": height}
            page.screenshot(path=folder / f"comfyui_{name.removeprefix('fluxsr_')}.png", clip=clip)
        browser.close()


def compare(comfyui: Path, base: Path, lr: Image.Image) -> None:
    """Print the differences between server and pipeline; FLUX's workflow runs on a corner of the picture."""
    make_models(base)
    corner = lr.crop((0, 0, 40, 32))
    corner.save(base / "input" / "corner.png")
    bundled, flux = (
        json.loads((HERE / "examples" / "comfyui" / f"fluxsr_{name}_api.json").read_text())
        for name in ("bundled", "flux_dev")
    )
    flux["4"]["inputs"]["image"] = "corner.png"
    flux["6"]["inputs"]["tile_size"] = TILE
    made = {}
    with serving(comfyui, base) as log:
        made["bundled"] = run(bundled, base / "output")
        for dtype in ("default", "fp8_e4m3fn"):
            flux["1"]["inputs"]["weight_dtype"] = dtype
            made[f"flux_dev, {dtype}"] = run(flux, base / "output")
    print("LoRA keys that ComfyUI did not take:", log.read_text(errors="replace").count("lora key not loaded"))
    for name, (_, seconds) in made.items():
        print(f"{name}: {seconds:.1f} s in the server, loading included")
    pipe = load("bundled", device="cpu")
    print("bundled:", levels(made.pop("bundled")[0], pipe, lr))
    for label, adapter in (("with", base / "models" / "loras" / NAME), ("without", False)):
        pipe = load(base / "diffusers", adapter=adapter, device="cpu", dtype="fp32")
        for name, (picture, _) in made.items():
            print(f"{name}, pipeline {label} LoRA:", levels(picture, pipe, corner, tile_size=TILE))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", type=Path, required=True, help="ComfyUI's folder, with main.py")
    parser.add_argument("--pictures", type=Path, help="only draw the workflows, and write them to this folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "input").mkdir()
        picture = Image.open(HERE / "examples" / "church_lr.jpg").convert("RGB")
        picture.save(Path(work) / "input" / "example.png")
        if arguments.pictures:
            draw(arguments.comfyui, Path(work), arguments.pictures)
        else:
            compare(arguments.comfyui, Path(work), picture)
