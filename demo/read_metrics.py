"""Print, as JSON, what each served version reported to W&B; through the public API."""

from __future__ import annotations

import json
import os

import wandb


def main() -> None:
    """Print one object per inference run: name, version, totals, latency, address."""
    api = wandb.Api(timeout=20)
    path = f"{api.default_entity}/{os.environ['WANDB_PROJECT']}"
    runs = api.runs(path, filters={"jobType": "inference"})
    print(json.dumps([_row(run) for run in runs]))


def _row(run: object) -> dict[str, object]:
    summary = run.summary  # type: ignore[attr-defined]
    used = [artifact.name for artifact in run.used_artifacts()]  # type: ignore[attr-defined]
    return {
        "name": run.name,  # type: ignore[attr-defined]
        "url": run.url,  # type: ignore[attr-defined]
        "used": used,
        "requests": summary.get("total/requests", 0),
        "errors": summary.get("total/errors", 0),
        "p50_ms": summary.get("latency/total/p50_ms"),
        "p95_ms": summary.get("latency/total/p95_ms"),
    }


if __name__ == "__main__":
    main()
