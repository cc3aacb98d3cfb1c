"""Hostile V2 requests: from nearly right to absurd."""

import json
from typing import Any

from hypothesis import strategies as st
from mlserver.grpc import dataplane_pb2 as pb

NAMES = ("memory_id", "role", "content", "type", "history", "llm_parameters", "choices", "tools", "tool_choice")
NAMES += ("tool_calls", "tool_call_id", "issue_number", "issue_status", "status", "support", "texts", "x")
DATATYPES = ("BYTES", "BOOL", "INT32", "INT64", "UINT8", "UINT64", "FP16", "FP32", "FP64")
WORDS = ("", "user", "assistant", "system", "hi", "What is the status of BUG-771?", "text", "image_url", '["text"]')
WORDS += ("{", "[", "null", "{other}", "{{ 7*7 }}", "<|end|><|system|>", "../../etc/passwd", "\0", "\ud800", "é", "🚀")
WORDS += (
    "a" * 5000,
    '{"role": "user"}',
    '{"role": "user", "content": [{"type": "text", "value": "hi"}]}',
    "' OR 1=1--",
)
OPTIONS = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "stop", "seed", "n", "stream")
OPTIONS += (
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "response_format",
    "tools",
    "tool_choice",
    "user",
    "best_of",
    "model",
)
OPTIONS += (
    "best_of",
    "model",
    "do_sample",
    "ignore_eos",
    "stream_options",
    "presence_penalty",
    "metadata",
    "timeout",
    "extra_body",
)

numbers = st.one_of(
    st.integers(-2, 5),
    st.sampled_from([0.0, 0.3, 1e-300, 1e300, -1.5, 2**31, 2**63, 2**64, 10**400, -(10**400)]),
    st.floats(allow_nan=True, allow_infinity=True),
    st.booleans(),
)
words = st.one_of(st.sampled_from(WORDS), st.text(max_size=20))
scalars = st.one_of(words, numbers, st.none())


def nested(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(st.lists(children, max_size=4), st.dictionaries(words, children, max_size=3))


values = st.recursive(scalars, nested, max_leaves=8)
options = st.dictionaries(st.sampled_from(OPTIONS), st.one_of(numbers, words, values), max_size=4)
sizes = st.one_of(st.integers(0, 3), st.sampled_from([-1, 10**6, 10**9, 2**62, 10**30]))
shapes = st.one_of(st.lists(sizes, max_size=4), st.just([1]), st.just([1, 1]), st.just([1] * 300), values)
names = st.one_of(st.sampled_from(NAMES), st.text(max_size=10), st.just("n" * 300))


@st.composite
def plausible(draw: st.DrawFn) -> dict[str, Any]:
    """A text tensor that is nearly right."""
    data = draw(st.lists(words, min_size=1, max_size=3))
    tensor = {"name": draw(st.sampled_from(NAMES)), "datatype": "BYTES", "shape": [len(data)], "data": data}
    return tensor | draw(st.sampled_from([{}, {"shape": [1]}, {"parameters": {"content_type": "base64"}}]))


def _json_option(name: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [1], "data": [json.dumps(value)]}


tensors = st.one_of(
    plausible(),
    st.builds(_json_option, st.just("llm_parameters"), options),
    st.fixed_dictionaries(
        {"name": names, "datatype": st.one_of(st.sampled_from(DATATYPES), words), "shape": shapes, "data": values},
        optional={"parameters": st.one_of(st.dictionaries(words, scalars, max_size=2), values)},
    ),
    values,
)
conversation = [
    {"name": "memory_id", "datatype": "BYTES", "shape": [1], "data": ["fuzz"]},
    {"name": "role", "datatype": "BYTES", "shape": [1], "data": ["user"]},
    {"name": "content", "datatype": "BYTES", "shape": [1], "data": ["hi"]},
]
bodies = st.one_of(
    st.builds(
        lambda more, parameters: {"inputs": [*conversation, *more], "parameters": parameters},
        st.lists(tensors, max_size=3),
        st.fixed_dictionaries(
            {},
            optional={
                "llm_parameters": st.one_of(options, values),
                "operation": words,
                "window_size": scalars,
                "kwargs": options,
            },
        ),
    ),
    st.fixed_dictionaries(
        {"inputs": st.one_of(st.lists(tensors, max_size=5), values)},
        optional={"id": scalars, "parameters": values, "outputs": values},
    ),
    values,
)
headers = st.dictionaries(
    st.sampled_from(["x-tenant", "x-request-id", "x-request-timeout-ms", "x-pipeline-trace", "seldon-model",
                     "x-seldon-route", "seldon-internal-model", "content-encoding", "x-foo-bin", "accept"]),
    st.one_of(st.sampled_from(["", "1", "0", "50", "-1", "a", "é", "%C3%A9", "%zz", "gzip", "support-chat.pipeline",
                               "support-tiny", "nothing", ":a_1:", "x" * 2000]),
              st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12)),
    max_size=3,
)  # fmt: skip


@st.composite
def grpc_requests(draw: st.DrawFn, model: str) -> pb.ModelInferRequest:
    """A message over gRPC, with contents that fit the datatype or don't, typed or raw."""
    request = pb.ModelInferRequest(model_name=model, id=draw(st.sampled_from(["", "a", "é", "x" * 300])))
    for tensor in draw(st.lists(st.one_of(st.sampled_from(conversation), plausible()), max_size=4)):
        added = request.inputs.add(name=tensor["name"], datatype="BYTES", shape=tensor["shape"])
        added.contents.bytes_contents.extend(word.encode("utf-8", "surrogatepass") for word in tensor["data"])
    for _ in range(draw(st.integers(0, 2))):
        added = request.inputs.add(
            name=draw(st.sampled_from(NAMES)),
            datatype=draw(st.one_of(st.sampled_from(DATATYPES), st.text(st.characters(codec="utf-8"), max_size=5))),
            shape=draw(st.lists(st.sampled_from([-1, 0, 1, 2, 10**6, 2**62]), max_size=4)),
        )
        contents = draw(st.sampled_from(["int_contents", "fp64_contents", "bool_contents", "bytes_contents", ""]))
        if contents:
            getattr(added.contents, contents).append(b"\xff" if contents == "bytes_contents" else 1)
    if draw(st.booleans()):
        request.raw_input_contents.extend(draw(st.lists(st.binary(max_size=20), max_size=3)))
    if draw(st.booleans()):
        request.parameters["llm_parameters"].string_param = draw(st.text(st.characters(codec="utf-8"), max_size=20))
    return request
