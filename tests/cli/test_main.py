"""The command line: exit codes, one line per failure, and the rest of the batch is done."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

import fluxsr
from fluxsr.backbones.device import best_device, best_dtype
from fluxsr.cli.main import app
from fluxsr.processing.resume import NAME


def photograph(path: Path, width: int = 20, height: int = 16, seed: int = 0) -> Path:
    pixels = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * 255).byte().numpy()).save(path)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def error_lines(result: Result) -> list[str]:
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")]


@pytest.fixture
def loads(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The tiny pipeline in place of any model; lists what was asked for."""
    asked: list[Any] = []
    monkeypatch.setattr("fluxsr.single.load", lambda model, **options: asked.append((model, options)) or pipeline)
    return asked


def test_one_file_into_a_folder_or_a_file(tmp_path: Path, loads: list[Any]) -> None:
    result = run("upscale", photograph(tmp_path / "a.jpg"), "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "out" / "a.jpg") as image:
        assert image.size == (80, 64) and image.format == "JPEG"
    run("upscale", tmp_path / "a.jpg", "-o", tmp_path / "b.webp", "--scale", "1.5")
    with Image.open(tmp_path / "b.webp") as image:
        assert image.size == (30, 24) and image.format == "WEBP"
    assert loads[0][0] == "bundled"
    assert (
        "model: tiny" in result.stderr
        and "plan: float32 on cpu, tiles of 512 px\n" in result.stderr
        and "1 upscaled" in result.stderr
    )


def test_options_of_the_output(tmp_path: Path, loads: list[Any]) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x8825] = "Canon", {1: "N"}
    Image.new("RGB", (20, 16)).save(tmp_path / "a.jpg", exif=exif, dpi=(300, 300))
    kept = [("--strip-gps", (True, False, True)), ("--strip-metadata", (False,) * 3), ("--lossless", (True,) * 3)]
    for option, expected in kept:
        result = run("upscale", tmp_path / "a.jpg", "-o", tmp_path / option, "--suffix", "_x4", option)
        assert result.exit_code == 0, result.output
        with Image.open(tmp_path / option / "a_x4.jpg") as image:
            found = image.getexif()
            dpi = image.info.get("dpi") == (300, 300)
            assert (0x010F in found, 0x8825 in found, dpi) == expected, option
    result = run("upscale", tmp_path / "a.jpg", "-o", tmp_path / "b.png", "--max-pixels", "319")
    assert result.exit_code == 1 and "the limit is 319" in error_lines(result)[0]


def test_what_is_lost_is_told(tmp_path: Path, loads: list[Any]) -> None:
    Image.new("RGBA", (20, 16), (1, 2, 3, 4)).save(tmp_path / "a.png")
    result = run("upscale", tmp_path / "a.png", "-o", tmp_path / "b.jpg")
    assert result.exit_code == 0 and "transparency is laid over white" in result.stderr


def test_finished_outputs_are_skipped_without_loading(tmp_path: Path, loads: list[Any]) -> None:
    photograph(tmp_path / "in" / "a.png")
    command: list[str | Path] = ["upscale", tmp_path / "in", "-o", tmp_path / "out"]
    run(*command)
    before = (tmp_path / "out" / "a.png").stat().st_ctime_ns  # the other times are the input's
    again = run(*command)
    assert again.exit_code == 0 and "1 finished before" in again.stderr
    assert len(loads) == 1
    assert (tmp_path / "out" / "a.png").stat().st_ctime_ns == before
    assert run(*command, "--overwrite").exit_code == 0
    assert (tmp_path / "out" / "a.png").stat().st_ctime_ns > before


def bad_inputs(folder: Path) -> dict[str, str]:
    """File name -> words of its line; makes one of each kind of bad file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not an image")
    whole = photograph(folder / "cut.jpg", 200, 200).read_bytes()
    (folder / "cut.jpg").write_bytes(whole[:4000])
    (folder / "nopixels.ppm").write_bytes(b"P6\n0 0\n255\n")
    return {
        "empty.png": "is empty",
        "text.png": "is not an image",
        "cut.jpg": "damaged or cut off",
        "nopixels.ppm": "nopixels.ppm",
    }


def test_bad_files_are_one_line_each_and_the_rest_is_done(tmp_path: Path, loads: list[Any]) -> None:
    bad = bad_inputs(tmp_path / "in")
    photograph(tmp_path / "in" / "a.png")
    photograph(tmp_path / "in" / "z" / "z.jpg")
    missing = tmp_path / "missing.png"
    result = run("upscale", tmp_path / "in", missing, "-o", tmp_path / "out")
    assert result.exit_code == 1
    lines = error_lines(result)
    for name, words in {**bad, "missing.png": "no such file"}.items():
        assert len([line for line in lines if name in line and words in line]) == 1, name
        assert result.stderr.count(f"failed: {tmp_path}") == 5
    assert len(lines) == 5
    outputs = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")} - {NAME}
    assert outputs == {"a.png", "z/z.jpg"}
    assert "2 upscaled, 5 failed" in result.stderr


def test_an_output_that_cannot_be_written(tmp_path: Path, loads: list[Any]) -> None:
    (tmp_path / "file").touch()
    result = run("upscale", photograph(tmp_path / "a.png"), "-o", tmp_path / "file")
    assert result.exit_code == 1
    assert len(error_lines(result)) == 1 and "cannot be written" in error_lines(result)[0]


def test_a_bug_in_one_file_does_not_stop_the_others(
    tmp_path: Path, loads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluxsr.imaging import io

    read = io.read

    def broken(path: Path, max_pixels: int) -> Any:
        if path.name == "a.png":
            raise RuntimeError("first line\nsecond line")
        return read(path, max_pixels)

    monkeypatch.setattr(io, "read", broken)
    photograph(tmp_path / "in" / "a.png")
    photograph(tmp_path / "in" / "b.png")
    result = run("upscale", tmp_path / "in", "-o", tmp_path / "out")
    assert result.exit_code == 1 and (tmp_path / "out" / "b.png").exists()
    (line,) = error_lines(result)
    assert "unexpected RuntimeError: first line" in line and "second" not in result.output
    shown = run("upscale", tmp_path / "in", "-o", tmp_path / "out", "--debug")
    assert isinstance(shown.exception, RuntimeError)


@pytest.mark.parametrize(
    "wrong",
    [
        ["--scale", "9"],
        ["--scale", "many"],
        ["--color-fix", "lab"],
        ["--tile-size", "8"],
        ["--tile-overlap", "400", "--tile-size", "512"],
        ["--format", "heic"],
        ["--no-such-option"],
        ["--seed", "3"],
        ["--suffix", "a/b"],
        ["--dtype", "int8"],
        ["--memory", "6gb"],
        ["-o", "one.png", "--format", "jpg"],
        ["-o", "one.png", "another.png"],
    ],
)
def test_wrong_usage_exits_2(tmp_path: Path, loads: list[Any], wrong: list[str]) -> None:
    result = run("upscale", photograph(tmp_path / "a.png"), "-o", tmp_path / "out", *wrong)
    assert result.exit_code == 2 and not loads
    assert wrong[0] in result.stderr and "Traceback" not in result.output


def test_the_saved_model_from_its_folder(tmp_path: Path, model_folder: Path) -> None:
    source = photograph(tmp_path / "a.png")
    result = run("upscale", source, "-o", tmp_path / "out", "--model", model_folder)
    assert result.exit_code == 0, result.output
    assert str(model_folder) in result.stderr and (tmp_path / "out" / "a.png").exists()
    for code, option in ((1, ("--model", tmp_path / "absent")), (2, ("--device", "abacus"))):
        failed = run("upscale", source, "-o", tmp_path / "o", "--model", model_folder, *option)
        assert failed.exit_code == code and len(error_lines(failed)) == 1
        assert Path(option[1]).name in error_lines(failed)[0]


def test_info(loads: list[Any]) -> None:
    result = run("info")
    assert result.exit_code == 0, result.output
    for words in (f"fluxsr {fluxsr.__version__}", "torch ", "model: tiny", "cpu, float32", "t_l"):
        assert words in result.stdout
    assert f"\nnumber format: {str(best_dtype(best_device())).removeprefix('torch.')}, " in result.stdout
    assert "\nnumber format: bfloat16, as asked for\n" in run("info", "--dtype", "bf16").stdout


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["fluxsr", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("fluxsr", run_name="__main__")
    assert not end.value.code and capsys.readouterr().out == f"fluxsr {fluxsr.__version__}\n"


def test_every_command_and_option_has_a_help_text_of_whole_sentences() -> None:
    def commands(group: Any) -> list[Any]:
        found = group.commands.values()
        return [one for command in found for one in (commands(command) if hasattr(command, "commands") else [command])]

    assert len(commands(typer.main.get_command(app))) > 15
    for command in commands(typer.main.get_command(app)):
        assert command.help.endswith("."), command.name
        for option in command.params:
            text = getattr(option, "help", None) or ""
            if option.name != "help" and not getattr(option, "hidden", False):
                assert text.endswith(".") and text[0] == text[0].upper(), (command.name, option.name, text)


def test_ctrl_c_is_no_traceback(tmp_path: Path, loads: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from fluxsr.processing import upscale_file

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(upscale_file, "upscale", stop)
    result = run("upscale", photograph(tmp_path / "a.png"), "-o", tmp_path / "out")
    assert result.exit_code == 130 and "stopped" in result.stderr
