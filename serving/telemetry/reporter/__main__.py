"""`python -m serving.telemetry.reporter --spool LANE`: deliver a lane until told to leave.

Leaves on SIGTERM, SIGINT or the end of standard input (the server's death):
delivers what is there, finishes the runs and exits, all within `--grace-s`.
Started with an empty standard input it delivers what is there and exits.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import threading
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from serving.telemetry.lane import FileLock
from serving.telemetry.reporter.delivery import Deliverer, Patience, StalledError
from serving.telemetry.reporter.watchdog import EXIT_STALLED, Watchdog
from serving.telemetry.spool_reader import SpoolReader

_LOG_BYTES = 2**20
_CLOSING_POLL_S = 0.2
_SDK_CALL_LIMIT_S = 90.0

_log = logging.getLogger("serving.telemetry.reporter")


class Closing:
    """Whether to leave, and how the runs that are still open end.

    Attributes:
        event: set when the process shall leave.
        exit_code: what open runs are finished with: 0 asked to leave, 1 the server is gone.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.exit_code = 0

    def watch(self) -> None:
        """Begin to watch signals and the lifeline."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.event.set())
        threading.Thread(target=self._watch_lifeline, name="lifeline", daemon=True).start()

    def _watch_lifeline(self) -> None:
        # Not sys.stdin: a thread blocked in its lock breaks the interpreter's exit.
        while os.read(0, 4096):
            pass
        self.exit_code = 1
        self.event.set()


def main(arguments: list[str] | None = None) -> int:
    """Run the reporter; return its exit status."""
    options = _parser().parse_args(arguments)
    lane: Path = options.spool
    if not lane.is_dir():
        print(f"{lane} is no folder", file=sys.stderr)  # noqa: T201 - a usage error
        return 2
    _log_into(lane)
    closing = Closing()
    closing.watch()
    with FileLock(lane / "reporter.lock") as lock:
        # The reporter of a server that died may still be delivering.
        while not lock.acquire():
            if closing.event.wait(options.poll_s):
                return EXIT_STALLED
        # Former lives' SDK files; nothing in them is needed to go on.
        shutil.rmtree(lane / "wandb", ignore_errors=True)
        return _deliver(options, closing)


def _deliver(options: argparse.Namespace, closing: Closing) -> int:
    # Here, not above: the SDK takes a second to import, and `--help` needs none.
    from serving.telemetry.reporter.wandb_runs import WandbRuns

    watchdog = Watchdog(_SDK_CALL_LIMIT_S)
    runs = WandbRuns(options.spool, transmit_s=options.transmit_s, watchdog=watchdog)
    deliverer = Deliverer(
        SpoolReader(options.spool),
        runs.open,
        clock=time.monotonic,
        patience=Patience(backoff_most_s=options.backoff_s, stall_s=options.stall_s),
    )
    try:
        while not closing.event.wait(options.poll_s):
            deliverer.turn()
        return _drain(deliverer, closing, options.grace_s)
    except (StalledError, OSError) as error:
        _log.error("%s; the process ends and starts afresh", error)
        return _leave(EXIT_STALLED)


def _drain(deliverer: Deliverer, closing: Closing, grace_s: float) -> int:
    with Watchdog(grace_s).limit():
        deliverer.turn()
        while not deliverer.end(closing.exit_code):
            time.sleep(_CLOSING_POLL_S)
    return _leave(0)


def _leave(code: int) -> int:
    """Exit without the SDK's exit handlers: the runs are finished, or must not be waited for."""
    logging.shutdown()
    os._exit(code)


def _log_into(lane: Path) -> None:
    handler = RotatingFileHandler(lane / "reporter.log", maxBytes=_LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.telemetry.reporter",
        description="Deliver a spool lane to W&B (WANDB_BASE_URL, WANDB_API_KEY).",
    )
    parser.add_argument("--spool", type=Path, required=True, help="a lane of the spool")
    seconds = (
        ("--poll-s", 1.0, "between looks at the lane"),
        ("--grace-s", 30.0, "to deliver and finish when told to leave"),
        ("--stall-s", 120.0, "until unconfirmed rows make the process start afresh"),
        ("--backoff-s", 60.0, "at most, between tries while W&B is down"),
    )
    for name, default, text in seconds:
        parser.add_argument(name, type=float, default=default, help=f"seconds {text} (%(default)s)")
    # The SDK rounds down to whole seconds, and takes zero as its default of 15.
    parser.add_argument(
        "--transmit-s",
        type=int,
        default=2,
        help="whole seconds between the SDK's transmissions, at least 1 (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
