"""Models that hear and see against transformers' pipelines on the same directory."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from registry import Export
from serving.engines.onnx import open_onnx
from serving.engines.protocol import Engine
from serving.engines.torch import open_torch
from serving.errors import InvalidInputError, PayloadTooLargeError, ServingError
from serving.tasks import Task, open_task
from tests.senses import RATE
from tests.serving.sense_models import SenseModels

NUMBERS: list[Mapping[str, Any]] = [
    {},
    {"top_k": 2},
    {"function_to_apply": "sigmoid"},
    {"function_to_apply": "none", "top_k": 50},
]


class Served:
    """A task with its engine, without a worker."""

    def __init__(self, export: Export) -> None:
        self.task: Task = open_task(export.path, None)
        self.engine: Engine = open_onnx(export.path, threads=1)

    def __call__(self, item: object, parameters: Mapping[str, Any] | None = None) -> Any:
        parameters = parameters or {}
        rows = self.task.preprocess(item, parameters)
        outputs = []
        for row in rows:
            batch = self.task.collate([row], self.engine.input_names)
            outputs += self.task.split([row], self.engine.run(batch))
        return self.task.postprocess(rows, outputs, parameters)


def sound(
    number: int, samples: int, rate: int = RATE, channels: int = 1, kind: str = "WAV"
) -> bytes:
    """Silence, a rising tone, noise, or something like syllables; by `number`."""
    rng = np.random.default_rng(number)
    times = np.arange(samples)[:, None] / rate
    pitch = rng.uniform(80, 600, channels)
    waves = (
        np.zeros((samples, channels)),
        0.3 * np.sin(2 * np.pi * pitch * times * (1 + 0.2 * times)),
        0.2 * rng.normal(size=(samples, channels)),
        0.3 * np.sign(np.sin(2 * np.pi * pitch * times)) * np.sin(8 * np.pi * times),
    )
    file = io.BytesIO()
    soundfile.write(file, np.clip(waves[number % 4], -1, 1), rate, format=kind)
    return file.getvalue()


def picture(number: int, width: int, height: int, mode: str) -> bytes:
    rng = np.random.default_rng(number)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8))
        image = image if mode == "RGBA" else image.convert("RGB").convert(mode)
    options: dict[str, Any] = {}
    if mode in ("RGB", "L"):
        exif = Image.Exif()
        exif[0x112] = 1 + number % 8
        options["exif"] = exif
    file = io.BytesIO()
    image.save(file, "JPEG" if mode == "CMYK" else "PNG", **options)
    return file.getvalue()


def pipeline(task: str, model: Path) -> Any:
    import transformers

    return transformers.pipeline(task, model=str(model))


def heard(content: bytes) -> Any:
    """Read a file as transformers' `load_audio` does without torchcodec."""
    from transformers.audio_utils import _load_audio_soundfile

    return _load_audio_soundfile(content, RATE)


def assert_same_labels(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [one["label"] for one in found] == [one["label"] for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)


def test_transcripts(sense_models: SenseModels) -> None:
    served = Served(sense_models.export("automatic-speech-recognition"))
    reference = pipeline(served.task.name, sense_models.model(served.task.name))
    lengths = (165, 166, 320, 1000, 8000, 8001, 12345, 20000)
    rates = (RATE, 8000, 44_100, RATE, 22_050)
    texts = set()
    for number in range(200):
        rate = rates[number % 5]
        samples = (lengths[number % 8] + number // 8) * rate // RATE + 3
        kind = ("WAV", "FLAC", "OGG")[number % 3] if samples > 2000 else "WAV"
        content = sound(number, samples, rate, 1 + number % 2, kind)
        parameters: dict[str, Any] = {}
        if number % 4:
            parameters["return_timestamps"] = ("char", "word", "word")[number % 4 - 1]
        if number % 3 == 0 and samples > 4000:
            parameters["chunk_length_s"] = 0.3
            if number % 2:
                parameters["stride_length_s"] = [0.05, 0.02]
        expected = reference(heard(content), **parameters)
        if "chunks" in expected:
            for chunk in expected["chunks"]:
                chunk["timestamp"] = [float(at) for at in chunk["timestamp"]]
        assert served(content, parameters) == expected, number
        texts.add(expected["text"])
    assert len(texts) > 50


def test_audio_labels(sense_models: SenseModels) -> None:
    served = Served(sense_models.export("audio-classification"))
    reference = pipeline(served.task.name, sense_models.model(served.task.name))
    for number in range(200):
        content = sound(number, 165 + 37 * number, kind=("WAV", "FLAC")[number % 2])
        parameters = NUMBERS[number // 4 % 4]
        assert_same_labels(served(content, parameters), reference(heard(content), **parameters))


@pytest.mark.parametrize("model", ["image-classification", "resnet"])
def test_image_labels(sense_models: SenseModels, model: str) -> None:
    served = Served(sense_models.export(model))
    reference = pipeline("image-classification", sense_models.model(model))
    sizes = ((1, 1), (300, 3), (3, 200), (32, 32), (50, 70), (41, 39), (160, 120), (33, 1))
    modes = ("RGB", "RGBA", "L", "P", "I;16", "1", "LA", "CMYK")
    for number, (size, mode) in enumerate(itertools.product(sizes * 2, modes)):
        content = picture(number, *size, mode)
        parameters = NUMBERS[number % 4]
        expected = reference(Image.open(io.BytesIO(content)), **parameters)
        assert_same_labels(served(content, parameters), expected)


def test_files_that_are_none(sense_models: SenseModels) -> None:
    hear = Served(sense_models.export("automatic-speech-recognition"))
    see = Served(sense_models.export("image-classification"))
    whole, png = sound(1, 8000), picture(0, 60, 60, "RGB")
    refused: list[tuple[Served, object]] = [
        (hear, b""),
        (hear, b"no sound at all"),
        (hear, "http://127.0.0.1/a.wav"),
        (hear, "file:///etc/passwd"),
        (hear, "no base64!"),
        (hear, "data:audio/wav,abc"),
        (hear, {"text": "words"}),
        (hear, whole[:9000]),
        (hear, sound(1, 8000, kind="FLAC")[:2000]),
        (hear, sound(1, 10)),
        (hear, sound(1, 0)),
        (see, png[: len(png) // 2]),
        (see, b"\x89PNG\r\n\x1a\n"),
        (see, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n"),
        (see, whole),
        (see, "https://example.org/cat.png"),
    ]
    for served, item in refused:
        with pytest.raises(InvalidInputError) as caught:
            served(item)
        assert caught.value.message


def test_files_that_grow(sense_models: SenseModels) -> None:
    """Small files of much content are refused before it is there."""
    hear = Served(sense_models.export("automatic-speech-recognition"))
    see = Served(sense_models.export("image-classification"))
    long = sound(0, 700 * 1000, rate=1000, kind="FLAC")
    assert len(long) < 100_000
    with pytest.raises(PayloadTooLargeError, match="600 s"):
        hear(long)
    minutes = sound(0, 70 * 1000, rate=1000, kind="FLAC")
    with pytest.raises(PayloadTooLargeError) as caught:
        hear(minutes)
    assert "chunk_length_s" in caught.value.hint
    assert "text" in hear(minutes, {"chunk_length_s": 20})
    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, "PNG")
    with pytest.raises(PayloadTooLargeError, match="pixels"):
        see(file.getvalue())
    thin = Served(sense_models.export("resnet"))
    with pytest.raises(PayloadTooLargeError, match="pixels"):
        thin(picture(0, 60_000, 1, "L"))


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("automatic-speech-recognition", {"return_timestamps": True}),
        ("automatic-speech-recognition", {"chunk_length_s": 1, "stride_length_s": 1}),
        ("automatic-speech-recognition", {"chunk_length_s": -1}),
        ("automatic-speech-recognition", {"chunk_length_s": 1e5}),
        ("automatic-speech-recognition", {"top_k": 1}),
        ("image-classification", {"top_k": 0}),
        ("image-classification", {"function_to_apply": "exp"}),
    ],
)
def test_bad_parameters(
    sense_models: SenseModels, model: str, parameters: dict[str, object]
) -> None:
    served = Served(sense_models.export(model))
    item = sound(1, 8000) if "speech" in model else picture(0, 9, 9, "RGB")
    with pytest.raises(ServingError) as caught:
        served(item, parameters)
    assert caught.value.status == 422


BLOCKED = """
import sys
blocked = set(sys.argv[1].split(","))
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
from pathlib import Path
from serving.engines.onnx import open_onnx
from serving.errors import LoadError
from serving.tasks import open_task
for directory in map(Path, sys.argv[2:]):
    try:
        task, engine = open_task(directory, None), open_onnx(directory, threads=1)
    except LoadError as error:
        print(error.hint)
        continue
    for item in task.samples.items:
        rows = task.preprocess(item, {})
        outputs = task.split(rows, engine.run(task.collate(rows, engine.input_names)))
        assert task.postprocess(rows, outputs, {}) is not None
    print(task.name)
"""


@pytest.mark.parametrize(
    ("blocked", "said"),
    [
        (
            "torch,transformers,onnx,safetensors,huggingface_hub,scipy",
            ["automatic-speech-recognition", "image-classification"],
        ),
        ("soundfile,PIL", ["Install runport[audio].", "Install runport[image]."]),
        ("soxr", ["Install runport[audio].", "image-classification"]),
    ],
)
def test_what_serving_needs(sense_models: SenseModels, blocked: str, said: list[str]) -> None:
    names = ("automatic-speech-recognition", "image-classification")
    directories = [str(sense_models.export(name).path) for name in names]
    command = [sys.executable, "-c", BLOCKED, blocked, *directories]
    run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.splitlines() == said


def test_torch_serves_the_same(sense_models: SenseModels) -> None:
    for name, item in (
        ("automatic-speech-recognition", sound(2, 9000)),
        ("image-classification", picture(3, 40, 30, "RGB")),
    ):
        served = Served(sense_models.export(name))
        expected = served(item)
        served.engine = open_torch(sense_models.model(name), task=name, threads=1)
        found = served(item)
        if isinstance(expected, dict):
            assert found == expected
        else:
            assert_same_labels(found, expected)
