"""Settings of the classifier."""

from typing import Annotated, ClassVar

import regex
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from mlserver_chat import Settings, SiblingSettings
from mlserver_chat.limits import Limits
from mlserver_chat.requests.identity import NAME_PATTERN
from mlserver_chat.settings import Options
from mlserver_chat.tensors import TENSOR_NAMES

LOGPROB = "logprob"
"""Name of the scorer that asks the LLM for log-probabilities."""


def _checked_name(name: str) -> str:
    if name in TENSOR_NAMES:
        raise ValueError(f"'{name}' is the name of another tensor; choose another name")
    return name


def _route_name(name: str) -> str:
    if not NAME_PATTERN.fullmatch(name):
        raise ValueError(f"'{name}' is not a valid route name; expected lower-case letters, digits and inner hyphens")
    return _checked_name(name)


def _field_name(name: str) -> str:
    if not regex.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"'{name}' is not a valid field name; expected letters, digits and underscores")
    return _checked_name(name)


def _pattern(pattern: str) -> str:
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"it is not a regular expression: {error}") from error
    if compiled.search("") is not None:
        raise ValueError("it matches an empty text; expected a pattern that needs at least one character")
    return pattern


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


RouteName = Annotated[str, AfterValidator(_route_name)]
FieldName = Annotated[str, AfterValidator(_field_name)]
Pattern = Annotated[str, AfterValidator(_pattern)]


class RouteSettings(Settings):
    """A route to choose from."""

    name: RouteName
    """The label, and the name of the tensor that is present if and only if this route is chosen. Lower-case letters,
    digits and inner hyphens. It must differ from the names of other tensors."""
    description: str = ""
    """A few words that tell the LLM when the route fits."""
    examples: list[str] = []
    """Example user messages of this route, for the LLM."""


class FieldSettings(Settings):
    """A value to find in the user's messages."""

    pattern: Annotated[list[Pattern], BeforeValidator(_listed)] = Field(min_length=1)
    """A regular expression of the `regex` library, or a list of them, which are tried in order on each message. The
    value is group 1 of the match, or the whole match if the pattern has no groups."""
    routes: list[str] = []
    """Routes that need the field. For the other routes the field is empty. Default: all routes."""


class ClassifierSettings(SiblingSettings):
    """Settings of `mlserver_classifier.Classifier`, under `parameters.extra`."""

    env_prefix: ClassVar[str] = "MLSERVER_MODEL_CLASSIFIER_"

    routes: list[RouteSettings] = Field(min_length=1)
    """The routes, each `{name, description, examples}`."""
    scorer: str = LOGPROB
    """`logprob` uses the log-probabilities that the LLM gives to the routes' names. Or the dotted name of your own
    class, in a module beside `model-settings.json` or an installed one."""
    scorer_settings: Options = {}
    """Keyword arguments for your own scorer."""
    threshold: float | None = Field(default=None, gt=0, le=1)
    """If the highest probability is lower than this, the default route is chosen. Default: no threshold."""
    default_route: str | None = None
    """The route to choose below `threshold`, and among equally probable routes. Required with `threshold`."""
    fields: dict[FieldName, FieldSettings] = {}
    """Values to find, by the name of the tensor that holds them: `{"issue_number": {"pattern": …, "routes": […]}}`."""
    limits: Limits = Limits()
    """Limits on the cost of one request."""

    @property
    def calls_llm(self) -> bool:
        """Whether the scorer is the LLM."""
        return self.scorer == LOGPROB

    @property
    def labels(self) -> list[str]:
        """Names of the routes, in order."""
        return [route.name for route in self.routes]

    @model_validator(mode="after")
    def _check(self) -> "ClassifierSettings":
        labels = self.labels
        for name in labels:
            if labels.count(name) > 1:
                raise ValueError(f"'routes' names '{name}' twice")
            if name in self.fields:
                raise ValueError(f"'{name}' is the name of a route and of a field; they would be one tensor")
        if self.threshold is not None and self.default_route is None:
            raise ValueError("'threshold' needs a 'default_route', the route to choose below it")
        if self.default_route is not None and self.default_route not in labels:
            raise ValueError(f"'default_route' is '{self.default_route}', which is not one of 'routes'")
        for field, settings in self.fields.items():
            for name in settings.routes:
                if name not in labels:
                    raise ValueError(f"field '{field}' names route '{name}', which is not one of 'routes'")
        return self
