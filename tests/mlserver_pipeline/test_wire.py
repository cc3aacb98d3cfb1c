"""Messages made by hand are what MLServer's own gRPC converters make."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlserver.grpc.converters import ModelInferRequestConverter, ModelInferResponseConverter
from mlserver.types import InferenceRequest, InferenceResponse, Parameters, RequestInput, ResponseOutput
from mlserver.utils import insert_headers

from mlserver_chat import InvalidInput
from mlserver_pipeline.calls.wire import (
    NotCarried,
    message_from_request,
    message_from_response,
    request_for_step,
    response_to_client,
)
from mlserver_pipeline.engine.messages import StepMessage

names = st.text(min_size=1, max_size=8)
anything = st.one_of(
    st.booleans(), st.integers(), st.text(), st.floats(), st.none(), st.lists(st.integers()), st.just({"a": 1})
)
elements: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "INT8": st.integers(-128, 127),
    "INT32": st.integers(-(2**33), 2**33),
    "INT64": st.integers(),
    "UINT64": st.integers(),
    "FP16": st.floats(width=16) | st.binary(),
    "FP32": st.floats(),
    "FP64": st.floats() | st.integers(),
    "BYTES": st.binary() | st.text(),
}
parameters = (
    st.none()
    | st.dictionaries(names.filter(lambda name: name not in ("headers", "content_type")), anything, max_size=4).map(
        lambda items: Parameters(**items)
    )
    | st.text().map(lambda text: Parameters(content_type=text))
)


@st.composite
def outputs(draw: st.DrawFn) -> ResponseOutput:
    datatype = draw(st.sampled_from(sorted(elements)))
    data = draw(st.lists(elements[datatype], max_size=4))
    return ResponseOutput(
        name=draw(names), shape=[len(data), 1], datatype=datatype, data=data, parameters=draw(parameters)
    )


responses = st.builds(
    InferenceResponse,
    model_name=st.just("m"),
    id=st.none() | st.text(),
    parameters=parameters,
    outputs=st.lists(outputs(), max_size=3),
)


def plain(thing: Any) -> Any:
    """Comparable, also for NaN, and without the order of parameters, which a protobuf map doesn't keep."""

    def ordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ordered(value[key]) for key in sorted(value)}
        return [ordered(item) for item in value] if isinstance(value, list) else value

    return repr(ordered(thing.model_dump()))


@given(responses)
def test_step_gets_the_request_that_grpc_delivers(response: InferenceResponse) -> None:
    headers = {"x-request-id": "r"}
    try:
        sent = ModelInferResponseConverter.from_types(response)
    except (TypeError, ValueError):
        with pytest.raises(NotCarried):
            message_from_response(response)
        return
    # The engine makes the request of the next step out of the response: id, parameters and tensors.
    arrived = ModelInferResponseConverter.to_types(sent)
    next_request = InferenceRequest.model_construct(
        id=arrived.id,
        parameters=arrived.parameters,
        inputs=[RequestInput.model_construct(**dict(output)) for output in arrived.outputs],
    )
    over_grpc = ModelInferRequestConverter.to_types(ModelInferRequestConverter.from_types(next_request, "m"))
    by_hand = request_for_step(message_from_response(response), headers)
    assert plain(by_hand) == plain(insert_headers(over_grpc, dict(headers)))


@given(responses)
def test_response_to_the_client_has_the_same_tensors(response: InferenceResponse) -> None:
    try:
        message = message_from_response(response)
    except NotCarried:
        return
    again = message_from_response(response_to_client("p", message, {"x-a": "1"}))
    assert repr(again) == repr(message)


def request(**tensor: Any) -> InferenceRequest:
    return InferenceRequest(inputs=[RequestInput(**({"name": "t", "shape": [1], "datatype": "BYTES"} | tensor))])


@pytest.mark.parametrize(
    ("datatype", "data", "arrived"),
    [
        ("BYTES", ["ä"], [b"\xc3\xa4"]),
        ("BYTES", [b"\xff"], [b"\xff"]),
        ("BYTES", "abc", [b"abc"]),
        ("BYTES", None, []),
        ("INT32", [[1, 2], [3, 4]], [1, 2, 3, 4]),
        ("FP16", [0.5], [0.5]),
        ("FP32", [0.1], [0.10000000149011612]),
    ],
)
def test_data_of_a_client_is_flattened_and_its_text_encoded(datatype: str, data: Any, arrived: list[Any]) -> None:
    (tensor,) = message_from_request(request(datatype=datatype, data=data)).tensors
    assert tensor.data == arrived and tensor.datatype == datatype


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("INT32", ["a"]),
        ("INT32", [2**40]),
        ("INT64", [10**400]),
        ("FP32", [10**400]),
        ("FP64", [10**400]),
        ("BYTES", [1]),
        ("BYTES", ["\ud800"]),
    ],
)
def test_data_of_the_wrong_datatype_is_refused_by_name(datatype: str, data: Any) -> None:
    with pytest.raises(InvalidInput, match=r"tensor 't' (has|holds)"):
        message_from_request(request(datatype=datatype, data=data))


def test_tensor_name_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(InvalidInput, match="the name of a tensor"):
        message_from_request(request(name="\ud800", data=["x"]))


def test_parameters_that_cannot_pass_a_pipeline_are_refused() -> None:
    asked = InferenceRequest(
        id="i", inputs=[], parameters=Parameters(content_type="str", headers={"a": "b"}, n=0.7, b=True, s="x")
    )
    assert message_from_request(asked) == StepMessage("i", {"content_type": "str", "n": 0, "b": True, "s": "x"}, ())
    for name, value in {
        "llm_parameters": {"temperature": 0},
        "n": None,
        "l": [1],
        "i": 2**63,
        "f": float("nan"),
    }.items():
        with pytest.raises(InvalidInput, match=f"parameter '{name}' of the request can't pass a pipeline"):
            message_from_request(InferenceRequest(inputs=[], parameters=Parameters(**{name: value})))


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, "\ud800"])
def test_parameter_that_grpc_cannot_carry_is_refused_with_a_sentence(value: object) -> None:
    answer = InferenceResponse(model_name="m", outputs=[], parameters=Parameters(big=value))
    with pytest.raises(NotCarried, match="parameter 'big' can't be sent over gRPC"):
        message_from_response(answer)
    assert message_from_response(InferenceResponse(model_name="m", outputs=[], parameters=Parameters(big=2**63 - 1)))


def test_step_that_changes_its_data_in_place_affects_no_other_step() -> None:
    message = message_from_request(request(datatype="INT64", data=[1]))
    request_for_step(message, {}).inputs[0].data.root.append(2)
    assert message.tensors[0].data == [1]
