import pytest

# The contract is no test module by its name, but its assertions should explain themselves all the same.
pytest.register_assert_rewrite("contracts.event_store")
