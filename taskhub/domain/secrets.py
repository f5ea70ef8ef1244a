"""Which names tell that a value is a secret, and JSON with such values masked."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from taskhub.domain.task import JSON

MASK: Final = "***"
BUILT_IN: Final = (
    *("*password", "*passwords", "password_hash", "*passwd", "*passphrase", "passcode"),
    *("pass", "*_pass", "pwd", "*_pwd", "pw", "*_pw"),
    *("*token", "access_tokens", "api_tokens", "auth_tokens", "refresh_tokens", "jwt", "*_jwt"),
    *("*secret", "*secrets", "*credential", "*credentials", "creds", "*_creds"),
    *("*_key", "*apikey", "*privatekey", "*secretkey", "*accesskey"),
    *("access_keys", "api_keys", "apikeys", "private_keys", "secret_keys"),
    *("authorization", "*_authorization", "*_auth", "bearer", "otp"),
    *("cookie", "*_cookie", "cookies", "*_cookies"),
    *("connection_string", "*_connection_string", "connectionstring", "dsn", "*_dsn"),
)
"""Globs for names in lower case with `_` between words."""
OURS: Final = "attempt_key"
"""What TaskHub itself tells everybody; it only looks like a secret."""
PAIRS: Final = (("name", "value"), ("key", "value"), ("Name", "Value"), ("Key", "Value"))
"""How lists spell `{name: value}`, Kubernetes and AWS among others."""
DEEPEST: Final = 256
"""Levels that are looked into; what lies deeper cannot come in by the API, and is masked."""
REMEMBERED: Final = 4096
LONGEST: Final = 256
WILD: Final = re.compile(r"[*?]")

_NESTS: Final = (dict, list, tuple)
_NEW_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_PARTS: Final = re.compile(r"[./:]")
_NUMBER: Final = "0123456789_"


class Secrets:
    """Masks values by the name they go by.

    A name is secret when it, or what follows its last dot, slash or colon, matches a glob (`*` any
    characters, `?` one); case, a number at the end and the difference between `-`, `_`, spaces and
    camelCase do not count. Verdicts are remembered. Threads may share one.
    """

    def __init__(self, more: Iterable[str] = ()) -> None:
        globs = (*BUILT_IN, *map(_plain, more))
        self._names = frozenset(globs)
        self._ends = tuple(glob[1:] for glob in globs if _is_end(glob))
        others = [glob for glob in globs if not _is_end(glob) and WILD.search(glob)]
        self._matches = [_compile(glob).match for glob in others]
        self._verdicts: dict[str, bool] = {}

    def is_secret(self, name: str) -> bool:
        """Whether what goes by this name must not be shown."""
        verdict = self._verdicts.get(name)
        return self._judge(name) if verdict is None else verdict

    def mask(self, value: JSON) -> JSON:
        """Return `value` with `***` for what is secret; itself, not a copy, where nothing is.

        A secret value is masked whole, an array or object too; null and "" stay.
        """
        return self._masked(value, DEEPEST)  # type: ignore[no-any-return]

    def mask_object(self, value: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return what `mask` does, for an object."""
        return self._object(value, DEEPEST) if value else value

    def values(self, value: Mapping[str, JSON]) -> Iterator[str]:
        """Yield every text that `mask_object` would take out."""
        yield from _lost(value, self._object(value, DEEPEST))

    def _judge(self, name: str) -> bool:
        half = LONGEST // 2
        short = name if len(name) <= LONGEST else f"{name[:half]}{name[-half:]}"
        verdict = name != OURS and any(map(self._is_match, _spellings(short)))
        if short is name:
            if len(self._verdicts) >= REMEMBERED:
                self._verdicts.clear()
            self._verdicts[name] = verdict
        return verdict

    def _is_match(self, spelling: str) -> bool:
        if spelling in self._names or spelling.endswith(self._ends):
            return True
        return any(matches(spelling) for matches in self._matches)

    def _masked(self, value: Any, room: int) -> Any:  # noqa: ANN401  # any JSON
        if isinstance(value, dict):
            return self._object(value, room)
        if not isinstance(value, _NESTS):
            return value
        masked = [self._masked(inner, room - 1) for inner in value] if room else MASK
        is_same = room and all(new is old for new, old in zip(masked, value, strict=True))
        return value if is_same else masked

    def _object(self, value: Mapping[str, Any], room: int) -> Any:  # noqa: ANN401  # as above
        if not room:
            return MASK
        changed: dict[str, Any] = {}
        verdicts = self._verdicts
        for name, inner in value.items():
            verdict = verdicts.get(name)
            if self._judge(name) if verdict is None else verdict:
                if _is_shown(inner):
                    changed[name] = MASK
            elif isinstance(inner, _NESTS):
                masked = self._masked(inner, room - 1)
                if masked is not inner:
                    changed[name] = masked
        if "value" in value or "Value" in value:
            changed |= self._pairs(value)
        return {**value, **changed} if changed else value

    def _pairs(self, value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for called, held in PAIRS:
            name = value.get(called)
            if isinstance(name, str) and _is_shown(value.get(held)) and self.is_secret(name):
                yield held, MASK


def _is_shown(value: object) -> bool:
    return value is not None and value not in ("", MASK)


def _plain(name: str) -> str:
    return name.strip().replace("-", "_").replace(" ", "_").casefold()


def _is_end(glob: str) -> bool:
    return glob[:1] == "*" and not WILD.search(glob, 1)


def _compile(glob: str) -> re.Pattern[str]:
    # fnmatch makes atomic groups: no name takes more than a walk over it for each `*`
    return re.compile(fnmatch.translate(glob.replace("[", "[[]")))


def _spellings(name: str) -> Iterator[str]:
    """Yield what a name is compared as: whole and its last part, each with and without a number."""
    spellings = [_plain(name)]
    if not name.islower():
        spellings.append(_plain(_NEW_WORD.sub("_", name)))
    for spelling in spellings:
        for part in {spelling, _PARTS.split(spelling)[-1]}:
            yield part
            if part[-1:] in _NUMBER:
                yield part.rstrip(_NUMBER)


def _lost(value: Any, masked: Any) -> Iterator[str]:  # noqa: ANN401  # any JSON
    """Yield the texts of `value` that are not in `masked`."""
    if value is masked:
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _lost(inner, masked[name] if isinstance(masked, dict) else MASK)
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _lost(inner, masked[i] if isinstance(masked, list) else MASK)
