"""What every `MemoryStore` promises, as specs that run against any store, yours included.

```python
import pytest
from mlserver_memory.conformance import SPECS

@pytest.mark.parametrize("spec", SPECS, ids=str)
async def test_my_store(spec):
    store = MyStore(…)
    await spec.run(store)
    await store.aclose()
```

Each spec wants a store to itself or shared: it works in conversations of its own. One module a verb.
"""

from .spec import SPECS, Spec

__all__ = ["SPECS", "Spec"]
