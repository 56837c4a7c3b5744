"""A correct tokenizer, and tokenizers that each break one law. They are imported by name in other processes.

``TOKENIZERS`` says which law must be the first to fail, and words of its message; ``LOSSY`` are correct, but not lossless.
"""

import itertools
import json
import os
import pickle
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel


@dataclass(frozen=True, kw_only=True)
class Settings:
    pass


class Bytes:
    """A correct, lossless tokenizer: each byte gets the number of its place in a table; ``train`` sorts it."""

    Config = Settings
    vocab_size, bos_id, eos_id = 258, 256, 257

    def __init__(self, table):
        self.table, self.places = bytes(table), {byte: place for place, byte in enumerate(table)}

    @classmethod
    def train(cls, texts, config):
        used = {symbol for text in texts for symbol in text.encode("utf-8", "surrogatepass")}
        return cls([*sorted(used), *(byte for byte in range(256) if byte not in used)])

    def encode(self, text):
        return [self.places[byte] for byte in text.encode("utf-8", "surrogatepass")]

    def decode(self, ids):
        raw = bytes(self.table[i] for i in ids if i < 256)
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return raw.decode("utf-8", "replace")

    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]

    def save(self, folder):
        (folder / "bytes.json").write_text(json.dumps(list(self.table)))

    @classmethod
    def load(cls, folder):
        return cls(json.loads((folder / "bytes.json").read_text()))


class Ascii(Bytes):
    """Correct, without a byte fallback: what is not ASCII becomes a question mark."""

    def encode(self, text):
        return super().encode(text.encode("ascii", "replace").decode())


class DropsSurrogates(Bytes):
    """Correct, but drops lone surrogates."""

    def encode(self, text):
        return super().encode(text.encode("utf-8", "ignore").decode())


class HasNoSave(Bytes):
    save = None


class MutableSettings(Bytes):
    @dataclass
    class Config:
        pass


class FailsOnSurrogates(Bytes):
    def encode(self, text):
        return super().encode(text.encode("utf-8").decode())


class ReturnsArrays(Bytes):
    def encode(self, text):
        return np.array(super().encode(text))


class ReadsMarkers(Bytes):
    def encode(self, text):
        return [*super().encode(text), *([self.bos_id] if "<s>" in text else [])]


class MendsLineEnds(Bytes):
    def decode(self, ids):
        return super().decode(ids).replace("\r\n", "\n")


class Lowers(Bytes):
    def encode(self, text):
        return super().encode(text.lower())


class Composes(Bytes):
    def encode(self, text):
        return super().encode(unicodedata.normalize("NFC", text))


class NeedsWholeCharacters(Bytes):
    def decode(self, ids):
        return bytes(self.table[i] for i in ids if i < 256).decode("utf-8", "surrogatepass")


class StripsBatches(Bytes):
    def encode_batch(self, texts):
        return super().encode_batch([text.strip() for text in texts])


class ForgetsParts(Bytes):
    @classmethod
    def combine(cls, tokenizers):
        return cls(np.roll(list(tokenizers[0].table), 1).tolist())


class CountsItsTrainings(Bytes):
    times = itertools.count()

    @classmethod
    def train(cls, texts, config):
        return cls(np.roll(np.arange(256), next(cls.times)).tolist())


class ReadsTwice(Bytes):
    @classmethod
    def train(cls, texts, config):
        longest = max(map(len, texts))
        return cls(np.roll(np.arange(256), longest + sum(1 for _ in texts)).tolist())


class ForgetsItsTable(Bytes):
    @classmethod
    def load(cls, folder):
        return cls(list(range(256)))


class GivesAnotherJson(Bytes):
    """Its tokenizer.json is a byte-level BPE without merges, whose ids are those of the symbols in another order."""

    def tokenizer_json(self):
        symbols = [*sorted(ByteLevel.alphabet()), "<bos>", "<eos>"]
        other = Tokenizer(BPE({symbol: number for number, symbol in enumerate(symbols)}, []))
        other.pre_tokenizer = ByteLevel(add_prefix_space=False)
        return other.to_str()


class Pickles(Bytes):
    def save(self, folder):
        super().save(folder)
        (folder / "table.txt").write_bytes(pickle.dumps(list(self.table), protocol=0))


class MakesAFolder(Bytes):
    def save(self, folder):
        super().save(folder)
        (folder / "vocabulary").mkdir()


class MakesALink(Bytes):
    def save(self, folder):
        super().save(folder)
        (folder / "latest.json").symlink_to("bytes.json")


class WritesConfigJson(Bytes):
    def save(self, folder):
        super().save(folder)
        (folder / "config.json").write_text("{}")


class WritesTheCard(Bytes):
    def save(self, folder):
        super().save(folder)
        (folder / "readme.md").write_text("A tokenizer of bytes.")


class WritesAProgram(Bytes):
    def save(self, folder):
        super().save(folder)
        (folder / "tokenizer.py").write_text("VOCABULARY = 256\n")


class WritesBeside(Bytes):
    def save(self, folder):
        super().save(folder)
        (folder.parent / f"{folder.name}.log").write_text("saved")


class LeavesATrainingFile(Bytes):
    @classmethod
    def train(cls, texts, config):
        Path("training.tmp").write_text("texts")
        return super().train(texts, config)


class CachesAtHome(Bytes):
    def encode(self, text):
        cache = Path(os.environ["HOME"]) / ".cache"
        cache.mkdir(exist_ok=True)
        (cache / "bytes.log").write_text("encoded")
        return super().encode(text)


class WritesWhenLoaded(Bytes):
    @classmethod
    def load(cls, folder):
        (folder / "compiled.json").write_text("[]")
        return super().load(folder)


class InTheOrderOfASet(Bytes):
    @classmethod
    def train(cls, texts, config):
        used = {character for text in texts for character in text if character < "\x80"}
        table = [ord(character) for character in used]
        return cls([*table, *(byte for byte in range(256) if byte not in table)])


class CountsItsThreads(Bytes):
    @classmethod
    def train(cls, texts, config):
        return cls(np.roll(np.arange(256), int(os.environ.get("RAYON_NUM_THREADS", "1"))).tolist())


TOKENIZERS = [
    (HasNoSave, "protocol", "lacks save of reviewgen.protocols.Tokenizer"),
    (MutableSettings, "config", "must be frozen"),
    (FailsOnSurrogates, "every_text", "must not raise; got UnicodeEncodeError"),
    (ReturnsArrays, "every_text", "must return a list; got a ndarray"),
    (ReadsMarkers, "frame", "must not return bos_id or eos_id"),
    (MendsLineEnds, "stable", "but after decoding to"),
    (Lowers, "known_text", "must decode to itself. At character 0, 'A good f' becomes 'a good f'"),
    (Composes, "unseen_text", "characters become"),
    (NeedsWholeCharacters, "any_ids", "must not raise; got UnicodeDecodeError"),
    (StripsBatches, "batch", "encode_batch returns other ids than encode"),
    (CountsItsTrainings, "trained_again", "trained again on the same texts gives other ids"),
    (ReadsTwice, "streamed", "must iterate over its texts once"),
    (ForgetsParts, "in_parts", "combined from those of parts"),
    (ForgetsItsTable, "save_load", "gives other ids or texts"),
    (GivesAnotherJson, "other_programs", 'must encode "A good film. I liked it'),
    (Pickles, "plain_data", "table.txt is a pickle"),
    (MakesAFolder, "no_subfolders", "save writes vocabulary, which is a folder or a link"),
    (MakesALink, "no_subfolders", "save writes latest.json, which is a folder or a link"),
    (WritesConfigJson, "file_names", "save writes config.json, a name that a saved model uses itself"),
    (WritesTheCard, "file_names", "save writes readme.md, a name that a saved model uses itself"),
    (WritesAProgram, "file_names", "tokenizer.py as a tokenizer file; only plain data is read"),
    (WritesBeside, "own_folder", "writes tokenizer.log beside its folder"),
    (LeavesATrainingFile, "own_folder", "writes training.tmp into the working directory"),
    (CachesAtHome, "own_folder", "writes .cache into HOME"),
    (WritesWhenLoaded, "own_folder", "load writes compiled.json into the folder that it reads"),
    (InTheOrderOfASet, "any_order", "Sort what comes from a set or from threads"),
    (CountsItsThreads, "any_order", "with PYTHONHASHSEED=1 and 4 threads, than with PYTHONHASHSEED=0 and one thread"),
]
LOSSY = [
    (Ascii, r"At character 48, '\u2028\u2029\x85' becomes '???'; 51 characters become 51."),
    (DropsSurrogates, "29 characters become 25"),
]
