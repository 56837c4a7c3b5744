"""The exceptions: the tree in the module's docstring equals the classes, and the system's errors become one sentence."""

import errno
import inspect
import re

import pytest

from reviewgen import errors
from reviewgen.errors import ReviewgenError, StorageError, storage_errors


def test_the_drawing_in_the_docstring_is_the_tree_of_classes() -> None:
    parents, drawn = {}, {}
    for line in (errors.__doc__ or "").splitlines():
        if (match := re.fullmatch(r"    ([│ ├└─]*)(\w+)(.*)", line)) is not None:
            depth, name = len(match[1]) // 4, match[2]
            parents[depth] = name
            also = re.search(r"\(also an? (\w+)\)", match[3])
            drawn[name] = [parents.get(depth - 1, "Exception") if depth else "Exception", *([also[1]] if also else [])]
    classes = {name: each for name, each in vars(errors).items() if inspect.isclass(each) and issubclass(each, Exception)}
    assert {name: [base.__name__ for base in each.__bases__] for name, each in classes.items()} == drawn
    assert set(errors.__all__) >= classes.keys()
    for each in classes.values():
        with pytest.raises(ReviewgenError, match=r"^what happened$"):
            raise each("what happened")


def test_errors_of_the_system_are_one_sentence_with_the_path_and_others_pass() -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.ENAMETOOLONG):
        with pytest.raises(StorageError, match=r"^[^\n]*the/path[^\n]*the system's message[^\n]*$"), storage_errors("the/path"):
            raise OSError(number, "the system's message")
    for error in (OSError(errno.EIO, "input/output error"), KeyError("x")):
        with pytest.raises(type(error)) as caught, storage_errors("the/path"):
            raise error
        assert caught.value is error
