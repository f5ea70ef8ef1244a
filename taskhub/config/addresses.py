"""Addresses that may hold a password, as they may be shown."""

from __future__ import annotations

import re
from typing import Final

PASSWORD: Final = re.compile(r"(?<=://)([^:@/]*):.*@")


def without_password(url: str) -> str:
    """Return a URL with `***` where its password is."""
    return PASSWORD.sub(r"\1:***@", url)
