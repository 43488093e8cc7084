"""Projects, runs, their histories, console output, files and sweeps."""
