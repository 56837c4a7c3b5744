"""From parts to the finished store: conditions, tokenizer, shards, novelty index and ``store.json``."""

import json
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from functools import partial
from pathlib import Path
from typing import Any

from reviewgen.bundle import check_tokenizer_files
from reviewgen.compiled.windows import WindowSet
from reviewgen.conditions import Conditions, fit_conditions
from reviewgen.config import read_json, to_dict
from reviewgen.data import Corpus, digest_tokenizer
from reviewgen.data.corpus import SPLITS
from reviewgen.data.corpus_facts import corpus_to_json
from reviewgen.data.encoding import encode_conditions
from reviewgen.data.lost_characters import LostCharacters, add_up_lost, count_lost, sample_step
from reviewgen.data.store import write_conditions, write_split
from reviewgen.data.store_folder import STORE_FILE, StoreFolder, digest_file, digest_files, write_store_file
from reviewgen.novelty import write_index
from reviewgen.preparation.indexing import collect_windows
from reviewgen.preparation.job import Job, WorkFolder
from reviewgen.preparation.parts import Parts
from reviewgen.protocols import SupportsTrainingInParts, Tokenizer
from reviewgen.runs.prepare import build_novelty_index
from reviewgen.runs.prepared import NOVELTY_FILE, novelty_settings
from reviewgen.storage import fsync_file, fsync_folder
from reviewgen.training import Processes
from reviewgen.training.rounds import Watch, main_process_only

__all__ = ["encode_parts"]


def encode_parts(
    job: Job, work: WorkFolder, processes: Processes, parts: Parts, corpus: Corpus, notes: Sequence[str], watch: Watch
) -> None:
    """Write the store of a corpus whose texts have codes into the working folder; all processes call this.

    Raises:
        ReviewgenError: The tokenizer cannot be saved, a condition has no values, or the disk is full.
        ProcessLost: Another process has failed or ended.
    """
    plan, tokenizer_folder = job.plan, work.store / "tokenizer"
    watch("Training the tokenizer")
    fitted = main_process_only(processes, lambda: fit_conditions(plan.data.conditions, parts.values("train")), work.folder)
    train = _share_training(job, work, processes, parts)
    main_process_only(processes, lambda: work.write(tokenizer_folder, partial(_save, train)), work.folder)
    tokenizer: Tokenizer = plan.parts.tokenizer_class.load(tokenizer_folder)
    check_tokenizer_files(tokenizer, plan.parts.tokenizer_plugin.name)
    conditions = fitted.with_ids_from(tokenizer.vocab_size)
    counts, step = parts.counts(), sample_step(tokenizer, parts.characters())

    def encode(number: int) -> None:
        """Write the shard of a part, its digests, and what the tokenizer loses of a sample of it."""
        first = int(counts[:number, 0].sum())
        shard, digests = work.shard(number), work.place("digests", f"{number:05d}.json")
        if not work.is_finished(shard):
            digests.unlink(missing_ok=True)
            work.write_later(shard, lambda folder: _encode(folder, parts, number, tokenizer, conditions, first))
        work.later(lambda: work.write(digests, lambda file: _write_json(file, digest_files(shard, work.store))))
        sample = parts.sample(number, int(counts[:number].sum()), step)
        work.write_later(_lost_file(work, number), lambda file: _write_json(file, astuple(count_lost(sample, tokenizer, step))))

    watch("Encoding the texts")
    work.share(processes, range(len(parts.parts)), encode)
    watch("Building the novelty index")
    sets = collect_windows(job, work, processes, len(parts.parts), tokenizer)
    watch("Finishing the store")
    main_process_only(processes, lambda: _finish(job, work, parts, corpus, tokenizer, conditions, notes, sets), work.folder)


def _share_training(job: Job, work: WorkFolder, processes: Processes, parts: Parts) -> Callable[[], Tokenizer]:
    """Return a function that trains the tokenizer, for the main process; of one that supports it, all train their parts now."""
    cls, config = job.plan.parts.tokenizer_class, job.plan.parts.tokenizer_config
    if not issubclass(cls, SupportsTrainingInParts):
        return lambda: cls.train(parts.texts("train"), config)

    def train(number: int) -> Tokenizer:
        trained: Tokenizer = cls.train(replace(parts, parts=parts.parts[number : number + 1]).texts("train"), config)
        return trained

    places = [work.place("tokenizers", f"{number:05d}") for number in range(len(parts.parts))]
    work.share(
        processes, range(len(places)), lambda number: work.write_later(places[number], partial(_save, partial(train, number)))
    )
    return lambda: cls.combine([cls.load(place) for place in places])


def _save(train: Callable[[], Tokenizer], folder: Path) -> None:
    tokenizer = train()
    folder.mkdir()
    tokenizer.save(folder)


def _encode(folder: Path, parts: Parts, number: int, tokenizer: Tokenizer, conditions: Conditions, first: int) -> None:
    """Write a shard: the texts of a part, of which ``first`` training texts come before."""
    part, codes = parts.parts[number], parts.parts[number].codes
    folder.mkdir()
    for code, split in enumerate(SPLITS):
        wanted = codes == code
        write_split(part.texts(wanted), tokenizer, folder, split, conditions.vocab_size)
        if conditions:
            ids = encode_conditions(part.values(wanted), conditions, split, first)
            write_conditions(ids, len(conditions), folder, split, conditions.vocab_size)


def _lost_file(work: WorkFolder, number: int) -> Path:
    return work.place("found", f"lost-{number:05d}.json")


def _read_lost(file: Path) -> LostCharacters:
    lost, checked, is_sample, (before, after) = read_json(file)
    return LostCharacters(lost, checked, is_sample, (before, after))


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")


def _finish(
    job: Job,
    work: WorkFolder,
    parts: Parts,
    corpus: Corpus,
    tokenizer: Tokenizer,
    conditions: Conditions,
    notes: Sequence[str],
    sets: Sequence[WindowSet] | None,
) -> None:
    """Write the novelty index and ``store.json``, and force to disk what has not been forced yet."""
    store, plugin = work.store, job.plan.parts.tokenizer_plugin
    shards = [f"shards/{number:05d}" for number in range(len(parts.parts))]
    files: dict[str, Any] = {}
    for number in range(len(parts.parts)):
        files |= read_json(work.place("digests", f"{number:05d}.json"))
    splits = StoreFolder(store, {"shards": shards}, str(job.out)).splits()
    lost = add_up_lost([_read_lost(_lost_file(work, number)) for number in range(len(parts.parts))])
    index = build_novelty_index(job.plan, corpus.fingerprint, tokenizer, splits["train"], sets)
    if index is not None:
        write_index(index, store / NOVELTY_FILE)
        fsync_file(store / NOVELTY_FILE)
        files |= {NOVELTY_FILE: digest_file(store / NOVELTY_FILE)}
    files |= digest_files(store / "tokenizer", store)
    facts = {
        "preset": job.plan.preset,
        "tokenizer": {
            "name": plugin.name,
            "package": plugin.package,
            "version": plugin.version,
            "settings": to_dict(job.plan.parts.tokenizer_config),
            "digest": digest_tokenizer(tokenizer),
        },
        "reading": job.plan.data.facts(),
        "conditions": conditions.to_json(),
        "corpus": corpus_to_json(corpus),
        "novelty": novelty_settings(job.plan),
        "near_duplicates": job.near_duplicates,
        "decontaminate": job.decontaminate,
        "job": work.digest,
        "notes": [*conditions.notes(), *notes, *([] if lost is None else [lost.describe(plugin.name)])],
    }
    write_store_file(store, shards, files, facts)
    fsync_file(store / STORE_FILE)
    for folder in (store / "shards", store):
        fsync_folder(folder)
