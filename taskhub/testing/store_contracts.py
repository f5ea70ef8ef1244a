"""The contracts of the store ports, as tests: subclass, and give a fixture `stores`.

```python
class TestMyRuns(RunStoreContract):
    @pytest.fixture
    async def stores(self): ...  # an object with `runs`, empty, new for every test
```

The plugin `taskhub.testing.pytest_async` runs the tests and the fixture.
"""

from __future__ import annotations

import pytest

from taskhub.errors import NotFoundError
from taskhub.ports.accounts import Account
from taskhub.testing.faults import Fault, FaultyRunStore
from taskhub.testing.log_store_contract import LogStoreContract
from taskhub.testing.numbered_contract import NumberedContract
from taskhub.testing.run_expiry_contract import RunExpiryContract
from taskhub.testing.run_list_contract import RunListContract
from taskhub.testing.run_store_contract import RunCommitContract
from taskhub.testing.store_samples import INT64_MAX, NASTY, T0, Stores

__all__ = [
    "AccountStoreContract",
    "Fault",
    "FaultyRunStore",
    "LogStoreContract",
    "RunStoreContract",
    "Stores",
]


class RunStoreContract(RunCommitContract, RunListContract, NumberedContract, RunExpiryContract):
    """What every `RunStore` has to do; uses `stores.runs`."""


class AccountStoreContract:
    """What every `AccountStore` has to do; uses `stores.accounts`."""

    async def test_an_unknown_account_is_not_found(self, stores: Stores) -> None:
        with pytest.raises(NotFoundError):
            await stores.accounts.account("nobody")

    async def test_an_account_comes_back_as_it_was(self, stores: Stores) -> None:
        account = Account(
            username=NASTY, password_hash=NASTY, role="admin", version=INT64_MAX, disabled=True
        )
        await stores.accounts.put_account(account)
        assert await stores.accounts.account(NASTY) == account

    async def test_an_account_is_replaced(self, stores: Stores) -> None:
        for version in (1, 2, 2):
            account = Account(
                username="a", password_hash=NASTY, role=f"r{version}", version=version
            )
            await stores.accounts.put_account(account)
        found = await stores.accounts.account("a")
        assert (found.version, found.role, found.disabled) == (2, "r2", False)
        with pytest.raises(NotFoundError):
            await stores.accounts.account("A")

    async def test_revoked_tokens_are_remembered_until_they_expire(self, stores: Stores) -> None:
        assert await stores.accounts.revoked(T0) == {}
        await stores.accounts.revoke("a", T0 + 10)
        await stores.accounts.revoke("a", T0 + 10)
        await stores.accounts.revoke("b", T0 + 20)
        assert await stores.accounts.revoked(T0) == {"a": T0 + 10, "b": T0 + 20}
        assert await stores.accounts.revoked(T0 + 15) == {"b": T0 + 20}
        assert await stores.accounts.revoked(T0) == {"b": T0 + 20}, "the other is forgotten"
