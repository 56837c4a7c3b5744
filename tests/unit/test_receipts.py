"""Receipts and output files: their content, replaying them, and the effect of interrupts, crashes and wrong settings."""

import json
import os
import shutil
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import reviewgen
from reviewgen.cli.outputs import continue_file, locked
from reviewgen.errors import ConfigError, DataError
from reviewgen.receipts import Replay, describe_replays, find_source, make_receipt, read_receipts, replay
from reviewgen.runs.litter import clean
from tests.support.fakes import GRU, NGRAM, run_command, train_tiny


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    for name, options in {"ngram-char": NGRAM, "gru-word": GRU}.items():
        train_tiny(name, folder / "cache", **options).save_pretrained(folder / name)
    return {name: folder / name for name in ("ngram-char", "gru-word")}


SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": [1.2, 0.4], "top_p": 0.9, "repetition_penalty": 1.1},
    {"do_sample": False, "no_repeat_ngram_size": 4},
    {"num_beams": 3},
    {"finish": "sentence", "stop_strings": ["movie"]},
    {"must_include": ["o"]},
    {"novelty": "filter", "max_copy": 12},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("name", ["ngram-char", "gru-word"])
def test_a_receipt_replays_to_the_same_text(saved: dict[str, Path], name: str, settings: dict[str, Any]) -> None:
    model = reviewgen.load(saved[name])
    count = 1 if "do_sample" in settings else 3
    texts = model.generate(
        "the ", num_return_sequences=count, max_new_tokens=30, seed=5, return_dict_in_generate=True, **settings
    )
    for text in texts:
        receipt = json.loads(json.dumps(make_receipt(model, text, saved[name])))
        assert receipt["synthetic"] is True and receipt["model"]["digest"].startswith("sha256:")
        again = replay(receipt, reviewgen.load(saved[name]))
        assert again.is_equal and again.text == text.text and again.differences == ()


def test_differences_are_reported(saved: dict[str, Path]) -> None:
    model = reviewgen.load(saved["ngram-char"])
    (text,) = model.generate(max_new_tokens=40, seed=1, return_dict_in_generate=True)
    receipt = make_receipt(model, text)
    changed = replay(receipt | {"text": text.text[:5] + "#" + text.text[6:]}, model)
    assert not changed.is_equal and "differs from character 5 on" in changed.differences[0]
    other = replay(receipt | {"model": receipt["model"] | {"digest": "sha256:0"}}, model)
    assert other.is_equal and "The model is a different one" in other.differences[0]
    newer = replay(receipt | {"versions": receipt["versions"] | {"numpy": "1.0"}}, model)
    assert newer.is_equal and "the text was generated with 1.0" in newer.differences[0]


def test_the_digest_changes_with_the_weights_only(saved: dict[str, Path], tmp_path: Path) -> None:
    digests = []
    for name, change in (("plain", None), ("card", "README.md"), ("weights", "model.safetensors")):
        folder = shutil.copytree(saved["gru-word"], tmp_path / name)
        if change is not None:
            content = bytearray((folder / change).read_bytes())
            content[-1] ^= 1
            (folder / change).write_bytes(content)
        digests.append(reviewgen.load(folder, accept_changes=True).digest)
    assert digests[0] == digests[1] != digests[2]
    assert train_tiny("ngram-char", tmp_path / "cache", **NGRAM).digest is None


def test_a_receipt_cannot_hold_functions(saved: dict[str, Path]) -> None:
    model = reviewgen.load(saved["ngram-char"])
    (text,) = model.generate(
        max_new_tokens=5, seed=1, return_dict_in_generate=True, logits_processor=[lambda ids, scores: scores]
    )
    with pytest.raises(ConfigError, match="functions cannot be saved"):
        make_receipt(model, text)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("{}", "is invalid"),
        ("[1]", "is invalid"),
        ("{\n", "is invalid"),
        ('{"a": 1}\n{"b": 2}\n', "is invalid"),
    ],
)
def test_files_that_are_not_receipts(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(DataError, match=said):
        list(read_receipts(tmp_path / "r.json"))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_receipts(tmp_path / "missing.json"))


def test_an_invalid_receipt(saved: dict[str, Path]) -> None:
    model = reviewgen.load(saved["ngram-char"])
    (text,) = model.generate(max_new_tokens=5, seed=1, return_dict_in_generate=True)
    receipt = make_receipt(model, text)
    for damage in ({"settings": {}}, {"settings": {"generation_config": {"temperature": -1}}}, {"model": 3}):
        with pytest.raises(DataError, match="receipt is invalid"):
            replay(receipt | damage, model)


def test_the_commands(saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    file = tmp_path / "r.json"
    words = ("generate", saved["gru-word"], "-n", 3, "--seed", 4, "--max-new-tokens", 20, "--receipt", file)
    status, out, _ = run_command(monkeypatch, capsys, *words)
    assert status == 0 and len(file.read_text().splitlines()) == 3
    status, again, said = run_command(monkeypatch, capsys, "replay", file, "--model", saved["gru-word"])
    assert status == 0 and again == out and said.count("The same text.") == 3
    assert said.splitlines()[-1] == "3 of 3 texts are identical."
    status, found, _ = run_command(monkeypatch, capsys, "replay", file, "--model", saved["ngram-char"], "--json")
    assert status == 1 and "The model is a different one" in json.loads(found)["texts"][0]["differences"][0]
    assert json.loads(found)["identical"] == 0
    status, _, said = run_command(monkeypatch, capsys, *words)
    assert status == 2 and "already exists" in said


# Where the model is.


@pytest.fixture
def model_folder(saved: dict[str, Path], tmp_path: Path, monkeypatch: Any) -> Path:
    """A model in a folder of the working directory."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(saved["ngram-char"], tmp_path / "project" / "models" / "gru-char")  # the name of a preset


GENERATE = ("-n", 2, "--seed", 4, "--max-new-tokens", 9, "--receipt")


def sources(file: Path) -> set[Any]:
    return {receipt["model"]["source"] for receipt in read_receipts(file)}


def test_a_model_below_the_receipts_is_found_after_both_are_moved(
    model_folder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    file = tmp_path / "project" / "r.jsonl"
    for more in ((), ("--out", tmp_path / "t.jsonl")):
        file.unlink(missing_ok=True)
        assert run_command(monkeypatch, capsys, "generate", model_folder, *GENERATE, file, *more)[0] == 0
        assert sources(file) == {"./models/gru-char"} and str(tmp_path) not in file.read_text()
    (tmp_path / "project").rename(tmp_path / "moved")
    assert run_command(monkeypatch, capsys, "replay", tmp_path / "moved" / "r.jsonl")[0] == 0


def test_a_model_below_the_working_directory_is_found_from_there(
    model_folder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    file = tmp_path / "receipts" / "r.jsonl"
    file.parent.mkdir()
    assert run_command(monkeypatch, capsys, "generate", "./project/models/gru-char", *GENERATE, file)[0] == 0
    assert sources(file) == {"./project/models/gru-char"}
    assert run_command(monkeypatch, capsys, "replay", file)[0] == 0


def test_of_a_model_elsewhere_only_the_name_is_kept(model_folder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert run_command(monkeypatch, capsys, "generate", model_folder, *GENERATE, "r.jsonl")[0] == 0
    assert sources(Path("r.jsonl")) == {".../gru-char"}
    status, _, said = run_command(monkeypatch, capsys, "replay", "r.jsonl")
    assert status == 2 and said.count("\n") == 1 and "gru-char, which was in another folder: give it with --model" in said
    assert run_command(monkeypatch, capsys, "replay", "r.jsonl", "--model", model_folder)[0] == 0
    receipts = list(read_receipts(Path("r.jsonl")))
    for receipt in receipts:  # as an earlier version wrote it
        receipt["model"]["source"] = str(model_folder)
    Path("r.jsonl").write_text("".join(json.dumps(receipt) + "\n" for receipt in receipts))
    assert run_command(monkeypatch, capsys, "replay", "r.jsonl")[0] == 0


def test_presets_and_repositories_are_kept_as_they_are(saved: dict[str, Path]) -> None:
    model = reviewgen.load(saved["ngram-char"])
    (text,) = model.generate(max_new_tokens=5, seed=1, return_dict_in_generate=True)
    for source in ("gru-word", "ana/music", "hf://ana/music@v2"):
        receipt = make_receipt(model, text, source)
        assert receipt["model"]["source"] == find_source(receipt, Path("r.jsonl")) == source
    with pytest.raises(ConfigError, match="does not say where its model is: give it with --model"):
        find_source(make_receipt(model, text), Path("r.jsonl"))


@pytest.mark.parametrize(
    ("different", "summary"),
    [
        ([], "12 of 12 texts are identical."),
        ([3], "11 of 12 texts are identical; text 3 differs."),
        ([3, 7], "10 of 12 texts are identical; texts 3 and 7 differ."),
        (range(1, 9), "4 of 12 texts are identical; texts 1, 2, 3, 4, 5 and 3 more differ."),
    ],
    ids=str,
)
def test_the_summary_of_a_replay(different: Any, summary: str) -> None:
    assert describe_replays([Replay("", number not in different, ()) for number in range(1, 13)]) == summary
    assert describe_replays([Replay("", not different, ())])[:1] == ("0" if different else "1")


def test_a_text_that_differs_is_named_at_the_end(saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    file = tmp_path / "r.jsonl"
    assert run_command(monkeypatch, capsys, "generate", saved["ngram-char"], *GENERATE, file)[0] == 0
    first, second = list(read_receipts(file))
    file.write_text("".join(json.dumps(one) + "\n" for one in (first, second | {"text": "#"})))
    status, _, said = run_command(monkeypatch, capsys, "replay", file, "--model", saved["ngram-char"])
    assert status == 1 and said.splitlines()[-1] == "1 of 2 texts are identical; text 2 differs."


# Files of texts.


def texts_of(file: Path) -> list[str]:
    return [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]


def test_a_file_is_continued_where_it_stopped(saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "folder" / "parts.jsonl"
    common = ("generate", saved["ngram-char"], "--max-new-tokens", 30, "--prompt", "the ")
    assert run_command(monkeypatch, capsys, *common, "-n", 150, "--seed", 9, "--out", whole)[0] == 0
    assert run_command(monkeypatch, capsys, *common, "-n", 40, "--seed", 9, "--out", parts)[0] == 0
    lines = parts.read_bytes()
    parts.write_bytes(lines + lines[:60])  # a crash
    status, _, said = run_command(monkeypatch, capsys, *common, "-n", 150, "--out", parts)
    assert status == 0 and "holds 40 of 150" in said
    assert texts_of(parts) == texts_of(whole) and parts.read_bytes().startswith(lines)
    first = json.loads(lines.splitlines()[0])
    assert first["seed"] == 9 and first["number"] == 0 and first["finish_reason"] in ("end", "length")
    status, out, _ = run_command(monkeypatch, capsys, *common, "-n", 100, "--out", parts)
    assert status == 0 and "150 texts are in" in out and "0 written" in out


@pytest.mark.parametrize("more", [("--seed", 8), ("--temperature", 0.3), ("--prompt", "a")], ids=str)
def test_a_file_with_other_settings_is_not_changed(
    saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any, more: tuple[Any, ...]
) -> None:
    file = tmp_path / "t.jsonl"
    common = ("generate", saved["ngram-char"], "--max-new-tokens", 10, "--out", file)
    assert run_command(monkeypatch, capsys, *common, "-n", 3, "--seed", 9)[0] == 0
    before = file.read_bytes()
    status, _, said = run_command(monkeypatch, capsys, *common, "-n", 6, *more)
    assert status == 2 and "written with other settings" in said and file.read_bytes() == before


def test_another_file_is_not_changed(saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    file = tmp_path / "t.jsonl"
    for content in ('{"text": "mine"}\n', "notes\n", "[3]\n"):
        file.write_text(content)
        status, _, said = run_command(monkeypatch, capsys, "generate", saved["ngram-char"], "--out", file)
        assert status == 1 or status == 2
        assert "Line 1 of" in said and file.read_text() == content
    status, _, said = run_command(monkeypatch, capsys, "generate", saved["ngram-char"], "--out", tmp_path)
    assert status == 2 and "is a folder" in said


def test_an_interrupt_keeps_what_was_written(saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    from reviewgen.generation import Generator

    plain = Generator.generate

    def interrupted(self: Generator, request: Any, first: int = 0, start_late: bool = True) -> Any:
        for count, row in enumerate(plain(self, request, first, start_late)):
            if count == 70:
                raise KeyboardInterrupt
            yield row

    file, common = (
        tmp_path / "t.jsonl",
        ("generate", saved["ngram-char"], "--max-new-tokens", 10, "-n", 200, "--seed", 3, "--out"),
    )
    monkeypatch.setattr(Generator, "generate", interrupted)
    status, out, said = run_command(monkeypatch, capsys, *common, file)
    assert status == 130 and "70 of 200 texts are in" in out and "Interrupted." in said and "resumes from there" in said
    assert len(texts_of(file)) == 70
    monkeypatch.setattr(Generator, "generate", plain)
    assert run_command(monkeypatch, capsys, *common, file)[0] == 0
    assert run_command(monkeypatch, capsys, *common, tmp_path / "whole.jsonl")[0] == 0
    assert texts_of(file) == texts_of(tmp_path / "whole.jsonl")


def test_receipts_of_texts_with_other_line_breaks(saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    file, common = tmp_path / "r.json", ("--prompt", "a\u2028b\u0085c", "--seed", 1, "--max-new-tokens", 5)
    assert run_command(monkeypatch, capsys, "generate", saved["ngram-char"], *common, "-n", 2, "--receipt", file)[0] == 0
    assert run_command(monkeypatch, capsys, "replay", file, "--model", saved["ngram-char"])[0] == 0


def test_a_crash_damages_no_receipt(saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    out, receipts = tmp_path / "t.jsonl", tmp_path / "r.jsonl"
    common = ("generate", saved["ngram-char"], "--max-new-tokens", 8, "--out", out, "--receipt", receipts)
    assert run_command(monkeypatch, capsys, *common, "-n", 5, "--seed", 2)[0] == 0
    whole = receipts.read_bytes()
    for kept_texts, cut in ((5, 30), (4, 0), (3, 30)):  # half a receipt; one too many; both
        out.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[:kept_texts]))
        receipts.write_bytes(whole[: len(whole) - cut])
        status, _, _ = run_command(monkeypatch, capsys, *common, "-n", 7)
        found = list(read_receipts(receipts))
        assert status == 0 and [receipt["number"] for receipt in found] == [*range(kept_texts - (cut > 0 and kept_texts == 5)),
                                                                             *range(kept_texts, 7)]  # fmt: skip
        assert run_command(monkeypatch, capsys, "replay", receipts, "--model", saved["ngram-char"])[0] == 0
    receipts.write_text('{"mine": 1}\n')
    status, _, said = run_command(monkeypatch, capsys, *common, "-n", 9)
    assert status == 2 and "not a receipt of this run" in said and receipts.read_text() == '{"mine": 1}\n'
    status, _, said = run_command(monkeypatch, capsys, *common[:-1], out, "-n", 9)
    assert status == 2 and "name the same file" in said


def test_a_run_that_fails_leaves_no_file(saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    words = ("generate", saved["ngram-char"], "--max-new-tokens", 3, "--receipt", tmp_path / "r.json")
    assert run_command(monkeypatch, capsys, *words, "--must-include", "zzqq")[0] == 1
    assert not (tmp_path / "r.json").exists()
    assert run_command(monkeypatch, capsys, *words)[0] == 0


def test_no_text_is_started_after_max_time(saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    file, common = tmp_path / "t.jsonl", ("--min-new-tokens", 3000, "--max-new-tokens", 3000, "-n", 5000, "--out")
    words = ("generate", saved["ngram-char"], *common, file)
    status, out, _ = run_command(monkeypatch, capsys, *words, "--max-time", 0.3, "--json")
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert status == 1 and json.loads(out)["texts"] == len(found) < 5000
    assert all(text["new_tokens"] for text in found[:64])
    everything = reviewgen.load(saved["ngram-char"]).generate(max_time=1e-9, num_return_sequences=200, max_new_tokens=9, seed=1)
    assert len(everything) == 200


def test_texts_are_yielded_as_soon_as_those_before_them_are_done(saved: dict[str, Path]) -> None:
    """The first text ends at once; the others of its batch take minutes."""
    model = reviewgen.load(saved["ngram-char"])
    prompts = ["the movie was good and I liked the movie.", *[""] * 63]
    texts = model.generate_each(prompts, seed=1, max_new_tokens=10**9, no_repeat_ngram_size=40, top_k=1, max_time=20)
    started = time.monotonic()
    assert next(texts).finish_reason in ("end", "stuck")
    assert time.monotonic() - started < 10


def test_a_changed_model_has_no_digest(saved: dict[str, Path]) -> None:
    model = reviewgen.load(saved["gru-word"])
    model.score("the movie")
    assert model.digest is not None
    for tensor in model.model.state_dict().values():
        tensor *= 0.5
    assert model.digest is None
    (text,) = model.generate(seed=1, max_new_tokens=9, return_dict_in_generate=True)
    found = replay(make_receipt(model, text), reviewgen.load(saved["gru-word"]))
    assert "The model is a different one" in found.differences[0]


@pytest.mark.parametrize(
    "damage",
    [
        {"model": "abc"},
        {"model": {"preset": "x", "digest": "y", "bits": 32}},
        {"model": {"source": 7, "preset": "x", "digest": "y", "bits": 32}},
        {"number": "a"},
        {"number": -1},
        {"number": 10**12},
        {"text": 5},
        {"prompt": ["a", "b"]},
        {"seed": None},
        {"versions": []},
        {"settings": {"generation_config": {}, "seed": 3}},
        {"settings": {"generation_config": [1]}},
    ],
    ids=str,
)
def test_receipts_of_wrong_types(saved: dict[str, Path], tmp_path: Path, damage: dict[str, Any]) -> None:
    model = reviewgen.load(saved["ngram-char"])
    (text,) = model.generate(max_new_tokens=5, seed=1, return_dict_in_generate=True)
    receipt = make_receipt(model, text) | damage
    with pytest.raises(DataError, match="receipt is invalid"):
        replay(receipt, model)
    (tmp_path / "r.json").write_text(json.dumps(receipt))
    with pytest.raises(DataError, match="Receipt 1 in"):
        list(read_receipts(tmp_path / "r.json"))


def test_a_file_of_other_saved_defaults_is_not_changed(
    saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    reviewgen.load(saved["ngram-char"]).save_generation_config(tmp_path / "m", max_new_tokens=10)
    common = ("generate", tmp_path / "m", "--out", tmp_path / "t.jsonl")
    assert run_command(monkeypatch, capsys, *common, "-n", 3, "--seed", 9)[0] == 0
    reviewgen.load(tmp_path / "m").save_generation_config(tmp_path / "m", temperature=0.3)
    status, _, said = run_command(monkeypatch, capsys, *common, "-n", 6)
    assert status == 2 and "written with other settings" in said


def test_a_linked_model_is_found_under_the_name_of_its_link(
    saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "linked").symlink_to(saved["ngram-char"])
    command = ("generate", "./linked", "-n", 1, "--seed", 1, "--out", "t.jsonl", "--receipt", "r.jsonl")
    assert run_command(monkeypatch, capsys, *command)[0] == 0
    assert json.loads((tmp_path / "r.jsonl").read_text(encoding="utf-8"))["model"]["source"] == "./linked"
    assert run_command(monkeypatch, capsys, "replay", "r.jsonl")[0] == 0


def test_the_home_folder_of_an_unknown_user_is_no_model(
    saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    model = reviewgen.load(saved["ngram-char"])
    (text,) = model.generate(max_new_tokens=10, seed=1, return_dict_in_generate=True)
    receipt = make_receipt(model, text)
    receipt["model"]["source"] = "~nobody-by-this-name/m"
    (tmp_path / "r.jsonl").write_text(json.dumps(receipt), encoding="utf-8")
    status, _, said = run_command(monkeypatch, capsys, "replay", tmp_path / "r.jsonl")
    assert status in (1, 2) and "nobody-by-this-name" in said and "Traceback" not in said


FOREIGN = {
    "a line without its end": b"my thesis",
    "minified JSON": b'{"name":"app","version":"1.0.0"}',
    "texts of another tool": b'{"text": "mine", "number": 0}',
    "bytes": bytes(range(256)),
    "a deep line": b"[" * 100_000 + b"\n",
    "lines": b"1\n2\n",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("option", ["--out", "--receipt"])
def test_files_of_others_are_left_as_they_are(
    option: str, content: bytes, saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    file, other = tmp_path / "mine", {"--out": "--receipt", "--receipt": "--out"}[option]
    file.write_bytes(content)
    (tmp_path / "other").touch()
    words = ("generate", saved["ngram-char"], "-n", 1, "--max-new-tokens", 5, option, file, other, tmp_path / "other")
    status, _, said = run_command(monkeypatch, capsys, *words)
    assert status == 2 and "the file is left unchanged. Give another file." in said
    assert file.read_bytes() == content and len(said) < 1000


@pytest.mark.parametrize("before", [b"", b'{"run": "a", "number": 0, "seed": 1}\n'], ids=["the first line", "the second line"])
def test_a_line_of_two_gigabytes_is_refused_by_its_beginning(before: bytes, tmp_path: Path) -> None:
    file = tmp_path / "mine"
    file.write_bytes(before + b"\x00")
    os.truncate(file, 2_000_000_000)  # sparse
    tracemalloc.start()
    with pytest.raises(ConfigError, match=f"Line {1 + bool(before)} of .* is not a generated text"):
        continue_file(file, b'{"run": "', b'{"run": "a", ', lambda value, _: isinstance(value, dict), "a generated text")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000 and file.stat().st_size == 2_000_000_000


def test_a_line_cut_at_any_byte_is_resumed(saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    out = tmp_path / "t.jsonl"
    common = ("generate", saved["ngram-char"], "--max-new-tokens", 4, "--out", out, "--seed", 3, "-n")
    assert run_command(monkeypatch, capsys, *common, 2)[0] == 0
    whole = out.read_bytes()
    texts = [json.loads(line)["text"] for line in whole.splitlines()]
    for end in (1, 5, 20, 30, whole.index(b"\n"), whole.index(b"\n") + 3, len(whole) - 1):
        out.write_bytes(whole[:end])
        assert run_command(monkeypatch, capsys, *common, 2)[0] == 0
        assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == texts


@pytest.mark.parametrize("option", ["--out", "--receipt"])
def test_two_runs_do_not_write_to_one_file(
    saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any, option: str
) -> None:
    file = tmp_path / "t.jsonl"
    words = ("generate", saved["ngram-char"], "-n", 2, "--max-new-tokens", 4, option, file)
    with locked(file):
        status, _, said = run_command(monkeypatch, capsys, *words)
        assert status == 2 and "Another process is writing to" in said and not file.exists()
    assert run_command(monkeypatch, capsys, *words)[0] == 0 and len(file.read_text().splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["t.jsonl"]  # no lock is left


@pytest.mark.parametrize("name", [".t.jsonl.lock", ".t.jsonl.lock.pid"])
@pytest.mark.parametrize("is_link", [False, True])
def test_what_has_the_name_of_a_lock_and_is_none_is_left_alone(
    name: str, is_link: bool, saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    thesis = tmp_path / ("thesis" if is_link else name)
    thesis.write_text("my thesis")
    if is_link:
        (tmp_path / name).symlink_to(thesis)
    for option in ("--out", "--receipt"):
        words = ("generate", saved["ngram-char"], "-n", 1, "--max-new-tokens", 4, option, tmp_path / "t.jsonl")
        status, _, said = run_command(monkeypatch, capsys, *words)
        assert status == 2 and "is not a lock of reviewgen" in said
    assert clean(tmp_path) == [] and thesis.read_text() == "my thesis" and (tmp_path / name).exists()


def test_outputs_that_are_no_files_are_refused(saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    kinds = {"/dev/full": "a device", "folder": "a folder", "fifo": "a pipe", "link": "a link"}
    for name, kind in kinds.items():
        for option in ("--out", "--receipt"):
            more = ("--out", tmp_path / "t") if option == "--receipt" else ()
            words = ("generate", saved["ngram-char"], "-n", 1, "--max-new-tokens", 4, option, tmp_path / name, *more)
            status, _, said = run_command(monkeypatch, capsys, *words)
            assert status == 2 and f"is {kind}. Give a file" in said


def test_texts_and_receipts_can_be_printed(saved: dict[str, Path], monkeypatch: Any, capsys: Any) -> None:
    common = ("generate", saved["ngram-char"], "-n", 2, "--max-new-tokens", 4, "--seed", 1, "--out", "/dev/stdout")
    status, out, said = run_command(monkeypatch, capsys, *common, "--receipt", "/dev/stderr")
    assert status == 0 and [json.loads(line)["number"] for line in out.splitlines()] == [0, 1]
    assert [json.loads(line)["number"] for line in said.splitlines() if line.startswith('{"synthetic"')] == [0, 1]
    assert [json.loads(line)["number"] for line in run_command(monkeypatch, capsys, *common, "--json")[1].splitlines()] == [0, 1]


def test_a_text_of_another_device_says_so(saved: dict[str, Path], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    model = reviewgen.load(saved["gru-word"])
    (text,) = model.generate(max_new_tokens=20, seed=1, return_dict_in_generate=True)
    receipt = make_receipt(model, text, saved["gru-word"])
    assert "device" not in receipt["model"]
    receipt["model"]["device"] = "cuda"
    (difference,) = replay(receipt, model).differences
    assert difference == "The device is cpu; the text was generated on cuda."
    (tmp_path / "receipts.jsonl").write_text(json.dumps(receipt), encoding="utf-8")
    code, out, err = run_command(monkeypatch, capsys, "replay", tmp_path / "receipts.jsonl", "--model", saved["gru-word"])
    assert (code, out.strip()) == (0, text.text.strip()) and difference in err and "The same text." in err
    receipt["model"]["device"] = ["cuda"]
    with pytest.raises(DataError, match="the device of its model must be the name of a device type"):
        replay(receipt, model)
