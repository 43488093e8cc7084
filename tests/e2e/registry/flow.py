"""Log artifacts with the real SDK, in a process of its own: `flow.py PROJECT FOLDER`."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import wandb


def weights(seed: int, size_bytes: int) -> bytes:
    header = json.dumps(
        {"a": {"dtype": "U8", "shape": [size_bytes], "data_offsets": [0, size_bytes]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes([seed]) * size_bytes


def directory(root: Path, seed: int) -> Path:
    folder = root / f"m{seed}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "seed": seed}))
    (folder / "model.safetensors").write_bytes(weights(seed, 3_000_000))
    (folder / "training_args.bin").write_bytes(b"PK\x03\x04")
    return folder


def main(project: str, root: Path) -> None:
    with wandb.init(project=project, name="bert-high") as run:
        for seed, f1 in enumerate((0.7, 0.9, 0.8)):
            artifact = wandb.Artifact("run-bert", type="model", metadata={"eval/f1": f1})
            artifact.add_dir(str(directory(root, seed)))
            aliases = ["latest", "first"] if seed == 0 else ["latest"]
            run.log_artifact(artifact, aliases=aliases).wait()
        run.log({"table": wandb.Table(columns=["a"], data=[[1]])})
        stub = wandb.Artifact("model-bert2", type="model", metadata={"initial_model": True})
        with stub.new_file("model_architecture.txt") as file:
            file.write("Bert")
        run.log_artifact(stub, aliases=["base_model"]).wait()
        trained = wandb.Artifact("model-bert2", type="model", metadata={"final_model": True})
        trained.add_dir(str(directory(root, 9)))
        run.log_artifact(trained, aliases=["final_model"]).wait()
        hidden = wandb.Artifact("by-display-name", type="model")
        hidden.add_dir(str(directory(root, 8)))
        run.log_artifact(hidden).wait()
        pointer = wandb.Artifact("pointer", type="model")
        pointer.add_reference("http://127.0.0.1:1/secret.safetensors", checksum=False)
        run.log_artifact(pointer).wait()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
