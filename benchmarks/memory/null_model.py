"""A model that does nothing: what a request costs in MLServer by itself."""

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput, TensorData


class Null(MLModel):
    """Answers every request with one short text."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        output = ResponseOutput(name="memory_id", shape=[1, 1], datatype="BYTES", data=TensorData(["null"]))
        return InferenceResponse(model_name=self.name, outputs=[output])
