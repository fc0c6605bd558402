"""Results that others published: in the table of their protocol, with the digits of their source."""

from __future__ import annotations

from fluxsr.evaluation import Report, table_of
from fluxsr.evaluation.catalogue import METRICS
from fluxsr.evaluation.protocols import PROTOCOLS
from fluxsr.evaluation.published import published, with_published


def test_a_row_belongs_to_one_protocol():
    assert published(PROTOCOLS["realsr"])["FluxSR (published)"]["psnr"] == "24.83"
    crops = published(PROTOCOLS["realsr-crops"])
    assert "FluxSR (published)" not in crops, "protocol A is not B"
    assert crops["FluxSR, disputed (published by ScaleResfusion)"]["psnr"] == "23.83"
    assert "psnr" not in published(PROTOCOLS["realset65"])["FluxSR (published)"]


def test_columns_are_metrics_and_say_where_their_variant_is_unknown():
    for protocol in PROTOCOLS.values():
        rows = published(protocol)
        assert rows, protocol.name
        for row in rows.values():
            assert {key.rstrip("?") for key in row} <= set(METRICS) and all(map(float, row.values()))
            assert all(key in ("maniqa?", "maniqa-pipal") for key in row if key.startswith("maniqa"))
            assert protocol.paired or not any(METRICS[key.rstrip("?")].needs_hr for key in row)


def test_published_rows_stand_under_ours_in_their_columns():
    ours = Report("ours", 0, {"psnr": 29.5, "piqe": 7.0}, {"a": {"psnr": 29.5, "piqe": 7.0}})
    table = with_published(table_of([ours]), PROTOCOLS["drealsr"])
    assert table.head == [
        *("name", "n", "psnr ↑", "piqe ↓", "ssim ↑", "lpips-alex ↓", "dists ↓", "musiq ↑", "maniqa? ↑", "qalign ↑")
    ]
    assert table.rows[0] == ["ours", "1", "29.50", "7.00", *"------"]
    source = ["25.92", "-", "0.7592", "0.3418", "0.1628", "37.82", "0.5310", "4.3356"]
    assert table.rows[1] == ["FluxSR (published)", "93", *source]
    assert table.notes[0] == "protocol: DRealSR, full size (A)"
    assert any("published by FluxSR" in note and "arXiv 2502.01993" in note for note in table.notes)
