"""The classifier, which chooses one route for a conversation."""

import asyncio

from mlserver import ModelSettings
from mlserver.types import Datatype, InferenceRequest, InferenceResponse, MetadataTensor, ResponseOutput

from mlserver_chat import InvalidInput, Runtime, Scorer, bind_llm, read_conversation, settings_folder
from mlserver_chat.llm.backends import import_scorer
from mlserver_chat.requests.caller import unless_left
from mlserver_chat.requests.passing import passing_request
from mlserver_chat.runtime import text_metadata
from mlserver_chat.tensors import float_output, passed_through, read_tensors, text_output

from .decision import Decision, decide
from .fields import FieldFinder
from .scorers import LogprobScorer
from .settings import LOGPROB, ClassifierSettings


class Classifier(Runtime[ClassifierSettings]):
    """Chooses one of the settings' routes for the last user message of a conversation.

    Inputs: `history`, chat tensors, or both.
    Outputs: `label`, `score`, `labels`, `scores`, a tensor for each field, and one tensor with the name of the chosen
    route. The triggers of a Pipeline test whether that tensor is present.
    """

    settings_class = ClassifierSettings
    input_tensors = text_metadata("memory_id", "history", "role", "content", "type", "llm_parameters")

    def __init__(self, settings: ModelSettings):
        super().__init__(settings)
        self.outputs = self.outputs or _metadata(self.config)

    async def load(self) -> bool:
        """Compile the patterns, and wait for the LLM or build the user's scorer."""
        self._fields = FieldFinder(self.config.fields)
        scorer = await self._build_scorer()
        self.resources.push_async_callback(scorer.aclose)
        self._score = passing_request(scorer.score)
        return True

    async def _build_scorer(self) -> Scorer:
        config = self.config
        if config.scorer == LOGPROB:
            return LogprobScorer(
                await bind_llm(config, self.settings, self.registry, config.limits.max_response_bytes), config.routes
            )
        folder = settings_folder(self.settings)
        return await asyncio.to_thread(import_scorer, config.scorer, folder, config.scorer_settings)

    async def handle(self, request: InferenceRequest) -> InferenceResponse:
        """Score the routes, choose one, and search for the fields."""
        tensors = read_tensors(request.inputs)
        handed_on = passed_through(tensors)
        conversation = read_conversation(tensors)
        user_texts = [message.text for message in reversed(conversation) if message.role == "user"]
        if not user_texts:
            raise InvalidInput("the conversation has no message of role 'user'; expected one to classify")
        probabilities = await unless_left(self._score(conversation, self.config.labels, request=request))
        decision = decide(self.config.labels, probabilities, self.config.threshold, self.config.default_route)
        fields = await self._fields.find(user_texts, decision.label)
        return self.response([*handed_on, *_outputs(decision, fields)])


def _outputs(decision: Decision, fields: dict[str, str]) -> list[ResponseOutput]:
    return [
        text_output("label", [decision.label]),
        float_output("score", [decision.score]),
        text_output("labels", decision.labels),
        float_output("scores", decision.scores),
        *(text_output(name, [value]) for name, value in fields.items()),
        text_output(decision.label, [decision.label]),
    ]


def _metadata(config: ClassifierSettings) -> list[MetadataTensor]:
    scores = [MetadataTensor(name=name, datatype=Datatype.FP64, shape=[-1, 1]) for name in ("score", "scores")]
    return [*text_metadata("memory_id", "llm_parameters", "label", "labels", *config.fields, *config.labels), *scores]
