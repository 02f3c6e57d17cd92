"""TensorFlow Serving's gRPC services, and gRPC's own health service."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
from google.protobuf import message_factory
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from tensorflow_serving.apis import model_service_pb2_grpc as model_service

from delivery.serving.classified import classes_of, read_examples, values_of
from delivery.serving.errors import BY_NUMBER, ServingError, invalid
from delivery.serving.gateway import Answered, Call, Gateway, Target
from delivery.serving.tensors import read_inputs, write_outputs

_STATUS = {name: grpc.StatusCode[name] for name in BY_NUMBER.values()}
_METHODS = {
    "Predict": "predict",
    "Classify": "classify",
    "Regress": "regress",
    "GetModelMetadata": "metadata",
    "GetModelStatus": "status",
}
_NUMBERS = {name: number for number, name in BY_NUMBER.items()}


def target_of(spec: Any) -> Target:
    """What a `ModelSpec` names."""
    version = spec.version.value if spec.HasField("version") else None
    return Target(spec.name, version, spec.version_label, spec.signature_name)


def _call(gateway: Gateway, method: str, context: Any) -> Call:
    sent = [(key, str(value)) for key, value in context.invocation_metadata() or ()]
    trace = gateway.trace([value for key, value in sent if key == "traceparent"])
    if gateway.traces:
        context.set_trailing_metadata((("traceparent", trace.traceparent),))
    return Call("grpc", method, context.time_remaining(), trace, dict(sent).get("authorization", ""))


async def _abort(context: Any, error: ServingError) -> NoReturn:
    trailing = tuple(context.trailing_metadata() or ())
    if error.retry_after_s is not None:
        # gRPC's own clients wait as long as this says before they try again.
        trailing = (*trailing, ("grpc-retry-pushback-ms", str(int(error.retry_after_s * 1000))))
    await context.abort(_STATUS[error.code], str(error), trailing)
    raise AssertionError("abort raises")


async def _refuse(gateway: Gateway, context: Any, refusal: ServingError, method: str = "unknown") -> NoReturn:
    """Counted and logged as any other request."""
    try:
        with gateway.counted(_call(gateway, method, context)):
            raise refusal
    except ServingError as error:
        await _abort(context, error)


def _fill_spec(spec: Any, answered: Answered) -> None:
    spec.name, spec.signature_name = answered.version.model, answered.signature.name
    spec.version.value = answered.version.number


def _examples(given: Any) -> list[Any]:
    if given.WhichOneof("kind") == "example_list_with_context":
        examples = []
        for example in given.example_list_with_context.examples:
            merged = type(example)()
            merged.CopyFrom(given.example_list_with_context.context)
            merged.MergeFrom(example)
            examples.append(merged)
        return examples
    return list(given.example_list.examples)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify, Regress, GetModelMetadata."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def Predict(self, request: Any, context: Any) -> Any:  # noqa: D102
        call = _call(self._gateway, "predict", context)
        most = self._gateway.settings.limits.tensor_bytes
        try:
            with self._gateway.counted(call):
                answered = await self._gateway.predict(
                    call, target_of(request.model_spec), lambda signature: read_inputs(signature, request.inputs, most)
                )
                response = predict_pb2.PredictResponse()  # type: ignore[attr-defined]
                _fill_spec(response.model_spec, answered)
                write_outputs(answered.signature, answered.outputs, set(request.output_filter), response.outputs)
                return response
        except ServingError as error:
            await _abort(context, error)

    async def _answer_examples(self, call: Call, request: Any) -> Answered:
        examples = _examples(request.input)
        return await self._gateway.predict(
            call, target_of(request.model_spec), lambda signature: read_examples(signature, examples)
        )

    async def Classify(self, request: Any, context: Any) -> Any:  # noqa: D102
        call = _call(self._gateway, "classify", context)
        try:
            with self._gateway.counted(call):
                answered = await self._answer_examples(call, request)
                response = classification_pb2.ClassificationResponse()  # type: ignore[attr-defined]
                _fill_spec(response.model_spec, answered)
                for row in classes_of(answered):
                    classes = response.result.classifications.add().classes
                    for label, score in row:
                        classes.add(label=label, score=score)
                return response
        except ServingError as error:
            await _abort(context, error)

    async def Regress(self, request: Any, context: Any) -> Any:  # noqa: D102
        call = _call(self._gateway, "regress", context)
        try:
            with self._gateway.counted(call):
                answered = await self._answer_examples(call, request)
                response = regression_pb2.RegressionResponse()  # type: ignore[attr-defined]
                _fill_spec(response.model_spec, answered)
                for value in values_of(answered):
                    response.result.regressions.add(value=value)
                return response
        except ServingError as error:
            await _abort(context, error)

    async def MultiInference(self, request: Any, context: Any) -> Any:  # noqa: D102
        message = "MultiInference is not offered: send one request a task"
        await _refuse(self._gateway, context, ServingError("UNIMPLEMENTED", message))

    async def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: D102
        call = _call(self._gateway, "metadata", context)
        try:
            with self._gateway.counted(call):
                return metadata(self._gateway, call, target_of(request.model_spec), list(request.metadata_field))
        except ServingError as error:
            await _abort(context, error)


class ModelService(model_service.ModelServiceServicer):
    """GetModelStatus; the configuration is not changed over the network."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def GetModelStatus(self, request: Any, context: Any) -> Any:  # noqa: D102
        call = _call(self._gateway, "status", context)
        try:
            with self._gateway.counted(call):
                return status(self._gateway, call, target_of(request.model_spec))
        except ServingError as error:
            await _abort(context, error)

    async def HandleReloadConfigRequest(self, request: Any, context: Any) -> Any:  # noqa: D102
        message = "models are not configured over the network: add a version to the model's folder, or move its alias"
        await _refuse(self._gateway, context, ServingError("UNIMPLEMENTED", message))


def metadata(gateway: Gateway, call: Call, target: Target, fields: list[str]) -> Any:
    """The signatures of a version.

    Raises:
        ServingError: There is no such version, or another field is asked for.
    """
    if fields != ["signature_def"]:
        raise invalid(f"metadata field {fields[:3]} is not supported: ask for signature_def")
    with gateway.version(call, target) as (_, version):
        response = get_model_metadata_pb2.GetModelMetadataResponse()  # type: ignore[attr-defined]
        response.model_spec.name, response.model_spec.version.value = version.model, version.number
        signatures = get_model_metadata_pb2.SignatureDefMap()  # type: ignore[attr-defined]
        for name, signature in version.loaded.signature_defs.items():
            signatures.signature_def[name].CopyFrom(signature)
        response.metadata["signature_def"].Pack(signatures)
        return response


def status(gateway: Gateway, call: Call, target: Target) -> Any:
    """The states of a model's versions.

    Raises:
        ServingError: There is no such model or version.
    """
    model = gateway.catalogue.model(target.model)
    call.model = model.name
    number = target.version
    if target.label:
        number = model.pick(None, target.label).number
    chosen = [version for version in model.versions.values() if number in (None, version.number)]
    if not chosen:
        raise ServingError("NOT_FOUND", f"Could not find version {number} of model {model.name}")
    response = get_model_status_pb2.GetModelStatusResponse()  # type: ignore[attr-defined]
    for version in sorted(chosen, key=lambda version: -version.number):
        entry = response.model_version_status.add(version=version.number, state=int(version.state))
        if version.error:
            entry.status.error_code, entry.status.error_message = _NUMBERS["FAILED_PRECONDITION"], version.error
        else:
            entry.status.error_code = 0
    return response


def _handler(gateway: Gateway, method: Any, answer: Any) -> grpc.RpcMethodHandler:
    """Reads the message itself: for bytes that are none gRPC answers UNKNOWN, and writes a stack trace to the
    log, for clients that nobody has let in.
    """
    kind = message_factory.GetMessageClass(method.input_type)
    refusal = f"the request is no {method.input_type.name}: its bytes cannot be read"

    async def handle(content: bytes, context: Any) -> Any:
        try:
            request = kind.FromString(content)
        except DecodeError:
            await _refuse(gateway, context, invalid(refusal), _METHODS.get(method.name, "unknown"))
        return await answer(request, context)

    return grpc.unary_unary_rpc_method_handler(handle, response_serializer=_serialised)


def _serialised(message: Any) -> bytes:
    return message.SerializeToString()


def add_services(server: Any, gateway: Gateway) -> None:
    """Registers everything with a `grpc.aio` server."""
    services = (
        (prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"], PredictionService(gateway)),
        (model_service_pb2.DESCRIPTOR.services_by_name["ModelService"], ModelService(gateway)),
    )
    for service, servicer in services:
        handlers = {one.name: _handler(gateway, one, getattr(servicer, one.name)) for one in service.methods}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    async def check(request: bytes, context: Any) -> bytes:
        # grpc.health.v1: HealthCheckResponse.status, field 1: 1 SERVING, 2 NOT_SERVING. The package with its stubs is
        # not needed for two bytes.
        return b"\x08\x01" if gateway.metrics.is_ready else b"\x08\x02"

    handler = grpc.unary_unary_rpc_method_handler(check)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
    )
