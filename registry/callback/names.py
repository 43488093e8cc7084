"""What an artifact and its aliases are called; pure."""

from __future__ import annotations

import re

MAX_NAME_LENGTH = 128
"""W&B refuses longer artifact names."""

FINAL_ALIAS = "final"
"""On the version of the newest finished training. `best` is never set: promotion moves that one."""


def collection_name(run_name: str, suffix: str = "") -> str:
    """Return `run-<run_name><suffix>` in W&B's alphabet.

    Other characters than letters, digits, `-`, `_` and `.` become `_`, and a name of more than 128
    characters loses its middle, as W&B's own SDK does it.
    """
    cleaned = re.sub(r"[^a-zA-Z0-9_\-.]", "_", f"run-{run_name}{suffix}")
    if len(cleaned) <= MAX_NAME_LENGTH:
        return cleaned
    side = (MAX_NAME_LENGTH - 2) // 2
    return f"{cleaned[:side]}..{cleaned[-side:]}"


def chosen_run_name(run_name: str | None, output_dir: str | None) -> str | None:
    """Return the run name that the user chose, None when there is none.

    A run name equal to the output directory was filled in by older Trainers, not chosen.
    """
    return None if not run_name or run_name == output_dir else run_name


def checkpoint_aliases(step: int, epoch: float | None) -> tuple[str, ...]:
    """Return a checkpoint's aliases, spelled as transformers' own callback spells them."""
    aliases = (f"checkpoint_global_step_{step}",)
    return aliases if epoch is None else (*aliases, f"epoch_{round(epoch, 2)}")
