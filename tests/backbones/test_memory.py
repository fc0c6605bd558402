"""Plans at FLUX.1-dev's true size: numbers only. The cards are those that people have."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from fluxsr.backbones.memory import GIB, MEMORIES, Needs, Plan, plan
from fluxsr.errors import InputError

# folded; test_flux_dev counts them
FLUX = Needs(transformer=8_622_754_880, vae=83_819_683, tile_size=1024, in_flight=466_313_984)
ALL = ("int8", "fp8", "nf4")


def on(
    gib: float | None, memory: str = "auto", needs: Needs = FLUX, dtype: torch.dtype = torch.bfloat16, **more: object
):  # type: ignore[no-untyped-def]
    free = None if gib is None else int(gib * GIB)
    return plan(memory, free, needs, dtype, "cuda", more.get("kinds", ALL), bool(more.get("compiled")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("free", "quantize", "offload", "tile", "peak"),
    [
        (139, "none", False, 1024, (26.1, 26.3)),  # H200: four tiles at a time
        (23.3, "none", False, 1024, (18.6, 22.1)),  # 24 GB: bf16; an H200 took 18.7
        (15.3, "int8", False, 1024, (10.6, 14.5)),  # 16 GB
        (11.3, "int8", False, 1024, (10.6, 10.8)),  # 12 GB; an H200 took 10.7
        (10.2, "int8", False, 768, (9.5, 9.7)),
        (7.3, "nf4", False, 1024, (6.7, 6.9)),  # 8 GB: nf4
        (6.1, "nf4", False, 768, (5.6, 5.8)),
        (4.4, "none", True, 1024, (3.5, 4.2)),  # 6 GB: block by block
    ],
)
def test_the_table(free: float, quantize: str, offload: bool, tile: int, peak: tuple[float, float]) -> None:
    made = on(free)
    assert (made.quantize, made.offload, made.tile_size) == (quantize, offload, tile), made
    assert peak[0] <= made.peak / GIB <= peak[1], made.peak / GIB
    assert made.peak < free * GIB and made.dtype == torch.bfloat16 and not made.hint


@pytest.mark.parametrize(
    ("memory", "quantize"), [("24gb", "none"), ("16gb", "int8"), ("12gb", "int8"), ("8gb", "nf4"), ("max", "none")]
)
def test_a_named_size_leaves_the_rest_of_a_large_card_alone(memory: str, quantize: str) -> None:
    made = on(139, memory)
    assert made.quantize == quantize and not made.offload
    if memory != "max":
        assert made.peak < (int(memory[:-2]) - 0.7) * GIB
    assert on(5.6, memory).quantize == ("none" if memory == "max" else "nf4"), "and is no more than what is free"


def test_what_is_not_installed_is_not_planned_but_named() -> None:
    made = on(15.3, kinds=())
    assert made.offload and made.quantize == "none"
    assert 'pip install "fluxsr[torchao]"' in made.hint
    assert on(7.3, kinds=("int8", "fp8")).hint == 'faster in nf4: pip install "fluxsr[nf4]"'
    assert on(23.3, kinds=()).hint == ""


def test_float32_takes_twice_as_much() -> None:
    assert on(23.3, dtype=torch.float32).quantize == "int8"
    assert on(40, dtype=torch.float32).quantize == "none"


def test_a_model_that_is_small_already_is_not_quantized_again() -> None:
    stored = replace(FLUX, stored=int(8.05 * GIB))
    assert (on(11.3, needs=stored).quantize, on(11.3, needs=stored).offload) == ("none", False)
    assert on(7.3, needs=stored).offload


def test_the_tile_is_never_larger_than_the_model_s_own() -> None:
    small = replace(FLUX, tile_size=512)
    assert {on(free, needs=small).tile_size for free in (5.2, 11.3, 139)} == {512}
    assert on(139, needs=small).batch_size == 4
    assert on(18.0, needs=small).batch_size == 1


@pytest.mark.parametrize("memory", MEMORIES)
def test_nothing_changes_on_a_cpu_or_for_a_small_model(memory: str) -> None:
    bundled = Needs(transformer=8_997_376, vae=4_500_000, tile_size=512, in_flight=6_000_000)
    cpu = plan(memory, None, FLUX, torch.float32, "cpu", ALL)
    assert cpu == Plan(torch.float32, "cpu", 1024)
    made = on(7.3, memory, bundled)
    assert (made.quantize, made.offload, made.tile_size, made.batch_size or 4) == ("none", False, 512, 4)


def test_too_little_for_anything_says_how_much_is_needed() -> None:
    with pytest.raises(
        InputError, match=r"0.9 GiB are free on cuda, but this model needs 1.2 GiB even with offload"
    ) as caught:
        on(1.0)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="memory is '6gb'; choose one of auto, 8gb"):
        on(8, "6gb")


@pytest.mark.parametrize("free", [None, 139, 4.4])
def test_compiled_code_gets_one_tile_at_a_time_and_the_line_says_so(free: float | None) -> None:
    plain, made = on(free), on(free, compiled=True)
    assert made.compiled and made.batch_size == 1 and (free is None or made.peak <= plain.peak)
    assert (made.quantize, made.offload, made.tile_size) == (plain.quantize, plain.offload, plain.tile_size)
    assert ", compiled, tiles of 1024 px, 1 at a time" in made.line().replace("autoencoder ", "")
    assert ("autoencoder compiled" in made.line()) == made.offload and "compiled" not in plain.line()


def test_a_plan_is_one_line() -> None:
    assert on(None).line() == "bfloat16 on cuda, tiles of 1024 px"
    line = on(7.3).line()
    assert re.fullmatch(r"bfloat16, weights in nf4 on cuda, tiles of 1024 px, 1 at a time, about \d\.\d GiB", line), (
        line
    )
    assert (
        "offloaded block by block" in on(15.3, kinds=()).line() and "(faster in int8: pip" in on(15.3, kinds=()).line()
    )
