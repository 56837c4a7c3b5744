"""The implementation of ``push_to_hub``: check a trained model, scan it for personal data and
copied text, write its card, and upload everything as one commit.

All problems are raised as one error: problems with the name of the repository, the license, the
metadata of the card or another option, and the findings of the scan. What is scanned and published
is a copy of the saved folder. The copy also has the card and, if matplotlib is installed, a plot of
the learning curve. The training record of the copy has no paths of this machine.

``push_space`` publishes the model's page as a static Space with the same name. The Space has the
page, ``index.html``, and a ``README.md`` with the settings of the Space.
"""

import contextlib
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reviewgen.config.bounded import MAX_RECORD, dump_json, read_json, read_text
from reviewgen.config.names import HubSource
from reviewgen.errors import (
    BundleError,
    ConfigError,
    HubError,
    ReviewgenError,
    quoted,
    storage_errors,
)
from reviewgen.hub.card import (
    card_text,
    check_metadata,
    eval_results,
    hub_address,
    is_written_by_hand,
    metadata_of,
    odd_text,
    parse_card,
    without_paths,
)
from reviewgen.hub.download import check_token, megabytes, parse_repository, plain_errors
from reviewgen.hub.keywords import PushOptions
from reviewgen.hub.scan import check_kinds, generate_texts, refuse, scan
from reviewgen.rates import describe_copies, describe_membership
from reviewgen.saving import layout
from reviewgen.saving.layout import Bundle
from reviewgen.saving.read import read_bundle
from reviewgen.saving.write import copy_bundle, write_bundle
from reviewgen.storage import temporary_folder
from reviewgen.web.charts import refuse_chart, save_chart
from reviewgen.web.curves import find_curves, learning_chart

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_FAILED = "could not be published"
_MAX_LENGTH = 2_000  # maximum characters of a message with all problems
_PAGE = "index.html"  # the page of a Space
# the example files that the Hub puts into a new static Space
_SPACE_EXAMPLE = {".gitattributes", layout.CARD, _PAGE, "style.css"}
# The title of the only commit of a new Space. A duplicated Space or a squashed history has another
# title.
_FIRST_COMMIT = "initial commit"
_TAG = "reviewgen"
_logger = logging.getLogger("reviewgen")


@dataclass(frozen=True)
class Remote:
    """The state of a repository before publishing.

    Attributes:
        commit: The newest commit of the branch; None if the branch or the repository does not
            exist.
        card: The text of README.md in the branch, or in main if the branch does not exist.
        is_private: Whether the repository is private; None if there is no repository.
        names: The names of all files in the repository.
        files: The names of those files that are part of a saved model, or are the plot of its
            learning curve or its results.
    """

    commit: str | None = None
    card: str = ""
    is_private: bool | None = None
    names: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()


def publish(
    bundle: Bundle, repo_id: str, options: PushOptions, make_model: Callable[[Bundle], Any]
) -> str:
    """Check and scan a model, and publish it as one commit, unless this is a dry run.

    Args:
        bundle: The model.
        repo_id, options: See ``ReviewModel.push_to_hub``.
        make_model: Makes a ReviewModel of a bundle; called with the copy that is published.
    """
    push = _Push(options)
    push.check_arguments(bundle, repo_id)
    with storage_errors("a copy of the model"), temporary_folder() as scratch:
        folder = scratch / (push.target.repo_id.partition("/")[2] if push.target else "model")
        _copy(bundle, folder, options.get("dtype"))
        own = {file.name for file in folder.iterdir()}
        # the card, the plot and the results are made below
        written = own | {layout.CARD, layout.CURVE, layout.RESULTS}
        names = push.attempt(_selected_files, written, options)
        # Accept changes, since paths were removed from training.json. ``_upload`` writes the new
        # manifest.
        copy = read_bundle(folder, accept_changes=True)
        texts, details = generate_texts(make_model(copy))
        # raises if this or an earlier check has failed
        push.scan(copy, [*texts, *(text for _, text in details["samples"])])
        card = push.card
        if card is None:
            details |= {"megabytes": megabytes(folder), "curve": _plot_curve(copy, folder)}
            card = card_text(copy, source=str(push.target), **details, **push.metadata)
        (folder / layout.CARD).write_text(card, encoding="utf-8", errors="backslashreplace")
        if options.get("dry_run"):
            selected = sorted(names & {file.name for file in folder.iterdir()})
            _logger.info("A dry run publishes nothing; the files are %s.", ", ".join(selected))
            return hub_address(push.target.repo_id)
        message = options.get("commit_message") or f"Publish {copy.preset} with reviewgen"
        results = eval_results(copy.training)
        return _upload(folder, names, results, push.target, push.before, message, options)


class _Push:
    """The checks before a push. All checks are made before a single error names all problems.

    Attributes:
        options: The options of the push.
        problems: The errors of the checks that have failed.
        target: The repository; None if the name of the repository is not valid.
        before: The state of the repository.
        metadata: The metadata of the card.
        allowed: The kinds of findings that do not block publishing.
        copy_limit: The maximum share of copied 20-token windows; None if an option is not valid.
        card: The edited card to keep; None if a new card is to be written.
        findings: The findings that need no generated texts, by kind.
    """

    def __init__(self, options: PushOptions) -> None:
        self.options = options
        self.problems: list[ReviewgenError] = []

    def attempt(self, check: Callable[..., Any], *arguments: Any) -> Any:
        """Call a check and return its result. If the check fails, record the error and return
        None.
        """
        try:
            return check(*arguments)
        except ReviewgenError as error:
            self.problems.append(error)
            return None

    def check_arguments(self, bundle: Bundle, repo_id: str) -> None:
        """Make the checks that need no generated texts, set the attributes, and log the problems
        and findings.
        """
        options = self.options
        license = options.get("license")
        self.target = self.attempt(parse_repository, repo_id, options.get("revision"))
        metadata = self.attempt(check_metadata, license, options.get("model_card_kwargs"))
        self.metadata = metadata or {"license": license}
        self.allowed = self.attempt(check_kinds, options.get("allow", ())) or frozenset()
        before = None
        if self.target is not None:
            before = self.attempt(inspect_repository, self.target, options.get("token"))
        self.before = before or Remote()
        self.copy_limit = self.attempt(_check_options, self.target, self.before, options)
        self.card = self.attempt(_existing_card, bundle, self.before, self.metadata, self.target)
        self.findings = self.attempt(_find_without_texts, bundle, self.card, self.metadata) or {}
        if not self.problems:
            self.attempt(_validate, self.card, self.metadata, self.target)
        blocking = [text for kind, text in self.findings.items() if kind not in self.allowed]
        if known := [*map(str, self.problems), *(f"{text}." for text in blocking)]:
            _logger.warning(
                "%s Generated texts are still scanned, so that all problems are listed.",
                " ".join(known),
            )

    def scan(self, bundle: Bundle, texts: list[str]) -> None:
        """Scan the generated texts, and the vocabulary of the copy of the model that is published.

        Raises:
            ReviewgenError: This check or an earlier check has failed.
        """
        # If the limit is not valid, which is a recorded problem, no share of copies exceeds it.
        copy_limit = 1.0 if self.copy_limit is None else self.copy_limit
        findings = self.findings | scan(bundle, texts, copy_limit)
        self.attempt(refuse, findings, self.allowed)
        if self.problems:
            error = type(self.problems[0])(" ".join(map(str, self.problems)))
            error._max_length = _MAX_LENGTH
            raise error
        _logger.info(
            "Scanned %d samples and %d pieces of the vocabulary: %s; copy rate %s, membership %s."
            " This is a check, not a guarantee.",
            len(texts),
            bundle.tokenizer.vocab_size,
            "; ".join(f"{text} (allowed)" for text in findings.values()) or "no personal data",
            describe_copies(bundle.training.get("novelty") or {}) or "not measured",
            describe_membership(bundle.training.get("novelty") or {}) or "not measured",
        )


def make_card(
    bundle: Bundle,
    make_model: Callable[[Bundle], Any],
    source: str | None = None,
    **metadata: Any,
) -> str:
    """Return a new card of a model, with texts that the model generates at three temperatures. The
    arguments are those of ``card_text``.

    Raises:
        ConfigError: A value of the metadata is not text; raised before any text is generated.
    """
    check_metadata(None, metadata)
    folder = bundle.folder
    _, generated = generate_texts(make_model(bundle))
    size = megabytes(folder) if folder is not None and folder.is_dir() else None
    return card_text(bundle, source=source, megabytes=size, **generated, **metadata)


def inspect_repository(
    target: HubSource, token: str | bool | None = None, kind: str = "model"
) -> Remote:
    """Return the current state of a repository. ``kind`` is "model" or "space".

    Raises:
        HubError: The Hub was not reached, or refused the request.
        ConfigError: The token is empty or has spaces in it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    check_token(token)
    api = HfApi(token=token)
    with plain_errors(target, _FAILED):
        try:
            info: Any = api.repo_info(target.repo_id, repo_type=kind, revision=target.revision)
            has_branch = True
        except RevisionNotFoundError:
            info = api.repo_info(target.repo_id, repo_type=kind)
            has_branch = False
        except RepositoryNotFoundError:
            return Remote()
        wanted = [layout.CARD, layout.CONFIG]
        folder = Path(
            api.snapshot_download(
                target.repo_id, repo_type=kind, revision=info.sha, allow_patterns=wanted
            )
        )
    names = frozenset(file.rfilename for file in info.siblings or ())  # of all files
    files = layout.files_of({})  # the files that every saved model may have
    if layout.CONFIG in names:
        with contextlib.suppress(ValueError, BundleError):
            files = layout.files_of(read_json(folder / layout.CONFIG))
    card = ""
    if layout.CARD in names:
        card = read_text(folder / layout.CARD, encoding="utf-8-sig", errors="replace")
    return Remote(
        commit=info.sha if has_branch else None,
        card=card,
        is_private=info.private,
        names=names,
        files=names & (files | {layout.CURVE, layout.RESULTS}),
    )


def _check_options(target: HubSource | None, before: Remote, options: PushOptions) -> float:
    """Check the options of a push, and return ``copy_limit``: the maximum share of copied 20-token
    windows.

    Raises:
        ConfigError: An option is out of range, or contradicts another option.
        HubError: A private repository is requested, but the existing repository is public.
    """
    copy_limit = options.get("copy_limit", 0.5)
    if not isinstance(copy_limit, int | float) or not 0 <= copy_limit <= 1:
        raise ConfigError(f"copy_limit must be a share from 0 to 1; got {quoted(copy_limit)}.")
    if options.get("create_pr") and target is not None and target.revision is not None:
        raise ConfigError(
            "A pull request is always opened against main: leave out"
            f" revision={quoted(target.revision)}, or create_pr."
        )
    for name in ("allow_patterns", "ignore_patterns", "delete_patterns"):
        if problem := odd_text(name, options.get(name), "*.json"):
            raise ConfigError(problem)
    if options.get("private") and before.is_private is False and target is not None:
        raise HubError(
            f"The repository {target.repo_id} exists and is public: make it private on its page, or"
            " choose another name."
        )
    return copy_limit


def _existing_card(
    bundle: Bundle, before: Remote, metadata: dict[str, Any], target: HubSource | None
) -> str | None:
    """Return the card that a user wrote or edited, in the repository or in the model's folder.
    Return None if there is no such card, so that a new card must be written.

    If an existing card was generated, its license, language, datasets, tags and space are added to
    ``metadata``, except those for which the user gave a value.

    Raises:
        ConfigError: The card names another license, or cannot be parsed.
    """
    repository = None if target is None else target.repo_id
    for where, card in ((f"the repository {repository}", before.card), ("the folder", bundle.card)):
        if not card:
            continue
        known = metadata_of(card)
        license = metadata.get("license")
        if known.get("space") != repository:
            known.pop("space", None)  # the card of a copied model has the original's Space
        if not is_written_by_hand(card):
            metadata |= {key: value for key, value in known.items() if metadata.get(key) is None}
            continue
        if license is not None and known.get("license", license) not in (license, [license]):
            raise ConfigError(
                f"The card of {where} was edited by hand, so it is kept; it names the license"
                f" {quoted(known['license'])}, not {quoted(license)}: change one of them."
            )
        lost = sorted(metadata.keys() - known.keys() - {"license"})
        without = f", without {', '.join(lost)}" if lost else ""
        _logger.info("The card of %s is kept as it is%s.", where, without)
        if license is None or "license" in known:
            return card
        # the card names no license: add the one that the user gave
        parsed = parse_card(card)
        parsed.data["license"] = license
        return str(parsed)
    return None


def _find_without_texts(
    bundle: Bundle, card: str | None, metadata: Mapping[str, Any]
) -> dict[str, str]:
    """Return the findings that need no generated texts, by kind."""
    findings = {}
    published = metadata_of(card) if card else metadata
    if not published.get("license"):
        findings["license"] = "no license is given, so nobody may use the model"
    if bundle.index is not None and bundle.index.form == "exact":
        findings["text"] = f"{layout.NOVELTY} contains the whole training text"
    return findings


def _validate(card: str | None, metadata: Mapping[str, Any], target: HubSource) -> None:
    """Let the Hub validate the license, the language and the other metadata of a card: of the
    edited card if there is one, else of a new card.

    Raises:
        HubError: The Hub rejects the metadata.
    """
    from huggingface_hub import ModelCardData

    fields = {key: value for key, value in metadata.items() if key != "space"}
    new = f"---\n{ModelCardData(library_name='reviewgen', **fields).to_yaml()}\n---\n"
    with plain_errors(target, _FAILED):
        parse_card(card or new).validate()


def _copy(bundle: Bundle, folder: Path, dtype: str | None) -> None:
    """Write a copy of a model whose training record has no paths of this machine. If the model has
    not changed since it was loaded, the other files are copied byte for byte.
    """
    if bundle.folder is not None and not bundle.weights.is_exposed and dtype is None:
        copy_bundle(bundle, folder)
    else:
        write_bundle(bundle, folder, dtype=dtype or "float32")
    file = folder / layout.TRAINING
    file.write_bytes(dump_json(without_paths(read_json(file, MAX_RECORD)), MAX_RECORD))


def _selected_files(names: set[str], options: PushOptions) -> set[str]:
    """Return the names of the files that the patterns select for the upload.

    Raises:
        ConfigError: The patterns leave out a file that a model needs.
    """
    allowed = options.get("allow_patterns")
    ignored = options.get("ignore_patterns")
    selected = _match(names, allow_patterns=allowed, ignore_patterns=ignored)
    optional = layout.OPTIONAL_FILES | {layout.CURVE, layout.RESULTS}
    if missing := sorted(names - selected - optional):
        raise ConfigError(
            f"The patterns leave out {', '.join(missing)}: all files of a model must be published"
            " together. Change them."
        )
    return selected


def _match(names: Collection[str], **patterns: Any) -> set[str]:
    """Return those of the names that match the patterns, as the Hub's client matches them."""
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    return set(filter_repo_objects(names, **patterns))


def _plot_curve(bundle: Bundle, folder: Path) -> str | None:
    """Plot the learning curve into the folder, and return the name of the file. Return None if
    there is no curve, or if matplotlib is not installed.
    """
    file = folder / layout.CURVE
    try:
        refuse_chart(file)  # raises if matplotlib is not installed
        save_chart(learning_chart([find_curves(bundle.training, folder.name)]), file)
    except (BundleError, ConfigError) as error:  # BundleError: a blend has no curve
        _logger.info("The card has no plot of the learning curve: %s", error)
        return None
    return layout.CURVE


def _upload(
    folder: Path,
    names: set[str],
    results: bytes | None,
    target: HubSource,
    before: Remote,
    message: str,
    options: PushOptions,
) -> str:
    """Upload the named files of a folder and the results for ``.eval_results``, and return the URL
    of the commit or of the pull request.

    The repository and the branch are created if they do not exist. Files of an earlier model in the
    repository are deleted.

    Raises:
        HubError: See ``_commit``.
    """
    from huggingface_hub import HfApi

    added: dict[str, Path | bytes] = {
        file.name: file for file in folder.iterdir() if file.name in names
    }
    # the manifest lists only those files of the model that are published
    if layout.MANIFEST in added:
        listed = added.keys() & layout.files_of(read_json(folder / layout.CONFIG))
        layout.write_manifest(folder, layout.digest_files(folder, listed))
    if results is not None and layout.RESULTS in names:
        added[layout.RESULTS] = results
    patterns = options.get("delete_patterns") or []
    deleted = _match(before.names - {".gitattributes"}, allow_patterns=patterns)
    deleted |= before.files - {layout.CARD}
    api = HfApi(token=options.get("token"))
    revision = target.revision
    create_pr = options.get("create_pr", False)
    with plain_errors(target, _FAILED):
        api.create_repo(target.repo_id, private=options.get("private"), exist_ok=True)
        if revision is not None and before.commit is None and not revision.startswith("refs/"):
            api.create_branch(target.repo_id, branch=revision, exist_ok=True)
    return _commit(
        api,
        target,
        added,
        deleted,
        message,
        revision=revision,
        create_pr=create_pr,
        parent_commit=None if create_pr else before.commit,
    )


def _commit(
    api: "HfApi",
    target: HubSource,
    added: Mapping[str, Path | bytes],
    deleted: Collection[str],
    message: str,
    **options: Any,
) -> str:
    """Add and delete files of a repository, and return the URL of the commit or of the pull
    request.

    All changes are made in one commit, so the branch never has an incomplete model. When an
    interrupted upload is repeated, files that were already uploaded are not sent again. If the
    branch has a newer commit than ``parent_commit``, nothing is changed.

    Raises:
        HubError: The Hub was not reached or refused the request, or the branch has a newer commit.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[Any] = [CommitOperationAdd(name, added[name]) for name in sorted(added)]
    operations += [CommitOperationDelete(name) for name in sorted(set(deleted) - added.keys())]
    with plain_errors(target, _FAILED):
        info = api.create_commit(target.repo_id, operations, commit_message=message, **options)
    return str(info.pr_url or info.commit_url)


def inspect_space(
    target: HubSource, is_private: bool | None, token: str | bool | None = None
) -> Remote:
    """Return the state of a model's Space. If the Space has only the Hub's example files, as after
    an interrupted push, the returned card is empty, so that the Space can be overwritten.

    Args:
        target: The model's repository; the Space has the same name.
        is_private: Whether the model is private. If so, the Space must be private, too, since the
            page contains the model.
        token: The access token.

    Raises:
        HubError: The Hub was not reached, or refused the request; or the existing Space was not
            published by reviewgen; or the Space is public, and the model is private.
        ConfigError: The token is empty or has spaces in it.
    """
    from huggingface_hub import HfApi

    before = inspect_repository(target, token, "space")
    if is_private and before.is_private is False:
        raise HubError(
            f"The Space {target.repo_id} is public and the model is private: make the Space"
            " private, or delete it."
        )
    settings = parse_card(before.card).data
    is_ours = settings.get("sdk") == "static" and _TAG in (settings.get("tags") or [])
    if before.commit is None or is_ours:
        return before
    if before.names <= _SPACE_EXAMPLE:
        with plain_errors(target, _FAILED):
            commits = HfApi(token=token).list_repo_commits(target.repo_id, repo_type="space")
        if [commit.title for commit in commits] == [_FIRST_COMMIT]:
            return replace(before, card="")
    raise HubError(
        f"The Space {target.repo_id} exists and was not published by reviewgen: rename or delete"
        " it, or choose another name."
    )


def push_space(
    page: str,
    target: HubSource,
    license: str | None,
    is_private: bool | None,
    message: str,
    token: str | bool | None = None,
) -> str:
    """Publish a page as the Space of a model, in one commit, and return the URL of the Space.

    The Space is created if it does not exist. In an existing Space only the page is replaced, so
    that users may edit its README.md.

    Args:
        page: The page, as HTML.
        target: The model's repository; the Space has the same name.
        license: The license that the README.md of a new Space gets.
        is_private: Whether the model is private. A new Space has the same visibility.
        message: The title of the commit.
        token: The access token.

    Raises:
        HubError: See ``inspect_space``.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with plain_errors(target, _FAILED):
        api.create_repo(
            target.repo_id, repo_type="space", space_sdk="static", private=is_private, exist_ok=True
        )
    before = inspect_space(target, is_private, token)
    files = {_PAGE: page.encode("utf-8")}
    deleted = frozenset[str]()
    if not before.card:
        files[layout.CARD] = _space_readme(target.repo_id, license).encode("utf-8")
        deleted = before.names - {".gitattributes"}  # the Hub's example files
    _commit(api, target, files, deleted, message, repo_type="space", parent_commit=before.commit)
    return hub_address(f"spaces/{target.repo_id}")


def _space_readme(model: str, license: str | None) -> str:
    """Return the README.md of a new Space, whose front matter has the settings of the Space."""
    from huggingface_hub import SpaceCard, SpaceCardData

    title = model.partition("/")[2]
    data = SpaceCardData(
        title=title,
        license=license,
        models=[model],
        tags=[_TAG, "synthetic"],
        sdk="static",
        app_file=_PAGE,
    )
    template = str(Path(__file__).with_name("space.md.j2"))
    return str(SpaceCard.from_template(data, template, model=model, address=hub_address(model)))
