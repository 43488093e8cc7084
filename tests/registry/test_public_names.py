from __future__ import annotations

import subprocess
import sys

import pytest

import registry

NAMES = {
    "AmbiguousNameError", "ArtifactRef", "ArtifactVersion", "AuthError", "ConfigError",
    "ConversionError",
    "Digest", "Export", "ExportError", "FileEntry", "GateRefusedError", "Hub",
    "IntegrityError", "InvalidReferenceError", "LocalRef", "NotFoundError", "OfflineError",
    "Promotion", "PulledVersion", "RegistryError", "RunportCallback", "Selection", "Settings",
    "StorageError", "UnavailableError", "UnsafeContentError", "UsageError", "Version",
    "Facts", "Lease", "diff", "hold", "push", "verify",
    "export_model", "find_export", "find_refusal", "load", "load_torch_model", "locate",
    "max_tokens",
    "AudioSettings", "ImageSettings", "fewest_samples", "frame_stride", "model_frames",
    "read_audio_settings", "read_image_settings",
    "model_inputs", "open_hub", "open_session", "parse_reference", "promote", "pull",
    "read_source", "resolve", "rollback",
    "DenseLayer", "read_tensors",
    "SentenceModules", "TASKS", "read_cross_encoder", "read_sentence_modules", "task_in", "task_of",
    "CANDIDATES", "Candidate", "usable_candidates", "why_unusable",
    "CachedSession", "open_cached_session",
    "OpenVinoModel", "check_export", "find_candidate", "open_openvino",
    "EncodedSource", "EncoderDecoder", "generation_settings", "load_encoder_decoder",
    "max_target_tokens", "open_encoder_decoder", "translation_tasks",
    "OBJECTIVES", "Tuning", "TuningLayout", "TuningRow", "find_tuning",
    "keep_tuning", "machine_facts", "tuned_export", "tuning_tools",
}  # fmt: skip


def run(script: str) -> None:
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_public_names_are_pinned() -> None:
    assert set(registry.__all__) == NAMES
    assert set(dir(registry)) >= NAMES
    with pytest.raises(AttributeError):
        registry.nothing  # noqa: B018


def test_importing_the_package_imports_nothing_else() -> None:
    run("import sys, registry; assert not [m for m in sys.modules if m.startswith('registry.')]")


def test_functions_stay_functions_when_their_modules_are_imported_first() -> None:
    run(
        "import registry.pull, registry.load, registry.promote, registry\n"
        "from registry.pull import pull\n"
        "assert registry.pull is pull and callable(registry.load) and callable(registry.promote)"
    )


def test_resolving_needs_the_sdk_only_when_a_server_is_asked() -> None:
    run("import sys, registry; registry.resolve, registry.load; assert 'wandb' not in sys.modules")
