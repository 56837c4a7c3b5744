"""The keywords for reading and cleaning a source of texts, defined once for every function that takes them."""

from collections.abc import Collection, Mapping
from types import NoneType
from typing import Any, TypedDict, get_type_hints

from reviewgen.config.settings import check_value, options_of
from reviewgen.errors import ConfigError, did_you_mean, quoted


class ReadingOptions(TypedDict, total=False):
    """How a source of texts is read and cleaned.

    Cleaning that is not given, or None, is that of the training where a trained model is measured; otherwise texts are cleaned,
    but neither lower-cased nor stripped of markdown, and mojibake is not mended.

    Attributes:
        text_column: The column that holds the text, "a.b" for the field b of the column a; guessed if not given.
        documents: How a txt file is cut into texts: "line" (default), "paragraph" (blank lines between), "sentence" or "file"; a
            single file is then one long text, of which blocks are held out.
        lowercase: Whether to lower-case the texts.
        strip_markdown: Whether to keep only the words of markdown.
        fix_encoding: Whether to mend texts that were decoded wrongly, as "cafÃ©"; needs ftfy.
        clean: False takes the texts exactly as they are.
        sql: The query of a SQLite file, as in "select text, stars from reviews"; by default its only table is read.
        subset: The subset (configuration) of a dataset of the Hub.
        split: The split of a dataset that is read; by default train, or the first one.
        max_text_characters: The maximum number of characters of a text (default 10,000,000): a longer one is an error, before
            it is in memory. A txt file that is one text has no limit.
    """

    text_column: str | None
    documents: str
    lowercase: bool | None
    strip_markdown: bool | None
    fix_encoding: bool | None
    clean: bool | None
    sql: str | None
    subset: str | None
    split: str | None
    max_text_characters: int


class EvaluateOptions(ReadingOptions, total=False):
    """``ReadingOptions``, and which part of the source is read.

    Attributes:
        split: "all" (default); a split that a dataset has; or of any other source a part of its hash split: "train",
            "validation" or "test".
    """

    split: str | None


def refuse_unknown_options(
    options: Mapping[str, Any], known: type, function: str, *, others: Collection[str] = (), hidden: Collection[str] = ()
) -> None:
    """Raise if a keyword is not one of a TypedDict's, or if its value is neither True, False nor a string and has to be.

    Args:
        options: The keywords.
        known: The TypedDict.
        function: The public function that was called, for the message.
        others: The other arguments of that function, which the message may suggest.
        hidden: Keywords that the message does not suggest.

    Raises:
        ConfigError: A keyword is unknown, of which the closest known one is suggested, or has a value of another type.
    """
    names = [*others, *(name for name in known.__annotations__ if name not in hidden)]
    for name in options:
        if name not in known.__annotations__:
            raise ConfigError(f"{quoted(name)} is not an argument of {function}. {did_you_mean(name, names)}")
    for name, hint in get_type_hints(known).items():
        if name in options and set(options_of(hint)) <= {bool, str, NoneType}:
            check_value(name, options[name], hint)
