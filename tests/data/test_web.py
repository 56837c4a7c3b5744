"""Reviews at an address of the web: read from real servers, with and without TLS, or refused in one
sentence.
"""

import datetime
import gzip
import ipaddress
import os
import ssl
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import packages_distributions
from pathlib import Path

import aiohttp
import fsspec
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from reviewgen.errors import DataError
from tests.audit.walk import walk
from tests.support.texts import refusal, texts_of

pytestmark = pytest.mark.server
TEXTS = [f"review number {number}" for number in range(500)]
CSV = "\n".join(["text", *TEXTS, ""]).encode()
PROJECT = Path(__file__).parents[2] / "pyproject.toml"


class Handler(BaseHTTPRequestHandler):
    """Answers a GET request by its path."""

    def do_GET(self) -> None:
        path, _, _ = self.path.partition("?")
        if path == "/moved.csv":
            self.send_response(302)
            self.send_header("Location", "/reviews.csv")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path == "/reviews.csv":
            self.answer(CSV, len(CSV))
        elif path == "/reviews.csv.gz":
            content = gzip.compress(CSV)
            self.answer(content, len(content))
        elif path == "/cut.csv":
            self.answer(CSV[: len(CSV) // 2], len(CSV))
            self.close_connection = True
        elif path == "/stalled.csv":
            self.answer(CSV[:1000], len(CSV))
            self.server.is_over.wait(60)
        elif path == "/slow.csv":
            self.answer(CSV[:1000], len(CSV))
            for start in range(1000, len(CSV), 3000):
                self.server.is_over.wait(0.4)
                self.wfile.write(CSV[start : start + 3000])
        elif path == "/locked.csv" and self.headers["X-Key"] == "secret":
            self.answer(CSV, len(CSV))
        elif path.startswith("/app/"):
            self.answer(
                CSV if path == "/app/reviews.csv" else b"<html>The page of the app</html>", None
            )
        else:
            self.send_error(404)

    def answer(self, content: bytes, length: int | None) -> None:
        """Send an answer with a header that declares its length, or without one."""
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: object) -> None:
        """Print nothing."""


class Server(ThreadingHTTPServer):
    """A server whose slow answers end with it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.is_over = threading.Event()


def serve(server: Server, scheme: str) -> Iterator[str]:
    """Run a server in a thread; yield its address."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"{scheme}://127.0.0.1:{server.server_port}"
    server.is_over.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def web(monkeypatch) -> Iterator[str]:
    """The address of a web server."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # its client keeps the time limits that it was made with
    fsspec.get_filesystem_class("http").clear_instance_cache()
    yield from serve(Server(), "http")


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for 127.0.0.1 and its key; return their files."""
    x509 = pytest.importorskip(
        "cryptography.x509", reason="needs cryptography: pip install 'reviewgen[test-s3]'"
    )
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a server of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now - day, now + day
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    certificate_file = folder / "certificate.pem"
    certificate_file.write_bytes(
        builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    key_file = folder / "key.pem"
    form = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key_file.write_bytes(key.private_bytes(*form))
    return certificate_file, key_file


def other_modules() -> set[str]:
    """Return the installed modules that a plain install of this project, without extras, does not
    have.
    """
    required = map(
        Requirement, tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    )
    plain = {"reviewgen"}
    for requirement in required:
        plain |= walk(requirement.name, frozenset(requirement.extras)).found.keys()
    modules = packages_distributions().items()
    return {
        module for module, owners in modules if plain.isdisjoint(map(canonicalize_name, owners))
    }


PLAIN_INSTALL = """if True:
    import sys
    from importlib.machinery import PathFinder
    class PlainInstall(PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            is_extra = name.partition(".")[0] in MODULES
            return None if is_extra else super().find_spec(name, path, target)
    sys.meta_path[sys.meta_path.index(PathFinder)] = PlainInstall
    import reviewgen
    for url in sys.argv[1:]:
        try:
            print(len(reviewgen.corpus(url)))
        except reviewgen.errors.DataError as error:
            print(error)
"""


def run_plain_install(urls: list[str], **environment: str) -> list[str]:
    """Read corpora in a process that can import only what a plain install has; return what it
    prints of each.
    """
    script = PLAIN_INSTALL.replace("MODULES", repr(other_modules()))
    words = [sys.executable, "-c", script, *urls]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1", **environment}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert (
        done.returncode == 0 and "Traceback" not in done.stderr and "nclosed" not in done.stderr
    ), done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_plain_install_reads_files_over_http(web):
    assert run_plain_install([f"{web}/reviews.csv", f"{web}/reviews.csv.gz"]) == ["500", "500"]


@pytest.mark.slow
def test_a_plain_install_reads_files_over_tls(tmp_path):
    certificate, key = write_certificate(tmp_path)
    server = Server()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    for url in serve(server, "https"):
        urls = [f"{url}/reviews.csv", f"{url}/reviews.csv.gz"]
        assert run_plain_install(urls, SSL_CERT_FILE=str(certificate)) == ["500", "500"]
        message = refusal(urls[0])  # this process does not trust the certificate
        assert (
            message.startswith(f"{url}/reviews.csv cannot be read")
            and "CERTIFICATE_VERIFY_FAILED" in message
        )


@pytest.mark.parametrize(
    "path", ["reviews.csv", "reviews.csv.gz", "moved.csv", "moved.csv?version=2", "app/reviews.csv"]
)
def test_a_file_is_read_over_http(web, path):
    assert texts_of(f"{web}/{path}") == TEXTS


def test_a_missing_file_is_said(web):
    assert refusal(f"{web}/none.csv") == f"There is no file {web}/none.csv. Check the address."


def test_a_truncated_answer_is_refused(web):
    assert refusal(f"{web}/cut.csv").startswith(
        f"{web}/cut.csv cannot be read (Response payload is not completed"
    )


def shorten_waits(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Divide the time limits of the HTTP client by a factor."""
    limits_of = aiohttp.ClientTimeout

    def shortened(**limits: float | None) -> aiohttp.ClientTimeout:
        return limits_of(**{name: seconds and seconds / factor for name, seconds in limits.items()})

    monkeypatch.setattr(aiohttp, "ClientTimeout", shortened)


def test_a_stalled_server_is_abandoned(web, monkeypatch):
    shorten_waits(monkeypatch, 60)
    message = (
        f"{web}/stalled.csv cannot be read: no answer came in time. Check the address and the"
        " network."
    )
    assert refusal(f"{web}/stalled.csv") == message


def test_the_time_limit_is_of_each_wait_and_not_of_the_download(web, monkeypatch):
    shorten_waits(monkeypatch, 30)
    assert texts_of(f"{web}/slow.csv") == TEXTS


def test_the_headers_that_fsspec_is_configured_with_are_sent(web, monkeypatch):
    with pytest.raises(DataError):
        texts_of(f"{web}/locked.csv")
    monkeypatch.setitem(
        fsspec.config.conf, "http", {"client_kwargs": {"headers": {"X-Key": "secret"}}}
    )
    assert texts_of(f"{web}/locked.csv") == TEXTS
