"""Fill a project with what the pages show, hostile texts among it. Prints the run's URL."""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path

import wandb

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&"


def train(project: str) -> wandb.Artifact:
    folder = Path("model")
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(bytes(2_000_000))
    with wandb.init(
        project=project,
        id="train-1",
        name=f"bert-base {HOSTILE}",
        job_type="train",
        notes=f"Notes {HOSTILE}",
        tags=["baseline", "<b>bold</b>"],
        config={
            "learning_rate": 2e-5,
            "batch": {"train": 32, "eval": 64},
            "hostile": HOSTILE,
            HOSTILE: "key",
        },
    ) as run:
        run.define_metric("train/global_step")
        run.define_metric("*", step_metric="train/global_step")
        random.seed(1)
        for step in range(120):
            row = {
                "train/global_step": step * 10,
                "train/loss": 2 * math.exp(-step / 30) + random.random() * 0.1,
                "train/learning_rate": 2e-5 * (1 - step / 120),
                "train/grad_norm": 1 + random.random() if step != 7 else float("nan"),
            }
            if step % 20 == 19:
                row |= {"eval/f1": 0.6 + step / 400, "eval/loss": 1.5 - step / 120}
            run.log(row)
        run.log({HOSTILE: 1.0, "image": wandb.Histogram([1, 2, 3])})
        print(f"epoch 1 done {HOSTILE}")
        run.save(str(folder / "config.json"), base_path=".")
        dataset = wandb.Artifact("corpus", "dataset")
        dataset.add_reference("custom://<b>bucket</b>/corpus.txt", name="corpus.txt")
        run.log_artifact(dataset).wait()
        model = wandb.Artifact(
            "run-bert",
            "model",
            description=f"Model {HOSTILE}",
            metadata={"eval/f1": 0.89, "x": HOSTILE},
        )
        model.add_dir(str(folder))
        run.log_artifact(model, aliases=["best", "<i>alias"]).wait()
        print("URL", run.url)
    return model


def main() -> None:
    project = sys.argv[1]
    model = train(project)
    with wandb.init(project=project, id="serve-1", name="serve-bert", job_type="inference") as run:
        run.use_artifact(model)
        for step in range(3):
            run.log({"requests": 10 * step, "latency/total/p95_ms": 12.5})
        report = wandb.Artifact("report", "result")
        with report.new_file("report.json") as file:
            json.dump({}, file)
        run.log_artifact(report).wait()
    print("ARTIFACT", model.url)


if __name__ == "__main__":
    main()
