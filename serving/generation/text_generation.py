"""Text generation: a prompt -> how it goes on, as transformers' pipeline answers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.errors import InvalidInputError
from serving.generation.growing_text import GrowingText
from serving.generation.protocol import Job, Piece, Prompt
from serving.generation.rules import build_rules
from serving.generation.text_search import TextSearch
from serving.generation.text_settings import Asked, read_asked, read_model_settings
from serving.generation.warping import build_warpers
from serving.tasks.directory import ModelDirectory
from serving.tasks.protocol import Samples
from serving.tasks.text import SAMPLE_TEXTS, TextEncoder

NAME = "text-generation"


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a job's answer needs.

    Attributes:
        search: the job's own.
        text: the prompt as it was sent.
        asked: by the request.
        seed: of the draws; None when nothing was drawn.
    """

    search: TextSearch
    text: str
    asked: Asked
    seed: int | None


@dataclass(frozen=True, slots=True)
class TextGeneration:
    """A prompt -> `[{"generated_text"}]`.

    Attributes:
        encoder: tokenises; does not cut.
        settings: the model's.
        special: ids of special tokens.
        context_tokens: longest sequence, prompt included.
    """

    encoder: TextEncoder
    settings: Mapping[str, Any]
    special: frozenset[int]
    context_tokens: int

    @classmethod
    def open(cls, model: ModelDirectory) -> TextGeneration:
        """Open the task for a model directory.

        Raises:
            LoadError: the tokenizer or the settings cannot be used.
        """
        encoder = TextEncoder.open(model, truncate=False)
        added = encoder.tokenizer.get_added_tokens_decoder()
        special = frozenset(number for number, token in added.items() if token.special)
        return cls(encoder, read_model_settings(model), special, encoder.max_tokens)

    @property
    def name(self) -> str:
        """`text-generation`."""
        return NAME

    @property
    def samples(self) -> Samples:
        """Prompts that go on for a few tokens."""
        texts = [text[: 4 * self.context_tokens // 8] or "a" for text in SAMPLE_TEXTS]
        return Samples(texts, {"max_new_tokens": 4, "truncate": max(1, self.context_tokens // 2)})

    def prepare(self, item: object, parameters: Mapping[str, object]) -> Sequence[Job]:
        """Turn a prompt into a job for each answer that is asked for.

        Raises:
            InvalidInputError: the item is no text, a parameter cannot be used, or the prompt fills
                the model's context.
        """
        if not isinstance(item, str):
            raise InvalidInputError("An input is no text.", hint='Send {"inputs": "some text"}.')
        asked = read_asked(parameters)
        settings = asked.over(self.settings)
        prompt = self._prompt(item, asked)
        new_tokens = self._new_tokens(settings, len(prompt))
        ends = _listed(settings.get("eos_token_id"))
        rules = self._rules(settings, ends, len(prompt), new_tokens)
        drawn = bool(settings["do_sample"])
        seed = (secrets.randbits(32) if asked.seed is None else asked.seed) if drawn else None
        # One answer more must not change those before it.
        generators = np.random.default_rng(seed).spawn(settings["num_return_sequences"])
        jobs = []
        for generator in generators:
            search = TextSearch(
                prompt=prompt,
                text=GrowingText(self.encoder.tokenizer),
                max_new_tokens=new_tokens,
                ends=ends,
                stops=asked.stops,
                special=self.special,
                rules=rules,
                warpers=build_warpers(settings, least=1) if drawn else (),
                sampler=generator if drawn else None,
                tells=asked.details,
            )
            facts = _Facts(search, item, asked, seed)
            jobs.append(Job(Prompt(prompt), search, 1, new_tokens, facts))
        return jobs

    def answer(self, jobs: Sequence[Job]) -> object:
        """Return `[{"generated_text"}]`; with details one object, or several in a list."""
        facts: list[_Facts] = [job.facts for job in jobs]
        if not facts[0].asked.details:
            return [{"generated_text": _text(one, full=True)} for one in facts]
        answers = [
            {"generated_text": _text(one, full=False), "details": self._details(one)}
            for one in facts
        ]
        return answers[0] if len(answers) == 1 else answers

    def final(self, job: Job) -> dict[str, Any]:
        """Return `generated_text` and `details` as the last event of a stream has them."""
        facts: _Facts = job.facts
        search = facts.search
        return {
            "generated_text": _text(facts, full=False),
            "details": {
                "finish_reason": search.reason,
                "generated_tokens": len(search.text.ids),
                "input_length": len(search.prompt),
                "seed": facts.seed,
            },
        }

    def _prompt(self, text: str, asked: Asked) -> tuple[int, ...]:
        ids = tuple(self.encoder.encoding(text).ids)
        if asked.truncate is not None:
            ids = ids[-asked.truncate :]
        if not ids:
            begin = self.settings.get("bos_token_id")
            if begin is None:
                raise InvalidInputError(
                    "The prompt has no tokens, and the model has none to begin with.",
                    hint="Send a text that is not empty.",
                )
            ids = (int(begin),)
        if len(ids) >= self.context_tokens:
            raise InvalidInputError(
                f"The prompt has {len(ids)} tokens; the model's context has room for "
                f"{self.context_tokens}, the answer included.",
                hint='Shorten it, or keep its end only with the parameter "truncate".',
            )
        return ids

    def _new_tokens(self, settings: Mapping[str, Any], prompt: int) -> int:
        """Return how many tokens may follow: what is asked for, as far as the context goes."""
        wanted = settings.get("max_new_tokens")
        if wanted is None:
            wanted = max(1, settings["max_length"] - prompt)
        return int(min(max(1, wanted), self.context_tokens - prompt))

    def _rules(
        self, settings: Mapping[str, Any], ends: tuple[int, ...], prompt: int, new_tokens: int
    ) -> tuple[Any, ...]:
        least = settings.get("min_new_tokens") or 0
        shortest = max(settings.get("min_length") or 0, prompt + least if least else 0)
        return build_rules(
            {**settings, "min_new_tokens": None, "min_length": shortest},
            ends=ends,
            max_length=prompt + new_tokens,
            source=(),
        )

    def _details(self, facts: _Facts) -> dict[str, Any]:
        search = facts.search
        wanted = search.prompt if facts.asked.prompt_details else ()
        tokenizer = self.encoder.tokenizer
        return {
            "finish_reason": search.reason,
            "generated_tokens": len(search.text.ids),
            "seed": facts.seed,
            "prefill": [{"id": token, "text": tokenizer.decode([token])} for token in wanted],
            "tokens": [_token(piece) for piece in search.pieces],
        }


def _text(facts: _Facts, *, full: bool) -> str:
    asked = facts.asked.full_text
    text = facts.search.answer
    return facts.text + text if (full if asked is None else asked) else text


def _token(piece: Piece) -> dict[str, Any]:
    return {
        "id": piece.token,
        "text": piece.text,
        "logprob": piece.logprob,
        "special": piece.special,
    }


def _listed(value: int | Sequence[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
