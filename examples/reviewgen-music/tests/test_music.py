"""The weights load, generate, and say where they are from."""

from pathlib import Path

import pytest
import reviewgen_music

import reviewgen

PRESETS = ("gru-word-music", "ngram-word-music", "blend-word-music")
FOLDER = Path(reviewgen_music.__file__).parent


@pytest.mark.parametrize("preset", PRESETS)
def test_the_weights_generate(preset):
    model = reviewgen.load(preset)
    texts = model.generate(num_return_sequences=20, seed=1)
    assert texts == reviewgen.load(preset).generate(num_return_sequences=20, seed=1)
    words = " ".join(texts).lower()
    assert all(word in words for word in ("guitar", "drum", "melody"))
    assert len(set(texts)) == 20


@pytest.mark.parametrize("preset", PRESETS)
def test_the_card_names_the_license_and_the_captions(preset):
    card = (FOLDER / preset.replace("-", "_") / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-sa-4.0" in card and "MusicCaps" in card


def test_the_blend_has_fewer_bits_than_its_models():
    gru, ngram, blend = (
        reviewgen.load(preset).training["held_out"]["bits_per_character"] for preset in PRESETS
    )
    assert blend < gru < ngram
