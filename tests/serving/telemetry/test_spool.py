from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.telemetry import frames, lane
from serving.telemetry.frames import Entry
from serving.telemetry.lane import SpoolError
from serving.telemetry.spool import SpoolWriter, open_free_lane
from serving.telemetry.spool_reader import SpoolReader

CAP = 2**20
payloads = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6)


def opened(directory: Path, cap_bytes: int = CAP) -> SpoolWriter:
    writer = SpoolWriter(directory, cap_bytes=cap_bytes)
    assert writer.try_open()
    return writer


def read_all(directory: Path) -> list[Entry]:
    return SpoolReader(directory).read(10_000)


@given(payloads)
def test_frames_come_back(contents: list[bytes]) -> None:
    entries = [Entry(n, payload) for n, payload in enumerate(contents, 1)]
    data = b"".join(map(frames.encode, entries))
    assert frames.decode(data) == (entries, len(data))


@given(payloads, st.data())
def test_a_tail_cut_or_zeroed_or_flipped_at_any_byte_is_dropped(
    contents: list[bytes], data: st.DataObject
) -> None:
    entries = [Entry(n, payload) for n, payload in enumerate(contents, 1)]
    encoded = [frames.encode(entry) for entry in entries]
    whole = b"".join(encoded)
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :]
    ends = [sum(map(len, encoded[:count])) for count in range(len(encoded) + 1)]
    for damaged in (whole[:at], whole[:at] + bytes(len(whole) - at), flipped):
        # Zeros may stand where zeros stood: what is unchanged is not damaged.
        complete = max(n for n, end in enumerate(ends) if damaged[:end] == whole[:end])
        assert frames.decode(damaged) == (entries[:complete], ends[complete])


def test_an_empty_payload_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        frames.encode(Entry(1, b""))


@given(st.lists(payloads, min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_entries_come_back_in_order_over_restarts(batches: list[list[bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        for batch in batches:
            writer = opened(directory)
            writer.append(batch)
            writer.close()
        expected = [payload for batch in batches for payload in batch]
        entries = read_all(directory)
        assert [entry.payload for entry in entries] == expected
        assert [entry.sequence for entry in entries] == list(range(1, len(expected) + 1))


@pytest.mark.parametrize("kept", range(0, 60, 3))
def test_a_writer_killed_at_any_byte_goes_on_behind_the_last_whole_entry(
    tmp_path: Path, kept: int
) -> None:
    writer = opened(tmp_path)
    writer.append([b"one", b"two", b"three"])
    writer.close()
    ((_, path),) = lane.segments(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:kept])
    whole, _ = frames.decode(data[:kept])
    reader = SpoolReader(tmp_path)
    assert reader.read(10) == whole
    writer = opened(tmp_path)
    assert writer.append([b"next"]) == len(whole) + 1
    writer.close()
    assert reader.read(10) == [Entry(len(whole) + 1, b"next")]
    assert reader.missing == 0
    assert read_all(tmp_path) == [*whole, Entry(len(whole) + 1, b"next")]


def test_a_reader_beside_a_writer_sees_each_entry_once(tmp_path: Path) -> None:
    writer = opened(tmp_path, cap_bytes=8 * 64)
    reader = SpoolReader(tmp_path)
    seen = []
    for number in range(40):
        writer.append([b"%020d" % number])
        if number % 3 == 0:
            seen += reader.read(2)
            reader.acknowledge(reader.position)
    while batch := reader.read(2):
        seen += batch
        reader.acknowledge(reader.position)
    numbers = [int(entry.payload) for entry in seen]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + reader.missing == 40
    writer.close()


def test_replay_starts_behind_the_acknowledged_entry(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    writer.append([b"a", b"b", b"c"])
    reader = SpoolReader(tmp_path)
    reader.read(10)
    reader.acknowledge(2)
    assert read_all(tmp_path) == [Entry(3, b"c")]
    assert read_all(tmp_path) == [Entry(3, b"c")]
    assert writer.depth() == 1
    writer.close()


def test_the_cap_holds_and_what_it_drops_is_counted(tmp_path: Path) -> None:
    cap_bytes = 4096
    writer = opened(tmp_path, cap_bytes=cap_bytes)
    for number in range(300):
        writer.append([b"%050d" % number])
        assert sum(path.stat().st_size for _, path in lane.segments(tmp_path)) <= cap_bytes
    writer.close()
    reader = SpoolReader(tmp_path)
    entries = reader.read(1000)
    assert entries[-1].sequence == 300
    assert len(entries) + writer.dropped == 300
    assert reader.missing == writer.dropped
    again = opened(tmp_path, cap_bytes=cap_bytes)
    assert again.dropped == writer.dropped > 0
    again.close()


def test_acknowledged_segments_go_without_being_counted(tmp_path: Path) -> None:
    writer = opened(tmp_path, cap_bytes=4096)
    for number in range(300):
        writer.append([b"%050d" % number])
        lane.write_acknowledged(tmp_path, writer.last_sequence)
    assert writer.dropped == 0
    assert len(lane.segments(tmp_path)) <= 2
    writer.close()


def test_a_damaged_entry_costs_the_rest_of_its_segment_only(tmp_path: Path) -> None:
    writer = opened(tmp_path, cap_bytes=8 * 200)
    for number in range(12):
        writer.append([b"%050d" % number])
    writer.close()
    first, path = lane.segments(tmp_path)[1]
    data = bytearray(path.read_bytes())
    data[frames.HEADER_BYTES + 3] ^= 1
    path.write_bytes(data)
    reader = SpoolReader(tmp_path)
    entries = reader.read(100)
    after = lane.segments(tmp_path)[2][0]
    assert [e.sequence for e in entries] == [*range(1, first), *range(after, 13)]
    assert reader.missing == after - first


def test_sequences_never_repeat_even_when_the_segments_are_gone(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    writer.append([b"a", b"b"])
    writer.close()
    lane.write_acknowledged(tmp_path, 2)
    for _, path in lane.segments(tmp_path):
        path.unlink()
    writer = opened(tmp_path)
    assert writer.append([b"c"]) == 3
    writer.close()
    assert read_all(tmp_path) == [Entry(3, b"c")]


def test_two_servers_get_two_lanes_and_a_freed_one_is_taken_over(tmp_path: Path) -> None:
    first = open_free_lane(tmp_path, cap_bytes=CAP)
    second = open_free_lane(tmp_path, cap_bytes=CAP)
    assert first.directory != second.directory
    first.append([b"left behind"])
    first.close()
    third = open_free_lane(tmp_path, cap_bytes=CAP)
    assert third.directory == first.directory
    assert [entry.payload for entry in read_all(third.directory)] == [b"left behind"]
    second.close()
    third.close()


def test_a_lane_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    writer = open_free_lane(tmp_path / "spool", cap_bytes=CAP)
    assert writer.directory.stat().st_mode & 0o077 == 0
    writer.close()


def test_a_folder_that_cannot_be_made_is_a_spool_error(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file in the way")
    with pytest.raises(SpoolError, match="cannot open"):
        open_free_lane(tmp_path / "spool", cap_bytes=CAP)


def test_a_failed_write_leaves_the_spool_as_it_was(tmp_path: Path) -> None:
    # A child, because the limit on file sizes holds for a whole process.
    import subprocess
    import sys

    script = """
import resource, signal, sys
from pathlib import Path
from serving.telemetry.lane import SpoolError
from serving.telemetry.spool import SpoolWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = SpoolWriter(Path(sys.argv[1]), cap_bytes=2**20)
assert writer.try_open()
writer.append([b"before"])
resource.setrlimit(resource.RLIMIT_FSIZE, (60, resource.RLIM_INFINITY))
try:
    writer.append([b"x" * 100])
except SpoolError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    writer.append([b"after"])
    print("survived")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "survived\n"
    assert read_all(tmp_path) == [Entry(1, b"before"), Entry(2, b"after")]
