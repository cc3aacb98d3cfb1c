"""The gRPC guard: bounds messages before MLServer converts them.

MLServer's converter believes a shape: it multiplies the sizes of any number of dimensions, and unpacks raw contents by
them.
"""

from typing import Any

from mlserver.grpc import dataplane_pb2 as pb

from ..errors import RequestTooLarge
from ..limits import ElementBudget, server_limits


def check_message(request: pb.ModelInferRequest) -> None:
    """Refuse a message over the server's limits.

    Raises:
        RequestTooLarge: too many bytes. InvalidInput: tensors of too many elements or dimensions.
    """
    message: Any = request
    most = server_limits().max_request_bytes
    if message.ByteSize() > most:
        raise RequestTooLarge(most)
    budget = ElementBudget.of_request()
    for tensor in message.inputs:
        budget.take(tensor.name, tensor.shape)
