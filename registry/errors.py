"""The error tree of the registry; every error names its cause and the next step.

    RegistryError                 exit 1
    ├── UsageError                exit 2   the request itself is malformed
    │   ├── InvalidReferenceError …        text that is no artifact reference
    │   └── ConfigError           …        an environment variable or option with a bad value
    ├── NotFoundError             exit 3
    │   └── AmbiguousNameError    …        several artifacts answer to the name; never guessed
    ├── AuthError                 exit 4
    ├── IntegrityError            exit 5   bytes differ from what the manifest promises
    │   └── UnsafeContentError    …        pickle, remote code, references, escaping names
    ├── GateRefusedError          exit 6   a promotion or parity gate said no
    ├── UnavailableError          exit 7   the server, the network or the disk cannot do it now
    │   ├── OfflineError          …        the network is needed but was forbidden
    │   └── StorageError          …        disk full, I/O error, read-only cache
    ├── ExportError               exit 1   the exporter failed on this model
    └── ConversionError           exit 1   pickled weights could not be converted here

Knows nothing else of the package, so that every module may import it.
"""

from __future__ import annotations

from typing import ClassVar


class RegistryError(Exception):
    """Root of all errors that the registry raises on purpose.

    Attributes:
        code: stable, machine-readable identifier (kebab case); part of the `--json` contract.
        exit_code: exit status of the command line.
        hint: the next step for the person who sees it; may be empty.
    """

    code: ClassVar[str] = "registry-error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_dict(self) -> dict[str, str]:
        """Return the error as `{code, error, hint}`, the shape that `--json` prints."""
        return {"code": self.code, "error": self.message, "hint": self.hint}


class UsageError(RegistryError):
    """The request is malformed: an option, an argument or a name."""

    code = "usage"
    exit_code = 2


class InvalidReferenceError(UsageError):
    """The text is not an artifact reference."""

    code = "invalid-reference"


class ConfigError(UsageError):
    """A setting has a value that cannot be used."""

    code = "config"


class NotFoundError(RegistryError):
    """No such project, artifact, version, alias or run."""

    code = "not-found"
    exit_code = 3


class AmbiguousNameError(NotFoundError):
    """Several artifacts answer to the name; the message lists them."""

    code = "ambiguous-name"


class AuthError(RegistryError):
    """No key, a wrong key, or a key without the right to do this."""

    code = "auth"
    exit_code = 4


class IntegrityError(RegistryError):
    """Bytes are not what the manifest, the record or the export promised."""

    code = "integrity"
    exit_code = 5


class UnsafeContentError(IntegrityError):
    """An artifact holds what Runport does not touch: pickles, code, references, escaping names."""

    code = "unsafe-content"


class GateRefusedError(RegistryError):
    """A gate (promotion, parity) refused; nothing was changed."""

    code = "gate-refused"
    exit_code = 6


class UnavailableError(RegistryError):
    """The server, the network or the disk cannot do it now; trying again may help."""

    code = "unavailable"
    exit_code = 7


class OfflineError(UnavailableError):
    """The network is needed but offline mode forbids it."""

    code = "offline"


class StorageError(UnavailableError):
    """The cache or data folder cannot be read or written (full, read-only, I/O error)."""

    code = "storage"


class ExportError(RegistryError):
    """The exporter cannot handle this model or failed in its child process."""

    code = "export"


class ConversionError(RegistryError):
    """Pickled weights cannot be converted here: no (safe) torch, no time, no memory."""

    code = "conversion"
