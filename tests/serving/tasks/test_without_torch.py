"""No task needs torch or transformers to serve."""

import subprocess
import sys

from registry import Export
from tests.generation_models import TinyDecoders
from tests.serving.task_models import TASKS, TaskModels

BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnx", "onnxscript", "safetensors",
                                  "sentence_transformers", "huggingface_hub"}:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from pathlib import Path
"""

BLOCKED = f"""{BLOCK}
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

GROWN = f"""{BLOCK}
from serving.generation.loop import GenerationLoop
from serving.generation.tasks import open_generation
from serving.tasks import name_task
for directory in map(Path, sys.argv[1:]):
    name = name_task(directory, None)
    task, decoder = open_generation(directory, name, engine="onnx", threads=1, max_jobs=4)
    loop = GenerationLoop(decoder, max_jobs=4)
    for item in task.samples.items:
        jobs = task.prepare(item, task.samples.parameters)
        for job in jobs:
            loop.add(item, job)
        while not loop.idle:
            loop.admit()
            assert not [ended for ended in loop.turn() if ended.error]
        assert task.answer(jobs)
    print(task.name)
"""


def test_nothing_heavy_is_needed_to_serve(task_models: TaskModels) -> None:
    directories = [str(task_models.export(task).path) for task in TASKS]
    command = [sys.executable, "-c", BLOCKED, *directories]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.split() == list(TASKS)


def test_nothing_heavy_is_needed_to_generate(tiny_decoders: TinyDecoders) -> None:
    _, export = tiny_decoders.get()
    command = [sys.executable, "-c", GROWN, str(export.path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.split() == ["text-generation"]


def test_nothing_heavy_is_needed_to_rewrite(seq2seq_exports: dict[str, Export]) -> None:
    exports = [seq2seq_exports[name] for name in ("t5", "bart")]
    command = [sys.executable, "-c", GROWN, *(str(export.path) for export in exports)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.split() == [export.task for export in exports]
