"""`DIR HOME LIMITS`: serve a folder with HTTP limits (JSON) that the command line lacks."""

import sys
from pathlib import Path

import msgspec

from serving.config import HttpLimits, ServeConfig, process_environment
from serving.server import serve

directory, home, limits = sys.argv[1:]
sys.exit(
    serve(
        ServeConfig(
            deployments=(("bert", directory),),
            cache_dir=Path(home) / "cache",
            data_dir=Path(home) / "data",
            port=0,
            report=False,
            http=msgspec.json.decode(limits, type=HttpLimits),
            environment=process_environment(),
        )
    )
)
