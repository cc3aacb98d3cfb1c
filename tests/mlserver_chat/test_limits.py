import pytest

from mlserver_chat import InvalidInput, SettingsError
from mlserver_chat.limits import ElementBudget, server_limits


@pytest.fixture(autouse=True)
def _fresh_environment() -> None:
    server_limits.cache_clear()


def test_the_environment_sets_the_limits_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSERVER_LLM_MAX_ELEMENTS", "10")
    assert server_limits().max_elements == 10
    assert server_limits().max_request_bytes == 16 * 2**20


def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSERVER_LLM_MAX_REQUEST_BYTES", "plenty")
    with pytest.raises(SettingsError, match="MLSERVER_LLM_MAX_REQUEST_BYTES"):
        server_limits()


def test_tensors_share_one_budget() -> None:
    budget = ElementBudget(10)
    assert budget.take("a", [2, 3]) == 6
    with pytest.raises(InvalidInput, match="too many elements"):
        budget.take("b", [5])
    assert budget.take("b", [4]) == 4


def test_a_size_of_zero_makes_a_tensor_empty() -> None:
    assert ElementBudget(1).take("a", [2**62, 0, 2**62]) == 0


@pytest.mark.parametrize("size", [2**63, 10**400, -(10**400)])
def test_a_size_beyond_64_bits_is_refused(size: int) -> None:
    with pytest.raises(InvalidInput, match="beyond 64 bits"):
        ElementBudget(1).take("a", [0, size])


def test_a_shape_of_very_many_dimensions_is_refused() -> None:
    with pytest.raises(InvalidInput, match="dimensions"):
        ElementBudget(10).take("a", [1] * 200_000)
