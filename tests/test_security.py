"""What SECURITY.md promises of places: nothing is written elsewhere. That no pickle runs is tested in backbones/."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from fluxsr.imaging import io as files
from fluxsr.imaging.photographs import list_photographs
from fluxsr.processing.inputs import Job, plan
from fluxsr.processing.reporting import CommandLabels
from fluxsr.processing.runner import ProgressCallback, Stages, Write, run_jobs

links = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


def copying(job: Job, data: bytes, progress: ProgressCallback) -> Write:
    def write() -> list[str]:
        files.write(Image.new("RGB", (4, 4)), job.target)
        return []

    return write


@links
def test_a_link_in_an_outputs_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious.png").write_bytes(b"precious")
    (tmp_path / "out.png").symlink_to(tmp_path / "precious.png")
    files.write(Image.new("RGB", (4, 4)), tmp_path / "out.png")
    assert (tmp_path / "precious.png").read_bytes() == b"precious"
    assert not (tmp_path / "out.png").is_symlink()


@links
def test_a_folder_that_is_a_link_out_of_the_output_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("in/sub", "in/plain", "elsewhere", "out"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name in ("in/sub/a.png", "in/plain/b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    work = plan([str(tmp_path / "in")], tmp_path / "out", as_file=False)
    report = run_jobs(work, lambda _: Stages(lambda job: b"", copying), CommandLabels("copy", "copied"))
    assert [path.name for path in report.done] == ["b.png"] and len(report.bad) == 1
    assert not list((tmp_path / "elsewhere").iterdir())
    assert "is a link out of" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../a.png", "in/../../a.png"])
def test_no_output_lies_outside_of_the_folder_that_was_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "w" / "in").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "w" / "a.png").write_bytes((tmp_path / "a.png").read_bytes())
    here = os.getcwd()
    os.chdir(tmp_path / "w")
    try:
        work = plan([name, "../*.png"], Path("out"), as_file=False)
    finally:
        os.chdir(here)
    assert work.jobs and all(".." not in job.target.parts and job.target.parts[0] == "out" for job in work.jobs)


def test_members_of_a_tar_that_lead_out_of_it_are_only_names(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (16, 16)).save(picture, "PNG")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("../../evil.png", "/etc/evil.png"):
            member = tarfile.TarInfo(name)
            member.size = len(picture.getvalue())
            tar.addfile(member, io.BytesIO(picture.getvalue()))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    found = list_photographs([str(tmp_path / "a.tar")])
    assert [photo.name for photo in found] == ["evil", "evil~2"] and found[0].read().shape == (3, 16, 16)
    assert sorted(tmp_path.rglob("*")) == before
