"""The reference for question answering.

transformers 5 has no such pipeline any more. This is the algorithm of the last one (4.x), written
from its documentation and behaviour over transformers' tokenizer and torch's model: windows by the
tokenizer's own overflow, words by its own encodings, spans by the full matrix.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class QuestionReference:
    """Answers with transformers and torch alone."""

    def __init__(self, model: Path) -> None:
        from transformers import AutoModelForQuestionAnswering, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model = AutoModelForQuestionAnswering.from_pretrained(model).eval()

    def __call__(self, item: dict[str, str], **asked: Any) -> Any:
        top_k, longest = asked.get("top_k", 1), asked.get("max_answer_len", 15)
        align = asked.get("align_to_words", True)
        limit = asked.get("max_seq_len") or min(self.tokenizer.model_max_length, 384)
        encoded = self.tokenizer(
            item["question"],
            item["context"],
            truncation="only_second",
            max_length=limit,
            stride=asked.get("doc_stride", min(limit // 2, 128)),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        answers: list[dict[str, Any]] = []
        least = 1e6
        for part, encoding in enumerate(encoded.encodings):
            start, end = self._logits(encoded, part)
            ids = np.array(encoding.ids)
            allowed = np.array([owner == 1 for owner in encoding.sequence_ids])
            allowed |= ids == self.tokenizer.cls_token_id
            start, end = (_softmax(np.where(allowed, one, -10000.0)) for one in (start, end))
            least = min(least, float(start[0] * end[0]))
            start[0] = end[0] = 0.0
            matrix = np.tril(np.triu(np.outer(start, end)), longest - 1)
            flat = matrix.ravel()
            count = top_k * 2 + 10 if align else top_k
            for place in np.argsort(-flat, kind="stable")[:count]:
                first, last = np.unravel_index(place, matrix.shape)
                if allowed[first] and allowed[last]:
                    span = _characters(encoding, int(first), int(last), align)
                    _add(answers, item["context"], span, float(flat[place]))
        if asked.get("handle_impossible_answer"):
            answers.append({"score": least, "start": 0, "end": 0, "answer": ""})
        best = sorted(answers, key=lambda answer: answer["score"], reverse=True)[:top_k]
        return best[0] if len(best) == 1 else best

    def _logits(self, encoded: Any, part: int) -> tuple[np.ndarray, np.ndarray]:
        import torch

        feeds = {
            name: torch.tensor(encoded[name][part])[None]
            for name in ("input_ids", "attention_mask", "token_type_ids")
        }
        with torch.inference_mode():
            found = self.model(**feeds)
        return found.start_logits[0].numpy(), found.end_logits[0].numpy()


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def _characters(encoding: Any, first: int, last: int, align: bool) -> tuple[int, int]:
    if align:
        try:
            begun = encoding.word_to_chars(encoding.token_to_word(first), 1)
            ended = encoding.word_to_chars(encoding.token_to_word(last), 1)
        except Exception:
            return encoding.offsets[first][0], encoding.offsets[last][1]
        return begun[0], ended[1]
    return encoding.offsets[first][0], encoding.offsets[last][1]


def _add(answers: list[dict[str, Any]], context: str, span: tuple[int, int], score: float) -> None:
    text = context[span[0] : span[1]]
    for answer in answers:
        if answer["answer"].lower() == text.lower():
            answer["score"] += score
            return
    answers.append({"score": score, "start": span[0], "end": span[1], "answer": text})
