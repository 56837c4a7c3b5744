"""The messages of a mailbox that Python's own module has written, and the laws."""

import itertools
import mailbox
from email.message import EmailMessage
from pathlib import Path

from reviewgen_mbox import read

from reviewgen.testing import check_reader


def test_the_messages_of_a_mailbox(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "a.mbox")
    for text, charset in (
        ("Schön war es.\n> quoted\nSehr.", "latin-1"),
        ("From here on 👍.", "utf-8"),
    ):
        message = EmailMessage()
        message["Subject"] = "A film"
        message["From"] = "me@example.org"
        message["Date"] = "Sat, 28 Nov 2026 10:00:00 +0000"
        message.set_content(text, charset=charset)
        box.add(message)
    box.close()
    found = list(itertools.chain.from_iterable(read(str(tmp_path / "a.mbox"))))
    assert [record["text"] for record in found] == ["Schön war es.\nSehr.", "From here on 👍."]
    assert {record["year"] for record in found} == {2026}
    check_reader(read, str(tmp_path / "a.mbox"))
