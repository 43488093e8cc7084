"""Fill-mask as transformers' pipeline does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.errors import InvalidInputError, LoadError
from serving.tasks.directory import ModelDirectory
from serving.tasks.parameters import check_known, whole_number
from serving.tasks.protocol import Array, Outputs, Row, Samples
from serving.tasks.scores import finite, softmax
from serving.tasks.text import TextEncoder, special_id, special_token

_PARAMETERS = ("targets", "top_k")
_DEFAULT_TOP_K = 5
_CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


@dataclass(frozen=True, slots=True)
class FillMask:
    """The best tokens for each mask in a text.

    Parameters of a request: `top_k` (default 5) and `targets` (only these words count; of a word
    that is not in the vocabulary the first token).

    Attributes:
        encoder: tokenises and cuts.
        mask: the mask's text, such as `[MASK]`.
        mask_id: its token.
        pad_id: the token that is left out of answers, if there is one.
        cleans: whether spaces before punctuation are taken out of answers.
    """

    encoder: TextEncoder
    mask: str
    mask_id: int
    pad_id: int | None
    cleans: bool

    @classmethod
    def open(cls, model: ModelDirectory) -> FillMask:
        """Open the task for a model directory.

        Raises:
            LoadError: the tokenizer cannot be used, or has no mask.
        """
        encoder = TextEncoder.open(model)
        mask = special_token(model, "mask_token")
        mask_id = special_id(model, encoder.tokenizer, "mask_token")
        if mask is None or mask_id is None:
            raise LoadError("The tokenizer has no mask_token.", hint="Log the tokenizer again.")
        pieces = type(encoder.tokenizer.model).__name__ != "BPE"
        cleans = pieces and model.tokenizer_config.get("clean_up_tokenization_spaces") is True
        pad_id = special_id(model, encoder.tokenizer, "pad_token")
        return cls(encoder, mask, mask_id, pad_id, cleans)

    @property
    def name(self) -> str:
        """`fill-mask`."""
        return "fill-mask"

    @property
    def samples(self) -> Samples:
        """Texts with a mask."""
        return Samples([self.mask, f"the first {self.mask} to try", f"{self.mask} words " * 20])

    def preprocess(self, item: object, parameters: Mapping[str, object]) -> tuple[Row]:
        """Tokenise a text; the row's facts are the places of its masks.

        Raises:
            InvalidInputError: the item is no text with a mask, or a parameter cannot be used.
        """
        check_known(parameters, _PARAMETERS)
        self._top_k(parameters, self._targets(parameters))
        if not isinstance(item, str):
            raise InvalidInputError("An input is no text.")
        row = self.encoder.encode(item)
        places = np.flatnonzero(row.arrays["input_ids"] == self.mask_id)
        if not len(places):
            raise InvalidInputError(
                f"The text has no {self.mask}"
                + (", or it is behind where it was cut." if row.truncated else "."),
                hint=f"Put {self.mask} where a word is wanted.",
            )
        return (Row(row.arrays, row.length, row.truncated, places),)

    def collate(self, rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
        """Pad the rows to the longest."""
        return self.encoder.collate(rows, input_names)

    def split(self, rows: Sequence[Row], outputs: Mapping[str, Array]) -> list[Outputs]:
        """Return the logits at each row's masks; all others are a vocabulary wide, and unused."""
        parts = self.encoder.split_tokens(rows, outputs, ("logits",))
        return [
            {"logits": part["logits"][row.facts]} for row, part in zip(rows, parts, strict=True)
        ]

    def postprocess(
        self, rows: Sequence[Row], outputs: Sequence[Outputs], parameters: Mapping[str, object]
    ) -> list[Any]:
        """Return `[{"score", "token", "token_str", "sequence"}, …]`; one such list for each mask
        where there are several.

        Raises:
            InvalidInputError: a parameter cannot be used.
            NonFiniteOutputError: a logit is NaN or infinite.
        """
        (row,), (output,) = rows, outputs
        scores = softmax(finite(output["logits"]))
        targets = self._targets(parameters)
        count = self._top_k(parameters, targets)
        tokens = np.arange(scores.shape[-1]) if targets is None else targets
        answers = []
        for place, of_mask in zip(row.facts.tolist(), scores, strict=True):
            order = np.argsort(-of_mask[tokens], kind="stable")[:count]
            answers.append(
                [
                    self._proposal(row, place, int(token), float(of_mask[token]))
                    for token in tokens[order]
                ]
            )
        return answers[0] if len(answers) == 1 else answers

    def _proposal(self, row: Row, place: int, token: int, score: float) -> dict[str, Any]:
        ids = row.arrays["input_ids"].copy()
        ids[place] = token
        kept = ids[ids != self.pad_id] if self.pad_id is not None else ids
        # With several masks the others have to stay visible.
        sequence = self._decode(kept.tolist(), skip_special=len(row.facts) == 1)
        word = self._decode([token], skip_special=False)
        return {"score": score, "token": token, "token_str": word, "sequence": sequence}

    def _decode(self, ids: list[int], *, skip_special: bool) -> str:
        text = self.encoder.tokenizer.decode(ids, skip_special_tokens=skip_special)
        if self.cleans:
            for spaced in _CLEANED:
                text = text.replace(spaced, spaced.strip())
        return text

    def _top_k(self, parameters: Mapping[str, object], targets: Array | None) -> int:
        count = whole_number(parameters, "top_k", _DEFAULT_TOP_K) or _DEFAULT_TOP_K
        words = self.encoder.tokenizer.get_vocab_size()
        if targets is None and count > words:
            raise InvalidInputError(f"top_k is more than the {words} tokens of the vocabulary.")
        return count if targets is None else min(count, len(targets))

    def _targets(self, parameters: Mapping[str, object]) -> Array | None:
        """Return the tokens that count, or None for all."""
        wanted = parameters.get("targets")
        if wanted is None:
            return None
        words = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise InvalidInputError("targets is not a list of words.")
        found = {token for token in map(self._token, words) if token is not None}
        if not found:
            raise InvalidInputError("targets names no word that the model could know.")
        return np.array(sorted(found))

    def _token(self, word: str) -> int | None:
        token = self.encoder.tokenizer.token_to_id(word)
        if token is None:
            ids = self.encoder.tokenizer.encode(word, add_special_tokens=False).ids
            token = ids[0] if ids else None
        return token
