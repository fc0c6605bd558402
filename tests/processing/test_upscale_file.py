"""A plan is run job by job; what the command line shows of it is tested in test_cli.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fluxsr.options import ModelOptions, UpscaleOptions
from fluxsr.processing.inputs import Job, Plan
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


def test_a_model_that_gives_nan_fails_the_file(work: Plan, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxsr.backbones import latents

    decode = latents.decode
    monkeypatch.setattr(latents, "decode", lambda vae, z: decode(vae, z) * float("nan"))
    report = run(work, ModelOptions(), UpscaleOptions(scale=1))
    assert not report.done and len(report.bad) == 2
    assert not work.jobs[1].target.exists()
