"""What goes wrong with a request, as the OpenAI protocol says it: a status and one sentence. Must not know models or HTTP."""

import re
from dataclasses import dataclass, field
from typing import Any

from reviewgen.errors import ConfigError, DataError, GenerationError, ReviewgenError, counted, shortened

_MAX_MESSAGE = 500  # characters; a value of the request may be long
_MAX_PARAM = 100  # characters; the name of an unknown field may be long, too
_MAX_READ = 4000  # of a message whose names and values are replaced
_NAMES = {  # of settings in Python, and of the fields that they are here
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "num_return_sequences": "n",
    "stop_strings": "stop",
    "max_time": "a limit of this server",
}
_PARAMS = (  # of messages that do not begin with the name of a field
    (r"\bconditions?\b", "conditions"),
    (r"^max_copy\b", "max_copy"),
    (r"\bnovelty\b", "novelty"),
    (r"\blexicon\b", "words"),
    (r"\bincludes\b", "must_include"),
)
_JSON = {"True": "true", "False": "false", "None": "null"}
_VALUES = re.compile(r"""(?<!\w)'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\b(True|False|None)\b(?! of )""")  # quoted ones are strings
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class OutOfTime(GenerationError):
    """The time of a request is over, and nothing was generated."""


@dataclass
class Problem(Exception):
    """A request that is refused or failed.

    Attributes:
        status: The HTTP status.
        message: One sentence: what happened, what is accepted, what to do.
        param: The field of the request that is at fault; None if it is none.
        code: A short name for programs, as in "model_not_found".
        headers: Further headers of the response.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the body of the response, in OpenAI's format."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {
            "error": {
                "message": _shorten(_in_json(_shorten(self.message, _MAX_READ))),
                "type": kind,
                "param": None if self.param is None else shortened(self.param, _MAX_PARAM),
                "code": self.code,
            }
        }


def problem_of(error: ReviewgenError) -> Problem:
    """Return the problem that an error of the library is for the one who sent the request."""
    message = re.sub(r"\b(" + "|".join(_NAMES) + r")\b", lambda match: _NAMES[match[0]], _shorten(str(error), _MAX_READ))
    param = next((name for pattern, name in _PARAMS if re.search(pattern, message)), None)
    if isinstance(error, OutOfTime):
        return Problem(503, message, code="timeout")
    if isinstance(error, ConfigError | DataError):
        return Problem(400, message, param, "invalid_value")
    if isinstance(error, GenerationError):
        return Problem(422, message, param, "generation_failed")
    return Problem(500, message, code="server_error")


def too_busy(waiting: int) -> Problem:
    """Return the refusal of a request for which there is no place in the queue."""
    are = "is" if waiting == 1 else "are"
    message = f"{counted(waiting, 'text')} {are} waiting already. Try again in a moment, or ask for fewer texts."
    return Problem(429, message, code="queue_full", headers={"retry-after": "1"})


def _in_json(message: str) -> str:
    """Return a message with the values of Python as JSON writes them."""
    return _VALUES.sub(lambda match: _JSON.get(match[0], match[0]), message.replace(" or none; got ", " or null; got "))


def _shorten(message: str, longest: int = _MAX_MESSAGE) -> str:
    """Return a message with its middle left out if it is long."""
    half = longest // 2 - 2
    return message if len(message) <= longest else f"{message[:half]} … {message[-half:]}"
