"""The gRPC guard: bounds messages before MLServer converts them.

MLServer's converter believes a shape: it multiplies the sizes of any number of dimensions, and unpacks raw contents by
them.
"""

from collections.abc import Iterable
from typing import Any

from mlserver.grpc import dataplane_pb2 as pb

from ..errors import RequestTooLarge
from ..limits import ElementBudget, check_parameter_count, check_tensor_count, server_limits
from ..requests.headers import check_unique_headers


def check_message(request: pb.ModelInferRequest, metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Refuse a message over the server's limits, and ambiguous metadata.

    Raises:
        RequestTooLarge: too many bytes. InvalidInput: tensors of too many elements or dimensions, or a tenant or an
            identity that comes twice with different values.
    """
    check_unique_headers((name, value) for name, value in metadata if isinstance(value, str))
    message: Any = request
    most = server_limits().max_request_bytes
    if message.ByteSize() > most:
        raise RequestTooLarge(most)
    check_tensor_count("inputs", len(message.inputs))
    check_tensor_count("outputs", len(message.outputs))
    for part in (message, *message.inputs, *message.outputs):
        check_parameter_count(len(part.parameters))
    budget = ElementBudget.of_request()
    for tensor in message.inputs:
        budget.take(tensor.name, tensor.shape)
