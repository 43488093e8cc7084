"""What a directory says of waveforms and images, and what is refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry import (
    ExportError,
    IntegrityError,
    fewest_samples,
    frame_stride,
    model_frames,
    read_audio_settings,
    read_image_settings,
    read_source,
    task_of,
)


def directory(path: Path, document: object, name: str = "preprocessor_config.json") -> Path:
    (path / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_frames_of_waveforms() -> None:
    assert fewest_samples({}) == 400
    assert frame_stride({}) == 320
    assert [model_frames({}, samples) for samples in (0, 399, 400, 719, 720, 16_000)] == [
        *(0, 0, 1, 1, 2, 49)
    ]


def test_audio_settings(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="preprocessor_config"):
        read_audio_settings(tmp_path)
    directory(tmp_path, {"feature_extractor": {"sampling_rate": 8000}}, "processor_config.json")
    assert read_audio_settings(tmp_path).sampling_rate == 8000
    directory(tmp_path, {"do_normalize": False})
    settings = read_audio_settings(tmp_path)
    assert (settings.sampling_rate, settings.normalize) == (16_000, False)
    for broken in ("{", "[]", {"sampling_rate": -1}):
        with pytest.raises(IntegrityError):
            read_audio_settings(directory(tmp_path, broken))
    with pytest.raises(ExportError, match="WhisperFeatureExtractor"):
        read_audio_settings(
            directory(tmp_path, {"feature_extractor_type": "WhisperFeatureExtractor"})
        )


@pytest.mark.parametrize(
    ("document", "resize", "crops", "output"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, (224, 224), (), (224, 224)),
        ({"feature_extractor_type": "ViTFeatureExtractor", "size": 96}, (96, 96), (), (96, 96)),
        ({"image_processor_type": "DeiTImageProcessorFast"}, (256, 256), ((224, 224),), (224, 224)),
        (
            {"image_processor_type": "BitImageProcessor", "crop_size": 200},
            224,
            ((200, 200),),
            (200, 200),
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}},
            256,
            ((224, 224),),
            (224, 224),
        ),
        ({"image_processor_type": "ConvNextImageProcessor"}, (384, 384), (), (384, 384)),
    ],
)
def test_image_settings(
    tmp_path: Path, document: dict[str, Any], resize: object, crops: object, output: object
) -> None:
    settings = read_image_settings(directory(tmp_path, document))
    assert (settings.resize, settings.crops, settings.output_size) == (resize, crops, output)


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({}, ExportError),
        ({"image_processor_type": "SamImageProcessor"}, ExportError),
        ({"image_processor_type": "ViTImageProcessor", "do_pad": True}, ExportError),
        ({"image_processor_type": "BitImageProcessor", "do_center_crop": False}, ExportError),
        ({"image_processor_type": "ViTImageProcessor", "size": {"width": 3}}, IntegrityError),
        ({"image_processor_type": "ViTImageProcessor", "image_mean": [1, 2]}, IntegrityError),
    ],
)
def test_images_that_are_refused(tmp_path: Path, document: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_image_settings(directory(tmp_path, document))


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("Wav2Vec2ForCTC", "automatic-speech-recognition"),
        ("HubertForSequenceClassification", "audio-classification"),
        ("BertForSequenceClassification", "text-classification"),
        ("ResNetForImageClassification", "image-classification"),
    ],
)
def test_tasks_by_architecture(architecture: str, task: str) -> None:
    assert task_of({"architectures": [architecture]}) == task


def test_a_model_that_hears_needs_its_tokens(tmp_path: Path) -> None:
    directory(tmp_path, {"architectures": ["Wav2Vec2ForCTC"]}, "config.json")
    with pytest.raises(ExportError, match="preprocessor_config"):
        read_source(tmp_path)
    directory(tmp_path, {"feature_extractor_type": "Wav2Vec2FeatureExtractor"})
    with pytest.raises(ExportError, match=r"vocab\.json"):
        read_source(tmp_path)
