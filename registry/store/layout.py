"""Where things lie beneath the cache folder; pure: paths in, paths out.

blobs/sha256/ab/abcd…      verified bytes, read-only, named by what they are
digests/md5/ab/abcd…-123   W&B's digest and size -> SHA-256 of a blob
snapshots/<digest>/        one version's files, made of blobs
versions/<server>/<entity>/<project>/<collection>/v3.<selection>.json   the commit
refs/<server>/<entity>/<project>/<collection>/<alias>.json              last known target
exports/                   owned by registry.export
conversions/<digest>.json  which snapshot is the one with this digest, its pickles converted
references/<name>.json     what a reference (`http://…`) was when it was first fetched
ingest/                    bytes on their way in
quarantine/                bytes that turned out wrong
locks/                     they save work; renames keep truth
leases/                    who needs what now (see claims)
used/<digest>              its time is that of the last use
pins/<digest>              never pruned
trash/                     renamed out of the way, being deleted
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

from registry.versions import Digest

EXPORT_DIGITS = 32
"""How many digits of a snapshot's digest the names of its exports begin with."""

_PART_LIMIT = 120
_PLAIN = frozenset(string.ascii_letters + string.digits + "_.-~ ()+,=")


def safe_part(text: str) -> str:
    """Return a file name that stands for the text: reversible when short, never special."""
    # As `urllib.parse.quote`, whose import a warm pull can do without.
    name = "".join(sign if sign in _PLAIN else _quoted(sign) for sign in text)
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > _PART_LIMIT:
        import hashlib  # Loads OpenSSL, which a warm pull does not need.

        # Quoting may triple the length; the hash keeps long names apart.
        name = name[:60] + "~" + hashlib.sha256(text.encode()).hexdigest()[:32]
    return name


def _quoted(sign: str) -> str:
    return "".join(f"%{byte:02X}" for byte in sign.encode())


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one cache.

    Attributes:
        root: the cache folder.
    """

    root: Path

    @property
    def snapshots(self) -> Path:
        """Folder of all snapshots."""
        return self.root / "snapshots"

    @property
    def exports(self) -> Path:
        """Folder of all exports."""
        return self.root / "exports"

    def conversion(self, snapshot: str) -> Path:
        """Path of the note that says what became of a snapshot with pickled weights."""
        return self.root / "conversions" / f"{snapshot}.json"

    def reference_pin(self, name: str) -> Path:
        """Path of the note that says what a reference was when it was first fetched."""
        return self.root / "references" / f"{name}.json"

    @property
    def ingest(self) -> Path:
        """Folder of partial files."""
        return self.root / "ingest"

    @property
    def quarantine(self) -> Path:
        """Folder of bytes that failed their check."""
        return self.root / "quarantine"

    @property
    def locks(self) -> Path:
        """Folder of lock files."""
        return self.root / "locks"

    @property
    def leases(self) -> Path:
        """Folder of the claims of running processes."""
        return self.root / "leases"

    @property
    def used(self) -> Path:
        """Folder of notes of last uses."""
        return self.root / "used"

    @property
    def pins(self) -> Path:
        """Folder of pins."""
        return self.root / "pins"

    @property
    def trash(self) -> Path:
        """Folder of what is being deleted."""
        return self.root / "trash"

    @property
    def blobs(self) -> Path:
        """Folder of all blobs."""
        return self.root / "blobs" / "sha256"

    @property
    def versions(self) -> Path:
        """Folder of all version records."""
        return self.root / "versions"

    def blob(self, sha256: str) -> Path:
        """Path of the blob with this SHA-256 (64 hexadecimal digits)."""
        return self.blobs / sha256[:2] / sha256

    def digest_entry(self, digest: Digest, size_bytes: int) -> Path:
        """Path of the note that says which blob has this W&B digest and size."""
        name = f"{digest.hex}-{size_bytes}"
        return self.root / "digests" / digest.algorithm / digest.hex[:2] / name

    def snapshot(self, digest: str) -> Path:
        """Path of the snapshot with this digest."""
        return self.snapshots / digest

    def exports_of(self, snapshot: str) -> list[Path]:
        """Paths of the exports made from a snapshot, and of the reports of refused ones."""
        # `registry.export` begins their names so.
        return sorted(self.exports.glob(f"{snapshot[:EXPORT_DIGITS]}-*"))

    def collection_records(self, server: str, *names: str) -> Path:
        """Folder of the version records of entity, project, collection (or a prefix of these)."""
        return self._named(self.versions, server, names)

    def collection_refs(self, server: str, *names: str) -> Path:
        """Folder of the last known alias targets of entity, project, collection."""
        return self._named(self.root / "refs", server, names)

    def _named(self, folder: Path, server: str, names: tuple[str, ...]) -> Path:
        return folder.joinpath(safe_part(server or "default"), *map(safe_part, names))
