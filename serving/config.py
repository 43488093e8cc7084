"""Everything that decides how a server behaves; the only module here that reads the environment."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec


class HttpLimits(msgspec.Struct, frozen=True):
    """What a request may cost before it is refused.

    Attributes:
        body_bytes: length of a body (413 beyond).
        file_bytes: likewise, for models that take audio or image files.
        items: inputs in one request (413 beyond).
        characters: of all texts of one request together (413 beyond).
        depth: nesting of a JSON body (400 beyond).
        header_bytes: request line and headers together.
        header_timeout_s, body_timeout_s: to receive headers; to receive a body.
        write_timeout_s: for a client to take an answer.
        request_timeout_s: from the complete body to the answer (504 beyond).
        keep_alive_s: idle time after which a connection is closed.
        connections: open connections, at most.
    """

    body_bytes: int = 4 * 2**20
    file_bytes: int = 32 * 2**20
    items: int = 256
    characters: int = 1_000_000
    depth: int = 32
    header_bytes: int = 32 * 2**10
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    write_timeout_s: float = 30.0
    request_timeout_s: float = 60.0
    keep_alive_s: float = 75.0
    connections: int = 2048

    def for_files(self) -> HttpLimits:
        """Return the limits for models that take files: a file is as long as base64 makes it."""
        return msgspec.structs.replace(self, body_bytes=self.file_bytes, characters=self.file_bytes)


CACHE_BYTES = 2 * 2**30
"""Of keys and values of a model that generates, where nobody says otherwise."""


class CoreLimits(msgspec.Struct, frozen=True):
    """How a worker batches and what it refuses.

    Attributes:
        slots: batches that may run at once; on CPU one per core, each on one thread.
        max_queue: rows accepted and not yet answered, at most.
        max_batch_tokens: padded tokens of a batch, at most (a single longer row still runs).
        max_batch_rows: rows of a batch, at most.
        length_step: rows whose lengths round up to the same multiple may share a batch; 0 leaves
            it to the engine: 1, equal lengths, where it computes on padding, else a wide one.
        age_cap_s: a row that has waited longer leads the next batch; until then the fullest
            batch goes first. 0 means that the oldest row always leads.
        tokenize_threads: threads that turn items into rows.
        cache_bytes: of a model that generates: memory for keys and values of all answers that grow.
    """

    slots: int = 1
    max_queue: int = 1024
    max_batch_tokens: int = 512
    max_batch_rows: int = 16
    length_step: int = 0
    age_cap_s: float = 0.0
    tokenize_threads: int = 1
    cache_bytes: int = CACHE_BYTES


class RestartPolicy(msgspec.Struct, frozen=True):
    """When a worker that died is started again.

    Attributes:
        backoff_s: wait before the second start in a row; doubles each time. The first is at once.
        breaker: crashes in a row after which it is left alone for `cooldown_s`.
        healthy_s: a worker that lived so long has its crashes forgotten.
        cooldown_s: how long the breaker stays open before one more try.
        ping_interval_s, ping_timeout_s: a worker whose loop does not answer is killed.
    """

    backoff_s: float = 0.5
    breaker: int = 3
    healthy_s: float = 60.0
    cooldown_s: float = 30.0
    ping_interval_s: float = 10.0
    ping_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """One server: what it serves, where it listens, what it accepts.

    Attributes:
        deployments: pairs of deployment name and reference, in the order given.
        host, port: where to listen; port 0 takes a free one.
        tasks: deployment name -> task, where it is not what the version itself says.
        bases: deployment name -> base model of the adapter that it serves.
        engine: `auto`, `onnx`, `openvino` or `torch`.
        precision: `auto` (fp32), or one of the engine's.
        engine_threads: threads inside the engine for one batch.
        core: batching and queue of each worker.
        tuned_threads: whether a version that was tuned takes `engine_threads` and slots from its
            measurement in place of these.
        http: limits of requests.
        restart: what happens when a worker dies.
        load_timeout_s, prepare_timeout_s: to start a worker; to pull and export a version.
        drain_timeout_s: for requests in flight, when a version or the server goes.
        linger_s: how long a server that was told to stop still takes connections: clients
            are told to close theirs, so that none is cut between two requests.
        follow_interval_s: between two looks at the aliases; 0 follows none.
        report: whether inference metrics go to W&B.
        report_window_s: length of a window of metrics.
        api_keys: file with hashed keys (see `serving.keys`); None asks for no key.
        allowed_hosts: names that the Host header may have besides the loopback ones.
        cache_dir, data_dir: as in `registry.Settings`.
        environment: of this process, for its children.
    """

    deployments: tuple[tuple[str, str], ...]
    cache_dir: Path
    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    tasks: Mapping[str, str] = field(default_factory=dict)
    bases: Mapping[str, str] = field(default_factory=dict)
    engine: str = "auto"
    precision: str = "auto"
    engine_threads: int = 1
    core: CoreLimits = field(default_factory=CoreLimits)
    tuned_threads: bool = True
    http: HttpLimits = field(default_factory=HttpLimits)
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    load_timeout_s: float = 180.0
    prepare_timeout_s: float = 1800.0
    drain_timeout_s: float = 60.0
    linger_s: float = 0.3
    follow_interval_s: float = 2.0
    report: bool = True
    report_window_s: float = 10.0
    api_keys: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def preparing_environment(self, deployment: str) -> Mapping[str, str]:
        """Return the environment of the process that prepares versions of a deployment."""
        base = self.bases.get(deployment)
        return {**self.environment, "RUNPORT_BASE": base} if base else self.environment

    @property
    def loopback_only(self) -> bool:
        """Whether `host` can be reached from this machine only."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Return whether `host` is a loopback address or `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def process_environment() -> dict[str, str]:
    """Return this process's environment, for `ServeConfig.environment`."""
    return dict(os.environ)


def available_cores() -> int:
    """Return the number of cores that this process may use, at least 1."""
    return max(1, len(os.sched_getaffinity(0)))
