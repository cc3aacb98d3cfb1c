"""The causes of errors: described in the log by types and places, hidden from MLServer, which would log their texts."""

import logging
from collections.abc import AsyncIterator

import pytest
from mlserver import ModelSettings
from mlserver.types import InferenceRequest, InferenceResponse

from mlserver_chat import ChatError, InvalidInput, NotReachable, Runtime, Settings, SettingsError, UpstreamFailed
from mlserver_chat.causes import cause_chain

SECRET = "postgresql://user:hunter2@db/chat"


def fail(kind: type[ChatError]) -> None:
    try:
        raise OSError(SECRET)
    except OSError as error:
        raise kind("the store is away") from error


class Failing(Runtime[Settings]):
    settings_class = Settings
    kind: type[ChatError] = NotReachable

    async def load(self) -> bool:
        fail(SettingsError)
        return True

    async def handle(self, request: InferenceRequest) -> InferenceResponse:
        fail(self.kind)
        raise AssertionError

    async def handle_stream(self, request: InferenceRequest) -> AsyncIterator[InferenceResponse]:
        yield self.response([])
        fail(self.kind)


@pytest.fixture
def model() -> Failing:
    return Failing(ModelSettings(name="failing", implementation=Failing))


def logged(caplog: pytest.LogCaptureFixture, level: int) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno == level)


async def test_an_error_reaches_mlserver_without_its_cause(model: Failing, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(NotReachable) as caught:
        await model.predict(InferenceRequest(inputs=[]))
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    log = logged(caplog, logging.WARNING)
    assert log.startswith("model 'failing': NotReachable at ") and ", from OSError at " in log
    assert "test_causes.py:" in log and "hunter2" not in log


async def test_a_broken_stream_logs_its_cause(model: Failing, caplog: pytest.LogCaptureFixture) -> None:
    async def requests() -> AsyncIterator[InferenceRequest]:
        yield InferenceRequest(inputs=[])

    *_, last = [response async for response in model.predict_stream(requests())]
    assert last.parameters is not None and "hunter2" not in str(last.parameters)
    assert ", from OSError at " in logged(caplog, logging.WARNING)


async def test_a_model_that_fails_to_load_logs_its_cause(model: Failing, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SettingsError) as caught:
        await model.load()
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert ", from OSError at " in logged(caplog, logging.WARNING)


async def test_a_callers_mistake_is_logged_for_debugging_only(model: Failing, caplog: pytest.LogCaptureFixture) -> None:
    model.kind = InvalidInput
    with caplog.at_level(logging.DEBUG, "mlserver.chat"), pytest.raises(InvalidInput):
        await model.predict(InferenceRequest(inputs=[]))
    assert "InvalidInput at " in logged(caplog, logging.DEBUG)
    assert not logged(caplog, logging.WARNING)


def test_a_chain_names_the_root_cause_last() -> None:
    try:
        fail(UpstreamFailed)
    except UpstreamFailed as error:
        kinds = [part.split(" at ")[0] for part in cause_chain(error).split(", from ")]
        assert kinds == ["UpstreamFailed", "OSError"]


def test_a_chain_that_leads_back_to_its_start_ends() -> None:
    first, second = ValueError(), OSError()
    first.__cause__, second.__cause__ = second, first
    assert cause_chain(first) == "ValueError, from OSError"
