"""A database whose writes fail at a chosen moment, before or after they were done."""

from __future__ import annotations

from taskhub.errors import UnavailableError

WRITES = ("insert_one", "insert", "write", "update_one", "find_and_update", "delete")


class Faults:
    """Spoils the n-th write, counted over all collections; after a death also all that follow."""

    def __init__(self):
        self.calls = 0
        self.at = 0
        self.is_done_first = False
        self.is_death = False

    def plan(self, at, *, is_done_first, is_death=False):
        self.calls, self.at = 0, at
        self.is_done_first, self.is_death = is_done_first, is_death

    @property
    def is_over(self):
        """Whether the fault has happened."""
        return self.calls >= self.at


class FaultyDatabase:
    """Stands before a real `Database`."""

    def __init__(self, inner, faults):
        self._inner = inner
        self._faults = faults

    def __getitem__(self, name):
        return FaultyCollection(self._inner[name], self._faults)


class FaultyCollection:
    """Stands before a real collection."""

    def __init__(self, inner, faults):
        self._inner = inner
        self._faults = faults

    def __getattr__(self, name):
        call = getattr(self._inner, name)
        return self._spoiled(name, call) if name in WRITES else call

    def _spoiled(self, name, call):
        faults = self._faults

        async def spoiled(*args, **kwargs):
            faults.calls += 1
            if faults.calls < faults.at or (faults.calls > faults.at and not faults.is_death):
                return await call(*args, **kwargs)
            if faults.is_done_first and faults.calls == faults.at:
                await call(*args, **kwargs)
            raise UnavailableError(f"injected into {name}, done: {faults.is_done_first}")

        return spoiled
