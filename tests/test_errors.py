"""What is not installed, in one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fluxsr.errors import InputError, needed


def test_all_that_is_missing_is_named_at_once(uninstall: Callable[..., None]) -> None:
    uninstall("torch", "numpy")
    needed("it", "extra", "PIL")
    with pytest.raises(InputError) as found:
        needed("fluxsr fly", "wings", "torch", "PIL", "numpy")
    assert str(found.value) == 'fluxsr fly needs torch, numpy; pip install "fluxsr[wings]"'
