"""Which of several servers on one store is active."""

from __future__ import annotations

from typing import Protocol


class Lease(Protocol):
    """Held by one server at a time; what others write to runs and lines is refused by the store.

    `acquire` until it is True, then `hold`; `release` at the end.
    """

    async def acquire(self, url: str) -> bool:
        """Become the active server if no other is; say whether this one is now.

        `url` is where clients reach it. Call it every few seconds; it never waits for the other
        server. Whatever an earlier holder had stored is readable when it returns True. Raises
        `UnavailableError`.
        """
        ...

    async def hold(self) -> None:
        """Keep the lease until cancelled; raise `SupersededError` once another server has it.

        A store that is away is no loss: nobody else can take the lease from it meanwhile.
        """
        ...

    async def release(self) -> None:
        """Let another server take over at once. Idempotent; never raises."""
        ...

    async def active_url(self) -> str:
        """Return where the active server is, empty if nobody knows. Raises `UnavailableError`."""
        ...
