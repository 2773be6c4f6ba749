import pytest

# The contracts are no test modules by name, but their assertions should explain themselves all the same.
pytest.register_assert_rewrite("contracts.event_store", "contracts.imports")
