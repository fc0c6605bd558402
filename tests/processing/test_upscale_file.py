"""A plan is run job by job; what the command line shows of it is tested in test_cli.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxsr.backbones import latents
from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing.inputs import Job, Plan
from fluxsr.processing.resume import NAME
from fluxsr.processing.upscale_file import run


@pytest.fixture
def work(tmp_path: Path, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Three pictures, the first of them done, and the tiny pipeline in place of any model."""
    monkeypatch.setattr("fluxsr.single.load", lambda model, **options: pipeline)
    jobs = [Job(tmp_path / f"{name}.png", tmp_path / "out" / f"{name}.png") for name in "abc"]
    (tmp_path / "out").mkdir()
    for place in (jobs[0].target, *(job.source for job in jobs)):
        Image.new("RGB", (16, 16), "teal").save(place)
    return Plan(jobs)


def test_finished_jobs_are_told_from_the_others(work: Plan) -> None:
    report = run(work, ModelOptions(), UpscaleOptions(scale=1))
    assert report.skipped == [work.jobs[0].target] and not report.bad
    assert report.done == [job.target for job in work.jobs[1:]]
    assert run(work, ModelOptions(), UpscaleOptions(scale=1), overwrite=True).done == [job.target for job in work.jobs]


def test_no_job_is_looked_for_among_the_others(work: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def compare(*_: Any) -> bool:
        raise AssertionError("a job compared with each of the others takes minutes for thousands")

    monkeypatch.setattr(Job, "__eq__", compare)
    assert len(run(work, ModelOptions(), UpscaleOptions(scale=1)).done) == 2


def broken_model(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = latents.decode
    monkeypatch.setattr(latents, "decode", lambda vae, z: decode(vae, z) * float("nan"))


def test_broken_tiles_are_repaired_and_told(
    work: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_model(monkeypatch)
    folder = work.jobs[0].target.parent
    work.jobs = [replace(job, record=folder) for job in work.jobs]
    report = run(work, ModelOptions(), UpscaleOptions(scale=1))
    note = "has tiles that the model got wrong: 1 not finite, replaced by the plain enlargement"
    assert report.repaired == len(report.done) == 2 and not report.bad
    said = capsys.readouterr().err
    assert f"note: {work.jobs[1].source} {note}" in said and "2 upscaled, 2 with repaired tiles" in said
    assert (folder / NAME).read_text().count(note) == 2
    assert Image.open(work.jobs[1].target).getpixel((8, 8)) == Image.open(work.jobs[1].source).getpixel((8, 8))


def test_a_model_that_gives_nan_fails_the_file_without_the_guard(work: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    broken_model(monkeypatch)
    report = run(work, ModelOptions(), UpscaleOptions(scale=1, guard=False))
    assert not report.done and len(report.bad) == 2
    assert not work.jobs[1].target.exists()


def test_outputs_say_what_made_them_unless_told_not_to(work: Plan) -> None:
    def written(**options: bool) -> list[bytes]:
        done = run(work, ModelOptions(), UpscaleOptions(scale=1, **options), overwrite=True).done
        return [path.read_bytes() for path in done]

    first, again, without = written(), written(), written(provenance=False)
    assert first == again, "no time, no chance"
    assert all(b"compositeWithTrainedAlgorithmicMedia" in data and b'fluxsr:Strength="1"' in data for data in first)
    assert not any(b"fluxsr" in data for data in without)
