"""Export of BERT-base: how long it takes, and how much memory for each byte of weights.

python -m benchmarks.export

Random weights of the real shape (110 million parameters): neither time nor memory depends on their
values. Everything is measured around the same call that `registry export` makes; the memory is the
exporting child's peak resident set, which the kernel keeps. Then the time from the finished export
to the first answer, in a process that imports no torch.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from registry import Export, export_model
from registry.store.snapshots import snapshot_digest

_FIRST_ANSWER = """
import sys, time
started = time.perf_counter()
from pathlib import Path
from registry import find_export
export = find_export(Path(sys.argv[1]), sys.argv[2])
from serving.engines.onnx import open_onnx
from serving.tasks import open_task
task = open_task(export.path, None)
engine = open_onnx(export.path, threads=2)
rows = task.preprocess("a good film", {})
outputs = engine.run(task.collate(rows, engine.input_names))
task.postprocess(rows, task.split(rows, outputs), {})
assert not {"torch", "transformers"} & set(sys.modules)
print(time.perf_counter() - started)
"""


def make_bert_base(directory: Path) -> Path:
    """Write a BERT-base classifier with random weights and a tokenizer into `directory`."""
    from transformers import BertConfig, BertForSequenceClassification

    from tests.models import write_bert_tokenizer

    write_bert_tokenizer(directory, max_length=512)
    BertForSequenceClassification(BertConfig(num_labels=3)).save_pretrained(directory)
    return directory


def first_answer_s(exports_dir: Path, digest: str) -> float:
    """Return the time from a cold process's first import to its first answer."""
    command = [sys.executable, "-c", _FIRST_ANSWER, str(exports_dir), digest]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def report(export: Export, wall_s: float, answer_s: float) -> None:
    """Print the measurements."""
    ratio = export.peak_memory_bytes / export.weights_bytes
    print(f"export of BERT-base        {wall_s:8.1f} s   (reach: 40 s or less)")
    print(f"  of which the comparison  {export.report.seconds:8.1f} s   {export.report.summary()}")
    print(f"weights                    {export.weights_bytes / 1e6:8.0f} MB")
    print(f"peak memory                {export.peak_memory_bytes / 1e6:8.0f} MB")
    print(f"peak memory / weights      {ratio:8.2f}     (reach: 3 or less)")
    print(f"cache to first answer      {answer_s:8.2f} s   (reach: 1.5 s or less)")


def main() -> None:
    """Make the model, export it, print."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model")
        model.mkdir()
        make_bert_base(model)
        digest = snapshot_digest({"benchmark": "0" * 64})
        exports = Path(folder, "exports")
        started = time.perf_counter()
        export = export_model(model, digest=digest, exports_dir=exports)
        wall_s = time.perf_counter() - started
        answer_s = min(first_answer_s(exports, digest) for _ in range(3))
        report(export, wall_s, answer_s)


if __name__ == "__main__":
    main()
