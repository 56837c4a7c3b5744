"""``reviewgen export``: what a page packs, the logits of onnxruntime, and the ids of other
tokenizers.
"""

import itertools
import json
import random
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

import reviewgen
from reviewgen.errors import ConfigError, OutputExists, PluginError, StorageError, UnknownPlugin
from reviewgen.export.folders import export_tokenizer
from reviewgen.export.html import export_html, pack
from reviewgen.export.onnx import export_onnx
from reviewgen.registry.plugins import find_tokenizer
from reviewgen.testing import NASTY_TEXTS, make_model
from tests.support.disks import largest_file, listing
from tests.support.fakes import (
    LETTERS,
    TEXTS,
    FakeConfig,
    TableModel,
    review_model,
    table,
)
from tests.support.ngrams import counted
from tests.support.plugin_models import make_blend, make_network

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
CHAR, WORD = (find_tokenizer(name)[0] for name in ("char", "word"))
TOKENIZER = CHAR.train([README], CHAR.Config())
SMALL = {"embedding_size": 8, "hidden_size": 12}
WORDS = WORD.train([*TEXTS, "<bos> and <eos> and <bos> and <eos>"] * 3, WORD.Config(vocab_size=400))
SIGNS = "[]^-\\&\"'/.*+?(){}|$#~"
TOKENIZERS = {
    "none": CHAR(""),
    "signs": CHAR("".join(sorted(SIGNS + " \x00\x7f\x80é日😀\ud7ff\ue000"))),
    "digits": CHAR("".join(sorted("0123456789abcdefABCDEF│①②⑯⓪"))),
    "word": WORDS,
}


def letters():
    return review_model(TableModel(table(LETTERS.vocab_size)), LETTERS)


@pytest.mark.parametrize(
    "bits, dtype", [(8, "int8"), (16, "float16"), (32, "float32"), (6, None), (5, None)]
)
def test_packed_weights_are_those_of_a_folder_of_as_many_bits_or_rounded_to_steps_of_a_row(
    micro, bits, dtype, tmp_path
):
    model = micro("gru-word")
    packed = pack(model.bundle, bits=bits)
    saved = model.model.state_dict()
    if dtype:
        model.save_pretrained(tmp_path / "saved", dtype=dtype)
        saved = reviewgen.load(tmp_path / "saved").model.state_dict()
    content = zlib.decompress(packed.blob, -zlib.MAX_WBITS)
    assert packed.manifest["tensors"].keys() == saved.keys()
    for name, entry in packed.manifest["tensors"].items():
        assert entry["offset"] % 8 == 0
        array = np.frombuffer(content, entry["dtype"], entry["length"], entry["offset"]).reshape(
            entry["shape"]
        )
        if "scales" in entry:
            array = (
                array
                * np.frombuffer(
                    content, "float32", entry["scales"]["length"], entry["scales"]["offset"]
                )[:, None]
            )
        matrix = saved[name].numpy()
        if matrix.ndim == 2 and dtype:
            assert np.array_equal(array.astype(np.float32), matrix)
        elif matrix.ndim == 2:
            step = np.abs(matrix).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
            assert (np.abs(array - matrix) <= 0.5001 * step).all() and max(
                len(np.unique(row)) for row in array
            ) < 2**bits
    assert (
        len(packed.blob)
        < len(pack(model.bundle, bits={5: 6, 6: 8, 8: 16, 16: 32}.get(bits, 32)).blob)
        or bits == 32
    )


def test_a_page_of_wrong_options_or_a_plugin_without_a_page_is_refused(micro, tmp_path):
    page = tmp_path / "page.html"
    for file, options, said in (
        (tmp_path / "page.txt", {}, r"\.html"),
        (page, {"bits": 4}, "5, 6, 8, 16, 32"),
    ):
        with pytest.raises(ConfigError, match=said):
            export_html(micro("gru-word"), file, **options)
    with pytest.raises(UnknownPlugin, match=r"'fake'.*serve.*--onnx"):
        export_html(letters(), page)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_a_page_once_unless_told_to_overwrite(
    model_folder, tmp_path, run_command
):
    page = tmp_path / "page.html"
    words = ("export", model_folder("ngram-char"), "--html", page)
    for more, status, said in (
        (("--bits", 7), 2, "5, 6, 8, 16, 32"),
        ((), 0, "page.html"),
        ((), 1, "already exists"),
    ):
        found, output, problem = run_command(*words, *more)
        assert found == status and said in output + problem
    assert re.findall("<title>(.*)</title>", page.read_text("utf-8")) == [
        model_folder("ngram-char").name
    ]
    assert run_command(*words, "--title", "My shop", "--overwrite")[0] == 0
    assert re.findall("<title>(.*)</title>", page.read_text("utf-8")) == ["My shop"]
    assert run_command(*words[:2])[0] == 2


def test_models_of_one_name_are_numbered_in_the_title_of_a_page(micro, tmp_path):
    page = tmp_path / "page.html"
    one = reviewgen.ReviewModel(replace(micro("gru-word").bundle, origin=None))
    export_html([one, one, reviewgen.ReviewModel(replace(one.bundle, preset="gru-word-2"))], page)
    assert "<title>gru-word · gru-word-2 · gru-word-2-2<" in page.read_text("utf-8")


@pytest.mark.parametrize(
    "source, name",
    [
        ("shop/../my@reviews", "my@reviews"),
        ("hf://ana/my-reviews@v2", "my-reviews"),
        ("gru-word", "gru-word"),
        (None, "gru-word"),
    ],
)
def test_a_page_has_the_name_of_the_folder_repository_or_preset(micro, source, name, tmp_path):
    model = reviewgen.ReviewModel(replace(micro("gru-word").bundle, origin=source))
    html = export_html(model, tmp_path / "page.html").read_text(encoding="utf-8")
    assert (
        f"<title>{name}</title>" in html
        and f'{{"models": [{{"id": "{name}", "preset": "gru-word"' in html
    )


def built(name, **settings):
    return make_network(name, vocab_size=TOKENIZER.vocab_size, **SMALL | settings)


GATE = {"coefficients": [[0.1, 0.2, 0.3, 0.01, 0.02, 0.03], [0.0] * 6]}
V = TOKENIZER.vocab_size
SLOW = {
    "rnn-relu-zoneout": lambda: built("rnn", activation="relu", zoneout=0.1),
    "gru-ngrams-tied": lambda: built("gru", ngrams=3, ngram_buckets=64, tied=True, layers=2),
    "gru-held": lambda: built(
        "gru", bos_id=TOKENIZER.encode("e")[0], condition_ids=3, field_ids=V // 2
    ),
    "lstm-pointer": lambda: built("lstm", pointer=9, bos_id=TOKENIZER.encode("e")[0]),
    "nnlm": lambda: built("nnlm"),
    "blend-gate": lambda: make_blend(
        [built("lstm"), built("nnlm", order=3)], ["lstm", "nnlm"], [0.6, 0.4], GATE
    ),
}
MODELS = {"lstm": lambda: built("lstm", layer="compiled", dropout=0.5)} | SLOW


@pytest.mark.parametrize(
    "name", ["lstm", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_onnxruntime_gives_the_logits_of_torch(name, tmp_path):
    """With a state that starts as zeros and goes from piece to piece."""
    import onnxruntime

    model = MODELS[name]()
    done = export_onnx(review_model(model, TOKENIZER), tmp_path / "model")
    session = onnxruntime.InferenceSession(tmp_path / "model" / "model.onnx")
    first, *states = session.get_inputs()
    assert first.shape == ["batch", "time"] and session.get_outputs()[0].shape == [
        "batch",
        "time",
        TOKENIZER.vocab_size,
    ]
    assert (
        len(states) + 1 == len(session.get_outputs())
        and done.largest_difference <= 1e-4
        and done.tokenizer_json
    )
    every = torch.tensor(TOKENIZER.encode(README))[: 3 * 150].view(3, 150)
    for ids, pieces in itertools.product((every, every[:1]), (150, [1, 149], [3, 1, 1, 60, 85], 1)):
        with torch.no_grad():
            expected = model(ids, model.initial_state(len(ids)))[0].numpy()
        dtypes = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
        state = [np.zeros([len(ids), *part.shape[1:]], dtypes[part.type]) for part in states]
        logits = []
        for piece in torch.split(ids, pieces, dim=1):
            given = zip(
                [first.name, *(part.name for part in states)], [piece.numpy(), *state], strict=True
            )
            scores, *state = session.run(None, dict(given))
            logits.append(scores)
        np.testing.assert_allclose(np.concatenate(logits, 1), expected, atol=1e-4, rtol=0)


class Odd(nn.Module):
    """A model whose call ends with an operation to be chosen."""

    Config = FakeConfig

    def __init__(self, operation):
        super().__init__()
        self.config = FakeConfig(vocab_size=TOKENIZER.vocab_size)
        self.operation = operation
        self.embedding = nn.Embedding(TOKENIZER.vocab_size, TOKENIZER.vocab_size)

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 1)

    def forward(self, ids, state):
        return self.operation(self.embedding(ids)), state + 1


@pytest.mark.slow
def test_what_cannot_be_exported_to_onnx_says_why_and_leaves_nothing(tmp_path, monkeypatch):
    calls = itertools.count(1)
    for operation, words in (
        (lambda x: x + torch.from_numpy(np.ones_like(x.detach().numpy())), r"to ONNX: .*numpy"),
        (lambda x: x + torch.special.bessel_j0(x), r"No ONNX function found for .*bessel_j0"),
        (lambda x: x + next(calls), r"differ by .* from those of the model; at most 0\.0001"),
    ):
        with pytest.raises(PluginError, match=words) as raised:
            export_onnx(review_model(Odd(operation), TOKENIZER), tmp_path / "model")
        assert len(str(raised.value)) < 500
    ngram = counted(["ab"], TOKENIZER, order=2)
    mixing = make_model("mixing", TOKENIZER.vocab_size)
    for model in (ngram, mixing, make_blend([built("lstm"), ngram], ["lstm", "ngram"])):
        with pytest.raises(ConfigError, match="trained by counting"):
            export_onnx(review_model(model, TOKENIZER), tmp_path / "model")
    # smaller than the graph
    with pytest.raises(StorageError, match="No room"), largest_file(4_000):
        export_onnx(review_model(built("nnlm"), TOKENIZER), tmp_path / "model")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"reviewgen\[onnx\]"):
        export_onnx(letters(), tmp_path / "model")
    assert not list(tmp_path.iterdir())


DOCS_PROGRAM = re.compile(r'```python title="onnx_generate.py"\n(.*?)```', re.DOTALL)
NO_NOISE = (
    "import numpy as np\nnp.random.default_rng = lambda: type('', (), {'gumbel': lambda self, size:"
    " np.zeros(size)})()\n"
)


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["char", "word"])
def test_the_program_of_the_documentation_uses_fields(tokenizer, tmp_path):
    artists = ["Mt. Joy", "Wolf Alice", "Ash"]
    rows = [
        {"text": f"{artist} sings.", "artist": artist, "stars": n % 2}
        for n, artist in itertools.product(range(40), artists)
    ]
    options = {
        "model": SMALL,
        "text_column": "text",
        "conditions": ["stars"],
        "fields": ["artist"],
        "progress": False,
    }
    model = reviewgen.train(f"lstm-{tokenizer}", rows, steps=60, **options)
    export_onnx(model, tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    marker = model.conditions.vocab_size - 2
    assert settings["fields"] == {"artist": {"marker_id": marker, "lowercase": False}}
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "export.md").read_text(encoding="utf-8")
    program = NO_NOISE + DOCS_PROGRAM.search(page)[1].replace("my-onnx", "model")
    given = program.replace("fields = {}", "fields = {'artist': 'Wolf Alice'}")
    assert given != program
    start = [model.tokenizer.bos_id, *model.conditions.encode({"artist": "Wolf Alice"})]
    done = subprocess.run(
        [sys.executable, "-c", f"{given}\nprint(start)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    text, ids, _ = done.stdout.rsplit("\n", 2)
    assert json.loads(ids) == start
    if tokenizer == "char":  # otherwise reviewgen may complete the last word of the prompt
        most = 300 - len(start) - len(model.tokenizer.encode("The"))
        settings = {
            "do_sample": False,
            "max_new_tokens": most,
            "conditions": {"artist": "Wolf Alice"},
        }
        assert text == model.generate_one("The", finish="anywhere", **settings)


@pytest.mark.slow
def test_the_program_of_the_documentation_generates_and_the_settings_say_how(tmp_path):
    """Without noise it takes the most probable token, as the model does with do_sample=False;
    trained until it writes words.
    """
    folder = tmp_path / "model"
    rows = [
        {"text": f"The {noun} was {how}.", "stars": stars}
        for noun, (how, stars) in itertools.product(("film", "plot"), {"good": 5, "bad": 1}.items())
    ] * 10
    model = reviewgen.train(
        "lstm-char",
        rows,
        steps=60,
        model=SMALL,
        text_column="text",
        conditions=["stars"],
        progress=False,
    )
    export_onnx(model, folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    first = model.tokenizer.vocab_size
    start = [model.tokenizer.bos_id, *model.conditions.encode({})]
    assert settings["condition_ids"] == {"stars": {"": first, "1": first + 1, "5": first + 2}}
    assert settings["start_ids"] == start and settings["suppress_tokens"] == [
        0,
        *range(first, first + 3),
    ]
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "export.md").read_text(encoding="utf-8")
    program = NO_NOISE + DOCS_PROGRAM.search(page)[1]
    command = [sys.executable, "-c", program.replace("my-onnx", folder.name)]
    done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True)
    expected = model.generate_one(
        "The", do_sample=False, max_new_tokens=300 - len(start) - len("The")
    )
    assert done.returncode == 0 and done.stdout.removesuffix("\n") == expected, done.stderr


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_library_tokenizers_gives_the_same_ids_and_texts(name):
    from tokenizers import Tokenizer

    tokenizer = TOKENIZERS[name]
    draw = random.Random(0)
    other = Tokenizer.from_str(tokenizer.tokenizer_json())
    assert other.get_vocab_size() == tokenizer.vocab_size

    @hypothesis.settings(max_examples=100, database=None)
    @hypothesis.given(st.text())
    def check(text):
        ids = tokenizer.encode(text)
        assert other.encode(text).ids == ids, text[:40]
        assert other.decode([tokenizer.bos_id, *ids, tokenizer.eos_id]) == text

    for text in (*NASTY_TEXTS, *TEXTS[:5], SIGNS + SIGNS, "│⑥①│⑫③ 日本語 €", "<bos><eos>"):
        if not any("\ud800" <= character <= "\udfff" for character in text):
            check.hypothesis.inner_test(text)
    check()
    for _ in range(500):  # lone digits of char and lone bytes of word among them
        ids = [draw.randrange(min(40, tokenizer.vocab_size)) for _ in range(draw.randrange(12))]
        assert other.decode(ids) == tokenizer.decode(ids), ids


@pytest.mark.parametrize("tokenizer", [TOKENIZER, WORDS], ids=["char", "word"])
def test_transformers_loads_a_tokenizer_and_saves_it_again(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    export_tokenizer(
        review_model(TableModel(table(tokenizer.vocab_size)), tokenizer), tmp_path / "tokenizer"
    )
    first = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    first.save_pretrained(tmp_path / "again")
    for loaded in (first, AutoTokenizer.from_pretrained(tmp_path / "again")):
        assert loaded.is_fast and len(loaded) == tokenizer.vocab_size
        assert (loaded.bos_token_id, loaded.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
        for text in [
            *TEXTS[:5],
            "日本語 €",
            f"{loaded.bos_token} a {loaded.eos_token}",
            "<bos><eos>",
        ]:
            ids = tokenizer.encode(text)  # a special token that is spelled in a text is a text
            assert loaded(text).input_ids == ids
            assert (
                loaded.decode([tokenizer.bos_id, *ids, tokenizer.eos_id], skip_special_tokens=True)
                == text
            )


def test_nothing_but_an_export_is_replaced(tmp_path, run_command):
    model = reviewgen.load("ngram-word")
    export = tmp_path / "deep" / "export"
    words = ("export", "ngram-word", "--tokenizer", export)
    for more, status, said in (
        ((), 0, str(export)),
        ((), 1, "already exists"),
        (("--overwrite", "--json"), 0, ""),
    ):
        found, output, problem = run_command(*words, *more)
        assert found == status and said in output + problem
    files = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
    assert {path.name for path in export.iterdir()} == {*files, "reviewgen-export.json"}
    # like an export, and not one
    others = {"mine": ["notes.txt"], "names": files, "other": ["reviewgen-export.json", *files]}
    for name, names in others.items():
        (tmp_path / name).mkdir()
        for file in names:
            (tmp_path / name / file).write_text('{"files": []}')
    (export / "notes.txt").write_text("mine")
    for folder in (*(tmp_path / name for name in others), export):
        before = listing(folder)
        with pytest.raises(OutputExists, match="not replaced"):
            export_tokenizer(model, folder, overwrite=True)
        assert listing(folder) == before
    (tmp_path / "empty").mkdir()
    export_tokenizer(model, tmp_path / "empty", overwrite=True)
    assert listing(tmp_path / "empty").keys() == listing(export).keys() - {"notes.txt"}
    with pytest.raises(ConfigError, match="'fake' has no tokenizer_json"):
        export_tokenizer(letters(), tmp_path / "tokenizer")
    both = ("export", "lstm-char", "--onnx", tmp_path / "m", "--transformers", tmp_path / "m")
    status, _, said = run_command(*both)
    assert status == 2 and "name the same folder" in said and not (tmp_path / "m").exists()
