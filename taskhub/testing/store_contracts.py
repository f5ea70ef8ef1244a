"""The contracts of the store ports, as tests: subclass, and give a fixture `stores`.

```python
class TestMyRuns(RunStoreContract):
    @pytest.fixture
    async def stores(self): ...  # an object with `runs`, empty, new for every test
```

The plugin `taskhub.testing.pytest_async` runs the tests and the fixture.
"""

from __future__ import annotations

from taskhub.ports.stores import Stores
from taskhub.testing.account_store_contract import AccountStoreContract
from taskhub.testing.audit_store_contract import AuditStoreContract
from taskhub.testing.faults import Fault, FaultyRunStore
from taskhub.testing.log_store_contract import LogStoreContract
from taskhub.testing.numbered_contract import NumberedContract
from taskhub.testing.run_expiry_contract import RunExpiryContract
from taskhub.testing.run_list_contract import RunListContract
from taskhub.testing.run_store_contract import RunCommitContract

__all__ = [
    "AccountStoreContract",
    "AuditStoreContract",
    "Fault",
    "FaultyRunStore",
    "LogStoreContract",
    "RunStoreContract",
    "Stores",
]


class RunStoreContract(RunCommitContract, RunListContract, NumberedContract, RunExpiryContract):
    """What every `RunStore` has to do; uses `stores.runs`."""
