"""Load a logged model with `registry.load` inside a run; print its answer and the run as JSON."""

from __future__ import annotations

import json
import sys

import torch
import wandb
from transformers import AutoModelForSequenceClassification

import registry


def main() -> None:
    with wandb.init(project="downstream") as run:
        model = registry.load(sys.argv[1], AutoModelForSequenceClassification).eval()
        with torch.no_grad():
            row = torch.tensor([[2, 8, 9, 3]])
            logits = model(input_ids=row, attention_mask=torch.ones_like(row)).logits[0]
    sys.stdout.write(json.dumps({"run": run.path, "logits": logits.tolist()}) + "\n")


if __name__ == "__main__":
    main()
