"""Train a small BERT classifier from scratch with the real Trainer.

This is what a user's own script looks like; nothing in it is special to the
demo but the corpus. The model ends as the artifact `run-<run name>`.

    python -m demo.train --run-name bert --epochs 1 --output DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from demo.corpus import LABELS, Review, make_corpus
from registry import RunportCallback

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class Reviews(Dataset):
    """Reviews as the Trainer wants them: token ids, unpadded, and a label."""

    def __init__(self, reviews: list[Review], tokenizer: PreTrainedTokenizerFast) -> None:
        encoded = tokenizer([review.text for review in reviews], truncation=True)
        self._rows = [
            {"input_ids": ids, "attention_mask": mask, "labels": review.label}
            for ids, mask, review in zip(
                encoded["input_ids"], encoded["attention_mask"], reviews, strict=True
            )
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, object]:
        return self._rows[index]


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return a WordPiece tokenizer learned from the texts, with BERT's special tokens."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=600, special_tokens=SPECIALS, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ids = {name: tokenizer.token_to_id(name) for name in SPECIALS}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
    )


def make_model(vocab_size: int) -> BertForSequenceClassification:
    """Return a two-layer BERT with random weights and our labels."""
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        max_position_embeddings=128,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    return BertForSequenceClassification(config)


def metrics(prediction: object) -> dict[str, float]:
    """Return accuracy and macro F1 of a Trainer prediction."""
    logits, labels = prediction.predictions, prediction.label_ids  # type: ignore[attr-defined]
    guesses = np.argmax(logits, axis=-1)
    scores = []
    for label in range(len(LABELS)):
        hits = int(np.sum((guesses == label) & (labels == label)))
        claimed, real = int(np.sum(guesses == label)), int(np.sum(labels == label))
        scores.append(2 * hits / (claimed + real) if claimed + real else 0.0)
    return {"accuracy": float(np.mean(guesses == labels)), "f1": float(np.mean(scores))}


def main() -> None:
    """Train once and let the callback log the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-name", required=True)
    parser.add_argument("--epochs", type=float, required=True)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    set_seed(arguments.seed)
    training, held_out = make_corpus(1800, seed=1), make_corpus(450, seed=2)
    tokenizer = make_tokenizer([review.text for review in training])
    trainer = Trainer(
        model=make_model(len(tokenizer)),
        args=TrainingArguments(
            output_dir=str(arguments.output),
            run_name=arguments.run_name,
            report_to="wandb",
            num_train_epochs=arguments.epochs,
            learning_rate=arguments.learning_rate,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=64,
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            metric_for_best_model="f1",
            logging_steps=10,
            disable_tqdm=True,
            dataloader_pin_memory=False,
            seed=arguments.seed,
        ),
        train_dataset=Reviews(training, tokenizer),
        eval_dataset=Reviews(held_out, tokenizer),
        processing_class=tokenizer,
        compute_metrics=metrics,
        callbacks=[RunportCallback()],
    )
    trainer.train()


if __name__ == "__main__":
    main()
