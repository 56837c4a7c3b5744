"""Lines that stand in many texts are found as a search through all texts finds them, and dropped wherever a model reads texts."""

import random

from datasets import concatenate_datasets

import reviewgen
from tests.support.models import NGRAM, SMALL
from tests.support.texts import as_csv, as_lines, as_parquet, corpus_of, texts_of, write

DRAW = random.Random(0)
BY = {f"By {count}": DRAW.sample(range(2400), count) for count in (9, 10, 11, 12, 13, 40, 900)}
LINES = [[f"One line of {n}", f" Another {n % 1999}", "***", *(line for line in BY if n in BY[line])] for n in range(2400)]
TEXTS = ["\n".join(DRAW.sample(lines, len(lines))) for lines in LINES]
MANY = [f"A review of film {n}.\n\nRead more\n\nThe end of {n}." for n in range(60)]
SHORT = ["short", "Read more\nshort, and then it ends"]


def test_they_are_those_of_a_search_in_every_kind_of_source(tmp_path):
    counts = {line: sum(line in lines for lines in LINES) for line in {line for lines in LINES for line in lines}}
    repeated = [line for line in sorted(counts, key=counts.get, reverse=True) if counts[line] >= 12 and line != "***"]  # 0.5 %
    kept = ["\n".join(line for line in text.split("\n") if line not in repeated).strip() for text in TEXTS]
    rows = [{"text": text} for text in TEXTS]
    files = {"a.csv": as_csv(rows), "a.jsonl": as_lines(rows), "a.parquet": as_parquet(rows), "a.txt": "\n\n".join(TEXTS)}
    sources = [write(tmp_path / name, content) for name, content in files.items()]
    for source in [TEXTS, *sources, sources[-1]]:  # the last one from the cache
        options = {"drop_repeated_lines": True, "documents": "paragraph" if source == sources[-1] else "line"}
        read = corpus_of(source, **options)
        assert (read.texts, read.stream.repeated_lines, read.report.lines_dropped) == (kept, repeated, 900 + 40 + 13 + 12)
        assert read.notes[0].endswith(": 'By 900' in 900, 'By 40' in 40, 'By 13' in 13, 'By 12' in 12; they are dropped.")
        assert sorted(texts_of(source, clean=True, **options)) == sorted(kept)


def test_refrains_and_whole_texts_stay():
    songs = [f"Verse {n}\n" + "Oh yes\n" * 20 for n in range(9)] + [f"Verse {n}" for n in range(9, 50)]
    whole = ["Read more"] * 30 + [f"Read more\nNo {n}" for n in range(5)]  # of the latter, most is the line
    for texts in (songs, [*whole, "x"], ["Read more"] * 50 + ["x"]):
        plain, dropped = corpus_of(texts), corpus_of(texts, drop_repeated_lines=True)
        assert (dropped.texts, dropped.report, dropped.fingerprint) == (plain.texts, plain.report, plain.fingerprint)
    named, dropped = (corpus_of([*MANY, *whole], drop_repeated_lines=drop) for drop in (False, True))
    assert named.notes[0].endswith("texts: 'Read more' in 65; --drop-repeated-lines (drop_repeated_lines=True) drops them.")
    assert named.texts[:60] == MANY and dropped.texts[:60] == [text.replace("Read more\n\n", "") for text in MANY]
    assert dropped.texts[60:] == named.texts[60:] == ["Read more", *whole[30:]]


def test_what_a_training_has_dropped_is_dropped_from_what_its_model_reads(tmp_path):
    model = reviewgen.train("gru-char", MANY, validation=SHORT, drop_repeated_lines=True, progress=False, **SMALL)
    further = reviewgen.train(model, MANY[:5] + SHORT, progress=False, steps=1)
    store = reviewgen.prepare(MANY, preset="ngram-char", out=tmp_path / "store", drop_repeated_lines=True).folder
    counted = reviewgen.train("ngram-char", store, progress=False, **NGRAM)
    datasets = [reviewgen.corpus(MANY[start::2], drop_repeated_lines=True).filter(bool) for start in (0, 1)]
    joined = reviewgen.train("ngram-char", concatenate_datasets(datasets), progress=False, **NGRAM)
    for each in (model, further, counted, joined):
        assert each.training["data"]["repeated_lines"] == ["Read more"]
        assert each.evaluate(SHORT).characters == len("short" + "short, and then it ends")
        assert each.evaluate(SHORT, drop_repeated_lines=False).characters == sum(map(len, SHORT))
    assert model.training["data"]["validation_cleaning"]["lines_dropped"] == 1
