"""The real ``llm`` command with the plugin installed, beside ``reviewgen.load`` and
``generate``.
"""

import itertools
import json
import subprocess
import sys

import llm
import pytest
from click.testing import CliRunner
from llm.cli import cli
from llm_reviewgen.model import skip, split_conversation

import reviewgen

# llm itself imports numpy
HEAVY = ("torch", "numba", "tokenizers", "reviewgen", "reviewgen_recurrent")
WORDS = ("good", "bad", "cold", "late")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that was trained for a few steps, with a condition."""
    path = tmp_path_factory.mktemp("models") / "music"
    records = [
        {"review": f"The food was {word} and {n}.", "stars": n % 5 + 1}
        for n, word in itertools.product(range(20), WORDS)
    ]
    # which would make so new a model repeat itself
    settings = {"model": {"hidden_size": 16}, "training": {"calibration": False}}
    reviewgen.train(
        "gru-char", records, steps=3, conditions=["stars"], out=path, progress=False, **settings
    )
    return path


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A folder of llm of its own, with no models of the user's and no log."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def ask(*words, status=0, log=False, **options):
    """Run ``llm`` and return what it printed."""
    # a fresh log takes half a second
    words = [*words, *([] if log or words[0] in ("models", "logs") else ["--no-log"])]
    done = CliRunner().invoke(cli, [str(word) for word in words], **options)
    assert done.exit_code == status, done.output
    return done.output


def options_of(folder, **options):
    """Return the words for a model's folder and options."""
    words = []
    for name, value in {"source": folder, **options}.items():
        words += ["-o", name, str(value)]
    return words


def error(*words):
    """Return the error message of a command that fails; it is one line."""
    output = ask(*words, status=1)
    assert output.startswith("Error: ") and output.count("\n") == 1 and len(output) < 500, output
    return output


def test_every_preset_that_reviewgen_lists_with_weights_is_a_model():
    done = subprocess.run(
        [sys.executable, "-m", "reviewgen", "list", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = {
        f"reviewgen: reviewgen/{preset['name']}"
        for preset in json.loads(done.stdout)["presets"]
        if preset["weights"]
    }
    assert len(expected) >= 12
    assert set(ask("models", "-q", "reviewgen").splitlines()) == expected | {"reviewgen: reviewgen"}


def test_listing_and_help_load_nothing_heavy():
    code = f"""
import sys
from click.testing import CliRunner
from llm.cli import cli
for words in [["--help"], ["models"]]:
    assert CliRunner().invoke(cli, words).exit_code == 0
    print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['reviewgen']"]


def test_a_shipped_model_writes_the_text_of_reviewgen():
    written = ask(
        "-m", "reviewgen/ngram-word", "The movie", "-o", "seed", 1, "-o", "max_tokens", 20
    )
    assert (
        written
        == reviewgen.load("ngram-word").generate_one("The movie", seed=1, max_new_tokens=20) + "\n"
    )


@pytest.mark.parametrize(
    ("given", "keywords"),
    [
        ({}, {}),
        ({"temperature": 0.2}, {"temperature": 0.2}),
        ({"top_k": 3, "repetition_penalty": 1.5}, {"top_k": 3, "repetition_penalty": 1.5}),
        ({"top_p": 0.3}, {"top_p": 0.3}),
        ({"min_p": 0.5, "bits": 8}, {"min_p": 0.5}),
        ({"stop": "e"}, {"stop_strings": "e"}),
        ({"finish": "sentence"}, {"finish": "sentence"}),
        ({"conditions": "stars=5"}, {"conditions": {"stars": 5}}),
        ({"conditions": '{"stars": 2}'}, {"conditions": {"stars": 2}}),
        ({"novelty": "filter", "max_copy": 8}, {"novelty": "filter", "max_copy": 8}),
        ({"novelty": "report"}, {"novelty": "report"}),
        ({"must_include": "a"}, {"must_include": "a"}),
    ],
    ids=str,
)
def test_options_mean_what_they_mean_in_reviewgen(folder, given, keywords):
    written = ask("-m", "reviewgen", "The ", *options_of(folder, seed=3, max_tokens=40, **given))
    model = reviewgen.load(folder, weight_bits=given.get("bits", 32))
    assert written == str(model.generate_one("The ", seed=3, max_new_tokens=40, **keywords)) + "\n"


def test_a_text_that_does_not_stream_is_the_same(folder):
    words = ["-m", "reviewgen", "The ", *options_of(folder, seed=3, max_tokens=40)]
    assert ask(*words, "--no-stream") == ask(*words)


def test_options_change_the_text(folder):
    texts = {
        ask(
            "-m", "reviewgen", "The ", *options_of(folder, **{"seed": 3, "max_tokens": 60, **given})
        )
        for given in (
            {},
            {"temperature": 0.1},
            {"top_k": 2},
            {"min_p": 0.9},
            {"stop": "a"},
            {"max_tokens": 5},
            {"seed": 4},
        )
    }
    assert len(texts) >= 6  # at a low temperature and a high min_p the model may choose the same


def test_the_file_of_the_user_names_models(home, folder):
    (home / "reviewgen-models.yaml").write_text(f"music: {folder}\nnear: ./here\n")
    (home / "here").symlink_to(folder)
    written = {
        ask("-m", f"reviewgen/{name}", "A", "-o", "seed", 1, "-o", "max_tokens", 9)
        for name in ("music", "near")
    }
    assert written == {reviewgen.load(folder).generate_one("A", seed=1, max_new_tokens=9) + "\n"}


@pytest.mark.parametrize(
    "content", ["- a list", "music: [1, 2]", "music: {", "5: ./here", b"\xff\xfe\xff"], ids=repr
)
def test_a_mistake_in_the_file_stops_nothing(home, content):
    file = home / "reviewgen-models.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    output = ask("models", "-q", "reviewgen")
    assert f"{file} is ignored: " in output and "reviewgen: reviewgen/lstm-word" in output


def test_the_prompt_of_a_pipe_has_no_end_of_line(folder):
    words = ["-m", "reviewgen", *options_of(folder, seed=1, max_tokens=9)]
    assert ask(*words, input="The food\n") == ask(*words, "The food")


def test_a_conversation_continues_the_text(folder):
    words = ["-m", "reviewgen", *options_of(folder, seed=1, max_tokens=9)]
    first = ask(*words, "The food", log=True).removesuffix("\n")
    second = ask(
        "-c", "and then", *options_of(folder, seed=1, max_tokens=9), log=True
    ).removesuffix("\n")
    space = "" if first[-1].isspace() else " "
    assert first + second == reviewgen.load(folder).generate_one(
        f"{first}{space}and then", seed=1, max_new_tokens=9
    )
    third = ask("-c", "!", *options_of(folder, seed=2, max_tokens=4), log=True).removesuffix("\n")
    assert (first + second + third).startswith(
        f"{first}{space}and then"
    ) and third.lstrip().startswith("!")


def test_the_answers_of_another_model_are_part_of_the_text():
    said = [
        ("system", "Be brief."),
        ("user", "The food"),
        ("assistant", "was good."),
        ("user", "The bill\n"),
    ]
    messages = [
        llm.parts.Message(role=role, parts=[llm.parts.TextPart(text=text)]) for role, text in said
    ]
    assert split_conversation(messages) == ("The food was good.", " The bill")


@pytest.mark.parametrize("cut", range(9))
def test_what_was_shown_is_skipped_wherever_pieces_end(cut):
    assert "".join(skip(cut, iter(["ab", "", "c", "defg"]))) == "abcdefg"[cut:]
    assert "" not in skip(cut, iter(["ab", "", "c", "defg"]))


def test_the_log_holds_the_seed_and_what_was_copied(folder):
    written = ask(
        "-m", "reviewgen", "The ", *options_of(folder, max_tokens=30, novelty="report"), log=True
    )
    (logged,) = json.loads(ask("logs", "--json", "-n", 1))
    details = (
        json.loads(logged["response_json"])
        if isinstance(logged["response_json"], str)
        else logged["response_json"]
    )
    again = reviewgen.load(folder).generate(
        "The ", seed=details["seed"], max_new_tokens=30, novelty="report"
    )[0]
    assert written == f"{again}\n" and logged["response"] == str(again)
    assert details["novelty"]["spans"] is not None and details["finish_reason"]


def test_a_prompt_from_python_streams(folder):
    response = llm.get_model("reviewgen").prompt(
        "The ", source=str(folder), seed=1, max_tokens=12, conditions={"stars": 5}
    )
    pieces = list(response)
    assert len(pieces) > 3
    assert "".join(pieces) == reviewgen.load(folder).generate_one(
        "The ", seed=1, max_new_tokens=12, conditions={"stars": 5}
    )


class Waiting:
    """Writes a second piece, and says so, only when it is read."""

    def __init__(self):
        self.is_read_on = False

    def stream(self, text, **options):
        """Yield the prompt, then one more piece."""
        yield text
        self.is_read_on = True
        yield " ends"


def test_a_piece_is_shown_before_the_next_is_written(folder):
    model = llm.get_model("reviewgen")
    fake = Waiting()
    model._loaded[str(folder), 32] = fake
    pieces = iter(model.prompt("The", source=str(folder)))
    assert next(pieces) == "The" and not fake.is_read_on
    assert list(pieces) == [" ends"] and fake.is_read_on


def test_mistakes_are_one_sentence(folder, tmp_path):
    of_model = ["-m", "reviewgen", "A"]
    assert "-o source" in error(*of_model)
    assert "no such folder" in error(*of_model, "-o", "source", str(tmp_path / "none"))
    assert "stars" in error(*of_model, *options_of(folder, conditions="genre=drama"))
    assert "name=value" in error(*of_model, *options_of(folder, conditions="drama"))
    assert "JSON" in error(*of_model, *options_of(folder, conditions="{stars"))
    assert "max_copy needs novelty" in error(*of_model, *options_of(folder, max_copy=3))
    assert "system prompt" in error(*of_model, *options_of(folder), "-s", "Be brief.")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "0"),
        ("temperature", "warm"),
        ("max_tokens", "-1"),
        ("top_p", "2"),
        ("bits", "7"),
    ],
)
def test_an_option_out_of_range_names_the_option(folder, name, value):
    assert ask("-m", "reviewgen", "A", *options_of(folder, **{name: value}), status=1).startswith(
        f"Error: {name}\n"
    )


def test_an_unknown_option_is_refused(folder):
    assert "temprature" in ask("-m", "reviewgen", "A", *options_of(folder, temprature=1), status=1)
