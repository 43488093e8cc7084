"""What can be seen of a file in PyTorch's format before anything reads it; needs no torch.

PyTorch never compresses, and never writes more than the file holds: whatever claims to unpack
to more is refused before a byte is unpacked.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from registry.errors import IntegrityError, UnsafeContentError

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_PICKLE_LIMIT_BYTES = 256 * 1024 * 1024


def is_archive(path: Path) -> bool:
    """Whether the file is a zip archive, as PyTorch writes since 1.6."""
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def check_archive(path: Path, shown: str) -> None:
    """Refuse what is not in PyTorch's format, is cut, or would unpack to more than it is.

    Args:
        path: the file.
        shown: its name, for messages.

    Raises:
        IntegrityError: it is empty, cut, damaged or of another format.
        UnsafeContentError: it is compressed, claims more bytes than it has, or holds a program.
    """
    with path.open("rb") as file:
        head = file.read(len(_ZIP))
    if head == _ZIP:
        _check_zip(path, shown)
    elif not head:
        raise IntegrityError(f"{shown} is empty.", hint="Log the model again.")
    elif not head.startswith(_PICKLE):
        raise IntegrityError(
            f"{shown} is not a file of PyTorch.",
            hint="Leave it out with --exclude if the model does not need it.",
        )


def _check_zip(path: Path, shown: str) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise IntegrityError(
            f"{shown} was cut or is damaged: {error}.", hint="Log the model again."
        ) from error
    names = [entry.filename.partition("/")[2] for entry in entries]
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        raise UnsafeContentError(
            f"{shown} is TorchScript: a program, not weights.",
            hint="Save the weights: torch.save(model.state_dict(), …), or save_pretrained.",
        )
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UnsafeContentError(
            f"{shown} is compressed, which PyTorch never does: it could unpack to any size.",
            hint="Save it again with torch.save.",
        )
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise UnsafeContentError(
            f"{shown} claims to hold more bytes than it has.", hint="Save it again."
        )
    sizes = [entry.file_size for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(sizes) != 1 or sizes[0] > _PICKLE_LIMIT_BYTES:
        raise IntegrityError(
            f"{shown} is a zip archive, but not PyTorch's.",
            hint="Leave it out with --exclude if the model does not need it.",
        )
