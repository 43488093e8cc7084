"""Which ONNX Runtime runs the graphs of decoders."""

from __future__ import annotations

import onnxruntime
import pytest

from registry.errors import UnavailableError
from registry.export.cached_session import check_runtime


@pytest.mark.parametrize("version", ["1.32.0", "1.32.0.dev20260301", "1.100.2", "2.0"])
def test_runtimes_that_are_new_enough(version: str) -> None:
    check_runtime(version)
    check_runtime(onnxruntime.__version__)


@pytest.mark.parametrize("version", ["1.20.1", "1.31.1", "0.99.0", "unknown"])
def test_an_older_one_is_told_with_what_to_install(version: str) -> None:
    with pytest.raises(UnavailableError, match=version) as told:
        check_runtime(version)
    assert "onnxruntime>=1.32" in told.value.hint
