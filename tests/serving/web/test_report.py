"""What is said of pictures, with names that may hold anything."""

from __future__ import annotations

from pathlib import Path

from fluxsr.serving.web.report import of_batch, of_one
from fluxsr.serving.web.work import Batch, Made

HOSTILE = "<script>$x$ & 'y'.jpg"
SAFE = "&lt;script&gt;$x$ &amp; &#x27;y&#x27;.jpg"
MADE = Made(Path(HOSTILE), (16, 24), (64, 96), ("has <b>notes",), 1.23)


def test_names_and_notes_are_escaped() -> None:
    told = Batch([(HOSTILE, MADE)], [(HOSTILE, f"{HOSTILE} is <odd>")], [HOSTILE], "stopped")
    for text in (of_one(MADE), of_batch(told)):
        assert SAFE in text and "has &lt;b&gt;notes" in text and "<script>" not in text and "<odd>" not in text


def test_names_that_no_answer_can_hold_are_escaped() -> None:
    name = "caf\udce9\n.jpg"
    made = Made(Path(name), (16, 24), (64, 96), ("has \udcff",), 1.23)
    told = Batch([(name, made)], [(name, "caf\\udce9\\n.jpg: is odd\udcff")], [name], "stopped")
    for text in (of_one(made), of_batch(told)):
        assert text.encode() and "caf\\udce9\\n.jpg" in text
    assert of_batch(told).count("caf") == 3


def test_a_batch_is_counted_and_says_each_name_once_a_line() -> None:
    text = of_batch(Batch([("a.jpg", MADE)], [("b.jpg", "b.jpg: out of memory")], ["c.jpg"], "stopped"))
    assert "1 done, 1 failed, 1 left" in text and "16 × 24 → 64 × 96, 1.2 s" in text
    assert text.count("b.jpg") == 1 and "out of memory" in text and "stopped" in text
