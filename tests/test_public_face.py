"""The public face: few names, pinned here, and nothing heavy happens on import."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fluxsr

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numpy", "diffusers", "transformers", "peft", "PIL", "ray", "pyarrow", "fsspec", "fastapi", "gradio")


def heavy_after(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter has loaded after running the code."""
    report = f"import sys\n{code}\nprint('loaded:', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", report],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rsplit("loaded:", 1)[1].split())


def test_names_are_pinned() -> None:
    assert sorted(fluxsr.__all__) == ["Adapter", "FluxSRPipeline", "__version__", "load", "upscale"]
    for name in fluxsr.__all__:
        assert name in dir(fluxsr)
        assert getattr(fluxsr, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        fluxsr.no_such_name  # noqa: B018


def test_the_version_is_in_the_changelog_and_the_citation() -> None:
    """pyproject.toml takes it from the package (hatch), so that it is written once."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", fluxsr.__version__)
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"## [{fluxsr.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {fluxsr.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_import_is_light() -> None:
    assert heavy_after("import fluxsr") == set()


def test_help_is_light() -> None:
    code = (
        "from fluxsr.cli.main import main\n"
        "sys.argv = ['fluxsr', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    assert heavy_after(code) == set()


@pytest.mark.slow  # .ci/run installs the core packages alone
def test_the_bundled_model_needs_core_packages_only() -> None:
    blocked = ("transformers", "peft", "accelerate", "scipy", "torchvision", "torchao", "gguf", "gradio", "ray")
    code = (
        f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        "import fluxsr, PIL.Image\n"
        "assert fluxsr.upscale(PIL.Image.new('RGB', (16, 16)), scale=1).size == (16, 16)\n"
        f"for name in {blocked!r}:\n    del sys.modules[name]"
    )
    assert heavy_after(code) == {"torch", "numpy", "diffusers", "PIL"}


def test_package_is_marked_as_typed() -> None:
    assert (Path(fluxsr.__file__).parent / "py.typed").is_file()
