"""Faulty transfers: how many wrong files are taken for right, by our pull and by the SDK.

python -m benchmarks.faulty_transfers [TRIALS]

Both clients go through the same faults in the same order (`tests/faults/pull`): flipped and shifted
bytes, truncation, reset, stall, slow close, wrong ranges, 500 and 429 with Retry-After, expired
addresses, SIGKILL, a full disk, two processes without working locks. After each the faults end and
the client fetches again into the same cache.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from benchmarks._stage import stage
from tests.faults.pull.log_case import log_case, run_trials
from tests.faults.pull.trials import ANSWERS, PROCESSES

TRIALS = 1000
OUTCOMES = ("right", "refused", "wrong")


def table(kind: str, trials: list[dict[str, Any]]) -> str:
    """Return the counts of outcomes of one kind of fault, hurt and healed."""
    mine = [trial for trial in trials if kind in ("all", trial["kind"])]
    first, again = (Counter(trial[when] for trial in mine) for when in ("first", "again"))
    hurt = " ".join(f"{first[outcome]:7}" for outcome in OUTCOMES)
    return f"{hurt}  {again['right']:12} {sum(trial['wrong_files'] for trial in mine):11}"


def main() -> int:
    """Run both clients, print their outcomes; return 1 if ours took wrong bytes for right."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS
    with stage() as at:
        case = log_case(at.backend)
        found = {
            client: run_trials(at.backend, case, client, count, at.folder / client)
            for client in ("pull", "sdk")
        }
    for client, trials in found.items():
        print(f"{client:<14} {'  '.join(OUTCOMES)}  healed: right  wrong files")
        for kind in (*ANSWERS, *PROCESSES, "all"):
            print(f"{kind:<12} {table(kind, trials)}")
    ours = found["pull"]
    wrong = sum(trial["wrong_files"] + trial["visible_wrong"] for trial in ours)
    theirs = sum(trial["wrong_files"] for trial in found["sdk"])
    print(f"wrong files in {count} trials: registry pull {wrong} (reach: 0), SDK {theirs}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
