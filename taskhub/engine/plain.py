"""What plugins hand over, made fit for any store and any client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from taskhub.domain.task import JSON

MESSAGE_LIMIT: Final = 4096
OBJECT_LIMIT: Final = 64 * 1024


def presentable(text: str) -> str:
    """Return a message of bounded length that is valid Unicode."""
    return text[:MESSAGE_LIMIT].encode("utf-8", "replace").decode()


def plain(value: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Return a copy of a JSON object, or one that says what kept it from being one."""
    try:
        encoded = msgspec.json.encode(dict(value))
    except (TypeError, ValueError, RecursionError) as exc:
        return {"error": f"not JSON: {exc}"[:200]}
    if len(encoded) > OBJECT_LIMIT:
        return {"error": f"{len(encoded)} bytes, more than {OBJECT_LIMIT}"}
    copy: dict[str, JSON] = msgspec.json.decode(encoded)
    return copy
