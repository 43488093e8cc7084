from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from transformers import TrainerControl, TrainerState, TrainingArguments

from registry.callback import RunportCallback
from registry.errors import UnavailableError


@pytest.fixture
def arguments(tmp_path: Path) -> Iterator[TrainingArguments]:
    """Arguments in a process where an Accelerator was made after them, as the Trainer does."""
    made = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    Accelerator(cpu=True)
    yield made
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("first", [True, False])
def test_sharded_training_is_refused_in_every_process_before_it_starts(
    first: bool, arguments: TrainingArguments
) -> None:
    # FSDP itself needs accelerators; this is what accelerate says in its processes.
    PartialState().distributed_type = DistributedType.FSDP
    state = TrainerState(is_world_process_zero=first)
    with pytest.raises(UnavailableError, match="FSDP"):
        RunportCallback("end").on_train_begin(arguments, state, TrainerControl())


def test_other_processes_of_a_plain_training_do_nothing(arguments: TrainingArguments) -> None:
    state = TrainerState(is_world_process_zero=False)
    callback = RunportCallback("end")
    callback.on_train_begin(arguments, state, TrainerControl())
    callback.on_train_end(arguments, state, TrainerControl())
    assert (callback.logged, callback.failures) == ((), ())
