"""No task needs torch or transformers to serve."""

import subprocess
import sys

from tests.serving.task_models import TASKS, TaskModels

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnx", "onnxscript", "safetensors",
                                  "sentence_transformers", "huggingface_hub"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from pathlib import Path
from serving.engines.onnx import open_onnx
from serving.tasks import open_task
for directory in map(Path, sys.argv[1:]):
    task, engine = open_task(directory, None), open_onnx(directory, threads=1)
    for item in task.samples.items:
        rows = task.preprocess(item, task.samples.parameters)
        outputs = task.split(rows, engine.run(task.collate(rows, engine.input_names)))
        assert task.postprocess(rows, outputs, task.samples.parameters) is not None
    print(task.name)
"""


def test_nothing_heavy_is_needed_to_serve(task_models: TaskModels) -> None:
    directories = [str(task_models.export(task).path) for task in TASKS]
    command = [sys.executable, "-c", BLOCKED, *directories]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.split() == list(TASKS)
