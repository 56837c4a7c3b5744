"""Which names a server answers to: a page whose own name leads to this machine (DNS rebinding) gets nothing from it."""

import hashlib

import pytest
from starlette.testclient import TestClient

from reviewgen.errors import ConfigError
from reviewgen.serving.app import create_app
from reviewgen.serving.hosts import accepted_hosts
from reviewgen.serving.keys import ApiKeys

OWN = ["localhost", "localhost:8000", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8000", "127.8.9.1", "[::1]", "[::1]:8000"]
FOREIGN = [
    *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:localhost", ""),
    *("10.0.0.5", "0.0.0.0:8000", "[::]:8000", "[::1].evil.example", "[", "a@127.0.0.1", "evil.example:127.0.0.1", "\xff"),
]


def client(hosts, **options):
    return TestClient(create_app({}, hosts=hosts, **options))


def get(app, host, path="/v1/models", **headers):
    return app.get(
        path, headers=[(b"host", host.encode("latin-1")), *((name.encode(), value) for name, value in headers.items())]
    )


@pytest.mark.parametrize("host", OWN)
def test_names_of_this_machine_are_answered(host):
    assert get(client(accepted_hosts("127.0.0.1", "127.0.0.1")), host).status_code == 200


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("path", ["/", "/v1/models", "/health", "/docs", "/static/page.css"])
def test_other_names_get_one_sentence(host, path):
    answer = get(client(accepted_hosts("127.0.0.1", "127.0.0.1"), page=True), host, path)
    error = answer.json()["error"]
    assert answer.status_code == 421 and error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == "unknown_host" and "--allowed-host" in error["message"]


def test_a_long_name_is_shortened_and_no_origin_or_key_helps():
    app = client(frozenset(), cors_origins=["http://evil.example"], keys=ApiKeys([hashlib.sha256(b"key").digest()]))
    answer = get(app, "e" * 5000, origin=b"http://evil.example", authorization=b"Bearer key")
    assert answer.status_code == 421 and len(answer.text) < 600 and "access-control-allow-origin" not in answer.headers
    assert get(app, "localhost", origin=b"http://evil.example", authorization=b"Bearer key").status_code == 200


@pytest.mark.parametrize(
    ("host", "address", "more", "accepted", "refused"),
    [
        ("reviews.lan", "127.0.1.1", (), ["reviews.lan:80", "Reviews.LAN", "localhost"], ["other.lan"]),
        ("::1", "::1", (), ["[::1]:8000"], ["[::2]"]),
        ("127.0.0.1", "127.0.0.1", ("Example.org",), ["example.org", "EXAMPLE.org:80", "127.0.0.1"], ["www.example.org"]),
        ("127.0.0.1", "127.0.0.1", ("*",), FOREIGN[:2], []),
        ("0.0.0.0", "0.0.0.0", (), FOREIGN[:2], []),
        ("0.0.0.0", "0.0.0.0", ("example.org",), ["example.org", "localhost"], ["evil.example", "10.0.0.5"]),
    ],
)
def test_what_the_options_accept(host, address, more, accepted, refused):
    app = client(accepted_hosts(host, address, more))
    assert [get(app, each).status_code for each in accepted] == [200] * len(accepted)
    assert [get(app, each).status_code for each in refused] == [421] * len(refused)


@pytest.mark.parametrize("name", ["", "http://example.org", "example.org:80", "example.org/", "*.example.org", "[::1]", "a b"])
def test_what_is_not_the_name_of_a_host(name):
    with pytest.raises(ConfigError, match="is not the name of a host: give one without a port"):
        accepted_hosts("127.0.0.1", "127.0.0.1", [name])
