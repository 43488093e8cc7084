"""`registry cache`: show, prune and pin what is in the cache."""

from __future__ import annotations

import datetime
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from registry.cli.completion import complete_name
from registry.cli.output import json_errors, json_option, quiet_option, result, result_json, say
from registry.cli.units import parse_duration, parse_size
from registry.errors import UsageError
from registry.store.prune import Kept, Removal

if TYPE_CHECKING:
    from registry.config import Settings
    from registry.store import Store
    from registry.store.census import Entry
    from registry.store.prune import Budget, Choice

_LEFTOVER_AGE = "1d"


@dataclass(frozen=True, slots=True)
class CacheSize:
    """What `cache size --json` prints; all in bytes."""

    path: Path
    total_bytes: int
    versions_bytes: int
    exports_bytes: int
    leftovers_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class CacheRow:
    """One entry of what `cache list --json` prints.

    Attributes:
        names: pinned names; empty for a local folder.
        digest: of the snapshot.
        size_bytes: of its files and exports; entries may share some.
        exports: how many there are.
        last_used_at: RFC 3339 time.
        pinned, in_use: whether it is kept whatever happens, and why.
    """

    names: tuple[str, ...]
    digest: str
    size_bytes: int
    exports: int
    last_used_at: str
    pinned: bool
    in_use: bool


@dataclass(frozen=True, slots=True)
class CachePrune:
    """What `cache prune --json` prints."""

    before_bytes: int
    after_bytes: int
    max_bytes: int | None
    removed: tuple[Removal, ...]
    kept: tuple[Kept, ...]
    dry_run: bool


@dataclass(frozen=True, slots=True)
class CachePin:
    """What `cache pin --json` and `cache unpin --json` print.

    Attributes:
        name: pinned name of the version.
        digests: of its snapshots, one per choice of files.
        pinned: how it is now.
        changed: whether it was otherwise before.
    """

    name: str
    digests: tuple[str, ...]
    pinned: bool
    changed: bool


@click.group("cache", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Show, prune and pin what is in the cache; never asks the network."""


@command.command("dir")
@json_option
def show_folder(as_json: bool) -> None:
    """Print the cache folder (RUNPORT_CACHE_DIR)."""
    with json_errors(as_json):
        folder = _settings().cache_dir
    if as_json:
        result_json({"path": folder})
    else:
        result(str(folder))


@command.command("size")
@json_option
def show_size(as_json: bool) -> None:
    """Print how large the cache is, and what it is made of."""
    with json_errors(as_json):
        settings = _settings()
        store = _store(settings)
        census = store.census()
        size = CacheSize(
            settings.cache_dir,
            census.total_bytes,
            census.versions_bytes,
            census.exports_bytes,
            census.leftovers_bytes,
            store.free_bytes(),
        )
    if as_json:
        result_json(size)
        return
    text = _size_text
    result(text(size.total_bytes))
    say(
        f"versions {text(size.versions_bytes)}, exports {text(size.exports_bytes)}, left over "
        f"{text(size.leftovers_bytes)}; {text(size.free_bytes)} free on the disk"
    )


@command.command("list")
@json_option
def show_list(as_json: bool) -> None:
    """List what is cached, used last first."""
    with json_errors(as_json):
        entries = _store(_settings()).census().entries[::-1]
    if as_json:
        result_json([_row(entry) for entry in entries])
        return
    if not entries:
        say("The cache is empty.")
    for entry in entries:
        result(_entry_line(entry))


@command.command("prune")
@click.option("--max-size", type=parse_size, metavar="SIZE", help="Evict until no larger, as 20GB.")
@click.option(
    "--leftover-age",
    type=parse_duration,
    default=_LEFTOVER_AGE,
    show_default=True,
    metavar="AGE",
    help="Collect partial files and quarantine older than this.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
@quiet_option
def prune(
    max_size: int | None,
    leftover_age: float,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Collect what is left over and, with --max-size, evict what was not used for longest.

    What is pinned, served by a running server or being pulled stays. Exports go with the version
    that they were made from.
    """
    from registry.store.prune import Budget

    with json_errors(as_json):
        store = _store(_settings())
        budget = Budget(max_size, leftover_age)
        if not (dry_run or yes):
            _ask(store.prune(budget, dry_run=True), as_json=as_json)
        choice = store.prune(budget, dry_run=dry_run)
    if as_json:
        result_json(_prune_document(choice, budget, dry_run))
        return
    for removal in choice.removals:
        result(f"{_size_text(removal.size_bytes):>9}  {removal.kind:<10}  {removal.name}")
    for kept in choice.kept:
        say(f"kept {kept.name}: {kept.reason}", quiet=quiet)
    verb = "would be" if dry_run else "is"
    say(
        f"{len(choice.removals)} removed; the cache {verb} {_size_text(choice.after_bytes)} "
        f"(was {_size_text(choice.before_bytes)})",
        quiet=quiet,
    )
    if max_size is not None and choice.after_bytes > max_size:
        say(f"more than {_size_text(max_size)}: the rest is needed", quiet=quiet)


@command.command("pin")
@click.argument("name", shell_complete=complete_name)
@json_option
@quiet_option
def pin(name: str, as_json: bool, quiet: bool) -> None:
    """Keep a cached version: prune never evicts it.

    NAME is as for `registry pull`, or `@` and a digest as `cache list` shows it.
    """
    _set_pin(name, True, as_json=as_json, quiet=quiet)


@command.command("unpin")
@click.argument("name", shell_complete=complete_name)
@json_option
@quiet_option
def unpin(name: str, as_json: bool, quiet: bool) -> None:
    """Let a cached version be evicted again."""
    _set_pin(name, False, as_json=as_json, quiet=quiet)


def _set_pin(name: str, wanted: bool, *, as_json: bool, quiet: bool) -> None:
    from registry.cache import find_entries

    with json_errors(as_json):
        settings = _settings()
        store = _store(settings)
        entries = find_entries(store, settings, name)
        for entry in entries:
            if wanted:
                store.marks.pin(entry.digest, entry.title)
            else:
                store.marks.unpin(entry.digest)
    title = entries[0].title
    changed = any(entry.pinned != wanted for entry in entries)
    if as_json:
        result_json(CachePin(title, tuple(e.digest for e in entries), wanted, changed))
        return
    already = "" if changed else " already"
    say(f"{'pinned' if wanted else 'not pinned'}{already}", quiet=quiet)
    result(title)


def _ask(choice: Choice, *, as_json: bool) -> None:
    """Have evictions confirmed; what is merely left over goes without a question."""
    evicted = [removal for removal in choice.removals if removal.kind == "version"]
    if not evicted:
        return
    if as_json or not sys.stdin.isatty():
        raise UsageError(
            f"{len(evicted)} versions would be evicted, and nobody can be asked.",
            hint="Add -y to go on, or --dry-run to look.",
        )
    for removal in evicted:
        say(f"{_size_text(removal.size_bytes):>9}  {removal.name}")
    click.confirm(f"Evict these {len(evicted)}?", abort=True, err=True)


def _prune_document(choice: Choice, budget: Budget, dry_run: bool) -> CachePrune:
    return CachePrune(
        choice.before_bytes,
        choice.after_bytes,
        budget.max_bytes,
        choice.removals,
        choice.kept,
        dry_run,
    )


def _row(entry: Entry) -> CacheRow:
    used = datetime.datetime.fromtimestamp(entry.last_used_s, datetime.UTC)
    return CacheRow(
        entry.names,
        entry.digest,
        entry.size_bytes,
        sum(path.is_dir() for path in entry.exports),
        used.isoformat(timespec="seconds"),
        entry.pinned,
        entry.held,
    )


def _entry_line(entry: Entry) -> str:
    from registry.cli.pull import age_text

    age = age_text(max(0.0, time.time() - entry.last_used_s))
    notes = [note for note, true in (("pinned", entry.pinned), ("in use", entry.held)) if true]
    marks = f"  [{', '.join(notes)}]" if notes else ""
    title = entry.title if not entry.names else f"{entry.title}  @{entry.digest[:12]}"
    return f"{_size_text(entry.size_bytes):>9}  {age + ' ago':<24}  {title}{marks}"


def _size_text(size_bytes: int) -> str:
    from registry.cli.pull import size_text

    return size_text(size_bytes)


def _settings() -> Settings:
    from registry.config import Settings

    return Settings.from_environment()


def _store(settings: Settings) -> Store:
    from registry.cache import open_store

    return open_store(settings)
