"""Prepared token stores: make one from a source in a folder or at a URL, and find the one that the
user names. A store behind a URL is fetched into the cache.

An unfinished store is the folder ``OUT.partial``, whose stages are like those of the cache. The
same command resumes it.
"""

import contextlib
import json
import logging
import shutil
import unicodedata
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from reviewgen.config.bounded import MAX_RECORD
from reviewgen.config.settings import to_dict
from reviewgen.data.encode import (
    NOVELTY_FILE,
    Encoding,
    encode_corpus,
    find_conditions,
    index_corpus,
)
from reviewgen.data.files import expand, is_text, is_url, remote
from reviewgen.data.split import Corpus, CorpusSpec, require_splits, split_sources
from reviewgen.data.stage import (
    STAGE_FILE,
    Progress,
    cache_folder,
    digest_json,
    run_stage,
    sizes_of,
    workspace,
)
from reviewgen.data.tokens import STORE_FILE, StoreFolder, digest_file, parse_store
from reviewgen.errors import CheckpointError, DataError, OutputExists
from reviewgen.processes import Processes
from reviewgen.storage import Job, atomic_file, check_output, publish
from reviewgen.version import __version__

_logger = logging.getLogger("reviewgen")


def find_store(source: Any) -> StoreFolder | None:
    """Return the token store at a path or URL; None if the source is something else.

    Of a store behind a URL, only ``store.json`` is read.

    Raises:
        DataError: The store is unfinished, damaged, or of a newer version.
    """
    if not isinstance(source, str | Path) or is_text(source):
        return None
    if isinstance(source, str) and is_url(source) and "?" not in source:  # a folder's URL has none
        content = b""
        # if this fails, reading the source as texts reports the error
        with contextlib.suppress(DataError), remote(source, "read") as (system, folder):
            content = system.cat_file(f"{folder}/{STORE_FILE}", end=MAX_RECORD + 1)
        # not a JSON object but, for example, the web page that a server sends for any address
        if not content.startswith(b"{"):
            return None
        return _at_url(source, content)
    path = expand(source)
    if path.suffix == ".partial" and (path / "job.json").is_file():
        raise DataError(
            f"{source} is a token store that is not finished: rerun the same reviewgen prepare"
            " command to resume it."
        )
    return StoreFolder.read(path, str(source)) if (path / STORE_FILE).is_file() else None


def _at_url(url: str, content: bytes) -> StoreFolder:
    """Return the store at a URL, whose ``store.json`` has the given content. The folder of the
    store is the place in the cache to which ``fetch_store`` copies the files.
    """
    parsed = parse_store(content, url)
    return StoreFolder(cache_folder() / f"store-{digest_json(parsed)}", parsed, url)


def fetch_store(store: StoreFolder) -> StoreFolder:
    """Fetch a store behind a URL into the cache, unless it is there, and check the digest of each
    file.

    Raises:
        DataError: The URL cannot be read, or a file differs from its digest.
        StorageError: The disk is full.
    """
    if not is_url(store.name):
        return store
    files = store.content["files"]

    def fetch(folder: Path) -> dict[str, Any]:
        """Download the files into the folder of a stage, and check them."""
        names = (*files, STORE_FILE)
        with remote(store.name, "read") as (system, path):
            sources = [f"{path}/{name}" for name in names]
            system.get(sources, [str(folder / name) for name in names])
        for name, facts in files.items():
            if digest_file(folder / name) != facts:
                raise DataError(
                    f"{name} of the token store {store.name} differs from its digest. Copy the"
                    " store again."
                )
        return {}

    run_stage(cache_folder(), "store", store.content, fetch)
    return store


def _refuse_existing(out: Path, url: str | None) -> None:
    """Raise if a store cannot be created in a folder, or at a URL.

    Raises:
        OutputExists: Something exists at the folder's path or at the URL.
        DataError: The URL cannot be read.
        StorageError: The folder cannot be written.
    """
    check_output(out)
    if url is not None:
        with remote(url, "written") as (system, path):
            if system.exists(f"{path}/{STORE_FILE}") or (system.exists(path) and system.find(path)):
                raise OutputExists(f"{url} already exists. Choose another name, or remove it.")


def prepare_store(
    spec: CorpusSpec,
    encoding: Encoding,
    out: Path,
    url: str | None,
    processes: Processes,
    progress: Progress,
    facts: Mapping[str, Any],
) -> StoreFolder:
    """Make a token store in a folder or at a URL.

    All processes of a launcher call this function. The main process does the work, and the others
    wait for each step.

    Args:
        spec: The texts.
        encoding: The tokenizer and the novelty index.
        out: The folder to create; for a URL, the folder to work in.
        url: Where to copy the store.
        processes: The processes.
        progress: Called with each step.
        facts: More facts to save in ``store.json``, besides those of the corpus, tokenizer and
            index.

    Raises:
        ReviewgenError: A source, a text or the disk cannot be used; or ``out`` exists, or holds an
            unfinished store of other texts.
    """
    store = None
    with contextlib.closing(_prepare(spec, encoding, out, url, progress, facts)) as steps:
        while store is None:  # each call makes one step, in the main process only
            store = processes.main(lambda: next(steps), out)
    return store


def _prepare(
    spec: CorpusSpec,
    encoding: Encoding,
    out: Path,
    url: str | None,
    progress: Progress,
    facts: Mapping[str, Any],
) -> Generator[StoreFolder | None]:
    """Make a store; yield None after each step, and the store after the last one."""
    settings = _settings(spec, encoding)
    job = Job(out, "store", settings)
    root = job.path("stages")
    with contextlib.ExitStack() as stack:
        copies = stack.enter_context(workspace())
        existing = None
        with contextlib.suppress(DataError):  # raised for a damaged or unfinished store
            existing = find_store(url or out)
        if existing is None:
            _refuse_existing(out, url)
            stack.enter_context(job)
        progress("Opening the source")
        sources = spec.open(copies)
        texts = [[source.info.name, source.facts] for source in sources]
        identity = digest_json({**settings, "texts": texts})
        can_repeat = all(source.facts is not None for source in sources)
        if existing is not None:
            is_same = can_repeat and existing.facts.get("job") == identity
            yield _keep(existing, is_same, job, url)  # the caller stops here
        job.require({"texts": texts})
        if not can_repeat:  # the texts may differ from those of an earlier call
            job.clear()
        yield None
        corpus = split_sources(sources, spec, root, progress)
        require_splits(corpus)
        yield None
        conditions = find_conditions(corpus, spec.config)
        encoded = encode_corpus(corpus, encoding, conditions, root, progress)
        yield None
        index = None
        if encoding.novelty != "none":
            tokenizer = encoding.cls.load(encoded.folder / "tokenizer")
            index = index_corpus(encoded, corpus.fingerprint, tokenizer, encoding, root, progress)
        progress("Finishing the store")
        more = _store_facts(spec, encoding, corpus) | {"job": identity}
        _finish(encoded, index, {**facts, **more})
        yield _publish(encoded.folder, job, url)


def _settings(spec: CorpusSpec, encoding: Encoding) -> dict[str, Any]:
    """Return what a store depends on, besides the texts, as JSON values by name."""
    reading = {
        **spec.config.facts(),
        "max_text_characters": spec.config.max_text_characters,
        "validation_split": spec.validation_split,
    }
    return {
        "tokenizer": encoding.facts(),
        "novelty": [encoding.novelty, encoding.megabytes],
        "versions": [__version__, unicodedata.unidata_version],
        "reading": reading,
        **to_dict(spec.filters),
    }


def _store_facts(spec: CorpusSpec, encoding: Encoding, corpus: Corpus) -> dict[str, Any]:
    """Return the facts of ``store.json`` on how the corpus was read and made."""
    return {
        **to_dict(spec.filters),
        "reading": spec.config.facts(),
        "corpus": corpus.to_json(),
        "novelty": {"form": encoding.novelty, "megabytes": encoding.megabytes},
    }


def _keep(store: StoreFolder, is_same: bool, job: Job, url: str | None) -> StoreFolder:
    """Return a store that exists already. Raise if it is not the same as the one to make."""
    if not is_same:
        _refuse_existing(job.out, url)
    # the folder of the job may be left over from a killed process
    with contextlib.suppress(CheckpointError, OSError), job:
        job.clear()
    _logger.warning("%s is complete already: the same job has made it.", store.name)
    return store


def _finish(encoded: StoreFolder, index: Path | None, facts: Mapping[str, Any]) -> None:
    """Add the novelty index and ``store.json`` to an encoded corpus."""
    folder = encoded.folder
    if index is not None:
        with atomic_file(folder / NOVELTY_FILE) as new:
            shutil.copyfile(index, new)
    names = sorted(sizes_of(folder).keys() - {STAGE_FILE, STORE_FILE})
    # leave out the hidden file that a process killed while writing store.json has left
    names = [name for name in names if not name.startswith(".")]
    content = {
        **encoded.content,
        "facts": {**facts, **encoded.facts},
        "files": {name: digest_file(folder / name) for name in names},
    }
    with atomic_file(folder / STORE_FILE) as new:
        new.write_bytes(json.dumps(content, indent=1).encode())


def _publish(folder: Path, job: Job, url: str | None) -> StoreFolder:
    """Move a finished store to its folder, or copy it to a URL with ``store.json`` last; return the
    store.

    Raises:
        DataError: The URL cannot be written.
    """
    if url is None:
        job.finish(folder.relative_to(job.folder).as_posix())
        (job.out / STAGE_FILE).unlink()
        return StoreFolder.read(job.out)
    store = _at_url(url, (folder / STORE_FILE).read_bytes())
    with remote(url, "written") as (system, path):
        for name in (*store.content["files"], STORE_FILE):
            system.makedirs(f"{path}/{name}".rpartition("/")[0], exist_ok=True)
            system.put_file(str(folder / name), f"{path}/{name}")
    if not store.folder.exists():  # keep the local files, so that they need not be fetched
        publish(folder, store.folder)
    job.clear()
    return store
