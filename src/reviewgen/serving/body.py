"""The body of a request: from bytes to a JSON object. Must not know its fields."""

import asyncio
import json
import re
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect, Request

from reviewgen.serving.problems import Problem

_MAX_DIGITS = 1000  # of a whole number; Python refuses some thousands of them in its own words
_DIGITS = re.compile(rb"[0-9]{1001}")


async def read_body(request: Request, max_bytes: int, stall_seconds: float, total_seconds: float) -> bytes:
    """Return the body of a request, of which no more than ``max_bytes`` are read, in chunks or not.

    Args:
        request: The request.
        max_bytes: The size that is too large beyond.
        stall_seconds: The time in which some of it must come.
        total_seconds: The time in which all of it must come.

    Raises:
        Problem: It is not JSON by its content type or compressed (415), too large (413), or did not come in time (408).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise Problem(415, f"The content type must be application/json; got {kind or 'none'}.", code="unsupported_media_type")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise Problem(415, f"The body must not be compressed; its content encoding is {coding}.", code="unsupported_media_type")
    too_large = Problem(413, f"The body is larger than {max_bytes:,} bytes: send less.", code="body_too_large")
    too_large.headers["connection"] = "close"  # the rest of it is not read
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large
    parts, size, now = [], 0, asyncio.get_running_loop().time
    until = now() + total_seconds
    try:
        async with asyncio.timeout_at(min(now() + stall_seconds, until)) as limit:
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > max_bytes:
                    raise too_large
                limit.reschedule(min(now() + stall_seconds, until))
    except TimeoutError:
        what = (
            f"The body did not come within {total_seconds:g}"
            if now() >= until
            else f"No more of the body came for {stall_seconds:g}"
        )
        raise Problem(408, f"{what} seconds.", code="timeout", headers={"connection": "close"}) from None
    except ClientDisconnect:
        raise Problem(400, "The connection was closed before the end of the body.", code="disconnected") from None
    return b"".join(parts)


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body.

    Raises:
        Problem: It is not UTF-8, not JSON, nested too deeply or not an object, or holds NaN, half of a surrogate pair or a number
            of more than 1,000 digits.
    """
    parse_int = _parse_int if _DIGITS.search(body) else None  # a function takes ten times as long
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant, parse_int=parse_int)
        if b"\\u" in body:  # only an escape can be half of a pair
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise Problem(400, f"The body is not valid UTF-8, at byte {error.start}.", code="invalid_json") from None
    except UnicodeEncodeError:
        raise Problem(400, "A string of the body holds half of a surrogate pair (\\ud800).", code="invalid_json") from None
    except RecursionError:
        raise Problem(400, "The JSON of the body is nested too deeply.", code="invalid_json") from None
    except ValueError as error:
        raise Problem(400, f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise Problem(400, f"The body must be a JSON object; got {_kind(value)}.", code="invalid_json")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _parse_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        message = f"A number of the body has {len(digits):,} digits; at most {_MAX_DIGITS:,} are read."
        raise Problem(400, message, code="invalid_json")
    return int(digits)


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")
