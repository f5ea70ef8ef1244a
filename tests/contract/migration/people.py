"""Accounts and audit in dictionaries, for stores that do not have them yet."""

from __future__ import annotations

from itertools import count

from taskhub.ports.store import Page


class People:
    def __init__(self):
        self._accounts = {}
        self._tokens = {}
        self._revoked = {}
        self._entries = {}

    async def accounts(self):
        return sorted(self._accounts.values(), key=lambda a: a.username)

    async def tokens(self, username=None):
        return sorted(self._tokens.values(), key=lambda t: (t.created_ms, t.id))

    async def revoked(self, now_ms):
        self._revoked = {k: v for k, v in self._revoked.items() if v > now_ms}
        return dict(self._revoked)

    async def restore(self, accounts, tokens, revoked):
        self._accounts |= {a.username: a for a in accounts}
        self._tokens |= {a.id: a for a in tokens}
        self._revoked |= revoked

    async def append(self, entries):
        for e in entries:
            if e.key in self._entries:
                continue
            taken = {other.id for other in self._entries.values()}
            free = next(i for i in count(e.id) if i not in taken)
            self._entries[e.key] = e._replace(id=free)

    async def entries(self, query, limit, before=None):
        rows = sorted(self._entries.values(), key=lambda e: -e.id)
        rows = [r for r in rows if before is None or r.id < before]
        more = len(rows) > limit
        return Page(items=rows[:limit], next_before=rows[limit - 1].id if more else None)
