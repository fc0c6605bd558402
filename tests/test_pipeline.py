"""The pipeline: sizes, types, tiles, and that it is the method's one step."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fluxsr
from fluxsr import flow
from fluxsr.backbones import latents, loading
from fluxsr.backbones.adapter import AdapterConfig
from fluxsr.backbones.folding import fold
from fluxsr.backbones.memory import Plan
from fluxsr.backbones.places import COMPONENT_FILE, PEFT_FILES, WEIGHTS_FILE
from fluxsr.backbones.quantize import is_quantized
from fluxsr.backbones.velocity import velocity
from fluxsr.errors import InputError, ModelError, OutputError
from fluxsr.imaging.resize import bicubic
from fluxsr.imaging.settings import Settings
from fluxsr.options import UpscaleOptions
from fluxsr.pipeline import FluxSRPipeline


def photograph(width: int = 20, height: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_one_tile_is_the_formula(pipeline: Any) -> None:
    lr = photograph(16, 16)
    lr_up = bicubic(lr, (64, 64))
    with torch.no_grad():
        z_l = latents.encode(pipeline.vae, lr_up)
        v = velocity(pipeline.transformer, z_l, 0.25, pipeline.prompt)
        expected = latents.decode(pipeline.vae, flow.one_step(z_l, v, 0.25, 0.5)).clamp(0, 1)
    out = pipeline(lr, strength=0.5, color_fix="none", output_type="pt").images
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((16, 16), 1, (16, 16)),
        ((16, 16), 4, (64, 64)),
        ((17, 33), 4, (68, 132)),
        ((21, 16), 1.7, (36, 27)),
        ((16, 16), 8, (128, 128)),
        ((300, 16), 1, (300, 16)),
    ],
)
def test_any_size_any_scale(pipeline: Any, size: tuple[int, int], scale: float, expected: tuple[int, int]) -> None:
    out = pipeline(io_image(*size), scale, tile_size=64, tile_overlap=16).images[0]
    assert out.size == expected and out.mode == "RGB"


def io_image(width: int, height: int) -> Image.Image:
    pixels = photograph(width, height)[0].permute(1, 2, 0)
    return Image.fromarray((pixels * 255).byte().numpy())


def test_input_and_output_types_agree(pipeline: Any) -> None:
    picture = io_image(20, 16)
    array = np.asarray(picture)
    tensor = torch.from_numpy(array / np.float32(255)).permute(2, 0, 1)
    expected = np.asarray(pipeline(picture).images[0])
    for image in (array, array[None], array / np.float32(255), tensor, tensor[None], [picture]):
        assert np.array_equal(np.asarray(pipeline(image).images[0]), expected)
    as_tensor = pipeline(picture, output_type="pt").images
    as_array = pipeline(picture, output_type="np", return_dict=False)[0]
    assert as_tensor.shape == (1, 3, 64, 80) and as_array.shape == (1, 64, 80, 3)
    assert as_tensor.min() >= 0 and as_tensor.max() <= 1
    assert np.array_equal((as_array * 255).round().astype(np.uint8)[0], expected)


def test_images_of_a_batch_do_not_see_each_other(pipeline: Any) -> None:
    first, second = photograph(), photograph(24, 18, seed=1)
    both = pipeline([first, second], output_type="pt").images
    torch.testing.assert_close(both[1], pipeline(second, output_type="pt").images)
    stacked = pipeline(torch.cat([first, first]), output_type="pt").images
    assert stacked.shape == (2, 3, 64, 80) and torch.equal(stacked[0], stacked[1])


def test_no_module_sees_more_than_a_tile(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Size] = []
    encode = latents.encode
    monkeypatch.setattr(latents, "encode", lambda vae, x: seen.append(x.shape) or encode(vae, x))
    pipeline(photograph(50, 40), tile_size=64, tile_overlap=16, batch_size=3)
    assert len({shape[2:] for shape in seen}) == 1, "tiles are equal"
    assert all(max(shape[2:]) <= 64 and shape[0] <= 3 for shape in seen)
    assert len(seen) > 1


def test_batching_tiles_changes_nothing_but_rounding(pipeline: Any) -> None:
    options: dict[str, Any] = {"tile_size": 64, "tile_overlap": 16, "output_type": "pt"}
    one = pipeline(photograph(40, 30), batch_size=1, **options).images
    five = pipeline(photograph(40, 30), batch_size=5, **options).images
    torch.testing.assert_close(one, five, rtol=0, atol=1e-4)


def test_no_random_number_is_drawn(pipeline: Any) -> None:
    """The autoencoder's posterior has a variance, and the step takes its mean."""
    before = torch.get_rng_state()
    pipeline(photograph())
    assert torch.equal(torch.get_rng_state(), before)


def test_output_carries_no_graph_and_progress_arrives(pipeline: Any) -> None:
    seen: list[tuple[int, int]] = []
    out = pipeline(photograph(), output_type="pt", progress=lambda done, total: seen.append((done, total)))
    assert not out.images.requires_grad and not out.images.is_inference()
    assert seen == [(1, 1)]


def test_strength_none_is_the_models_own(pipeline: Any) -> None:
    given = pipeline(photograph(), strength=1.0, output_type="pt").images
    torch.testing.assert_close(pipeline(photograph(), output_type="pt").images, given)
    gentle = pipeline(photograph(), strength=0.2, output_type="pt").images
    assert not torch.equal(gentle, given)


@pytest.mark.parametrize(
    ("image", "options", "words"),
    [
        (torch.rand(1, 3, 0, 40), {}, "40x0 pixels; it must not be empty"),
        (photograph(), {"scale": 9}, "scale is 9"),
        (photograph(), {"scale": "4"}, "scale is '4'; choose a number from 1 to 8"),
        (photograph(), {"scale": float("nan")}, "scale is nan"),
        (photograph(), {"strength": -0.1}, "strength is -0.1; choose a number from 0"),
        (photograph(), {"strength": float("nan")}, "strength is nan"),
        (photograph(), {"strength": float("inf")}, "strength is inf"),
        (photograph(), {"strength": "1"}, "strength is '1'"),
        (photograph(), {"strength": 2.01}, "strength is 2.01; choose a number from 0 to 2"),
        (photograph(), {"tile_size": 0}, "tile_size is 0; choose a whole number from 64 to 4096"),
        (photograph(), {"tile_size": 64.5}, "tile_size is 64.5"),
        (photograph(), {"batch_size": 0}, "batch_size is 0; choose a whole number of 1 or more"),
        (photograph(), {"batch_size": -1}, "batch_size is -1"),
        (photograph(), {"batch_size": "2"}, "batch_size is '2'"),
        (photograph(), {"tile_overlap": -1}, "tile_overlap is -1; choose a whole number from 0 to 2048"),
        (photograph(), {"tile_overlap": "16"}, "tile_overlap is '16'"),
        ([], {}, "image is empty; pass one or more images"),
        ([[], []], {}, "image is empty"),
        (torch.zeros(0, 3, 16, 16), {}, "image is empty"),
        (np.zeros((0, 16, 16, 3), np.uint8), {}, "image is empty"),
        (photograph(), {"color_fix": "lab"}, "color_fix is 'lab'"),
        (photograph(), {"output_type": "jpg"}, "output_type is 'jpg'"),
        (photograph(), {"tile_size": 64, "tile_overlap": 33}, "tile_overlap is 33, more than half of tile_size 64"),
        (photograph() * 255, {}, r"values from .* expected RGB in \[0,1\]"),
        (photograph() * float("nan"), {}, r"expected RGB in \[0,1\]"),
        (photograph()[:, :1], {}, r"shape \(1, 1, 16, 20\)"),
        ("photo.jpg", {}, "image is a str"),
    ],
)
def test_unusable_input_is_an_input_error(pipeline: Any, image: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        pipeline(image, **options)


def test_saved_and_loaded_it_is_the_same(pipeline: Any, model_folder: Path) -> None:
    assert {"transformer", "vae", "model_index.json"} <= {p.name for p in model_folder.iterdir()}
    loaded = fluxsr.load(model_folder, device="cpu", dtype="fp32")
    assert loaded.adapter_config.t_l == pipeline.adapter_config.t_l
    torch.testing.assert_close(
        loaded(photograph(), output_type="pt").images,
        pipeline(photograph(), output_type="pt").images,
        rtol=0,
        atol=1e-4,
    )


def test_loaded_it_is_folded_and_saves_again(model_folder: Path, tmp_path: Path) -> None:
    load = fluxsr.load
    once = load(model_folder, device="cpu", dtype="fp32")
    once.save_pretrained(tmp_path)
    again = load(tmp_path, device="cpu", dtype="fp32")
    assert type(again.transformer).__name__ == "FoldedFluxTransformer2DModel"
    torch.testing.assert_close(
        again(photograph(), output_type="pt").images, once(photograph(), output_type="pt").images
    )


def test_runs_in_bfloat16(pipeline: Any, model_folder: Path) -> None:
    half = fluxsr.load(model_folder, device="cpu", dtype="bf16")
    assert half.transformer.dtype == half.vae.dtype == torch.bfloat16
    difference = half(photograph(), output_type="pt").images
    difference -= pipeline(photograph(), output_type="pt").images
    assert difference.abs().mean() < 0.01


@pytest.fixture
def guided(vae: Any, prompt: Any) -> Any:
    """guided(dtype, folded=..., ...): a pipeline in which guidance weighs heavily, its weights rounded to bfloat16."""
    transformer = tiny_guided().to(torch.bfloat16)

    def build(dtype: torch.dtype, folded: bool = False, **config: Any) -> FluxSRPipeline:
        settings = AdapterConfig(guidance=3.5, **config)
        copied = deepcopy(transformer).to(dtype)
        if folded:
            copied = fold(copied, *settings.condition, prompt.pooled_prompt_embeds)
        return FluxSRPipeline(copied, deepcopy(vae).bfloat16().to(dtype), prompt, **settings.registered)

    return build


def tiny_guided() -> Any:
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    made = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=1,
        joint_attention_dim=16, pooled_projection_dim=16, guidance_embeds=True, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    made.time_text_embed.guidance_embedder.linear_1.weight.data *= 5
    return made.eval()


@pytest.mark.parametrize(("dtype", "folded"), [(torch.float32, False), (torch.float16, True)])
def test_an_adapter_trained_in_bfloat16_makes_the_same_picture_elsewhere(
    guided: Any, dtype: torch.dtype, folded: bool, tmp_path: Path
) -> None:
    """What training saw is the unfolded transformer in bfloat16; of it only rounding may be left."""

    def picture(pipe: Any) -> torch.Tensor:
        return pipe(photograph(), 2, color_fix="none", output_type="pt").images

    trained = picture(guided(torch.bfloat16))
    assert (picture(guided(dtype, folded)) - trained).norm() / trained.norm() < 0.03
    guided(dtype, folded).save_pretrained(tmp_path)
    loaded = fluxsr.load(tmp_path, device="cpu", dtype=dtype)
    assert (picture(loaded) - trained).norm() / trained.norm() < 0.03
    other = picture(guided(torch.float32, train_dtype="fp32"))  # guidance 3500 in place of 3504
    assert (other - trained).norm() / trained.norm() > 0.1


def test_an_adapter_trained_in_float32_keeps_its_guidance_where_it_is_folded_in_bfloat16(guided: Any) -> None:
    pictures = [
        pipe(photograph(), 2, color_fix="none", output_type="pt").images
        for pipe in (guided(torch.float32, train_dtype="fp32"), guided(torch.bfloat16, True, train_dtype="fp32"))
    ]
    assert (pictures[1] - pictures[0]).norm() / pictures[0].norm() < 0.03


def test_device_and_dtype_as_torch_s_own(model_folder: Path) -> None:
    loaded = fluxsr.load(model_folder, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert loaded.transformer.dtype == loaded.vae.dtype == torch.bfloat16 and loaded.device.type == "cpu"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_replaced_by_the_plain_enlargement(
    pipeline: Any, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Any, z: torch.Tensor, *__: Any) -> torch.Tensor:
        return torch.full_like(z, bad)

    monkeypatch.setattr("fluxsr.one_step.velocity", broken)
    with pytest.raises(ModelError, match="values that are not finite; try --dtype fp32"):
        pipeline(photograph(), guard=False)
    with pytest.warns(UserWarning, match="the result has tiles that the model got wrong: 1 not finite, replaced by"):
        found = pipeline(photograph(), color_fix="none", output_type="pt").images
    assert torch.equal(found, bicubic(photograph(), (64, 80)).clamp(0, 1))


def test_a_callback_s_results_are_not_repaired(pipeline: Any) -> None:
    with pytest.raises(ModelError, match="not finite"):
        pipeline(photograph(), callback_on_step_end=lambda *_: {"latents": _[-1]["latents"] / 0})


def test_the_guard_changes_no_good_result(pipeline: Any) -> None:
    on, off = (pipeline(photograph(), output_type="pt", guard=guard).images for guard in (True, False))
    assert torch.equal(on, off)


def test_one_step_gives_tensors_to_work_on(pipeline: Any) -> None:
    assert not pipeline.one_step(torch.rand(1, 3, 16, 16)).is_inference()


def test_a_push_takes_all_files(pipeline: Any, tmp_path: Path, fake_hub: Any) -> None:
    pipeline.save_pretrained(tmp_path / "new", push_to_hub=True, repo_id="owner/new")
    uploaded = set(fake_hub.repositories["owner/new"])
    assert {"model_index.json", "README.md"} <= uploaded and "fluxsr_config.json" not in uploaded
    assert {"vae/config.json", "prompt/config.json", COMPONENT_FILE} <= uploaded and WEIGHTS_FILE not in uploaded


@pytest.mark.parametrize(
    "name",
    [WEIGHTS_FILE, PEFT_FILES[0], "fluxsr_config.json", "prompt_embeds.safetensors", COMPONENT_FILE, "model_index.json"]
    + ["transformer/diffusion_pytorch_model-00001-of-00003.safetensors", "vae/config.json"],
)
def test_saving_neither_deletes_nor_replaces_what_others_wrote(pipeline: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("somebody's")
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(OutputError, match=name.split("/")[0]):
        pipeline.save_pretrained(tmp_path)
    assert (tmp_path / name).read_text() == "somebody's"
    assert {path.name for path in tmp_path.iterdir()} == {name.split("/")[0], "letter.txt"}


def test_an_earlier_save_is_written_over_unless_an_adapter_has_joined_it(pipeline: Any, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    pipeline.save_pretrained(tmp_path)
    pipeline.save_pretrained(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_text("trained for days")
    with pytest.raises(OutputError, match=f"{WEIGHTS_FILE} would be fused a second time on loading; move it"):
        pipeline.save_pretrained(tmp_path)
    assert (tmp_path / WEIGHTS_FILE).read_text() == "trained for days"
    assert (tmp_path / "letter.txt").read_text() == "mine"


@pytest.fixture
def bundled(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The tiny pipeline in place of the bundled model; lists what was asked for."""
    from fluxsr import single as module

    asked: list[str] = []
    monkeypatch.setattr(module, "load", lambda model: asked.append(model) or pipeline)
    module._bundled.cache_clear()
    yield asked
    module._bundled.cache_clear()


def test_upscale_loads_the_bundled_model_once(bundled: list[str], tmp_path: Path) -> None:
    io_image(20, 16).save(tmp_path / "a.png")
    from_path = fluxsr.upscale(tmp_path / "a.png", scale=2)
    from_image = fluxsr.upscale(io_image(20, 16), 2)
    assert bundled == ["bundled"]
    assert from_path.size == (40, 32)
    assert np.array_equal(np.asarray(from_path), np.asarray(from_image))


def test_upscale_takes_grey_and_rgba_arrays(bundled: list[str]) -> None:
    for shape in ((16, 20), (16, 20, 4), (1, 16, 20, 3)):
        assert fluxsr.upscale(np.full(shape, 128, np.uint8)).size == (80, 64)


@pytest.mark.parametrize(
    ("image", "options", "words"),
    [
        ([photograph()], {}, "image is a list of 1; pass one image, or use FluxSRPipeline"),
        (photograph().expand(2, -1, -1, -1), {}, "image is a Tensor of 2"),
        (photograph(), {"output_type": "pt"}, "has no option output_type; use FluxSRPipeline"),
        (photograph(), {"return_dict": False}, "has no option return_dict"),
    ],
)
def test_upscale_takes_one_image_and_gives_one(
    bundled: list[str], image: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        fluxsr.upscale(image, **options)


def test_tile_size_is_the_models_own_unless_asked(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor that the model sees is larger than the tile its config names."""
    monkeypatch.setattr(pipeline, "adapter_config", replace(pipeline.adapter_config, tile_size=64))
    sides: list[tuple[int, ...]] = []
    encode = pipeline.vae.encode

    def watched(images: torch.Tensor) -> Any:
        sides.append(tuple(images.shape[-2:]))
        return encode(images)

    monkeypatch.setattr(pipeline.vae, "encode", watched)
    pipeline(photograph(40, 50), tile_overlap=16)
    assert max(max(side) for side in sides) == 64
    sides.clear()
    pipeline(photograph(40, 50), tile_size=96, tile_overlap=16)
    assert max(max(side) for side in sides) > 64


def test_memory_that_runs_out_makes_the_tile_smaller_for_good(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The image is whole, one line tells of it, and the next image starts with what fitted."""
    monkeypatch.setattr(pipeline, "plan", Plan(torch.float32, "cpu", 512, batch_size=2))
    encode, sides = pipeline.vae.encode, []

    def small(images: torch.Tensor) -> Any:
        sides.append(max(images.shape[-2:]))
        if sides[-1] > 200:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(images)

    monkeypatch.setattr(pipeline.vae, "encode", small)
    first = pipeline(photograph(64, 80), output_type="pt").images
    assert first.shape[-2:] == (320, 256) and first.isfinite().all()
    assert [r.getMessage() for r in caplog.records if r.name.startswith("fluxsr")] == [
        "out of memory; going on with one tile of 160 pixels at a time"
    ]
    assert (pipeline.plan.tile_size, pipeline.plan.batch_size) == (160, 1)
    sides.clear()
    assert torch.equal(pipeline(photograph(64, 80), output_type="pt").images, first) and max(sides) <= 160


def test_the_plan_is_carried_out(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(torch.float32, "cpu", 64, quantize="int8", batch_size=3)
    monkeypatch.setattr(loading, "plan", lambda *_: plan)
    pipe = fluxsr.load(model_folder, device="cpu", dtype="fp32", memory="8gb")
    assert pipe.plan is plan and is_quantized(pipe.transformer)


@pytest.mark.parametrize("color_fix", ["wavelet", "none"])
def test_rows_are_those_of_the_call(pipeline: Any, color_fix: str) -> None:
    lr = torch.rand(1, 3, 40, 24, generator=torch.Generator().manual_seed(0))
    whole = pipeline(lr, scale=3, tile_size=64, color_fix=color_fix, output_type="pt").images
    size, rows = pipeline.upscale_streaming(lr, Settings(UpscaleOptions(scale=3, tile_size=64, color_fix=color_fix)))
    found = list(rows)
    assert size == (120, 72) and len(found) > 1
    assert torch.allclose(torch.cat(found, -2).clamp(0, 1), whole, atol=1e-4)
    assert not any(band.requires_grad for band in found)


class Elsewhere(torch.Tensor):
    """A tensor that says it is on a GPU until it is brought to the CPU: no product with a CPU's tensor may see it."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor).clone()
        assert func in (torch.Tensor.float, torch.Tensor.ndim.__get__, torch.Tensor.shape.__get__), func  # type: ignore[attr-defined]
        return super().__torch_function__(func, types, args, kwargs or {})


def test_an_image_on_another_device_is_brought_to_the_cpu(pipeline: Any) -> None:
    settings, lr = Settings(UpscaleOptions(scale=2, tile_size=64)), photograph(40, 30)
    expected, far = pipeline.upscale_tensor(lr, settings), lr.as_subclass(Elsewhere)
    assert torch.equal(pipeline.upscale_tensor(far, settings), expected)
    size, rows = pipeline.upscale_streaming(far, settings)
    torch.testing.assert_close(torch.cat(list(rows), -2), expected, rtol=0, atol=1e-4)


@pytest.mark.gpu
def test_rows_of_an_image_on_a_gpu(pipeline: Any) -> None:
    settings, lr = Settings(UpscaleOptions(scale=2, tile_size=64)), photograph(40, 30)
    _, rows = pipeline.upscale_streaming(lr.cuda(), settings)
    torch.testing.assert_close(
        torch.cat(list(rows), -2), torch.cat(list(pipeline.upscale_streaming(lr, settings)[1]), -2)
    )


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 3, 16, 16), (1, 4, 16, 16)])
def test_rows_take_one_image(pipeline: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected one image, .1,3,height,width."):
        pipeline.upscale_streaming(torch.rand(shape), Settings())


def test_the_plan_follows_a_cast(model_folder: Path) -> None:
    pipe = fluxsr.load(model_folder, device="cpu", dtype="bf16")
    pipe.plan = replace(pipe.plan, peak=5, hint="faster otherwise", batch_size=3)
    assert pipe.to(torch.float32) is pipe and pipe.transformer.dtype == torch.float32
    assert pipe.plan.dtype == torch.float32 and pipe.plan.line() == "float32 on cpu, tiles of 512 px, 3 at a time"
    pipe.transformer.bfloat16()  # past the pipeline
    assert pipe.plan.dtype == torch.bfloat16
    assert pipe.plan.moved(torch.bfloat16, "cuda").batch_size is None


@pytest.mark.parametrize(("kind", "dtype"), [("int8", "fp32"), ("int8", "fp16"), ("fp8", "fp32"), ("fp8", "bf16")])
def test_an_export_in_8_bits_runs_in_every_number_format(
    kind: str, dtype: str, model_folder: Path, tmp_path: Path
) -> None:
    """torchao's weights keep the format that they were made in, bfloat16 by default."""
    parts = loading.load(model_folder, None, "cpu", "bf16", quantize=kind)
    FluxSRPipeline.of(parts).save_pretrained(tmp_path)
    loaded = fluxsr.load(tmp_path, device="cpu", dtype=dtype)
    expected = fluxsr.load(model_folder, device="cpu", dtype="fp32")(photograph(), output_type="pt")
    found = loaded(photograph(), output_type="pt").images
    assert (found - expected.images).norm() / expected.images.norm() < 0.1
    assert loaded.transformer.dtype == loaded.vae.dtype == loaded.plan.dtype


@pytest.mark.parametrize("color_fix", ["wavelet", "adain"])
def test_a_grey_photograph_in_colour_channels_is_not_tinted(pipeline: Any, color_fix: str) -> None:
    grey = photograph().mean(1, keepdim=True).repeat(1, 3, 1, 1)
    how = Settings(UpscaleOptions(scale=2, tile_size=64, color_fix=color_fix))
    found = [pipeline.upscale_tensor(grey, how)]
    if color_fix == "wavelet":
        found.append(torch.cat(list(pipeline.upscale_streaming(grey, how)[1]), -2))
    for hr in found:
        assert torch.equal(hr, hr[:, :1].expand_as(hr)) and hr.std() > 0.01
    raw = pipeline.upscale_tensor(grey, Settings(UpscaleOptions(scale=2, tile_size=64, color_fix="none")))
    assert (raw.amax(1) - raw.amin(1)).max() > 1 / 255, "the model by itself tints"


def test_rows_that_run_out_of_memory_begin_again_smaller(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a call: the rows are those of the tile that fitted, and the next image starts with it."""
    monkeypatch.setattr(pipeline, "plan", Plan(torch.float32, "cpu", 512, batch_size=2))
    lr = photograph(64, 80)
    expected = pipeline(lr, tile_size=160, output_type="pt").images

    def small(tiles: torch.Tensor, strength: float) -> torch.Tensor:
        if max(tiles.shape[-2:]) > 200:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pipeline.one_step(tiles, strength)

    _, rows = pipeline.upscale_streaming(lr, Settings(step=small))
    assert torch.allclose(torch.cat(list(rows), -2).clamp(0, 1), expected, atol=1e-4)
    assert (pipeline.plan.tile_size, pipeline.plan.batch_size) == (160, 1)


def test_what_cannot_be_used_is_refused_before_a_row_is_asked_for(pipeline: Any) -> None:
    with pytest.raises(InputError):
        pipeline.upscale_streaming(photograph(), Settings(UpscaleOptions(color_fix="adain")))


def test_tiles_can_be_run_by_somebody_else(pipeline: Any) -> None:
    """A server's way in: what it is given is what the model would be given."""
    seen: list[tuple[tuple[int, ...], float]] = []

    def step(tiles: torch.Tensor, strength: float) -> torch.Tensor:
        seen.append((tuple(tiles.shape), strength))
        return pipeline.one_step(tiles, strength)

    settings = Settings(UpscaleOptions(tile_size=64, tile_overlap=16, strength=0.5), step=step)
    found = pipeline.upscale_tensor(photograph(20, 16), settings)
    expected = pipeline(photograph(20, 16), tile_size=64, tile_overlap=16, strength=0.5, output_type="pt").images
    torch.testing.assert_close(found.clamp(0, 1), expected, rtol=0, atol=1e-6)
    assert seen == [((1, 3, 64, 48), 0.5)] * 2


@pytest.mark.parametrize(("width", "height"), [(1, 1), (9, 40), (40, 3)])
def test_small_images_are_extended_by_reflection(pipeline: Any, width: int, height: int) -> None:
    lr = photograph(width, height)
    hr = pipeline.upscale_tensor(lr, Settings())
    assert hr.shape == (1, 3, 4 * height, 4 * width)
    rows, columns = ([*range(side), *range(side - 2, 0, -1)] if side > 1 else [0] for side in (height, width))
    sides = [max(16, side) for side in (height, width)]
    mirrored = lr[..., (rows * 16)[: sides[0]], :][..., (columns * 16)[: sides[1]]]
    assert torch.equal(hr, pipeline.upscale_tensor(mirrored, Settings())[..., : 4 * height, : 4 * width])
    assert torch.equal(next(pipeline.upscale_streaming(lr, Settings())[1]), hr)


def texture(side: int = 48) -> torch.Tensor:
    y, x = torch.meshgrid(*[torch.arange(side) * (2 * torch.pi / side)] * 2, indexing="ij")
    planes = [torch.sin(3 * x + 2 * y), torch.cos(5 * x) * torch.sin(y), torch.sin(4 * y - x)]
    return torch.stack(planes)[None] * 0.3 + 0.5


def test_a_rolled_texture_gives_the_rolled_result(pipeline: Any) -> None:
    def sharpen(lr_up: torch.Tensor, strength: float) -> torch.Tensor:
        return lr_up * 2 - torch.nn.functional.avg_pool2d(lr_up, 5, 1, 2, count_include_pad=False)

    for options in (UpscaleOptions(wrap=True, tile_size=128), UpscaleOptions(wrap=True, scale=2.5)):
        settings = Settings(options, step=sharpen)  # a local model, which knows nothing of tiles
        whole = pipeline.upscale_tensor(texture(), settings)
        rolled = pipeline.upscale_tensor(texture().roll((8, 20), (-2, -1)), settings)
        shift = tuple(round(pixels * options.scale) for pixels in (8, 20))
        torch.testing.assert_close(rolled, whole.roll(shift, (-2, -1)), atol=2e-4, rtol=0)


def test_the_seam_of_a_texture_is_no_larger_than_steps_inside(pipeline: Any) -> None:
    hr = pipeline(texture(), tile_size=96, wrap=True, output_type="pt").images
    for axis in (-2, -1):
        steps = (hr - hr.roll(1, axis)).abs().mean((0, 1, -1 if axis == -2 else -2))  # of each row or column
        assert steps[0] <= 1.2 * steps[1:].max()
