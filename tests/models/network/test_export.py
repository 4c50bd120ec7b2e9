"""Tests of the SavedModel as a server loads it. Training, scoring and export must give equal results."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.message import Message
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import saved_model_pb2

from models.errors import ArtifactError
from models.inference.scorer import Scorer, network_logits
from models.network.export import CLASSIFY_SIGNATURE, PREDICT_SIGNATURE, ServedModel, write_saved_model, write_warmup
from models.network.linear import LinearWeights
from models.network.network import build_network, calibrate, set_linear
from models.settings import NetworkSettings, TextSettings, VocabularySettings
from models.statistics.calibration import Calibration, to_probabilities
from models.text.cleaning import clean_texts, encode_utf8
from models.text.encoder import TextEncoder, encode_messages
from models.text.vocabulary import build_vocabulary

PROJECT = Path(__file__).parents[3]
SAMPLE = PROJECT / "pipeline" / "sample"
REAL = Path(os.environ.get("SPAMSCORE_TEST_DATA", PROJECT.parent / "shared" / "data")) / "SMSSpamCollection"
ARCHITECTURE = NetworkSettings(
    cell="gru", bidirectional=True, embedding_size=4, rnn_units=3, ngram_buckets=512, ngram_vectors=64
)
# Texts from attackers, broken gateways and other alphabets.
HOSTILE = [
    *["", " ", "\n\r\t", "\x00", "\u200b", "\ud800", "\ude00\ud83d", "\ufffd", "\u2028\u2029\x85\x1c\x0b"],
    *["FREE\x00WIN", "\x01CAPS", "<unknown> <padding>", "\U0010ffff\ufdd0\ufffe", "ﷺﬁ½Ⅷ™", "İıſẞ"],
    *["&#0;&#xD800;", "&amp;lt;&pound;5", "&" * 500, "&#" + "9" * 5000 + ";"],
    *["ＦＲＥＥ 𝐖𝐈𝐍 🅵🆁🅴🅴", "рауpаӏ ѕесurіtу", "f\u200br\u00ade\u202ee", "a" + "\u0301" * 10_000],
    *["Z\u0301\u0353a\u0336l" * 50, "x" * 200_000, "now " * 5000, "\u200b" * 30_000 + "FREE"],
    *["日本語 한국어 हिन्दी", "ภาษา עברית العربية", "👨\u200d👩\u200d👧 🏳️\u200d🌈 👍🏽"],
    *["call 0800 123 4567 or £1,000 www.x.test a@b.test 4839", "--Tensorflow's so Great!   "],
    *["f r e e  e n t r y", "y.o.u-h*a_v+e w o n", "F R E E " * 400, "www.x.test/(f r e e)", "http://x.test/a-b-c-d/e"],
    *["fr33 pr1z3 0f 5upp0rt", "\u2040free \u2040", "08712345678 12345 &lt;#&gt; ##", "١٢٣٤٥٦٧", "a b c d é f g"],
]


def bundled_texts() -> list[str]:
    texts = []
    for name in ("corpus.csv", "inbox.csv"):
        with open(SAMPLE / name, newline="", encoding="utf-8") as file:
            texts += [row["text"] for row in csv.DictReader(file)]
    return texts


def real_texts() -> list[str]:
    if not REAL.is_file():
        pytest.skip(f"the real corpus is not at {REAL}: set SPAMSCORE_TEST_DATA to the folder of SMSSpamCollection")
    return [line.split("\t", 1)[1] for line in REAL.read_text(encoding="utf-8").removesuffix("\n").split("\n")]


class Model:
    """One model in three forms: the encoder of training, the scorer of a batch, the export of a server."""

    def __init__(self, cleaning: str, folder: Path) -> None:
        text = TextSettings(cleaning=cleaning)
        self.vocabulary = build_vocabulary(clean_texts(bundled_texts(), text), VocabularySettings(min_count=1), text)
        self.network = build_network(ARCHITECTURE, len(self.vocabulary), seed=5)
        for weight in self.network.weights:
            weight.assign(weight.value * 5)  # so that the scores differ clearly
        self.encoder = TextEncoder(self.vocabulary, ARCHITECTURE.ngram_vectors)
        random = np.random.default_rng(5)
        parts = (random.normal(size=512), random.uniform(0.5, 9, 512), random.normal(size=1))
        set_linear(self.network, LinearWeights(*(part.astype(np.float32) for part in parts)))
        self.scorer = Scorer(self.encoder, self.network, ["/device:CPU:0"])
        write_saved_model(self.vocabulary, self.network, folder / "export" / "tmp-1")
        write_warmup(folder / "export" / "tmp-1", ["FREE entry", "caf\u00e9", ""], "spam_ham")
        # Every test loads the export from another folder than it was written to, and the original folder is deleted.
        (folder / "moved").mkdir()
        self.folder = folder / "moved" / "1"
        (folder / "export" / "tmp-1").rename(self.folder)
        shutil.rmtree(folder / "export")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model("signal", tmp_path_factory.mktemp("signal"))


@pytest.fixture(scope="module")
def served(model: Model) -> Iterator[ServedModel]:
    with ServedModel(model.folder) as served_model:
        yield served_model


def exported_scores(served: ServedModel, texts: list[str]) -> np.ndarray:
    return np.concatenate([served.predict_spam(texts[first : first + 500]) for first in range(0, len(texts), 500)])


@pytest.mark.parametrize("read_texts", [lambda: HOSTILE, bundled_texts, real_texts], ids=["hostile", "bundled", "real"])
def test_training_scoring_and_export_score_every_message_equally(
    model: Model, served: ServedModel, read_texts: object
) -> None:
    texts = read_texts()
    # Encoded as in training and computed by the network itself, without the lengths, widths or batches of the scorer.
    encoded = encode_messages(model.encoder, texts)
    order = np.argsort(encoded.lengths)
    logits = np.zeros(len(texts), np.float32)
    for first in range(0, len(order), 400):
        rows = order[first : first + 400]
        batch = encoded.batch(rows, int(encoded.lengths[rows].max()))
        logits[rows] = model.network(batch, training=False).numpy()
    trained = 1 / (1 + np.exp(-logits.astype(np.float64)))
    scored = model.scorer.score(texts).probabilities
    exported = exported_scores(served, texts)
    np.testing.assert_allclose(scored, trained, rtol=0, atol=1e-5)
    np.testing.assert_allclose(exported, trained, rtol=0, atol=1e-5)
    assert np.ptp(trained) > 0.1


@pytest.mark.parametrize("cleaning", ["signal", "letters"])
def test_the_export_encodes_messages_as_training_does(tmp_path: Path, cleaning: str) -> None:
    text = TextSettings(cleaning=cleaning)
    vocabulary = build_vocabulary(clean_texts(bundled_texts(), text), VocabularySettings(min_count=1), text)
    from_memory, asset = TextEncoder(vocabulary, 64), tmp_path / "vocabulary.txt"
    asset.write_text("".join(f"{token}\n" for token in vocabulary.tokens[2:]), encoding="utf-8")
    texts = bundled_texts() + HOSTILE
    expected, actual = (
        encode_messages(encoder, texts) for encoder in (from_memory, TextEncoder(vocabulary, 64, asset))
    )
    assert actual.rows.tolist() == expected.rows.tolist()
    assert actual.starts.tolist() == expected.starts.tolist()
    for name in ("words", "shapes", "ngrams", "starts"):
        assert getattr(actual.table, name).tolist() == getattr(expected.table, name).tolist()


def example(text: bytes) -> bytes:
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
    return tf.train.Example(features=tf.train.Features(feature={"text": value})).SerializeToString()


def test_classification_returns_both_classes_with_the_same_scores(served: ServedModel) -> None:
    texts = ["FREE entry now", "see you at home", "", "£500 won!!"]
    outputs = served.run(CLASSIFY_SIGNATURE, [example(text) for text in encode_utf8(texts)])
    assert outputs["classes"].tolist() == [[b"ham", b"spam"]] * len(texts)
    np.testing.assert_allclose(outputs["scores"][:, 1], served.predict_spam(texts), rtol=0, atol=1e-6)
    np.testing.assert_allclose(outputs["scores"].sum(axis=1), 1.0, rtol=0, atol=1e-6)


def test_an_empty_batch_gives_empty_outputs(served: ServedModel) -> None:
    assert served.predict_spam([]).shape == (0,)
    outputs = served.run(CLASSIFY_SIGNATURE, [])
    assert (outputs["classes"].shape, outputs["scores"].shape) == ((0, 2), (0, 2))


def test_invalid_utf_8_is_scored_as_its_replacement_character(served: ServedModel) -> None:
    (invalid, replaced) = served.run(PREDICT_SIGNATURE, [b"caf\xe9 FREE", "caf\ufffd FREE".encode()])["scores"]
    assert invalid == pytest.approx(replaced, abs=1e-6)


def test_training_scoring_and_export_use_the_same_calibration(model: Model, tmp_path: Path) -> None:
    raw = network_logits(model.network, encode_messages(model.encoder, bundled_texts()))
    calibration = Calibration(0.4, -0.7)
    network = keras.models.clone_model(model.network)
    network.set_weights(model.network.get_weights())
    calibrate(network, calibration)
    expected = to_probabilities(calibration.apply(raw))
    assert np.abs(expected - to_probabilities(raw)).max() > 0.1
    scored = Scorer(model.encoder, network, ["/device:CPU:0"]).score(bundled_texts()).probabilities
    np.testing.assert_allclose(scored, expected, rtol=0, atol=2e-6)
    write_saved_model(model.vocabulary, network, tmp_path / "1")
    with ServedModel(tmp_path / "1") as served:
        np.testing.assert_allclose(exported_scores(served, bundled_texts()), expected, rtol=0, atol=2e-6)


def describe_tensors(tensors: dict[str, Message]) -> dict[str, tuple[str, list[int]]]:
    return {
        name: (tf.dtypes.as_dtype(tensor.dtype).name, [dim.size for dim in tensor.tensor_shape.dim])
        for name, tensor in tensors.items()
    }


def test_the_signatures_have_the_names_types_and_shapes_that_clients_use(served: ServedModel) -> None:
    assert CLASSIFY_SIGNATURE == "serving_default"
    assert PREDICT_SIGNATURE == "predict_spam"
    assert {name for name in served.signatures if not name.startswith("__")} == {CLASSIFY_SIGNATURE, PREDICT_SIGNATURE}
    predict, classify = (served.signatures[name] for name in (PREDICT_SIGNATURE, CLASSIFY_SIGNATURE))
    assert describe_tensors(predict.inputs) == {"texts": ("string", [-1])}
    assert describe_tensors(predict.outputs) == {"scores": ("float32", [-1])}
    assert describe_tensors(classify.inputs) == {"inputs": ("string", [-1])}
    assert describe_tensors(classify.outputs) == {"classes": ("string", [-1, 2]), "scores": ("float32", [-1, 2])}
    assert predict.method_name == "tensorflow/serving/predict"
    assert classify.method_name == "tensorflow/serving/classify"


def test_the_folder_has_the_layout_that_a_server_loads(model: Model) -> None:
    files = {str(path.relative_to(model.folder)) for path in model.folder.rglob("*") if path.is_file()}
    assert files == {
        "saved_model.pb",
        "fingerprint.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "assets/vocabulary.txt",
        "assets.extra/tf_serving_warmup_requests",
    }
    tokens = (model.folder / "assets" / "vocabulary.txt").read_text(encoding="utf-8").split("\n")
    assert tokens == [*model.vocabulary.tokens[2:], ""]


def test_the_graph_has_only_operations_that_a_plain_server_has(model: Model) -> None:
    saved = saved_model_pb2.SavedModel.FromString((model.folder / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    operations = {node.op for node in graph.node} | {
        node.op for function in graph.library.function for node in function.node_def
    }
    assert "LookupTableFindV2" in operations
    assert [name for name in operations if "cudnn" in name.lower() or "PyFunc" in name] == []


def test_the_export_has_the_weights_but_no_optimizer_variables(model: Model) -> None:
    expected = Counter(tuple(variable.shape) for variable in model.network.variables)
    saved = {
        name: tuple(shape) for name, shape in tf.train.list_variables(str(model.folder / "variables" / "variables"))
    }
    del saved["_CHECKPOINTABLE_OBJECT_GRAPH"]
    assert not [name for name in saved if "optimizer" in name.lower()]
    assert set(saved.values()) == set(expected)
    # Keras lists a weight under two names.
    assert len(saved) <= 2 * expected.total()


def start_python(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """Starts Python in a folder outside the project."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *arguments], cwd=tmp_path, text=True, **pipes)


def parse_scores(process: subprocess.Popen[str]) -> np.ndarray:
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return np.array([float(number) for number in output.split(":")[-1].strip(" []\n").replace(",", " ").split()])


def test_processes_without_this_project_get_the_same_scores(model: Model, served: ServedModel, tmp_path: Path) -> None:
    texts = ["FREE entry now", "see you at home"]
    run = [str(Path(sys.executable).with_name("saved_model_cli")), "run", f"--dir={model.folder}", "--tag_set=serve"]
    from_cli = start_python(tmp_path, *run, "--signature_def=predict_spam", f"--input_exprs=texts={texts!r}")
    from_python = start_python(
        tmp_path,
        "-c",
        f"""import sys, tensorflow as tf
model = tf.saved_model.load({str(model.folder)!r})
print("scores:", model.signatures["predict_spam"](texts=tf.constant({texts!r}))["scores"].numpy())
assert not [name for name in sys.modules if name.split(".")[0] in ("models", "tasks", "pipeline")]
""",
    )
    expected = served.predict_spam(texts)
    np.testing.assert_allclose(parse_scores(from_cli), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(parse_scores(from_python), expected, rtol=0, atol=1e-6)


def test_the_session_loader_loads_the_export(model: Model, served: ServedModel) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        definition = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(model.folder)).signature_def[
            "predict_spam"
        ]
        feed = {definition.inputs["texts"].name: ["FREE entry now", "caf\u00e9"]}
        scores = session.run(definition.outputs["scores"].name, feed)
    np.testing.assert_allclose(scores, served.predict_spam(["FREE entry now", "caf\u00e9"]), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "missing", ["saved_model.pb", "variables", "assets", None], ids=["graph", "weights", "vocabulary", "all"]
)
def test_a_damaged_export_is_refused_and_the_error_names_its_folder(
    model: Model, tmp_path: Path, missing: str | None
) -> None:
    folder = tmp_path / "2"
    if missing:
        shutil.copytree(model.folder, folder)
        path = folder / missing
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ArtifactError, match="expected a SavedModel") as error:
        ServedModel(folder)
    assert str(error.value).startswith(f"{folder}: ")


def test_a_truncated_graph_is_refused(model: Model, tmp_path: Path) -> None:
    shutil.copytree(model.folder, tmp_path / "2")
    path = tmp_path / "2" / "saved_model.pb"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ArtifactError, match="expected a SavedModel"):
        ServedModel(tmp_path / "2")


def parse_fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Parses the fields of a protocol buffer message that has only numbers and length-delimited values."""

    def parse_varint(offset: int) -> tuple[int, int]:
        value, shift = 0, 0
        while True:
            byte = content[offset]
            value, offset, shift = value | (byte & 0x7F) << shift, offset + 1, shift + 7
            if byte < 0x80:
                return value, offset

    offset = 0
    while offset < len(content):
        key, offset = parse_varint(offset)
        assert key & 7 in (0, 2)
        value, offset = parse_varint(offset)
        if key & 7 == 2:
            assert offset + value <= len(content)
            value, offset = content[offset : offset + value], offset + value
        yield key >> 3, value


def parse_only_field(content: bytes, expected_number: int) -> bytes:
    """Returns the value of a message's only field."""
    ((number, value),) = parse_fields(content)
    assert number == expected_number
    return value


# Field numbers as in tensorflow_serving/apis: prediction_log.proto, predict.proto, model.proto.
PREDICT_LOG, REQUEST, MODEL_SPEC, INPUTS, NAME, SIGNATURE_NAME, KEY, VALUE = 6, 1, 1, 2, 1, 3, 1, 2


def test_the_warmup_is_a_predict_request_that_a_server_can_run(model: Model, served: ServedModel) -> None:
    records = tf.data.TFRecordDataset(str(model.folder / "assets.extra" / "tf_serving_warmup_requests"))
    (record,) = records.as_numpy_iterator()
    request = dict(parse_fields(parse_only_field(parse_only_field(record, PREDICT_LOG), REQUEST)))
    assert set(request) == {MODEL_SPEC, INPUTS}
    assert dict(parse_fields(request[MODEL_SPEC])) == {NAME: b"spam_ham", SIGNATURE_NAME: PREDICT_SIGNATURE.encode()}
    entry = dict(parse_fields(request[INPUTS]))
    assert entry[KEY] == b"texts"
    texts = tf.make_ndarray(tensor_pb2.TensorProto.FromString(entry[VALUE])).tolist()
    assert texts == [b"FREE entry", "caf\u00e9".encode(), b""]
    assert served.run(PREDICT_SIGNATURE, texts)["scores"].shape == (3,)


@pytest.mark.parametrize("count", [1, 200])
def test_a_warmup_of_any_length_can_be_parsed(tmp_path: Path, count: int) -> None:
    texts = [f"message {number} " * number for number in range(count)]
    write_warmup(tmp_path, texts, "m" * 200)
    (record,) = tf.data.TFRecordDataset(
        str(tmp_path / "assets.extra" / "tf_serving_warmup_requests")
    ).as_numpy_iterator()
    request = dict(parse_fields(parse_only_field(parse_only_field(record, PREDICT_LOG), REQUEST)))
    assert dict(parse_fields(request[MODEL_SPEC]))[NAME] == b"m" * 200
    tensor = tensor_pb2.TensorProto.FromString(dict(parse_fields(request[INPUTS]))[VALUE])
    assert tf.make_ndarray(tensor).tolist() == encode_utf8(texts)


def test_the_books_model_can_be_exported(tmp_path: Path) -> None:
    books = NetworkSettings(
        cell="simple", bidirectional=False, embedding_size=25, rnn_units=15, pooling="last", dropout=0.0,
        linear=False,
    )  # fmt: skip
    text = TextSettings(cleaning="letters")
    vocabulary = build_vocabulary(clean_texts(bundled_texts(), text), VocabularySettings(min_count=20), text)
    network = build_network(books, len(vocabulary), seed=1)
    write_saved_model(vocabulary, network, tmp_path / "1")
    scored = Scorer(TextEncoder(vocabulary, 0), network, ["/device:CPU:0"]).score(HOSTILE).probabilities
    with ServedModel(tmp_path / "1") as served:
        np.testing.assert_allclose(served.predict_spam(HOSTILE), scored, rtol=0, atol=1e-5)
