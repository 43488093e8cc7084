"""Summaries, translations and other rewritten texts, by models with encoder and decoder.

What transformers' pipelines of these tasks did up to version 4: the prefix of the task in front of
the text, the settings of the model and of the task, an object with the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers

from registry import max_target_tokens
from serving.errors import InvalidInputError, LoadError
from serving.generation.beams import BeamPolicy, BeamSearch
from serving.generation.languages import Languages
from serving.generation.protocol import Job, Prompt
from serving.generation.rewriting_settings import ModelSettings, Wishes, read_wishes
from serving.generation.rules import build_rules
from serving.generation.single import SingleSearch
from serving.generation.warping import build_warpers
from serving.tasks.directory import ModelDirectory
from serving.tasks.protocol import Samples
from serving.tasks.text import SAMPLE_TEXTS, TextEncoder

_ANSWERS = {
    "summarization": "summary_text",
    "translation": "translation_text",
    "text2text-generation": "generated_text",
}
_SPACED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a job's answer needs.

    Attributes:
        search: the job's own, which has its sequences.
        tidy: whether spaces before punctuation are taken out.
    """

    search: BeamSearch | SingleSearch
    tidy: bool
    truncated: bool


@dataclass(frozen=True, slots=True)
class Rewriting:
    """A text -> other texts.

    Attributes:
        name: `summarization`, `translation` or `text2text-generation`.
        encoder: tokenises and cuts.
        languages: what the tokenizer knows of languages.
        settings: the model's.
        context_tokens: longest answer, its first token included.
    """

    name: str
    encoder: TextEncoder
    languages: Languages
    settings: ModelSettings
    context_tokens: int

    @classmethod
    def opener(cls, name: str) -> Callable[[ModelDirectory], Rewriting]:
        """Return what opens the task of this name for a model directory.

        It raises LoadError: the tokenizer or the settings cannot be used.
        """

        def open_task(model: ModelDirectory) -> Rewriting:
            encoder = TextEncoder.open(model)
            settings = ModelSettings.read(model, name)
            if not encoder.tokenizer.encode("").ids and not encoder.tokenizer.encode("a").ids:
                raise LoadError("The tokenizer makes no tokens.", hint="Log the tokenizer again.")
            languages = Languages.of(encoder.tokenizer)
            return cls(name, encoder, languages, settings, max_target_tokens(model.config))

        return open_task

    @property
    def samples(self) -> Samples:
        """Texts, with answers of a few tokens."""
        return Samples(list(SAMPLE_TEXTS), {"max_new_tokens": 4, "min_length": 0})

    def prepare(self, item: object, parameters: Mapping[str, object]) -> Sequence[Job]:
        """Turn a text into its job; into several when several are drawn one by one.

        Raises:
            InvalidInputError: the item is no text, or a parameter cannot be used.
        """
        if not isinstance(item, str):
            raise InvalidInputError("An input is no text.", hint='Send {"inputs": "some text"}.')
        wishes = read_wishes(self.name, parameters)
        settings = self._settings(wishes)
        encoding = self.encoder.encoding(str(settings.get("prefix") or "") + item)
        truncated = bool(encoding.overflowing)
        if truncated and not wishes.truncates:
            raise InvalidInputError(
                f"The text is longer than the model's {self.encoder.max_tokens} tokens.",
                hint='Shorten it, or leave out "truncation": "do_not_truncate".',
            )
        source = self.languages.spoken(encoding, wishes.source_language)
        if not source:
            raise InvalidInputError(
                "The text has no tokens.", hint="Send a text that is not empty."
            )
        return self._jobs(settings, tuple(source), wishes, truncated)

    def answer(self, jobs: Sequence[Job]) -> list[dict[str, str]]:
        """Return `[{"summary_text"}]`, `[{"translation_text"}]` or `[{"generated_text"}]`."""
        key = _ANSWERS[self.name]
        return [
            {key: self._text(sequence, tidy=job.facts.tidy)}
            for job in jobs
            for sequence in job.facts.search.sequences
        ]

    def final(self, job: Job) -> dict[str, Any]:
        """Return the text of a job's best sequence."""
        return {"generated_text": self._text(job.facts.search.sequences[0], tidy=job.facts.tidy)}

    def _settings(self, wishes: Wishes) -> dict[str, Any]:
        pair = (wishes.source_language, wishes.target_language)
        settings = dict(self.settings.of(pair))
        if pair != (None, None) and not self.settings.has(pair):
            settings["forced_bos_token_id"] = self.languages.token(wishes.target_language)
        return wishes.over(settings)

    def _jobs(
        self, settings: Mapping[str, Any], source: tuple[int, ...], wishes: Wishes, truncated: bool
    ) -> list[Job]:
        limit = self._length(settings, wishes)
        ends = self.settings.ends
        rules = build_rules(settings, ends=ends, max_length=limit, source=source)
        beams, returned = settings["num_beams"], settings["num_return_sequences"]
        drawn = settings["do_sample"]
        least = len(ends) + 1 if beams > 1 else 1
        warpers = build_warpers(settings, least=least) if drawn else ()
        samplers = [*np.random.default_rng(wishes.seed).spawn(returned)] if drawn else [None]

        def job(search: BeamSearch | SingleSearch, width: int) -> Job:
            prompt = Prompt((self.settings.first,), source)
            return Job(prompt, search, width, limit - 1, _Facts(search, wishes.tidy, truncated))

        first = self.settings.first
        if beams == 1:
            return [
                job(SingleSearch(first, ends, limit, rules, warpers, sampler), 1)
                for sampler in samplers
            ]
        policy = BeamPolicy(
            beams=beams,
            returned=returned,
            length_penalty=settings["length_penalty"],
            early_stopping=settings["early_stopping"],
            ends=ends,
            max_length=limit,
            sampler=samplers[0],
        )
        return [job(BeamSearch(first, policy, rules, warpers), beams)]

    def _length(self, settings: Mapping[str, Any], wishes: Wishes) -> int:
        """Return the longest sequence, its first token included.

        Raises:
            InvalidInputError: the request asks for more than the model can write.
        """
        more = settings.get("max_new_tokens")
        limit = int(settings["max_length"] if more is None else more + 1)
        if limit > self.context_tokens and wishes.names_length:
            raise InvalidInputError(
                f"The model writes at most {self.context_tokens - 1} tokens.",
                hint="Ask for fewer with max_new_tokens.",
            )
        return max(2, min(limit, self.context_tokens))

    def _text(self, sequence: Sequence[int], *, tidy: bool) -> str:
        tokenizer: tokenizers.Tokenizer = self.encoder.tokenizer
        text = str(tokenizer.decode(list(sequence), skip_special_tokens=True))
        if tidy:
            for spaced in _SPACED:
                text = text.replace(spaced, spaced.strip())
        return text
