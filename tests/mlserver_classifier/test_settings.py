"""Settings of the classifier, and the sentences about wrong ones."""

from typing import Any

import pytest
from mlserver.settings import ModelParameters, ModelSettings

from mlserver_chat import SettingsError, load_settings
from mlserver_chat.tensors import TENSOR_NAMES
from mlserver_classifier import ClassifierSettings

ROUTES = [{"name": "status", "description": "asks for a status"}, {"name": "support"}]


def load(**extra: Any) -> ClassifierSettings:
    settings = ModelSettings(
        name="route-request",
        implementation="mlserver_classifier.Classifier",
        parameters=ModelParameters(extra={"routes": ROUTES, "llm": "support-tiny"} | extra),
    )
    return load_settings(ClassifierSettings, settings)


def test_the_flat_strings_of_core_2_are_converted() -> None:
    settings = load(
        **{
            "routes": '[{"name": "status"}, {"name": "support"}]',
            "threshold": "0.7",
            "default_route": "support",
            "fields.issue_number.pattern": "\\d+",
            "fields.issue_number.routes": '["status"]',
        }
    )
    assert settings.labels == ["status", "support"]
    assert settings.threshold == 0.7
    assert settings.fields["issue_number"].pattern == ["\\d+"]
    assert settings.fields["issue_number"].routes == ["status"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"routes": []}, "'parameters.extra.routes': list should have at least 1 item"),
    ({"routes": [{"description": "x"}]}, "'parameters.extra.routes.0.name' is missing"),
    ({"routes": [{"name": "a"}, {"name": "a"}]}, "'routes' names 'a' twice"),
    ({"routes": [{"name": "Has Space"}]}, "'Has Space' is not a valid route name"),
    ({"routes": [{"name": "under_score"}]}, "'under_score' is not a valid route name"),
    ({"routes": [{"name": "a", "desciption": "x"}]}, "is not a known key; did you mean 'description'?"),
    ({"treshold": 0.5}, "'parameters.extra.treshold' is not a known key; did you mean 'threshold'?"),
    ({"threshold": 0.5}, "'threshold' needs a 'default_route'"),
    ({"threshold": 1.5, "default_route": "support"}, "'parameters.extra.threshold'"),
    ({"threshold": float("nan"), "default_route": "support"}, "'parameters.extra.threshold'"),
    ({"default_route": "other"}, "'default_route' is 'other', which is not one of 'routes'"),
    ({"fields": {"n": {"pattern": "("}}}, "it is not a regular expression"),
    ({"fields": {"n": {"pattern": ["a", "("]}}}, "it is not a regular expression"),
    ({"fields": {"n": {"pattern": "\\d*"}}}, "it matches an empty text"),
    ({"fields": {"n": {"pattern": []}}}, "'parameters.extra.fields.n.pattern'"),
    ({"fields": {"n": {"pattern": "x", "routes": ["other"]}}}, "field 'n' names route 'other'"),
    ({"fields": {"status": {"pattern": "x"}}}, "'status' is the name of a route and of a field"),
    ({"fields": {"a.b": {"pattern": "x"}}}, "'a.b' is not a valid field name"),
]


@pytest.mark.parametrize(("extra", "sentence"), REFUSED)
def test_wrong_settings_fail_loading(extra: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load(**extra)
    assert str(raised.value).startswith("model 'route-request': ")
    assert sentence in str(raised.value)


@pytest.mark.parametrize("name", sorted(TENSOR_NAMES))
def test_routes_and_fields_may_not_have_the_name_of_another_tensor(name: str) -> None:
    with pytest.raises(SettingsError):
        load(routes=[{"name": name}])
    with pytest.raises(SettingsError, match=f"'{name}' is the name of another tensor"):
        load(fields={name: {"pattern": "x"}})
