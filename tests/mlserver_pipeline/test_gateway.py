"""JSON as Core 2's gateway reads and writes it."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlserver.types import Datatype

from mlserver_pipeline.api.gateway import BadRequest, read_request, write_response
from mlserver_pipeline.engine.messages import StepMessage, Tensor

TENSOR = {"name": "t", "shape": [1], "datatype": "BYTES", "data": ["x"], "parameters": {}}


def body(**tensor: Any) -> bytes:
    return json.dumps({"inputs": [TENSOR | tensor]}).encode()


@pytest.mark.parametrize(
    ("tensor", "data"),
    [
        ({"data": ["ä"]}, ["ä".encode()]),
        ({"shape": [2], "data": ["a"]}, [b"a", b""]),
        ({"shape": [2, 1], "data": [["a"], ["b"]]}, [b"a", b"b"]),
        ({"datatype": "INT32", "shape": [2, 2], "data": [[1, 2], [3]]}, [1, 2, 3, 0]),
        ({"datatype": "INT64", "data": [1.9]}, [1]),
        ({"datatype": "BOOL", "shape": [2], "data": [True]}, [True, False]),
        ({"datatype": "FP32", "data": [0.1]}, [0.10000000149011612]),
        ({"datatype": "FP16", "data": [0.5]}, [0.5]),
        ({"shape": [0, 1], "data": []}, []),
    ],
)
def test_data_is_flattened_and_padded_to_its_shape(tensor: dict[str, Any], data: list[Any]) -> None:
    assert read_request(body(**tensor)).tensors[0].data == data


def test_id_and_requested_outputs_are_dropped_and_parameters_truncated() -> None:
    request = {"id": "1", "outputs": [{"name": "x"}], "parameters": {"t": 0.7, "b": True, "s": "x"}, "inputs": []}
    assert read_request(json.dumps(request).encode()) == StepMessage("", {"t": 0, "b": True, "s": "x"}, ())


NUMBERS = ["INT8", "INT64", "UINT8", "UINT64", "FP16", "FP32", "FP64"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b"[" * 100_000, "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        (b"[]", "the body is not a JSON object"),
        (b"{}", "'inputs' is missing"),
        (b'{"inputs": [1]}', "input 0 is not an object"),
        (b'{"inputs": [{}]}', "input 0 has no name"),
        (body(shape="1"), "tensor 't' has no shape"),
        (body(shape=[-1]), "tensor 't' has no shape"),
        (body(datatype="TEXT"), "unknown datatype 'TEXT'"),
        (body(data="x"), "tensor 't' has no data; expected a list"),
        (body(shape=[]), "shape []; expected [n] or [n,1]"),
        (
            body(shape=[1, 2], data=["a", "b"]),
            "more than 1 elements under shape [1, 2]; Core 2 allocates the first dimension only",
        ),
        (body(shape=[10**12]), "the request's tensors have too many elements; expected at most 1000000 together"),
        (body(datatype="\ud800"), r"unknown datatype '\ud800'"),
        *((body(datatype=each, data=[10**400]), f"tensor 't' has an element that isn't {each}") for each in NUMBERS),
        (body(datatype="FP32", data=[1e300]), "tensor 't' has an element that isn't FP32"),
        (body(datatype="FP64", data=[float("inf")]), "tensor 't' has an element that isn't FP64"),
        (body(shape=[0, 10**400], data=[]), "tensor 't' has a size beyond 64 bits"),
        (body(parameters={"x": 10**400}), "parameter 'x' of tensor 't' can't pass a pipeline"),
        (body(datatype="INT32", shape=[200_000], data=[]), "lacks 200000 elements of its shape"),
        (json.dumps({"inputs": [TENSOR] * 1001}).encode(), "the request has 1001 inputs; expected at most 1000"),
        (body(data=[1]), "tensor 't' has an element that isn't BYTES"),
        (body(data=["\ud800"]), "half of a surrogate pair"),
        (body(name="\ud800"), "input 0 has no name"),
        (body(parameters={"x": "\ud800"}), "parameter 'x' of tensor 't' can't pass a pipeline"),
        (body(parameters={"\ud800": 1}), "the name of a parameter of tensor 't' holds half of a surrogate pair"),
        (body(datatype="INT32", data=["1"]), "tensor 't' has an element that isn't INT32"),
        (body(datatype="INT32", data=[1e300]), "tensor 't' has an element that isn't INT32"),
        (body(datatype="INT32", data=[float("nan")]), "tensor 't' has an element that isn't INT32"),
        (body(parameters={"x": [1]}), "parameter 'x' of tensor 't' can't pass a pipeline"),
        (b'{"inputs": [], "parameters": {"x": null}}', "parameter 'x' of the request can't pass a pipeline"),
        (b'{"inputs": [], "parameters": 1}', "the parameters of the request are not an object"),
    ],
)
def test_body_that_the_gateway_cannot_convert_is_refused_with_a_sentence(content: bytes, reason: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read_request(content)
    assert reason in str(refused.value)


def test_answer_has_core_2s_order_no_id_and_bytes_in_base64() -> None:
    text = Tensor("t", "BYTES", (1, 1), ["é".encode()], {"content_type": "str"})
    answer = StepMessage(
        "id", {"p": 1}, (text, Tensor("b", "BYTES", (1,), [b"\xff"], {}), Tensor("e", "INT64", (0,), [], {}))
    )
    assert write_response(answer).decode() == (
        '{"model_name":"","parameters":{"p":1},"outputs":['
        '{"data":["é"],"name":"t","shape":[1,1],"datatype":"BYTES","parameters":{"content_type":"str"}},'
        '{"data":["/w=="],"name":"b","shape":[1],"datatype":"BYTES"},'
        '{"data":null,"name":"e","shape":[0],"datatype":"INT64"}]}'
    )


def test_floats_are_printed_without_rounding_errors() -> None:
    tensors = (
        Tensor("h", "FP32", (2,), [10.0, 0.10000000149011612], {}),
        Tensor("d", "FP64", (2,), [10.0, 0.1], {}),
    )
    printed = write_response(StepMessage("", {}, tensors)).decode()
    assert printed.count("[10,0.1]") == 2


@pytest.mark.parametrize(
    "tensor",
    [Tensor("n", "FP64", (1,), [float("nan")], {}), Tensor("t", "BYTES", (1,), [b"\xff"], {"content_type": "str"})],
)
def test_numbers_and_bytes_that_json_lacks_are_errors(tensor: Tensor) -> None:
    with pytest.raises(ValueError):
        write_response(StepMessage("", {}, (tensor,)))


@pytest.mark.parametrize(
    "tensors",
    [
        [{"name": f"t{i}", "shape": [1_000_000], "datatype": "INT32", "data": []} for i in range(50)],
        [{"name": f"t{i}", "shape": [1_000_000], "datatype": "BYTES", "data": []} for i in range(300)],
        [{"name": "t", "shape": [1] * 200_000, "datatype": "INT32", "data": [1]}],
        [{"name": "t", "shape": [1] * 200_000, "datatype": "BYTES", "data": ["x"]}],
        [{"name": "t", "shape": [2**62, 2**62], "datatype": "INT32", "data": [1]}],
    ],
)
def test_the_tensors_of_a_request_share_one_budget_of_elements(tensors: list[dict[str, object]]) -> None:
    tracemalloc.start()
    with pytest.raises(BadRequest, match=r"too many elements|dimensions|lacks 1000000 elements"):
        read_request(json.dumps({"inputs": tensors}).encode())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60_000_000


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]))
    | st.sampled_from([10**400, -(10**400), 2**63, 1e300, "\ud800"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2)
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(st.fixed_dictionaries({}, optional={key: values for key in TENSOR}), max_size=3)},
    optional={"id": values, "parameters": values},
)


@given(requests)
def test_any_request_is_read_or_refused_with_a_printable_sentence(request: dict[str, Any]) -> None:
    try:
        message = read_request(json.dumps(request).encode())
    except BadRequest as refused:
        str(refused).encode("utf-8")
    else:
        write_response(message)


@given(st.sampled_from(sorted(Datatype.__members__)), st.lists(scalars, max_size=3), st.integers(0, 5))
def test_any_data_is_read_or_refused_with_a_printable_sentence(datatype: str, data: list[Any], size: int) -> None:
    try:
        message = read_request(body(datatype=datatype, shape=[size], data=data))
    except BadRequest as refused:
        str(refused).encode("utf-8")
    else:
        write_response(message)
        assert len(message.tensors[0].data) == size
