"""Log what a Hugging Face `Trainer` has trained as `run-<run_name>`, complete and ready to serve.

    trainer.py     RunportCallback: the Trainer's events
    directory.py   the complete model directory; no W&B
    arguments.py   training arguments without secrets; no W&B
    metadata.py    what is known about a version: metrics, step, task; no W&B
    names.py       artifact names and aliases; pure
    upload.py      runs and artifacts; the only module here that imports wandb
    stock.py       keeps transformers' own WandbCallback to metrics

Importing this package imports transformers.
"""

from registry.callback.trainer import RunportCallback
from registry.callback.upload import LoggedModel, UploadFailure

__all__ = ["LoggedModel", "RunportCallback", "UploadFailure"]
