"""Train the weights, and save them where the package contains them: ``python train.py FILE``.

FILE has the captions of MusicCaps in a column ``text``, as .csv, .jsonl or .parquet. Takes about
a quarter of an hour on one core.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import reviewgen
from reviewgen.saving.layout import CONFIG, WEIGHTS, digest_of, write_manifest

PACKAGE = Path(__file__).parent / "reviewgen_music"
EPOCHS = {"gru-word-music": 16, "ngram-word-music": 1}
BLEND = "blend-word-music"
SOURCE = """
## Source and license

The weights were trained on the captions of
[MusicCaps](https://huggingface.co/datasets/google/MusicCaps) by Google, CC BY-SA 4.0: Agostinelli
et al. (2023), [MusicLM: Generating Music From Text](https://arxiv.org/abs/2301.11325). The captions
were cleaned and split; none of them is in this folder. The weights have the same license.
"""
CARD = {"license": "cc-by-sa-4.0", "language": "en", "datasets": ["google/MusicCaps"]}


def main(file: str) -> None:
    """Train the models, blend them, and save all with their figures on the test split."""
    parts = []
    for name, epochs in EPOCHS.items():
        if not folder_of(name).exists():
            trained = reviewgen.train(
                name, file, text_column="text", epochs=epochs, min_texts=3, training={"threads": 1}
            )
            save(name, trained, file)
        parts.append(reviewgen.load(folder_of(name)))
    blend = reviewgen.blend(parts, data=file, split="validation")
    blend.bundle.preset = blend.training["preset"] = BLEND
    save(BLEND, blend, file)
    share_weights(folder_of(BLEND))


def save(name: str, model: reviewgen.ReviewModel, file: str) -> None:
    """Save a model with its card, a network in 8 bits; the figures are those of what is saved."""
    folder = folder_of(name)
    dtype = "int8" if name.startswith("gru") else "float32"
    model.save_pretrained(folder, overwrite=True, dtype=dtype)
    saved = reviewgen.load(folder)
    figures = saved.evaluate(file, split="test")
    saved.training["held_out"] = {"split": "test"} | asdict(figures)
    saved.save_pretrained(folder, overwrite=True, dtype=dtype)
    card = saved.generate_model_card(source=name, **CARD)
    (folder / "README.md").write_text(f"{card}{SOURCE}", encoding="utf-8")
    print(f"{name}: {figures.bits_per_character:.3f} bits per character")


def share_weights(folder: Path) -> None:
    """Remove the weights from the folder of the blend, and name the presets that have them."""
    (folder / WEIGHTS).unlink()
    parts = {name: digest_of(folder_of(name) / WEIGHTS) for name in EPOCHS}
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8")) | {"weights": parts}
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_manifest(folder)


def folder_of(name: str) -> Path:
    """Return the folder of a preset's weights."""
    return PACKAGE / name.replace("-", "_")


if __name__ == "__main__":
    main(sys.argv[1])
