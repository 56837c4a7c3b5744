"""The one way from a source to tokens: a cleaned corpus, then a token store; in the cache for a training, or elsewhere.

In the cache, a corpus is ``texts-KEY`` and a store ``tokens-KEY``; both appear whole, and one process makes them
while others wait.
"""

import hashlib
import json
import logging
import shutil
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from reviewgen.conditions import Conditions
from reviewgen.config import to_dict
from reviewgen.data.cache import cache_folder, prune_cache, touch, workspace
from reviewgen.data.columns import DataConfig
from reviewgen.data.corpus import Corpus, make_corpus
from reviewgen.data.filters import Filters
from reviewgen.data.parts import Progress, Work
from reviewgen.data.prepare import IndexChoice, TokenizerChoice, encode_corpus
from reviewgen.data.sources import Source, open_source
from reviewgen.data.store import StoreFolder, find_store, refuse_existing_url, upload_store
from reviewgen.errors import CheckpointError, DataError, OutputExists, storage_errors
from reviewgen.processes import Processes
from reviewgen.storage import Job, check_output, publish
from reviewgen.version import __version__

_logger = logging.getLogger("reviewgen")
T = TypeVar("T")


@dataclass(frozen=True)
class Texts:
    """Which texts a corpus is made of.

    Attributes:
        source: The source; see ``open_source``.
        config: How it is read and cleaned.
        validation: A second source to validate on, instead of a part of the first.
        validation_split: The split of a dataset to validate on; of the first source if there is no second.
        filters: Which texts are left out.
        allow_missing: Whether a condition without a column counts as not given.
    """

    source: Any
    config: DataConfig
    validation: Any = None
    validation_split: str | None = None
    filters: Filters = field(default_factory=Filters)
    allow_missing: bool = False

    def open(self, folder: Path) -> list[Source]:
        """Open the sources."""
        given = [(self.source, self.config)]
        if self.validation is not None or self.validation_split is not None:
            second = self.source if self.validation is None else self.validation
            given.append((second, replace(self.config, split=self.validation_split)))
        opened: list[Source] = []
        for number, (source, config) in enumerate(given):
            (own := folder / str(number)).mkdir(exist_ok=True)
            config = replace(config, width=opened[0].info.width) if opened else config  # the same lines are joined
            opened.append(open_source(source, config, own, allow_missing=self.allow_missing))
        return opened

    def settings(self) -> dict[str, Any]:
        """Return what the corpus depends on besides the texts, as JSON values by name."""
        reading = to_dict(self.config) | {"validation_split": self.validation_split}
        return {"versions": [__version__, unicodedata.unidata_version], "reading": reading, **to_dict(self.filters)}


def cached_corpus(texts: Texts, progress: Progress = lambda stage: None) -> Corpus:
    """Return a corpus from the cache, after it was made there if need be.

    Raises:
        ReviewgenError: See ``open_source`` and ``make_corpus``.
    """
    with workspace() as folder:
        progress("Opening the source")
        sources = texts.open(folder)

        def make(job: Job) -> Corpus:
            return make_corpus(sources, Work(job, progress=progress), texts.filters)

        facts = {**texts.settings(), "texts": _identify(sources)}
        key = _digest(facts)
        if any(source.facts is None for source in sources):  # known by its texts only, once they are read
            with storage_errors(folder):
                job = Job(folder / "job", {})
                key = _digest(make(job).to_json())
                with suppress(OutputExists):
                    publish(job.path("corpus"), cache_folder() / f"texts-{key}")
        return _in_cache(f"texts-{key}", Corpus.open, facts, "corpus", make)


def cached_store(
    corpus: Corpus,
    choice: TokenizerChoice,
    index: IndexChoice,
    conditions: Conditions | None,
    progress: Progress = lambda stage: None,
) -> StoreFolder:
    """Return the token store of a corpus from the cache, after it was made there if need be.

    Args:
        corpus: The corpus.
        choice: The tokenizer.
        index: The novelty index.
        conditions: The conditions of a trained model; None fits them to the training texts.
        progress: Called with each stage.

    Raises:
        ReviewgenError: See ``encode_corpus``.
    """
    given = None if conditions is None else conditions.to_json()
    facts = {
        "corpus": corpus.fingerprint,
        "tokenizer": choice.facts(),
        "conditions": given,
        "novelty": [index.form, index.megabytes, None if index.form == "none" else index.belongs_to(corpus.fingerprint)],
    }
    return _in_cache(
        f"tokens-{_digest(facts)}",
        StoreFolder.read,
        facts,
        "store",
        lambda job: encode_corpus(corpus, choice, index, Work(job, progress=progress), conditions=conditions, facts={}),
    )


def _in_cache(name: str, read: Callable[[Path], T], facts: Mapping[str, Any], piece: str, make: Callable[[Job], object]) -> T:
    """Return what is read from a folder of the cache, after a job has made it if need be.

    Args:
        name: The name of the folder.
        read: Reads it, or raises if it is not whole.
        facts: What it depends on.
        piece: The piece of the job that becomes the folder.
        make: Makes that piece.
    """
    target = cache_folder() / name
    with storage_errors(target):
        if target.exists():
            try:
                read(target)
            except (OSError, ValueError, KeyError, TypeError):  # its removal was cut off, or the power failed; it is made again
                shutil.rmtree(target)
        if not target.exists():
            with Job(target, facts, waits=True) as job:
                if not target.exists():
                    make(job)
                    job.finish(piece)
    touch(target)
    prune_cache()
    return read(target)


def _identify(sources: Sequence[Source]) -> list[Any]:
    """Return what identifies the texts of sources, as JSON values."""
    return [[source.info.name, source.facts] for source in sources]


def prepare_store(
    texts: Texts,
    choice: TokenizerChoice,
    index: IndexChoice,
    out: Path,
    url: str | None,
    ranks: Processes,
    progress: Progress,
    facts: Mapping[str, Any],
) -> StoreFolder:
    """Make a token store in a folder or at a URL; all processes call this.

    Args:
        texts: The texts.
        choice: The tokenizer.
        index: The novelty index.
        out: The folder to create; for a URL, the folder to work in.
        url: Where to copy the store.
        ranks: The processes that share the work.
        progress: Called with each stage.
        facts: What ``store.json`` says besides the corpus, the tokenizer and the index.

    Raises:
        ReviewgenError: A source, a text or the disk is unusable; or ``out`` exists, or is the beginning of another store.
    """
    settings = {"tokenizer": choice.facts(), "novelty": [index.form, index.megabytes], **texts.settings()}
    work, own = Work(Job(out, settings), ranks, progress), list[Source]()  # the sources of the main process, whose objects stay

    def refuse() -> None:
        check_output(out)
        if url is not None:
            refuse_existing_url(url)

    with ExitStack() as stack:
        copies = stack.enter_context(workspace())

        def begin() -> tuple[StoreFolder | None, list[Source], str]:
            """Open the sources; return the store, if the same job has made it already."""
            existing = None
            with suppress(DataError):  # it is damaged, or unfinished
                existing = find_store(url or out)
            if existing is None:
                refuse()
                stack.enter_context(work.job)
            progress("Opening the source")
            folder = copies if existing or ranks.world_size == 1 else work.job.path("source")
            folder.mkdir(exist_ok=True)
            opened = texts.open(folder)
            identity = _digest({**settings, "texts": _identify(opened)})
            can_repeat = all(source.facts is not None for source in opened)
            if existing is None:
                work.job.require({"texts": _identify(opened)})
                if not can_repeat:  # what an earlier try has read cannot be compared
                    work.job.clear()
            elif existing.facts.get("job") != identity or not can_repeat:
                refuse()
            else:
                with suppress(CheckpointError, OSError), work.job:  # one that was killed while it removed its folder
                    work.job.clear()
                _logger.warning("%s is complete already: the same job has made it.", existing.name)
            own.extend(opened)
            return existing, [replace(source, units=()) if source.facts is None else source for source in opened], identity

        existing, sources, identity = work.main(begin)
        if existing is not None:
            return existing
        corpus = make_corpus(own or sources, work, texts.filters)
        more = {**facts, **to_dict(texts.filters), "job": identity, "reading": texts.config.facts()}
        encode_corpus(corpus, choice, index, work, facts=more)
        return work.main(lambda: _publish(work.job, out, url))


def _publish(job: Job, out: Path, url: str | None) -> StoreFolder:
    if url is None:
        job.finish("store")
        return StoreFolder.read(out)
    store = upload_store(job.path("store"), url)
    if not store.folder.exists():  # it need not be fetched
        publish(job.path("store"), store.folder)
    job.clear()
    return store


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
