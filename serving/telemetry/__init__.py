"""What happened: counters in windows, a durable spool, a W&B reporter process, Prometheus.

Knows nothing of HTTP, models or batching: one `RequestRecord` a request goes in,
and nothing on that path waits for a disk, a process or a network.

    record() ─► windows ─► spool (files) ─► reporter process ─► one W&B run per served version
                   └────► Prometheus text
"""

from serving.telemetry.records import GaugeSample, RequestRecord, ServedVersion
from serving.telemetry.supervise import ReporterCommand
from serving.telemetry.telemetry import Telemetry

__all__ = ["GaugeSample", "ReporterCommand", "RequestRecord", "ServedVersion", "Telemetry"]
