"""``reviewgen prepare``: makes the token store that ``reviewgen train --data`` starts from at once."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewgen.cli import options
from reviewgen.cli.console import echo, note, notes, print_json
from reviewgen.cli.ranks import one_voice
from reviewgen.errors import ConfigError, counted
from reviewgen.interrupts import begin

if TYPE_CHECKING:
    from reviewgen.data import StoreFolder


def prepare(
    data: Annotated[list[str], typer.Argument(help="The reviews, as for `train --data`.")],
    preset: Annotated[str, typer.Option("--preset", help="The preset whose tokenizer is trained, as in lstm-word.")],
    out: Annotated[str, typer.Option("--out", help="The folder of the store, or a URL; it must not exist.")],
    validation: Annotated[str | None, typer.Option(help="Another source of validation texts.")] = None,
    near_duplicates: options.NearDuplicates = None,
    decontaminate: options.Decontaminate = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A tokenizer setting that differs from the preset's: tokenizer.vocab_size=4000. Repeatable."),
    ] = None,
    text_column: options.TextColumn = None,
    sql: options.Sql = None,
    subset: options.Subset = None,
    split: options.Split = None,
    validation_split: options.ValidationSplit = None,
    condition: options.Condition = None,
    documents: options.Documents = "line",
    lowercase: options.Lowercase = False,
    strip_markdown: options.StripMarkdown = False,
    fix_encoding: options.FixEncoding = False,
    no_clean: options.NoClean = False,
    max_text_characters: options.MaxTextCharacters = 10_000_000,
    as_json: options.AsJson = False,
) -> None:
    """Prepare a corpus once, as a token store that trainings start from; under accelerate launch, in several processes."""
    with one_voice("The same command goes on from the finished parts."):
        store = _prepare(
            options.typed_data(data),
            preset,
            out,
            validation=None if validation is None else options.typed_data(validation),
            near_duplicates=near_duplicates,
            decontaminate=decontaminate,
            tokenizer=_tokenizer_settings(settings or []),
            text_column=text_column,
            sql=sql,
            subset=subset,
            split=split,
            validation_split=validation_split,
            documents=documents,
            lowercase=lowercase,
            strip_markdown=strip_markdown,
            fix_encoding=fix_encoding,
            clean=not no_clean,
            max_text_characters=max_text_characters,
            conditions=condition or (),
        )
    if not notes.quiet:
        _print_result(store, out, as_json=as_json)


def _prepare(data: Any, preset: str, out: str, **settings: Any) -> "StoreFolder":
    from reviewgen.runs.corpus import prepare_tokens  # torch: a second or two

    begin()
    with notes.status("Preparing ...") as status:
        return prepare_tokens(data, preset, out, lambda step: status.update(f"{step} ..."), **settings)


def _tokenizer_settings(settings: list[str]) -> dict[str, Any] | None:
    from reviewgen.config import parse_settings

    groups = parse_settings(settings)
    others = [name for name, values in groups.items() if values and name != "tokenizer"]
    if others:
        raise ConfigError(
            f"--set {others[0]}... is a setting of training: give it to reviewgen train. Here it is tokenizer.NAME."
        )
    return groups.get("tokenizer")


def _print_result(store: "StoreFolder", out: str, *, as_json: bool) -> None:
    from reviewgen.conditions import Conditions
    from reviewgen.data import SPLITS, Corpus, describe

    corpus, facts = Corpus.from_json(store.facts["corpus"]), store.facts
    conditions = Conditions.from_json(facts["conditions"]) if facts["conditions"] else Conditions()
    is_here = store.folder.exists()  # one that was complete already may be at its URL only
    tokens = {split: tokens.tokens for split, tokens in store.splits().items()} if is_here else None
    if as_json:
        print_json({"out": out, "tokens": tokens, **store.facts})
        return
    for source in filter(None, [(corpus.source, corpus.report), corpus.validation]):
        for line in describe(*source):
            note(line)
    others = [line for line in corpus.notes if line not in corpus.source.notes]  # which ``describe`` shows
    for line in (*(f"Condition {each}" for each in conditions.describe()), *others, *facts["notes"]):
        note(line)
    counts = ", ".join(f"{split} {corpus.count(split):,}" for split in SPLITS)
    echo(f"Split: {counts}. Held out: {corpus.describe_held_out()}.")
    if tokens is not None:
        echo(f"Tokens: {tokens['train']:,} to train on, in {counted(len(store.content['shards']), 'shard')}.")
    echo(f"Saved in {out}")
