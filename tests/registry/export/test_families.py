"""Every family of encoders is exported, passes its gate and answers as transformers does."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.engines.onnx import open_onnx
from serving.tasks import open_task
from tests.exports import export_directory
from tests.registry.export.families import FAMILIES, write_classifier
from tests.serving.tasks.served import Served, check_same
from tests.serving.tasks.texts import varied_texts

# The others are exported by the rest of the suite, or with these in `make soak`.
QUICK = {"deberta-v2"}


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.soak) for name in FAMILIES],
)
def test_a_family_answers_as_the_pipeline_does(family: str, tmp_path: Path) -> None:
    from transformers import pipeline

    model = write_classifier(family, tmp_path / "model")
    export = export_directory(model, tmp_path / "exports")
    assert export.report.passed
    assert export.report.label_agreement == 1.0

    reference = pipeline("text-classification", model=str(model))
    served = Served(open_task(export.path, None), open_onnx(export.path, threads=1), reference)
    texts = varied_texts(200)
    expected = [reference(text, truncation=True, top_k=None) for text in texts]
    assert len({answer[0]["label"] for answer in expected}) > 1
    check_same(served, texts, expected, top_k=None)
    served.engine.close()
