"""Inputs are found once, outputs never collide, and nothing replaces an input."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluxsr.processing.inputs import find, plan


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def targets(inputs: list[str], output: str = "out", **options: str) -> dict[str, str]:
    work = plan(inputs, Path(output), as_file=False, **{"ending": ".png", **options})
    assert not work.bad
    return {job.source.as_posix(): job.target.as_posix() for job in work.jobs}


def test_folders_keep_their_structure_and_leave_other_files_out(place: Path) -> None:
    make("in/a.jpg", "in/deep/er/b.PNG", "in/notes.txt", "in/._a.jpg")
    assert targets(["in"]) == {"in/a.jpg": "out/a.png", "in/deep/er/b.PNG": "out/deep/er/b.png"}


def test_globs_are_expanded_and_nothing_is_done_twice(place: Path) -> None:
    make("in/a.jpg", "in/b.webp", "in/c.txt")
    assert set(targets(["in/*", "in/a.jpg", "in"])) == {"in/a.jpg", "in/b.webp"}
    make("in/deep/d.png")
    assert targets(["in/**/*.png"]) == {"in/deep/d.png": "out/d.png"}


def test_a_file_that_is_named_is_that_file(place: Path) -> None:
    make("a[1].png", "scan.xyz", "a.b.jpg")
    names = {"a[1].png": "out/a[1]_x4.webp", "scan.xyz": "out/scan_x4.webp", "a.b.jpg": "out/a.b_x4.webp"}
    assert targets([*names], ending=".webp", suffix="_x4") == names


def test_inputs_that_lead_nowhere_are_told(place: Path) -> None:
    make("empty/notes.txt")
    found, bad = find(["missing.png", "no*.png", "empty"])
    assert not found
    assert [name for name, _ in bad] == ["missing.png", "no*.png", "empty"]
    assert "no such file" in bad[0][1] and "pattern" in bad[1][1] and "no image" in bad[2][1]


def test_collisions_get_names_of_their_own(place: Path) -> None:
    make("in/a.jpg", "in/a.png", "in/b.png", "in/a.jpg.bmp")
    work = plan(["in"], Path("out"), as_file=False, ending=".png")
    names = [job.target.name for job in work.jobs]
    assert len(set(names)) == 4 and "a.png.png" in names and "b.png" in names
    assert "a.png.png" in work.notes[0] and "would share one output" in work.notes[0]
    make("one/x.jpg", "two/x.jpg")
    assert targets(["one", "two"]) == {
        "one/x.jpg": "out/one_x.jpg.png",
        "two/x.jpg": "out/two_x.jpg.png",
    }
    make("p/one/y.jpg", "q/one/y.jpg")
    assert len(set(targets(["p/one", "q/one"]).values())) == 2, "same folder name: a hash of the path"
    make("p/one/caf\udce9.png", "q/one/caf\udce9.png")
    assert len(set(targets(["p/one", "q/one"]).values())) == 4, "names that are not UTF-8"
    make("case/A.jpg", "case/a.png")
    assert len({name.casefold() for name in targets(["case"]).values()}) == 2


def test_outputs_below_the_inputs_are_not_inputs(place: Path) -> None:
    make("a.png", "out/a.png", "out/old.png")
    assert targets(["."]) == {"a.png": "out/a.png"}
    make("in/b.png", "in/b_x4.png")
    assert targets(["in"], "in", suffix="_x4") == {"in/b.png": "in/b_x4.png"}


def test_an_output_that_would_replace_an_input_is_refused(place: Path) -> None:
    make("a.png", "b.jpg", "b.png")
    for inputs in (["a.png"], ["b.jpg", "b.png", "a.png"]):
        work = plan(inputs, Path("."), as_file=False)
        assert "replace an input" in dict(work.bad)["a.png"]
        assert all(not job.target.exists() for job in work.jobs)
    work = plan(["a.png"], Path("a.png"), as_file=True)
    assert not work.jobs and "replace an input" in work.bad[0][1]


@pytest.mark.parametrize(
    ("names", "inputs", "output"),
    [
        (["a.png", "photos/a.png", "photos/b.png"], ["**/*.png"], "upscaled"),
        (["a.png", "b.png"], ["*"], "upscaled"),
        (["photos/a.png", "pictures/a.png"], ["**/*.png"], "."),
        (["flat/a.jpg", "flat/deep/b.webp"], ["flat"], "flat"),
        (["flat/a.jpg", "flat/b.webp"], ["flat/*"], "flat"),
        (["flat/a.jpg", "flat/a.webp"], ["flat"], "flat"),
        (["p/x.jpg", "q/x.jpg"], ["p", "q"], "p"),
        (["out/a.jpg"], ["out/*.jpg"], "out"),
    ],
)
def test_a_second_run_plans_what_the_first_did(place: Path, names: list[str], inputs: list[str], output: str) -> None:
    make(*names)
    first = targets(inputs, output)
    assert first
    make(*first.values())
    assert targets(inputs, output) == first
    make(*targets(inputs, output).values())
    assert targets(inputs, output) == first


def test_a_second_run_into_one_file(place: Path) -> None:
    make("a.png", "b.png")
    (job,) = plan(["*.png"], Path("b.png"), as_file=True).jobs
    assert (job.source, job.target) == (Path("a.png"), Path("b.png"))


def test_what_is_taken_for_an_earlier_result_is_told(place: Path) -> None:
    make("flat/a.jpg", "flat/a.png", "flat/b.jpg", "flat/b.png")
    work = plan(["flat"], Path("flat"), as_file=False, ending=".png")
    assert [job.source.name for job in work.jobs] == ["a.jpg", "b.jpg"]
    (note,) = work.notes
    assert f"{Path('flat/a.png')} is taken for an earlier result of {Path('flat/a.jpg')}" in note
    assert "1 more likewise" in note and "another -o" in note


def test_outputs_follow_their_inputs_where_no_format_is_asked_for(place: Path) -> None:
    make("a.JPG", "b.tiff", "c.heic", "d.gif", "e.avif", "f.jxl")
    work = plan(["*"], Path("out"), as_file=False)
    assert [job.target.name for job in work.jobs] == ["a.jpg", "b.tiff", "c.jpg", "d.png", "e.avif", "f.png"]


def test_hidden_folders_are_passed_over_unless_they_are_named(place: Path) -> None:
    make("in/a.png", "in/.trash/b.png", "in/@eaDir/a.png", "in/c.dng", "in/d.jpe")
    work = plan(["in"], Path("out"), as_file=False)
    assert [job.target.as_posix() for job in work.jobs] == ["out/a.png", "out/d.jpe"]
    hidden = [str(Path("in", name)) for name in (".trash", "@eaDir")]
    assert sorted(work.passed.hidden) == hidden and work.passed.endings == {".dng": 1}
    pattern = plan(["in/**/*"], Path("out"), as_file=False)
    assert [job.source.name for job in pattern.jobs] == ["a.png", "d.jpe"]
    assert pattern.passed.endings == {".dng": 1} and pattern.passed.hidden == hidden[1:], "* leaves out dots by itself"
    assert targets(["in/.trash"]) == {"in/.trash/b.png": "out/b.png"} == targets(["in/.trash/*.png"])
