"""Find a running backend from outside, by its data folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import httpx

from registry.backend.auth import load_credentials
from registry.backend.server import SERVER_FILE
from registry.backend.service import CREDENTIALS_FILE
from registry.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class RunningBackend:
    """Where a backend answers and the key that it takes."""

    base_url: str
    api_key: str

    def environment(self) -> dict[str, str]:
        """Return the variables that point the SDK, and anything built on it, at the backend.

        `WANDB_ERROR_REPORTING=false` keeps the SDK from reporting its own crashes elsewhere.
        """
        return {
            "WANDB_BASE_URL": self.base_url,
            "WANDB_API_KEY": self.api_key,
            "WANDB_ERROR_REPORTING": "false",
        }


def find_running(data_dir: Path) -> RunningBackend:
    """Return the backend that serves `data_dir`.

    Raises:
        UnavailableError: none is running there.
        StorageError: the credentials cannot be read.
    """
    try:
        base_url = str(json.loads((data_dir / SERVER_FILE).read_text("utf-8"))["base_url"])
        # The file outlives a killed server, and the port may be another program's by now.
        httpx.get(f"{base_url}/healthz", timeout=5, trust_env=False).raise_for_status()
    except (OSError, ValueError, KeyError, TypeError, httpx.HTTPError) as error:
        raise UnavailableError(
            f"No backend is running on {data_dir}.",
            hint="Start one with `registry backend`, or name its folder with --data.",
        ) from error
    return RunningBackend(base_url, load_credentials(data_dir / CREDENTIALS_FILE).api_key)
