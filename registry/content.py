"""What an artifact may hold, and which of its files are needed to serve it.

Decides by name before anything is fetched, and by content after: a suffix is a
promise that the bytes must keep. Nothing here executes or unpickles anything.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from registry.errors import IntegrityError, UnsafeContentError
from registry.versions import FileEntry

if TYPE_CHECKING:
    from registry.references.allowed import AllowedReferences

_COMPONENT_LIMIT_BYTES = 255
_PATH_LIMIT_BYTES = 1024
_CONFIG_LIMIT_BYTES = 64 * 1024 * 1024
_HEADER_LIMIT_BYTES = 100_000_000

_TRAINING_STATE = (
    "optimizer.pt", "optimizer.bin", "scheduler.pt", "scheduler.bin", "scaler.pt",
    "rng_state*.pth", "random_states*.pkl", "training_args.bin", "global_step*/*",
    "*/global_step*/*", "*.distcp", "events.out.tfevents.*",
)  # fmt: skip
_PICKLES = (
    ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npy", ".npz",
    ".mar", ".nemo", ".h5", ".hdf5", ".keras",
)  # fmt: skip
_CONVERTIBLE = (".bin", ".pt", ".pth", ".ckpt")
_CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".exe", ".js", ".ipynb")
_OTHER_FORMATS = (".h5", ".msgpack", ".ot", ".tflite", ".gguf", ".bin", ".pt", ".pth", ".ckpt")
_SERVABLE = (
    ".safetensors", ".onnx", ".onnx_data", ".json", ".jsonl", ".txt", ".md", ".model", ".vocab",
    ".bpe", ".merges", ".yaml", ".yml", ".jinja", ".csv", ".tsv", ".spm", ".tiktoken",
    ".xml", ".weights", ".data",
)  # fmt: skip
_RAW_NUMBERS = (".weights", ".data")
"""Weights of exports: numbers alone, whose first bytes may look like anything."""

_MAGIC = {
    b"PK\x03\x04": "a zip archive (PyTorch's pickle format)",
    b"\x89HDF": "an HDF5 file",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"#!": "a script",
    b"\x1f\x8b": "a gzip archive",
}
_PICKLE_MAGIC = re.compile(rb"\x80[\x02-\x05]")
_INTERNAL_KEY = re.compile(r"_.*_internal\Z")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which files of a version are wanted.

    Attributes:
        everything: also what serving does not need, as inert bytes (`--all`).
        include: patterns of paths to take; empty takes all.
        exclude: patterns of paths to leave out; wins over `include`.
        allow_pickle: fetch weights that are PyTorch's pickles too, to be converted to safetensors
            before anything loads them (see `registry.convert`); without effect with `everything`.
    """

    everything: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    allow_pickle: bool = False

    @property
    def whole(self) -> bool:
        """Whether it is the usual choice: all that serving needs."""
        return not (self.everything or self.include or self.exclude)

    @property
    def pickled_key(self) -> str:
        """Under which a version is committed that has pickles to be converted, as it was logged."""
        return "pickled" if self.key == "serve" else f"pickled-{self.key}"

    @property
    def converted_key(self) -> str:
        """Under which the same version is committed with its pickles converted."""
        return "converted" if self.key == "serve" else f"converted-{self.key}"

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys under which an answer to this choice may be committed, best first.

        What was converted once is safetensors, and needs no permission any more.
        """
        if self.everything:
            return (self.key,)
        usual = (self.key, self.converted_key)
        return (*usual, self.pickled_key) if self.allow_pickle else usual

    @property
    def key(self) -> str:
        """Short name of the choice; versions are committed once per choice."""
        if not self.include and not self.exclude:
            return "all" if self.everything else "serve"
        # Not loaded for the usual choices: a warm pull is quicker than these imports.
        import hashlib
        import json

        text = json.dumps([self.everything, sorted(self.include), sorted(self.exclude)])
        return "chosen-" + hashlib.sha256(text.encode()).hexdigest()[:16]

    def wants(self, path: str) -> bool:
        """Whether the patterns let the path through."""
        if any(_matches(path, pattern) for pattern in self.exclude):
            return False
        return not self.include or any(_matches(path, pattern) for pattern in self.include)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was left on the server, and why."""

    path: str
    size_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to fetch and what to leave."""

    wanted: tuple[FileEntry, ...]
    skipped: tuple[Skipped, ...]

    @property
    def pickles(self) -> tuple[str, ...]:
        """Paths of the wanted files that have to be converted before anything loads them."""
        return tuple(file.path for file in self.wanted if is_convertible(file.path))

    @property
    def saved_bytes(self) -> int:
        """Bytes that need not be fetched."""
        return sum(file.size_bytes for file in self.skipped)


def plan_files(
    name: str,
    files: Iterable[FileEntry],
    selection: Selection,
    allowed: AllowedReferences | None = None,
) -> Plan:
    """Choose the files to fetch.

    Args:
        name: the version's name, for messages.
        files: the manifest's entries.
        selection: what the user asked for.
        allowed: which references may be followed; None allows none.

    Raises:
        UnsafeContentError: a path, a reference, code or pickled weights are not acceptable.
    """
    entries = tuple(files)
    check_paths(name, [entry.path for entry in entries])
    wanted: list[FileEntry] = []
    skipped: list[Skipped] = []
    safe_folders = {_folder(e.path) for e in entries if e.path.endswith(".safetensors")}
    pickled = _pickled_folders(entries) if selection.allow_pickle else None
    for entry in entries:
        if not selection.wants(entry.path):
            skipped.append(Skipped(entry.path, entry.size_bytes, "excluded"))
            continue
        if entry.reference is not None:
            # Loaded here: a warm pull has no use for it.
            from registry.references.allowed import AllowedReferences, refuse_unallowed

            refuse_unallowed(name, entry, allowed or AllowedReferences())
        _refuse_code(name, entry)
        reason = None
        if not selection.everything:
            reason = _reason_to_skip(name, entry.path, safe_folders, pickled)
        if reason is None:
            wanted.append(entry)
        else:
            skipped.append(Skipped(entry.path, entry.size_bytes, reason))
    return Plan(tuple(wanted), tuple(skipped))


def _refuse_code(name: str, entry: FileEntry) -> None:
    if entry.path.lower().endswith(_CODE):
        raise UnsafeContentError(
            f"{name} holds code: {entry.path!r}. Runport never runs an artifact's code.",
            hint="Leave it out with --exclude '*.py' if the model loads without it."
            if entry.path.lower().endswith(".py")
            else f"Leave it out with --exclude {entry.path!r}.",
        )


def _pickled_folders(entries: Iterable[FileEntry]) -> set[str]:
    return {_folder(e.path) for e in entries if is_convertible(e.path)}


def _reason_to_skip(
    name: str, path: str, safe_folders: set[str], pickled_folders: set[str] | None
) -> str | None:
    """Return why serving does not need the file, or None; refuse what nobody should load.

    Args:
        name: the version's name, for messages.
        path: the file.
        safe_folders: folders with safetensors.
        pickled_folders: folders with pickles that may be converted; None allows none.
    """
    lowered = path.lower()
    if is_training_state(path):
        return "training state"
    if lowered.endswith(_OTHER_FORMATS) and _folder(path) in safe_folders:
        return "the same weights are there as safetensors"
    if pickled_folders is not None and is_convertible(path):
        return None
    if lowered.endswith(_OTHER_FORMATS) and _folder(path) in (pickled_folders or ()):
        return "the same weights are there in PyTorch's format"
    if lowered.endswith(_PICKLES):
        raise _refused_pickle(name, path)
    if PurePosixPath(lowered).suffix not in _SERVABLE and not _is_plain_name(lowered):
        return "not needed to serve"
    return None


def _refused_pickle(name: str, path: str) -> UnsafeContentError:
    ways = (
        "--all fetches it as bytes that Runport never loads; "
        + f"--exclude {path!r} leaves it out."
    )
    if is_convertible(path):
        ways = "--allow-pickle converts it to safetensors without running it; " + ways
    return UnsafeContentError(
        f"{name} holds a pickle: {path!r}. Loading it could run anything.",
        hint=f"Save with safetensors (the Trainer's default). {ways}",
    )


def is_convertible(path: str) -> bool:
    """Whether the file has the name of weights in PyTorch's pickle format."""
    return path.lower().endswith(_CONVERTIBLE) and not is_training_state(path)


def is_training_state(path: str) -> bool:
    """Whether the file only serves to go on training."""
    return any(_matches(path, pattern) for pattern in _TRAINING_STATE)


def _is_plain_name(lowered: str) -> bool:
    return PurePosixPath(lowered).name in {"license", "notice", "readme"}


def _matches(path: str, pattern: str) -> bool:
    if fnmatch.fnmatchcase(path, pattern):
        return True
    return "/" not in pattern and fnmatch.fnmatchcase(path.rpartition("/")[2], pattern)


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def check_paths(name: str, paths: Iterable[str]) -> None:
    """Refuse paths that leave the root, cannot be stored, or exclude each other.

    Nothing is decoded: `%2e%2e` is an ordinary, if odd, name.

    Raises:
        UnsafeContentError: naming the first such path.
    """
    seen: set[str] = set()
    folders: set[str] = set()
    for path in paths:
        problem = path_problem(path)
        if problem is None and path in seen:
            problem = "appears twice"
        if problem is not None:
            raise UnsafeContentError(
                f"{name} holds a file that {problem}: {path[:200]!r}.",
                hint="Nothing was fetched. Log the artifact again with ordinary file names.",
            )
        seen.add(path)
        folders.update(str(parent) for parent in PurePosixPath(path).parents)
    both = sorted(seen & folders)
    if both:
        raise UnsafeContentError(
            f"{name} holds {both[0]!r} both as a file and as a folder.",
            hint="Nothing was fetched. Log the artifact again with ordinary file names.",
        )


def path_problem(path: str) -> str | None:
    """Say what is wrong with a manifest path, or None when it may be used."""
    if not path or path.startswith("/"):
        return "has an absolute or empty name"
    if "\\" in path or any(ord(char) < 32 or ord(char) == 127 for char in path):
        return "has control characters or backslashes in its name"
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        return "would leave the artifact's folder"
    try:
        raw = [part.encode() for part in parts]
    except UnicodeEncodeError:
        return "has a name that is no text"
    too_long = max(map(len, raw)) > _COMPONENT_LIMIT_BYTES
    if too_long or len(path.encode()) > _PATH_LIMIT_BYTES:
        return "has too long a name"
    return None


def check_content(name: str, path: str, file: Path) -> None:
    """Check that the bytes keep the promise of the path's suffix.

    Args:
        name: the version's name, for messages.
        path: the manifest's path.
        file: where the verified bytes lie.

    Raises:
        UnsafeContentError: the bytes are a pickle, a program or code by configuration.
        IntegrityError: the file is broken.
    """
    lowered = path.lower()
    if is_training_state(path) or lowered.endswith(_PICKLES):
        return  # Only `--all` brings these; they stay bytes.
    if lowered.endswith(_RAW_NUMBERS):
        return
    with file.open("rb") as stream:
        head = stream.read(16)
    found = _what_is(head)
    if lowered.endswith(".safetensors"):
        _check_safetensors(name, path, file, found)
    elif found is not None:
        raise UnsafeContentError(
            f"{path!r} in {name} is really {found}.",
            hint=f"Leave it out with --exclude {path!r} if the model does not need it.",
        )
    elif lowered.endswith(".json"):
        _check_json(name, path, file)


def _what_is(head: bytes) -> str | None:
    if _PICKLE_MAGIC.match(head):
        return "a pickle"
    return next((what for magic, what in _MAGIC.items() if head.startswith(magic)), None)


def _check_safetensors(name: str, path: str, file: Path, found: str | None) -> None:
    size_bytes = file.stat().st_size
    with file.open("rb") as stream:
        length_bytes = int.from_bytes(stream.read(8), "little")
        brace = stream.read(1)
    limit = min(size_bytes - 8, _HEADER_LIMIT_BYTES)
    if size_bytes < 10 or not 2 <= length_bytes <= limit or brace != b"{":
        raise UnsafeContentError(
            f"{path!r} in {name} is not a safetensors file" + (f" but {found}." if found else "."),
            hint="Save the model again with safetensors.",
        )


def _check_json(name: str, path: str, file: Path) -> None:
    import json

    if file.stat().st_size > _CONFIG_LIMIT_BYTES:
        return  # Larger than any configuration; nothing reads code keys from it.
    try:
        document = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise IntegrityError(
            f"{path!r} in {name} is not JSON: {error}.", hint="Log the artifact again."
        ) from error
    if "config" in path.rpartition("/")[2].lower():
        key = code_key(document)
        if key is not None:
            raise UnsafeContentError(
                f"{path!r} in {name} names code to run: the key {key!r}.",
                hint="Runport never runs an artifact's code. Remove the key and log it again.",
            )


def code_key(document: object) -> str | None:
    """Return the first key of a configuration that would make a loader run code, or None."""
    stack = [document]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            for key, inner in value.items():
                if key == "auto_map" or _INTERNAL_KEY.match(str(key)):
                    return str(key)
                stack.append(inner)
        elif isinstance(value, list):
            stack.extend(value)
    return None
