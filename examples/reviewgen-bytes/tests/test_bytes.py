"""Each law of the tokenizer contract, and the ids against those of ``str.encode``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reviewgen_bytes.tokenizer import BytesConfig, BytesTokenizer

from reviewgen.errors import BundleError, DataError
from reviewgen.registry.plugins import find_preset
from reviewgen.testing import NASTY_TEXTS, TOKENIZER_LAWS, TRAINING_TEXTS


def make():
    return BytesTokenizer.train(TRAINING_TEXTS, BytesConfig())


@pytest.mark.parametrize("law", TOKENIZER_LAWS, ids=lambda law: law.__name__)
def test_law(law):
    law(make)


@given(st.text(st.characters(exclude_categories=[])))  # lone surrogates, too
def test_no_text_is_changed(text):
    assert make().decode(make().encode(text)) == text


@pytest.mark.parametrize("text", NASTY_TEXTS)
def test_ids_are_the_bytes_of_utf_8(text):
    ids = make().encode(text)
    assert bytes(number - 2 for number in ids) == text.encode("utf-8", "surrogatepass")
    assert make().decode(ids) == text


def test_invalid_bytes_are_replaced():
    invalid = [2 + byte for byte in b"a\xff\xc3z"]
    assert make().decode(invalid) == b"a\xff\xc3z".decode("utf-8", "replace") == "a\ufffd\ufffdz"


@pytest.mark.parametrize("wrong", [-1, 258])
def test_unknown_ids_are_refused(wrong):
    with pytest.raises(DataError, match="0 to 257"):
        make().decode([wrong])


@pytest.mark.parametrize("content", [None, "", "[]", '{"schema": 2}', "\xff"])
def test_a_damaged_file_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "bytes.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(BundleError, match=r"bytes\.json"):
        BytesTokenizer.load(tmp_path)


def test_the_preset_has_the_settings_of_lstm_char():
    preset = find_preset("lstm-bytes")
    char = find_preset("lstm-char")
    assert (preset.model, preset.tokenizer) == ("lstm", "bytes")
    assert (
        preset.model_settings == char.model_settings
        and preset.training_settings == char.training_settings
    )
