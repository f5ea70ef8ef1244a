"""Texts without the secrets that may have got into them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from taskhub.domain.secrets import MASK, Secrets
from taskhub.domain.task import JSON

SHORTEST: Final = 6
"""Characters of a secret that is looked for in texts; shorter ones are found in any."""
MOST: Final = 256
"""Secrets of one object that are looked for: each costs a walk over each text."""
USERINFO: Final = re.compile(r"(?<=://)[^\s\"'<>]*@")
OPTION: Final = re.compile(
    r"([?&;][^=&;\s\"']{0,64}(?:pass|token|secret|key|mechanismprop)[^=&;\s\"']{0,64}=)[^&;\s\"']*",
    re.IGNORECASE,
)


class Redaction:
    """Takes the secrets of one object, a task's parameters say, out of what is said of it.

    Someone who is given a password may repeat it anywhere: in an exception, a URL, a result. So
    not only values under secret names are masked, but also the object's own wherever they stand.
    """

    def __init__(self, secrets: Secrets, *known: Mapping[str, JSON]) -> None:
        self._secrets = secrets
        values = {text for one in known for text in secrets.values(one) if len(text) >= SHORTEST}
        self._are_many = len(values) > MOST
        forms = () if self._are_many else {form for value in values for form in _forms(value)}
        self._forms = sorted(forms, key=len, reverse=True)

    def text(self, text: str) -> str:
        """Return a text with the known values masked; nothing of it where they are too many."""
        if self._are_many:
            return MASK
        for form in self._forms:
            text = text.replace(form, MASK)
        return text

    def object(self, value: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return an object with both kinds of secrets masked."""
        masked = self._secrets.mask_object(value)
        if not self._forms and not self._are_many:
            return masked
        return {name: self._everywhere(inner) for name, inner in masked.items()}

    def _everywhere(self, value: JSON) -> JSON:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {name: self._everywhere(inner) for name, inner in value.items()}
        return list(map(self._everywhere, value)) if isinstance(value, list) else value


def without_password(text: str) -> str:
    """Return a URL, or any text with URLs in it, without passwords: `mongodb://me:***@host/db`.

    Options of a URL that are named like a secret are masked too.
    """
    return OPTION.sub(rf"\1{MASK}", USERINFO.sub(_without_password, text))


def _without_password(found: re.Match[str]) -> str:
    user, colon, _ = found[0].partition(":")
    return f"{user}:{MASK}@" if colon else f"{MASK}@"


def _forms(value: str) -> tuple[str, ...]:
    """Return how a text may stand in others: as it is, in Python, in JSON, in a URL."""
    escaped = quote(value, safe="", errors="replace")
    python = repr(value)[1:-1], repr(f'"{value}')[2:-1]  # Python quotes by what else there is
    return value, *python, json.dumps(value)[1:-1], escaped
