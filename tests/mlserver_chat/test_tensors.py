"""Reading a request's tensors by name."""

import pytest
from mlserver.types import RequestInput, TensorData

from mlserver_chat import InvalidInput
from mlserver_chat.tensors import (
    float_output,
    passed_through,
    read_tensors,
    single_text,
    text_elements,
    text_input,
    text_output,
    value_text,
)


def numbers(name: str, *values: float) -> RequestInput:
    return RequestInput.model_validate({"name": name, "datatype": "FP64", "shape": [len(values)], "data": list(values)})


def test_the_same_tensor_twice_counts_once() -> None:
    as_bytes = text_input("role", ["user"])
    as_text = RequestInput.model_validate({"name": "role", "datatype": "BYTES", "shape": [1], "data": ["user"]})
    assert list(read_tensors([as_bytes, as_text])) == ["role"]
    assert list(read_tensors([numbers("x", 1, 2), numbers("x", 1, 2)])) == ["x"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (text_input("x", ["a"]), text_input("x", ["b"])),
        (numbers("x", 1), numbers("x", 2)),
        (numbers("x", 1), text_input("x", ["1"])),
    ],
)
def test_a_tensor_twice_with_different_data_is_refused(first: RequestInput, second: RequestInput) -> None:
    with pytest.raises(InvalidInput, match="tensor 'x' came twice with different data"):
        read_tensors([first, second])


def test_outputs_are_columns_of_bytes_with_a_content_type() -> None:
    output = text_output("label", ["é", ""])
    assert (output.shape, output.data.root) == ([2, 1], ["é".encode(), b""])
    assert output.parameters is not None and output.parameters.content_type == "str"
    assert float_output("scores", [0.25, 0.75]).shape == [2, 1]


def test_memory_id_and_llm_parameters_are_passed_through() -> None:
    tensors = read_tensors(
        [text_input("memory_id", ["m"]), text_input("x", ["y"]), text_input("llm_parameters", ["{}"])]
    )
    assert [output.name for output in passed_through(tensors)] == ["memory_id", "llm_parameters"]


def test_a_single_value_is_one_element() -> None:
    with pytest.raises(InvalidInput, match="tensor 'memory_id' has 2 elements; expected 1"):
        single_text({"memory_id": text_input("memory_id", ["a", "b"])}, "memory_id")


def test_a_placeholder_takes_any_datatype() -> None:
    assert value_text(numbers("x", 1.5, 2)) == "1.5\n2"
    assert value_text(text_input("x", ["a", "b"])) == "a\nb"


def test_inputs_read_back_what_outputs_wrote() -> None:
    assert text_elements(text_input("x", ["a", "b"])) == ["a", "b"]


@pytest.mark.parametrize("datatype", ["", "TEXT", "\ud800", "x" * 1000])
def test_an_unknown_datatype_is_refused_where_a_tensor_is_read(datatype: str) -> None:
    tensor = RequestInput.model_construct(
        name="x", datatype=datatype, shape=[1], parameters=None, data=TensorData(["a"])
    )
    with pytest.raises(InvalidInput, match="expected BYTES") as refused:
        text_elements(tensor)
    assert len(str(refused.value).encode()) < 100
