"""Feature extraction: a text's embedding, or the vectors of its tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from registry import SentenceModules, read_sentence_modules
from serving.errors import InvalidInputError
from serving.tasks.directory import ModelDirectory
from serving.tasks.parameters import check_known, choice, truth, whole_number
from serving.tasks.pooling import POOLINGS, pool, unit
from serving.tasks.projection import Projection, open_projection
from serving.tasks.protocol import Array, Outputs, Row, Samples
from serving.tasks.scores import finite
from serving.tasks.text import SAMPLE_TEXTS, TextEncoder
from serving.tasks.windows import windows

STATES = "last_hidden_state"

_PARAMETERS = (
    *("dimensions", "encoding_format", "normalize", "pooling", "prompt_name"),
    *("truncate", "truncation_direction"),
)


@dataclass(frozen=True, slots=True)
class FeatureExtraction:
    """Vectors of a text.

    A sentence-transformers model answers one embedding per text, made as its modules say; any other
    model answers one vector per token, as transformers' pipeline does.

    Parameters of a request: `pooling` (`none`, or one of `POOLINGS`), `normalize` (scale the
    embedding to length 1), `truncate` (default true; false refuses what is too long),
    `truncation_direction` (`left`, `right`), `prompt_name`, `dimensions` (the first so many of an
    embedding), `encoding_format` (`float`).

    Attributes:
        encoder: tokenises; does not cut.
        modules: of sentence-transformers; None for any other model.
        projection: its dense layers.
    """

    encoder: TextEncoder
    modules: SentenceModules | None
    projection: Projection

    @classmethod
    def open(cls, model: ModelDirectory) -> FeatureExtraction:
        """Open the task for a model directory.

        Raises:
            LoadError: the tokenizer or the dense layers cannot be used.
            RegistryError: its sentence-transformers modules are broken or not known.
        """
        modules = read_sentence_modules(model.path)
        trained = modules.max_tokens if modules else None
        encoder = TextEncoder.open(model, truncate=False, max_tokens=trained)
        return cls(encoder, modules, open_projection(model.path, modules.dense if modules else ()))

    @property
    def name(self) -> str:
        """`feature-extraction`."""
        return "feature-extraction"

    @property
    def samples(self) -> Samples:
        """Texts of three lengths."""
        return Samples(SAMPLE_TEXTS)

    def preprocess(self, item: object, parameters: Mapping[str, object]) -> tuple[Row]:
        """Tokenise a text.

        Raises:
            InvalidInputError: the item is no text, too long, or a parameter cannot be used.
        """
        check_known(parameters, _PARAMETERS)
        self._modes(parameters)
        truth(parameters, "normalize", False)
        whole_number(parameters, "dimensions", None)
        choice(parameters, "encoding_format", "float", ("float",))
        if not isinstance(item, str):
            raise InvalidInputError("An input is no text.")
        side = "left" if self.encoder.cut_left else "right"
        direction = choice(parameters, "truncation_direction", side, ("left", "right"))
        row = self.row(item, self._prompt(parameters), cut_left=direction == "left")
        if row.truncated and not truth(parameters, "truncate", True):
            raise InvalidInputError(
                f"The text is longer than {self.encoder.max_tokens} tokens.",
                hint="Shorten it, or send truncate: true.",
            )
        return (row,)

    def row(self, text: str, prompt: str = "", *, cut_left: bool = False) -> Row:
        """Tokenise a text with a prompt before it; the row's facts are its prompt's tokens.

        Raises:
            InvalidInputError: it cannot be tokenised.
        """
        modules = self.modules
        lower = modules is not None and modules.lowercase
        whole = (prompt + text).lower() if lower else prompt + text
        encoding = self.encoder.encoding(whole)
        limit = self.encoder.max_tokens
        places = windows(encoding, max_tokens=limit, cut_left=cut_left)[0]
        skipped = 0
        if prompt and modules is not None and not modules.include_prompt:
            # sentence-transformers counts the prompt without the token that ends every text.
            skipped = len(self.encoder.encoding(prompt.lower() if lower else prompt).ids) - 1
        return self.encoder.row(encoding, places, skipped)

    def collate(self, rows: Sequence[Row], input_names: Sequence[str]) -> dict[str, Array]:
        """Pad the rows to the longest."""
        return self.encoder.collate(rows, input_names)

    def split(self, rows: Sequence[Row], outputs: Mapping[str, Array]) -> list[Outputs]:
        """Return the vectors of each row's own tokens."""
        return self.encoder.split_tokens(rows, outputs, (STATES,))

    def postprocess(
        self, rows: Sequence[Row], outputs: Sequence[Outputs], parameters: Mapping[str, object]
    ) -> list[float] | list[list[float]]:
        """Return the embedding, or without pooling one vector per token.

        Raises:
            InvalidInputError: a parameter cannot be used.
            NonFiniteOutputError: a value is NaN or infinite.
        """
        states = finite(outputs[0][STATES])
        modes = self._modes(parameters)
        size = whole_number(parameters, "dimensions", None)
        normalize = truth(parameters, "normalize", bool(self.modules and self.modules.normalize))
        if not modes:
            cut = states[:, :size]
            vectors: list[list[float]] = [(unit(one) if normalize else one).tolist() for one in cut]
            return vectors
        embedding = self.embedding(states, modes, prompt_tokens=rows[0].facts)[:size]
        vector: list[float] = (unit(embedding) if normalize else embedding).tolist()
        return vector

    def embedding(self, states: Array, modes: Sequence[str], *, prompt_tokens: int = 0) -> Array:
        """Return one vector for those of a text's tokens, before it is scaled.

        Args:
            states: shape (tokens, size).
            modes: how to pool.
            prompt_tokens: how many at the beginning are left out.
        """
        return self.projection.apply(pool(states, modes, prompt_tokens=prompt_tokens))

    def _modes(self, parameters: Mapping[str, object]) -> tuple[str, ...]:
        """Return how to pool; nothing for one vector per token."""
        if parameters.get("pooling") is None:
            return self.modules.pooling if self.modules else ()
        named = choice(parameters, "pooling", "none", ("none", *POOLINGS))
        return () if named == "none" else (named,)

    def _prompt(self, parameters: Mapping[str, object]) -> str:
        prompts = self.modules.prompts if self.modules else {}
        name = parameters.get("prompt_name")
        if name is None:
            default = self.modules.default_prompt if self.modules else None
            return prompts.get(default, "") if default else ""
        if not isinstance(name, str) or name not in prompts:
            raise InvalidInputError(
                "prompt_name is no prompt of this model.",
                hint=f"It has {', '.join(prompts) or 'none'}.",
            )
        return prompts[name]
