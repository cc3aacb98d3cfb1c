"""Options under OpenAI's names become arguments of transformers, or errors that name them."""

import pytest

from mlserver_chat import InvalidInput
from mlserver_llm_local.options import GenerationOptions

GREEDY = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


@pytest.mark.parametrize(
    ("params", "sampling"),
    [
        ({}, {}),
        ({"temperature": 0}, GREEDY),
        ({"temperature": 1e-300}, GREEDY),
        ({"temperature": 0, "top_p": 0.5}, GREEDY),
        ({"do_sample": False, "repetition_penalty": 1.1}, GREEDY | {"repetition_penalty": 1.1}),
        ({"temperature": 0.7}, {"temperature": 0.7, "do_sample": True}),
        ({"top_p": 0.5, "top_k": 3, "min_p": 0.1}, {"top_p": 0.5, "top_k": 3, "min_p": 0.1, "do_sample": True}),
    ],
)
def test_options_become_sampling_arguments(params, sampling):
    assert GenerationOptions.of(params).sampling() == sampling


def test_neutral_values_are_accepted():
    params = {"presence_penalty": 0, "frequency_penalty": 0.0, "n": 1, "logprobs": False, "stop": None}
    assert GenerationOptions.of(params | {"response_format": {"type": "text"}, "logit_bias": {}}) == GenerationOptions()


def test_aliases_of_options_are_known():
    assert GenerationOptions.of({"max_new_tokens": 7}).max_tokens == 7
    assert GenerationOptions.of({"stop": "x"}).stop == ["x"]


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (
            {"presence_penalty": 0.5},
            "option 'presence_penalty' is not supported by this model; supported are max_tokens",
        ),
        ({"response_format": {"type": "json_object"}}, "option 'response_format' is not supported"),
        ({"n": 2}, "option 'n' is not supported"),
        ({"nonsense": 1}, "option 'nonsense' is not supported"),
        ({"temperature": -1}, "option 'temperature': input should be greater than or equal to 0"),
        ({"temperature": 2.1}, "option 'temperature': input should be less than or equal to 2"),
        ({"temperature": float("nan")}, "option 'temperature': input should be"),
        ({"repetition_penalty": 0.3}, "option 'repetition_penalty': input should be greater than or equal to 0.5"),
        ({"repetition_penalty": 2.5}, "option 'repetition_penalty': input should be less than or equal to 2"),
        ({"temperature": "warm"}, "option 'temperature': input should be a valid number"),
        ({"top_p": 0}, "option 'top_p': input should be greater than 0"),
        ({"max_tokens": 0}, "option 'max_tokens': expected at least 1, or -1 for as many as the context holds"),
        ({"stop": [""]}, "option 'stop': an empty text can't stop an answer"),
        ({"tool_choice": "required"}, "option 'tool_choice': this model can't be made to call a tool"),
    ],
)
def test_a_refusal_names_the_option(params, sentence):
    with pytest.raises(InvalidInput) as caught:
        GenerationOptions.of(params)
    assert str(caught.value).startswith(sentence)
