"""What a command says when the operating system refuses a step that no part of it has expected, such as on a full disk."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import reviewgen
from reviewgen.cli.streams import describe_os_error
from tests.support.fakes import TEXTS

STDOUT = "standard output"
FREE = "free some space in the temporary folder and in the cache (REVIEWGEN_CACHE, NUMBA_CACHE_DIR)."


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            f"No space left on device: {FREE}",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            f"Disk quota exceeded: {FREE}",
        ),
        (OSError(errno.ENOSPC, "No space left", "/a/b"), "/a/b cannot be read or written: No space left."),
        (OSError(errno.EACCES, "Permission denied", b"/a/\xff"), "/a/\udcff cannot be read or written: Permission denied."),
        (
            OSError(errno.ENOSPC, "No space left", STDOUT),
            "Standard output cannot be written: No space left. Redirect it to a file or a terminal.",
        ),
        (
            OSError(errno.EBADF, "Bad file descriptor", STDOUT),
            "Standard output cannot be written: it is closed. Redirect it to a file or a terminal.",
        ),
        (OSError(errno.EIO, "Input/output error"), "The operating system refused a step: Input/output error."),
        (OSError("a library's words"), "The operating system refused a step: a library's words."),
        (OSError(), "The operating system refused a step: OSError."),
    ],
)
def test_an_unexpected_error_of_the_system_says_what_to_do(error, sentence):
    assert describe_os_error(error) == sentence


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare of util-linux is not installed")
def test_compiled_code_that_has_no_room_on_a_real_disk(tmp_path: Path) -> None:
    """The file system of the cache has 32 kB, in a mount namespace of its own."""
    (cache := tmp_path / "cache").mkdir()
    tried = f"mount -t tmpfs -o size=32k tmpfs {cache}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", tried], capture_output=True).returncode:
        pytest.skip("this system does not permit mounts in a namespace")
    reviewgen.train("ngram-char", TEXTS, out=tmp_path / "m", progress=False)
    command = f"{tried} && exec {sys.executable} -m reviewgen generate {tmp_path / 'm'} --max-new-tokens 5"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: No room for compiled code: No space left on device. Free some space, or name another folder in NUMBA_CACHE_DIR.\n"
    )
