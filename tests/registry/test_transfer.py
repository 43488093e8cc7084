from __future__ import annotations

import base64
import hashlib
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import xxhash

from registry.errors import IntegrityError, NotFoundError, UnavailableError
from registry.retry import Limits, parse_retry_after
from registry.store import Store
from registry.store.ingest import BLOCK_BYTES
from registry.transfer import Book, Silent, Transfer
from registry.versions import Digest, FileEntry
from tests.registry.file_server import Fault, FileServer, file_server

SIZE = 5 * BLOCK_BYTES + 12_345
QUICK = Limits(
    connections=4,
    range_bytes=2 * BLOCK_BYTES,
    attempts=4,
    read_timeout_s=0.3,
    first_wait_s=0.001,
    longest_wait_s=0.01,
)


@pytest.fixture(scope="module")
def body() -> bytes:
    return random.Random(1).randbytes(SIZE)


@pytest.fixture
def server(body: bytes) -> Iterator[FileServer]:
    with file_server(big=body, small=b"hello", empty=b"") as state:
        yield state


def entry(path: str, body: bytes, algorithm: str = "md5") -> FileEntry:
    hasher = xxhash.xxh128(body) if algorithm == "xxh128" else hashlib.new(algorithm, body)
    return FileEntry(path, len(body), Digest(algorithm, hasher.hexdigest()))


def fetch(
    server: FileServer, store: Store, *entries: FileEntry, limits: Limits = QUICK
) -> tuple[dict[str, bytes], int]:
    """Fetch into the store; return the blobs' bytes and the count of fetched bytes."""
    arrived: dict[str, str] = {}

    def accept(file: FileEntry, partial: object, sha256: str) -> None:
        store.blobs.accept(partial, file.digest, sha256)  # type: ignore[arg-type]
        arrived[file.path] = sha256

    book = Book(server.addresses, [file.path for file in entries])
    transfer = Transfer(book, store.ingest, accept, Silent(), limits)
    transfer.run(list(entries))
    found = {path: store.layout.blob(sha256).read_bytes() for path, sha256 in arrived.items()}
    return found, transfer.fetched_bytes


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache", "")


def blobs_of(store: Store) -> list[Path]:
    return [p for p in (store.layout.root / "blobs").rglob("*") if p.is_file()]


def test_files_arrive_whole_in_parallel_ranges(
    server: FileServer, store: Store, body: bytes
) -> None:
    entries = [entry("big", body), entry("small", b"hello"), entry("empty", b"")]
    found, fetched_bytes = fetch(server, store, *entries)
    assert found == {"big": body, "small": b"hello", "empty": b""}
    assert fetched_bytes == SIZE + 5 == server.sent_bytes
    assert len({asked for name, asked in server.requests if name == "big"}) == 3
    assert not list(store.layout.ingest.iterdir())
    assert all(oct(p.stat().st_mode)[-3:] == "444" for p in blobs_of(store))


def test_xxh128_manifests_are_checked_as_the_sdk_writes_them(
    server: FileServer, store: Store, body: bytes
) -> None:
    from wandb.sdk.lib.hashutil import xxh128_string

    text = "hello"
    written = base64.b64decode(xxh128_string(text)).hex()
    assert written == entry("small", text.encode(), "xxh128").digest.hex  # type: ignore[union-attr]
    found, _ = fetch(server, store, entry("big", body, "xxh128"))
    assert found["big"] == body


@pytest.mark.parametrize("kind", ["truncate", "reset", "stall", "wrong-range", "gzip", "flip"])
@pytest.mark.parametrize("at", [0, 1, BLOCK_BYTES, BLOCK_BYTES + 7])
def test_passing_faults_are_survived(
    server: FileServer, store: Store, body: bytes, kind: str, at: int
) -> None:
    server.faults["big"] = [Fault(kind, at=at)]
    found, fetched_bytes = fetch(server, store, entry("big", body))
    assert found["big"] == body
    extra_bytes = fetched_bytes - SIZE
    assert extra_bytes == (SIZE if kind == "flip" else 0), "only wrong bytes are fetched again"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
def test_busy_servers_are_asked_again(
    server: FileServer, store: Store, body: bytes, status: int
) -> None:
    server.faults["big"] = [Fault("status", status=status, headers={"Retry-After": "0"}, times=3)]
    assert fetch(server, store, entry("big", body))[0]["big"] == body


def test_a_server_that_asks_for_too_long_a_wait_is_unavailable(
    server: FileServer, store: Store, body: bytes
) -> None:
    server.faults["big"] = [Fault("status", headers={"Retry-After": "86400"})]
    with pytest.raises(UnavailableError, match="86400"):
        fetch(server, store, entry("big", body))


def test_retry_after_is_seconds_or_a_date() -> None:
    assert parse_retry_after("7") == 7
    assert parse_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now_s=20) == 40
    assert parse_retry_after("Thu, 01 Jan 1970 00:00:00 GMT", now_s=20) == 0
    assert parse_retry_after("soon") is None
    assert parse_retry_after(None) is None


def test_expired_addresses_are_asked_for_again(
    server: FileServer, store: Store, body: bytes
) -> None:
    server.faults["big"] = [Fault("expire"), Fault("expire")]
    assert fetch(server, store, entry("big", body))[0]["big"] == body
    assert server.address_requests >= 2


def test_a_server_without_ranges_sends_the_file_once(
    server: FileServer, store: Store, body: bytes
) -> None:
    server.faults["big"] = [Fault("no-range", times=99)]
    found, fetched_bytes = fetch(server, store, entry("big", body))
    assert found["big"] == body
    assert len(server.requests) == 1
    assert fetched_bytes == SIZE


def test_a_server_without_ranges_that_breaks_off_is_read_again_from_the_start(
    server: FileServer, store: Store, body: bytes
) -> None:
    server.faults["big"] = [Fault("truncate", at=3 * BLOCK_BYTES), Fault("no-range", times=99)]
    server.faults["big"][0].kind = "no-range"
    server.faults["big"].insert(0, Fault("truncate", at=BLOCK_BYTES + 5))
    assert fetch(server, store, entry("big", body))[0]["big"] == body


def test_bytes_that_stay_wrong_are_refused_and_nothing_is_kept(
    server: FileServer, store: Store, body: bytes
) -> None:
    server.faults["big"] = [Fault("flip", at=3, times=99)]
    with pytest.raises(IntegrityError, match="big"):
        fetch(server, store, entry("big", body))
    assert not blobs_of(store)
    assert not list(store.layout.ingest.iterdir())


def test_another_size_on_the_server_is_an_integrity_error(
    server: FileServer, store: Store, body: bytes
) -> None:
    server.files["big"] = body[:-1]
    with pytest.raises(IntegrityError, match="manifest"):
        fetch(server, store, entry("big", body))
    assert not blobs_of(store)


def test_a_missing_file_is_not_found(server: FileServer, store: Store) -> None:
    with pytest.raises(NotFoundError, match="gone"):
        fetch(server, store, entry("gone", b"x"))


def test_a_silent_server_is_given_up_and_the_next_pull_goes_on(
    server: FileServer, store: Store, body: bytes
) -> None:
    server.faults["big"] = [Fault("stall", at=BLOCK_BYTES + 99, times=99)]
    limits = Limits(**{**_fields(QUICK), "attempts": 2, "connections": 1})
    with pytest.raises(UnavailableError, match="Gave up"):
        fetch(server, store, entry("big", body), limits=limits)
    kept = list(store.layout.ingest.iterdir())
    assert len(kept) == 1
    server.faults.clear()
    before_bytes = server.sent_bytes
    assert fetch(server, store, entry("big", body))[0]["big"] == body
    assert server.sent_bytes - before_bytes < SIZE


def test_a_dripping_connection_is_as_dead_as_a_silent_one(
    server: FileServer, store: Store, body: bytes
) -> None:
    limits = Limits(
        **{**_fields(QUICK), "attempts": 2, "pace_window_s": 0.0, "pace_bytes": SIZE * 2}
    )
    with pytest.raises(UnavailableError, match="bytes in"):
        fetch(server, store, entry("big", body), limits=limits)


def test_a_partial_is_resumed_to_within_a_block_per_connection(
    server: FileServer, store: Store, body: bytes
) -> None:
    rng = random.Random(7)
    for _ in range(10):
        at = rng.randrange(SIZE)
        server.faults["big"] = [Fault("truncate", at=at), Fault("status", status=418, times=99)]
        limits = Limits(**{**_fields(QUICK), "connections": 1, "range_bytes": SIZE * 2})
        with pytest.raises(UnavailableError):
            fetch(server, store, entry("big", body), limits=limits)
        server.faults.clear()
        found, fetched_bytes = fetch(server, store, entry("big", body))
        assert found["big"] == body
        assert fetched_bytes <= SIZE - at + BLOCK_BYTES
        store.layout.blob(hashlib.sha256(body).hexdigest()).unlink()


def test_damage_to_a_partial_is_found(server: FileServer, store: Store, body: bytes) -> None:
    server.faults["big"] = [Fault("truncate", at=3 * BLOCK_BYTES), Fault("status", status=418)]
    limits = Limits(**{**_fields(QUICK), "connections": 1, "range_bytes": SIZE * 2})
    with pytest.raises(UnavailableError):
        fetch(server, store, entry("big", body), limits=limits)
    (partial,) = store.layout.ingest.iterdir()
    with partial.open("r+b") as stream:
        stream.write(b"\x00\x01damage")
    assert fetch(server, store, entry("big", body))[0]["big"] == body


def test_two_transfers_of_one_file_do_not_disturb_each_other(
    server: FileServer, store: Store, body: bytes
) -> None:
    results: list[bytes] = []

    def one() -> None:
        results.append(fetch(server, store, entry("big", body))[0]["big"])

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [body] * 4


def test_many_small_files(store: Store) -> None:
    files = {f"f{i}": os.urandom(i * 37) for i in range(200)}
    with file_server(**files) as server:
        found, _ = fetch(server, store, *(entry(name, raw) for name, raw in files.items()))
    assert found == files


def _fields(limits: Limits) -> dict[str, float]:
    return {name: getattr(limits, name) for name in Limits.__slots__}  # type: ignore[attr-defined]
