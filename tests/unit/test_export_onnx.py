"""``reviewgen export --onnx``: onnxruntime gives the logits of PyTorch, and the programs of the README generate."""

import errno
import importlib
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from reviewgen_char.tokenizer import CharTokenizer
from reviewgen_ngram.model import Ngram, NgramConfig
from torch import nn

from reviewgen.blending.model import Blend
from reviewgen.errors import ConfigError, OutputExists, PluginError, StorageError
from reviewgen.export import export_onnx
from reviewgen.export.onnx_graph import WAYS
from reviewgen.registry import find_model
from reviewgen.scaffold import new_plugin
from tests.support.fakes import LETTERS, FakeConfig, TableModel, review_model, run_command, table, train_tiny
from tests.support.npm import installed

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
TOKENIZER = CharTokenizer.train([TEXT], CharTokenizer.Config())
IDS = torch.tensor(TOKENIZER.encode(TEXT))[: 3 * 150].view(3, 150)
SMALL = {"embedding_size": 8, "hidden_size": 12}


def built(name, **settings):
    kind, _ = find_model(name)
    torch.manual_seed(0)
    return kind(kind.Config(vocab_size=TOKENIZER.vocab_size, **settings)).eval()


def a_blend():
    gate = {"coefficients": [[0.1, 0.2, 0.3, 0.01, 0.02, 0.03], [0.0] * 6]}
    models = [built("lstm", **SMALL), built("nnlm", **SMALL, order=3)]
    return Blend.from_models(models, [find_model("lstm")[1], find_model("nnlm")[1]], [0.6, 0.4], gate)


def an_example(package, kind, **settings):
    module = importlib.import_module(f"reviewgen_{package}.model")
    torch.manual_seed(0)
    cls = getattr(module, kind)
    return cls(cls.Config(vocab_size=TOKENIZER.vocab_size, **settings)).eval()


MODELS = {
    "nnlm": lambda: built("nnlm", **SMALL),
    "rnn-relu-zoneout": lambda: built("rnn", **SMALL, activation="relu", zoneout=0.1),
    "gru-ngrams-tied": lambda: built("gru", **SMALL, ngrams=3, ngram_buckets=64, tied=True, layers=2),
    "lstm": lambda: built("lstm", **SMALL, layer="compiled", dropout=0.5),
    "blend-gate": a_blend,
    "mingru": lambda: an_example("mingru", "MinGru", hidden_size=12),
    "attention": lambda: an_example("attention", "Attention", hidden_size=16, heads=2, window=20),
    "template": lambda: an_example("mymodel", "MymodelModel", hidden_size=12),
}


@pytest.fixture(scope="module", autouse=True)
def _importable(tmp_path_factory):
    """Make the example plugins, and a new one of ``plugin new``, importable."""
    new = new_plugin("mymodel", "model", tmp_path_factory.mktemp("new") / "mymodel")
    folders = [str(new), *(str(ROOT / "examples" / f"reviewgen-{name}") for name in ("mingru", "attention"))]
    sys.path[:0] = folders
    yield
    for folder in folders:
        sys.path.remove(folder)


def tensors(state):
    return [state] if isinstance(state, torch.Tensor) else [tensor for part in state for tensor in tensors(part)]


def run(session, ids, pieces):
    """Return the logits of a file, with a state that starts as zeros and goes from piece to piece."""
    inputs = session.get_inputs()
    dtypes = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
    state = [np.zeros([len(ids), *part.shape[1:]], dtypes[part.type]) for part in inputs[1:]]
    logits = []
    for piece in torch.split(ids, pieces, dim=1):
        scores, *state = session.run(None, dict(zip([part.name for part in inputs], [piece.numpy(), *state], strict=True)))
        logits.append(scores)
    return np.concatenate(logits, 1)


@pytest.mark.parametrize("name", MODELS)
def test_onnxruntime_gives_the_logits_of_torch(name, tmp_path):
    model = MODELS[name]()
    done = export_onnx(review_model(model, TOKENIZER), tmp_path / "model")
    session = onnxruntime.InferenceSession(tmp_path / "model" / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", "time"]
    assert session.get_outputs()[0].shape == ["batch", "time", TOKENIZER.vocab_size]
    assert len(session.get_inputs()) == 1 + len(tensors(model.initial_state(1))) == len(session.get_outputs())
    for ids in (IDS, IDS[:1]):
        with torch.no_grad():
            expected = model(ids, model.initial_state(len(ids)))[0].numpy()
        for pieces in (150, [1, 149], [3, 1, 1, 60, 85], 1):
            np.testing.assert_allclose(run(session, ids, pieces), expected, atol=1e-4, rtol=0)
    assert 0 <= done.largest_difference <= 1e-4 and done.tokenizer_json


class Broken(nn.Module):
    """A model whose call ends with an operation to be chosen."""

    Config = FakeConfig

    def __init__(self, operation):
        super().__init__()
        self.config, self.operation = FakeConfig(vocab_size=TOKENIZER.vocab_size), operation
        self.embedding = nn.Embedding(TOKENIZER.vocab_size, TOKENIZER.vocab_size)

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 1)

    def forward(self, ids, state):
        return self.operation(self.embedding(ids)), state + 1


def through_numpy(x):
    return x + torch.from_numpy(np.ones_like(x.detach().numpy()))


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (through_numpy, r"torch cannot trace `return x \+ torch.from_numpy\(.*\)` \(test_export_onnx.py, line \d+\)"),
        (lambda x: x + torch.special.bessel_j0(x), r"ONNX has no form of its operation prims\.bessel_j0"),
    ],
    ids=["compiled code", "an operation"],
)
def test_what_cannot_be_exported_says_which_operation(operation, words, tmp_path, capfd):
    with pytest.raises(PluginError, match=f"The model 'fake' cannot be exported to ONNX: {words}") as raised:
        export_onnx(review_model(Broken(operation), TOKENIZER), tmp_path / "model")
    assert len(str(raised.value)) < 500 and "reviewgen serve" in str(raised.value)
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_graph_with_other_logits_is_refused(tmp_path, monkeypatch):
    model = built("nnlm", **SMALL)
    other = built("nnlm", **SMALL)
    other.output.bias.data[5] += 2e-4
    monkeypatch.setattr("reviewgen.export.onnx_graph.WAYS", (lambda _: WAYS[0](other),))
    with pytest.raises(PluginError, match=r"differ by 0\.0002 from those of the model; at most 0\.0001 is accepted"):
        export_onnx(review_model(model, TOKENIZER), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_counted_models_are_refused(tmp_path):
    ngram = Ngram(NgramConfig(vocab_size=TOKENIZER.vocab_size, order=2))
    ngram.observe(np.array([0, 20, 21, 1]))
    ngram.finish()
    with pytest.raises(ConfigError, match=r"'fake' was trained by counting.*--html.*serve"):
        export_onnx(review_model(ngram, TOKENIZER), tmp_path / "model")
    plugins = [find_model("lstm")[1], find_model("ngram")[1]]
    blend = Blend.from_models([built("lstm", **SMALL), ngram], plugins, [0.5, 0.5])
    with pytest.raises(ConfigError, match="a part of the blend, Ngram, was trained by counting"):
        export_onnx(review_model(blend, TOKENIZER), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"ONNX needs onnxscript, .*: pip install 'reviewgen\[onnx\]'"):
        export_onnx(review_model(TableModel(table(LETTERS.vocab_size)), LETTERS), tmp_path / "model")


def test_no_room_on_the_disk(tmp_path):
    """With a limit to the size of a file that the graph exceeds, as a full disk would have."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
    try:
        with pytest.raises(StorageError, match=f"No room to write .*model: {re.escape(errno_text(errno.EFBIG))}"):
            export_onnx(review_model(built("nnlm", **SMALL), TOKENIZER), tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def errno_text(number):
    return OSError(number, __import__("os").strerror(number)).strerror


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A small lstm with a condition, and its folder."""
    root = tmp_path_factory.mktemp("exported")
    rows = [
        {"text": f"The {thing} was {how}.", "stars": stars}
        for thing in ("film", "plot")
        for how, stars in (("good", 5), ("bad", 1))
    ]
    model = train_tiny("lstm-char", root / "cache", rows * 10, steps=60, model=SMALL, text_column="text", conditions=["stars"])
    export_onnx(model, root / "model")
    return model, root / "model"


def greedy(model):
    return model.generate_one("The", do_sample=False, max_new_tokens=300 - len(start_ids(model)) - len("The"))


def start_ids(model):
    return [model.tokenizer.bos_id, *model.conditions.encode({})]


def program(folder, language):
    return re.search(rf"```{language}\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]


def test_the_settings_say_how_to_generate(exported):
    model, folder = exported
    settings = json.loads((folder / "generation_config.json").read_text())
    first = model.tokenizer.vocab_size
    assert settings["condition_ids"] == {"stars": {"": first, "1": first + 1, "5": first + 2}}
    assert settings["start_ids"] == start_ids(model)
    assert settings["suppress_tokens"] == [0, first, first + 1, first + 2]


def test_the_python_of_the_readme_generates(exported):
    """Without noise it takes the most probable token, as the model does with do_sample=False."""
    model, folder = exported
    code = program(folder, "python")
    assert len(code.splitlines()) < 25
    still = (
        "import numpy as np\nnp.random.default_rng = lambda: type('Still', (), {'gumbel': lambda self, size: np.zeros(size)})()\n"
    )
    for before, check in (("", lambda text: text.startswith("The")), (still, lambda text: text == greedy(model))):
        done = subprocess.run([sys.executable, "-c", before + code], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert check(done.stdout.removesuffix("\n")), done.stdout


def test_the_javascript_of_the_readme_generates(exported, tmp_path):
    """In Node with onnxruntime-web; where Math.random() is always 0.5, it takes the most probable token."""
    model, folder = exported
    modules = installed("onnxruntime-web@1")
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "node_modules").symlink_to(modules)
    code = program(folder, "javascript")
    for after, check in (
        ("", lambda text: text.startswith("The")),
        ("Math.random = () => 0.5;\n", lambda text: text == greedy(model)),
    ):
        imports, rest = code.split("\n\n", 1)
        (tmp_path / "generate.mjs").write_text(f"{imports}\n{after}{rest}", encoding="utf-8")
        done = subprocess.run(["node", "generate.mjs"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert check(done.stdout.removesuffix("\n")), done.stdout


def test_a_tokenizer_without_other_forms(tmp_path):
    """Its own files are written, and the README says so; the Python of the README needs its package."""
    model = built("nnlm", **SMALL)
    done = export_onnx(review_model(model, LETTERS_OF_A_MODEL), tmp_path / "model")
    text = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert not done.tokenizer_json and (tmp_path / "model" / "letters.txt").is_file()
    assert 'find_tokenizer("fake")[0].load(Path())' in text and "has no form in JavaScript" in text
    assert not (tmp_path / "model" / "tokenizer.mjs").exists()


LETTERS_OF_A_MODEL = type(LETTERS)("".join(map(chr, range(0x61, 0x61 + TOKENIZER.vocab_size - 2))))


def test_the_command(exported, tmp_path, monkeypatch, capsys):
    model, _ = exported
    model.save_pretrained(tmp_path / "saved")
    folder = tmp_path / "onnx"
    status, output, problem = run_command(monkeypatch, capsys, "export", tmp_path / "saved", "--onnx", folder, "--json")
    assert (status, problem.strip()) == (0, ""), problem
    facts = json.loads(output)["onnx"]
    assert facts["folder"] == str(folder) and facts["largest_difference"] < 1e-4 and facts["tokenizer_json"]
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    with pytest.raises(OutputExists):
        export_onnx(model, folder)
    status, _, problem = run_command(monkeypatch, capsys, "export", tmp_path / "nothing", "--onnx", folder)
    assert status == 1 and "already exists" in problem, "the target is checked before the model is loaded"
    status, _, problem = run_command(monkeypatch, capsys, "export", tmp_path / "saved")
    assert status == 2 and "--onnx FOLDER" in problem
