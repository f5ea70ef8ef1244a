"""TEMPORARY double."""

from __future__ import annotations

from itertools import count

from taskhub.ports.store import Page


class People:
    def __init__(self):
        self._a = {}
        self._t = {}
        self._r = {}
        self._e = {}

    async def accounts(self):
        return sorted(self._a.values(), key=lambda a: a.username)

    async def tokens(self, username=None):
        return list(self._t.values())

    async def revoked(self, now_ms):
        self._r = {k: v for k, v in self._r.items() if v > now_ms}
        return dict(self._r)

    async def restore(self, accounts, tokens, revoked):
        self._a |= {a.username: a for a in accounts}
        self._t |= {a.id: a for a in tokens}
        self._r |= revoked

    async def append(self, entries):
        for e in entries:
            if e.key in self._e:
                continue
            taken = {other.id for other in self._e.values()}
            free = next(i for i in count(e.id) if i not in taken)
            self._e[e.key] = e._replace(id=free)

    async def entries(self, query, limit, before=None):
        rows = sorted(self._e.values(), key=lambda e: -e.id)
        rows = [r for r in rows if before is None or r.id < before]
        more = len(rows) > limit
        return Page(items=rows[:limit], next_before=rows[limit - 1].id if more else None)
