"""What is said to people about versions; imports no command-line library."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.pulled import PulledVersion
    from registry.versions import FileEntry


def describe(pulled: PulledVersion) -> list[str]:
    """Say in words what was pulled: pinned name, files, sizes, time, what was left out."""
    import datetime

    from registry.store.records import KnownRef

    version = pulled.version
    skipped = {file.path for file in pulled.skipped}
    files = [file for file in version.files if file.path not in skipped]
    size_bytes = sum(file.size_bytes for file in files)
    how = "cached" if pulled.cached else f"{size_text(pulled.fetched_bytes)} fetched"
    lines = [
        f"{version.qualified_name}  {files_text(len(files))}, {size_text(size_bytes)}, {how}, "
        f"{pulled.seconds:.2f} s"
    ]
    if pulled.skipped:
        saved_bytes = sum(file.size_bytes for file in pulled.skipped)
        names = ", ".join(sorted(skipped)[:4]) + (", …" if len(skipped) > 4 else "")
        lines.append(f"left out {files_text(len(skipped))}, {size_text(saved_bytes)}: {names}")
    if pulled.conversion is not None:
        names = ", ".join(f"{old} -> {new}" for old, new in pulled.conversion.files.items())
        lines.append(f"pickled weights converted: {names}, {pulled.conversion.tensors} tensors")
    lines += _references_words(files)
    if pulled.base is not None:
        lines.append(f"with its base model {pulled.base.version.qualified_name}")
    if pulled.known_at is not None:
        age_s = KnownRef("", "", "", pulled.known_at).age_s(datetime.datetime.now(datetime.UTC))
        lines.append(f"offline: the alias pointed here {age_text(age_s)} ago")
    return lines


def _references_words(files: list[FileEntry]) -> list[str]:
    """Say which files came from elsewhere, and what nobody but the first fetch vouches for."""
    if not any(file.reference for file in files):
        return []
    from registry.references.allowed import is_checkable

    elsewhere = [file for file in files if file.reference]
    lines = [f"from elsewhere: {', '.join(str(file.reference) for file in elsewhere)}"]
    unchecked = [file.path for file in elsewhere if not is_checkable(file)]
    if unchecked:
        lines.append(
            f"no digest was logged for {', '.join(unchecked)}: what was fetched first is pinned"
        )
    return lines


def files_text(count: int) -> str:
    """Return `1 file` or `3 files`."""
    return "1 file" if count == 1 else f"{count} files"


def size_text(size_bytes: int) -> str:
    """Return `1.3 MB`."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def age_text(age_s: float) -> str:
    """Return `3 minutes`."""
    for unit, length_s in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if age_s >= length_s:
            count = int(age_s // length_s)
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return "less than a minute"
