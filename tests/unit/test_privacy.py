"""The scan for personal data before publishing: what it finds and what it ignores."""

import pytest

from reviewgen.errors import ConfigError, SourceError
from reviewgen.hub.privacy import KINDS, check_kinds, find_personal_data
from tests.support.fakes import LETTERS, TableModel, review_model, table

PERSONAL = {
    "email": ["write to ana.b+c@mail.example.org today", "ANA@EXAMPLE.COM!", "(x_y@sub.do-main.de)"],
    "url": [
        "see http://a.b/c?d=e.",
        "www.imdb.com/title/tt01",
        "on imdb.com they say",
        "HTTPS://X.Y",
        "bbc.co.uk",
        "bit.ly/x",
        "ftp://a.b",
    ],
    "phone": [
        "call 555-1234",
        "+49 (30) 1234 5678",
        "(212) 555-0199",
        "212.555.0199",
        "0301234567",
        "+1-212-555-0199",
        "020 7946 0958",
        "(555) 123 4567",
        "06 12 34 56 78",
    ],
    "handle": ["follow @ana_music", "@Ana, thanks", "(@bob99)"],
}
HARMLESS = [
    "It ran from 1990-2000, at 10/10, for $1,000,000.",
    "meet me @ 5",
    "sh@#t happens",
    "p@ssion",
    "The U.S.A. and e.g. this one...",
    "24-7 fun, 1-2-3",
    "A.I. is by Mr.Spielberg",
    "rated 8.5/10; part 2.5",
    "2001: A Space Odyssey",
    "good.The next",
    "100000 people, 12345678 stars",
    "9783161484100 is a book",
    "100-1000 times",
]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in PERSONAL.items() for text in texts])
def test_personal_data_is_found(kind: str, text: str) -> None:
    (found, *others) = [finding for finding in find_personal_data([text, "nothing"], []) if finding.kind == kind]
    assert not others
    assert "in 1 of 2 samples, as in" in found.description
    inside = [finding for finding in find_personal_data([], [text, "nothing"]) if finding.kind == kind]
    assert "1 pieces of the vocabulary" in inside[0].description


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_has_no_findings(text: str) -> None:
    assert find_personal_data([text], [text]) == []


def test_the_kinds_that_allow_accepts() -> None:
    assert check_kinds(["url", "copies"]) == {"url", "copies"}
    assert check_kinds("email") == {"email"}
    assert set(PERSONAL) < set(KINDS)
    with pytest.raises(ConfigError, match="Did you mean 'email'"):
        check_kinds(["e-mail"])


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"repo_id": "reviews"}, SourceError, "owner/name"),
        ({"repo_id": "ana/reviews@v1", "revision": "v2"}, SourceError, "has one revision"),
        ({"repo_id": "ana/reviews", "copy_limit": 3}, ConfigError, "from 0 to 1"),
        ({"repo_id": "ana/reviews", "revision": "a b"}, SourceError, "is not a revision"),
        ({"repo_id": "ana/reviews", "token": ""}, ConfigError, "Hub token is empty"),
        ({"repo_id": "ana/reviews", "model_card_kwargs": {"licence": "mit"}}, ConfigError, "Did you mean 'license'"),
        ({"repo_id": "ana/reviews", "license": "mit", "model_card_kwargs": {"license": "gpl"}}, ConfigError, "give one of them"),
    ],
)
def test_bad_arguments(arguments: dict, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        review_model(TableModel(table(LETTERS.vocab_size)), LETTERS).push_to_hub(**arguments)
