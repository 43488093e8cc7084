"""Which bytes, and are they right: names, versions, digests, cache, export, promotion.

    import registry

    pulled = registry.pull("run-bert:best")
    model = registry.load("run-bert:v0", AutoModelForSequenceClassification)
    registry.promote("run-bert", "best", by="eval/f1")

Importing the package imports nothing else: each public name is loaded on first use.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from registry.cache import hold as hold
    from registry.callback import RunportCallback as RunportCallback
    from registry.config import Settings as Settings
    from registry.content import Selection as Selection
    from registry.diff import diff as diff
    from registry.errors import AmbiguousNameError as AmbiguousNameError
    from registry.errors import AuthError as AuthError
    from registry.errors import ConfigError as ConfigError
    from registry.errors import ConversionError as ConversionError
    from registry.errors import ExportError as ExportError
    from registry.errors import GateRefusedError as GateRefusedError
    from registry.errors import IntegrityError as IntegrityError
    from registry.errors import InvalidReferenceError as InvalidReferenceError
    from registry.errors import NotFoundError as NotFoundError
    from registry.errors import OfflineError as OfflineError
    from registry.errors import RegistryError as RegistryError
    from registry.errors import StorageError as StorageError
    from registry.errors import UnavailableError as UnavailableError
    from registry.errors import UnsafeContentError as UnsafeContentError
    from registry.errors import UsageError as UsageError
    from registry.export import CANDIDATES as CANDIDATES
    from registry.export import TASKS as TASKS
    from registry.export import AudioSettings as AudioSettings
    from registry.export import CachedSession as CachedSession
    from registry.export import Candidate as Candidate
    from registry.export import DenseLayer as DenseLayer
    from registry.export import EncodedSource as EncodedSource
    from registry.export import EncoderDecoder as EncoderDecoder
    from registry.export import Export as Export
    from registry.export import ImageSettings as ImageSettings
    from registry.export import OpenVinoModel as OpenVinoModel
    from registry.export import SentenceModules as SentenceModules
    from registry.export import check_export as check_export
    from registry.export import export_model as export_model
    from registry.export import fewest_samples as fewest_samples
    from registry.export import find_candidate as find_candidate
    from registry.export import find_export as find_export
    from registry.export import find_refusal as find_refusal
    from registry.export import frame_stride as frame_stride
    from registry.export import generation_settings as generation_settings
    from registry.export import load_encoder_decoder as load_encoder_decoder
    from registry.export import load_torch_model as load_torch_model
    from registry.export import max_target_tokens as max_target_tokens
    from registry.export import max_tokens as max_tokens
    from registry.export import model_frames as model_frames
    from registry.export import model_inputs as model_inputs
    from registry.export import open_cached_session as open_cached_session
    from registry.export import open_encoder_decoder as open_encoder_decoder
    from registry.export import open_openvino as open_openvino
    from registry.export import open_session as open_session
    from registry.export import read_audio_settings as read_audio_settings
    from registry.export import read_cross_encoder as read_cross_encoder
    from registry.export import read_image_settings as read_image_settings
    from registry.export import read_sentence_modules as read_sentence_modules
    from registry.export import read_source as read_source
    from registry.export import read_tensors as read_tensors
    from registry.export import task_in as task_in
    from registry.export import task_of as task_of
    from registry.export import translation_tasks as translation_tasks
    from registry.export import usable_candidates as usable_candidates
    from registry.export import why_unusable as why_unusable
    from registry.hub import Hub as Hub
    from registry.load import load as load
    from registry.lookup import locate as locate
    from registry.lookup import open_hub as open_hub
    from registry.lookup import resolve as resolve
    from registry.promote import Promotion as Promotion
    from registry.promote import promote as promote
    from registry.promote import rollback as rollback
    from registry.pull import pull as pull
    from registry.pulled import PulledVersion as PulledVersion
    from registry.push import Facts as Facts
    from registry.push import push as push
    from registry.reference import ArtifactRef as ArtifactRef
    from registry.reference import LocalRef as LocalRef
    from registry.reference import parse_reference as parse_reference
    from registry.selector import Version as Version
    from registry.store.claims import Lease as Lease
    from registry.tuning import OBJECTIVES as OBJECTIVES
    from registry.tuning import Tuning as Tuning
    from registry.tuning import TuningLayout as TuningLayout
    from registry.tuning import TuningRow as TuningRow
    from registry.tuning import find_tuning as find_tuning
    from registry.tuning import keep_tuning as keep_tuning
    from registry.tuning import machine_facts as machine_facts
    from registry.tuning import tuned_export as tuned_export
    from registry.tuning import tuning_tools as tuning_tools
    from registry.verify import verify as verify
    from registry.versions import ArtifactVersion as ArtifactVersion
    from registry.versions import Digest as Digest
    from registry.versions import FileEntry as FileEntry

_ERRORS = (
    "AmbiguousNameError", "AuthError", "ConfigError", "ConversionError", "ExportError",
    "GateRefusedError", "IntegrityError", "InvalidReferenceError", "NotFoundError", "OfflineError",
    "RegistryError", "StorageError", "UnavailableError", "UnsafeContentError", "UsageError",
)  # fmt: skip

_HOMES = {
    "ArtifactRef": "registry.reference",
    "ArtifactVersion": "registry.versions",
    "CANDIDATES": "registry.export",
    "CachedSession": "registry.export",
    "Candidate": "registry.export",
    "DenseLayer": "registry.export",
    "Digest": "registry.versions",
    "Export": "registry.export",
    "Facts": "registry.push",
    "FileEntry": "registry.versions",
    "Promotion": "registry.promote",
    "PulledVersion": "registry.pulled",
    "RunportCallback": "registry.callback",
    "Selection": "registry.content",
    "Settings": "registry.config",
    "diff": "registry.diff",
    "check_export": "registry.export",
    "export_model": "registry.export",
    "find_candidate": "registry.export",
    "find_export": "registry.export",
    "find_refusal": "registry.export",
    "load_torch_model": "registry.export",
    "max_tokens": "registry.export",
    "model_inputs": "registry.export",
    "OpenVinoModel": "registry.export",
    "open_openvino": "registry.export",
    "AudioSettings": "registry.export",
    "ImageSettings": "registry.export",
    "fewest_samples": "registry.export",
    "frame_stride": "registry.export",
    "model_frames": "registry.export",
    "read_audio_settings": "registry.export",
    "read_image_settings": "registry.export",
    "open_session": "registry.export",
    "read_cross_encoder": "registry.export",
    "read_sentence_modules": "registry.export",
    "SentenceModules": "registry.export",
    "EncodedSource": "registry.export",
    "EncoderDecoder": "registry.export",
    "generation_settings": "registry.export",
    "load_encoder_decoder": "registry.export",
    "max_target_tokens": "registry.export",
    "open_cached_session": "registry.export",
    "open_encoder_decoder": "registry.export",
    "translation_tasks": "registry.export",
    "TASKS": "registry.export",
    "read_source": "registry.export",
    "read_tensors": "registry.export",
    "task_in": "registry.export",
    "task_of": "registry.export",
    "usable_candidates": "registry.export",
    "why_unusable": "registry.export",
    "Hub": "registry.hub",
    "Lease": "registry.store.claims",
    "LocalRef": "registry.reference",
    "Version": "registry.selector",
    "hold": "registry.cache",
    "load": "registry.load",
    "locate": "registry.lookup",
    "open_hub": "registry.lookup",
    "parse_reference": "registry.reference",
    "promote": "registry.promote",
    "pull": "registry.pull",
    "push": "registry.push",
    "resolve": "registry.lookup",
    "rollback": "registry.promote",
    "verify": "registry.verify",
    "OBJECTIVES": "registry.tuning",
    "Tuning": "registry.tuning",
    "TuningLayout": "registry.tuning",
    "TuningRow": "registry.tuning",
    "find_tuning": "registry.tuning",
    "keep_tuning": "registry.tuning",
    "machine_facts": "registry.tuning",
    "tuned_export": "registry.tuning",
    "tuning_tools": "registry.tuning",
    **dict.fromkeys(_ERRORS, "registry.errors"),
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - a list of names, made from the table above


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


class _Package(types.ModuleType):
    """Keeps `registry.pull` the function, also once the module `registry.pull` is imported.

    The import system binds every submodule as an attribute of its package.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
