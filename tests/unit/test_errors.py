"""The exceptions: the tree in the module's docstring equals the classes."""

import errno
import inspect
import re

import pytest

from reviewgen import errors
from reviewgen.errors import ReviewgenError, StorageError, did_you_mean, storage_errors

BUILTIN = {"ValueError": ValueError, "LookupError": LookupError, "FileExistsError": FileExistsError, "OSError": OSError}


def drawn() -> dict[str, tuple[str, str | None]]:
    """Return each class of the drawing with its parent there, and its builtin base."""
    parents, tree = {}, {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.fullmatch(r"    ([│ ├└─]*)(\w+)(.*)", line)
        if match is None:
            continue
        depth, name = len(match[1]) // 4, match[2]
        parents[depth] = name
        also = re.search(r"\(also an? (\w+)\)", match[3])
        tree[name] = (parents.get(depth - 1, "Exception") if depth else "Exception", also[1] if also else None)
    return tree


def classes() -> dict[str, type]:
    return {name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}


def test_the_drawing_is_the_tree() -> None:
    tree = drawn()
    assert tree.keys() == classes().keys()
    for name, (parent, also) in tree.items():
        bases = [base.__name__ for base in classes()[name].__bases__]
        assert bases == [parent] + ([also] if also else []), name


def test_all_names_every_public_thing_in_order() -> None:
    public = {
        name
        for name, value in vars(errors).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == errors.__name__
    }
    assert set(errors.__all__) == public
    assert errors.__all__ == sorted(errors.__all__)


@pytest.mark.parametrize("name", sorted(classes()))
def test_every_error_is_caught_by_the_base_and_carries_its_message(name: str) -> None:
    with pytest.raises(ReviewgenError, match=r"^what happened$") as caught:
        raise classes()[name]("what happened")
    assert str(caught.value) == "what happened"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.ENAMETOOLONG])
def test_a_storage_error_is_one_sentence_with_the_path(number: int) -> None:
    with pytest.raises(StorageError, match="the/path") as caught, storage_errors("the/path"):
        raise OSError(number, "the system's message")
    assert "the system's message" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_errors_pass_storage_errors_unchanged() -> None:
    for error in (OSError(errno.EIO, "input/output error"), KeyError("x")):
        with pytest.raises(type(error)) as caught, storage_errors("the/path"):
            raise error
        assert caught.value is error


def test_did_you_mean() -> None:
    assert did_you_mean("lsmt", {"lstm", "gru"}) == "Did you mean 'lstm'? Known: gru, lstm."
    assert did_you_mean("", ["a"]) == "Known: a."
