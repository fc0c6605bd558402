"""Colours against published values and closed forms."""

from __future__ import annotations

import pytest
import torch

from fluxsr.evaluation.colour import added_texture, added_tint, ciede2000, colour_difference, lab

# L*a*b* of two colours and their CIEDE2000: table 1 of Sharma, Wu and Dalal (2005)
SHARMA = """
50 2.6772 -79.7751 50 0 -82.7485 2.0425
50 3.1571 -77.2803 50 0 -82.7485 2.8615
50 2.8361 -74.0200 50 0 -82.7485 3.4412
50 -1.3802 -84.2814 50 0 -82.7485 1.0000
50 -1.1848 -84.8006 50 0 -82.7485 1.0000
50 -0.9009 -85.5211 50 0 -82.7485 1.0000
50 0 0 50 -1 2 2.3669
50 -1 2 50 0 0 2.3669
50 2.4900 -0.0010 50 -2.4900 0.0009 7.1792
50 2.4900 -0.0010 50 -2.4900 0.0010 7.1792
50 2.4900 -0.0010 50 -2.4900 0.0011 7.2195
50 2.4900 -0.0010 50 -2.4900 0.0012 7.2195
50 -0.0010 2.4900 50 0.0009 -2.4900 4.8045
50 -0.0010 2.4900 50 0.0010 -2.4900 4.8045
50 -0.0010 2.4900 50 0.0011 -2.4900 4.7461
50 2.5 0 50 0 -2.5 4.3065
50 2.5 0 73 25 -18 27.1492
50 2.5 0 61 -5 29 22.8977
50 2.5 0 56 -27 -3 31.9030
50 2.5 0 58 24 15 19.4535
50 2.5 0 50 3.1736 0.5854 1.0000
50 2.5 0 50 3.2972 0 1.0000
50 2.5 0 50 1.8634 0.5757 1.0000
50 2.5 0 50 3.2592 0.3350 1.0000
60.2574 -34.0099 36.2677 60.4626 -34.1751 39.4387 1.2644
63.0109 -31.0961 -5.8663 62.8187 -29.7946 -4.0864 1.2630
61.2901 3.7196 -5.3901 61.4292 2.2480 -4.9620 1.8731
35.0831 -44.1164 3.7933 35.0232 -40.0716 1.5901 1.8645
22.7233 20.0904 -46.6940 23.0331 14.9730 -42.5619 2.0373
36.4612 47.8580 18.3852 36.2715 50.5065 21.2231 1.4146
90.8027 -2.0831 1.4410 91.1528 -1.6435 0.0447 1.4441
90.9257 -0.5406 -0.9208 88.6381 -0.8985 -0.7239 1.5381
6.7747 -0.2908 -2.4247 5.8714 -0.0985 -2.2286 0.6377
2.0776 0.0795 -1.1350 0.9033 -0.0636 -0.5514 0.9082
"""


def test_ciede2000_is_that_of_all_34_published_pairs():
    lines = [[float(value) for value in line.split()] for line in SHARMA.strip().splitlines()]
    rows = torch.tensor(lines, dtype=torch.float64)
    assert rows.shape == (34, 7)
    for first, second in ((rows[:, :3], rows[:, 3:6]), (rows[:, 3:6], rows[:, :3])):
        torch.testing.assert_close(ciede2000(first, second), rows[:, 6], atol=5.1e-5, rtol=0)


def test_lab_of_white_red_and_grey():
    colours = torch.tensor([[1, 1, 1], [1, 0, 0], [0.5, 0.5, 0.5]])[..., None, None]
    wanted = torch.tensor([[100, 0, 0], [53.24, 80.09, 67.20], [53.39, 0, 0]]).double()  # as in any table of sRGB
    torch.testing.assert_close(lab(colours)[..., 0, 0], wanted, atol=0.01, rtol=0)


def flat(*colour: float) -> torch.Tensor:
    return torch.tensor(colour).view(1, 3, 1, 1).expand(1, 3, 64, 64).clone()


def test_a_tint_on_grey_is_its_chroma_and_colours_do_not_count():
    grey, tinted = flat(0.5, 0.5, 0.5), flat(0.5, 0.5, 0.6)
    chroma = float(lab(tinted)[0, 1:, 0, 0].norm())
    assert float(added_tint(tinted, grey)) == pytest.approx(chroma) and chroma > 10
    assert float(colour_difference(tinted, grey)) == pytest.approx(float(ciede2000(lab(tinted), lab(grey)).mean()))
    half = grey.clone()
    half[..., :32] = flat(1, 0, 0)[..., :32]
    changed = half.clone()
    changed[..., :32] = flat(0, 0, 1)[..., :32]
    assert float(added_tint(changed, half)) == pytest.approx(0, abs=1e-6)
    assert added_tint(tinted, flat(1, 0, 0)).isnan(), "no grey"


def test_a_weave_on_flat_areas_is_its_deviation():
    calm = flat(0.5, 0.5, 0.5)
    sign = 1 - 2 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2)
    woven = calm + 5 / 219 * sign  # luma of +-5
    assert float(added_texture(woven, calm)) == pytest.approx(5, abs=1e-4)
    assert float(added_texture(calm, calm)) == 0
    assert added_texture(calm, woven).isnan(), "nothing is flat"
