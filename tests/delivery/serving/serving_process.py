"""A real server process, and its clients: the stock stubs and plain HTTP."""

import json
import os
import select
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from delivery.serving.landlock import kernel_version

# A server confines itself wherever it can.
SANDBOX = () if kernel_version() else ("--sandbox", "off")


@dataclass
class Tls:
    """What a client brings."""

    grpc: grpc.ChannelCredentials
    rest: ssl.SSLContext


def save(folder: Path, factor: float) -> None:
    """scores = factor * x, with a request that holds a negative number refused by the model."""
    module = tf.Module()
    module.factor = tf.Variable(factor)

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    def answer(x):
        with tf.control_dependencies([tf.debugging.assert_non_negative(x, message="x must not be negative")]):
            return {"scores": module.factor * x}

    unfinished = folder.with_name(f".{folder.name}")
    tf.saved_model.save(module, str(unfinished), signatures={"serving_default": answer})
    os.rename(unfinished, folder)


class Server:
    """`phalanx serve` of one model named double, from its readiness on."""

    def __init__(self, base: Path, log: Path, *options: str, tls: Tls | None = None, token: str = "") -> None:
        command = [sys.executable, "-c", "from launch.cli import main; main()", "serve", f"double={base}"]
        command += ["--port", "0", "--rest-port", "0", "--latency-bound-ms", "5000", *SANDBOX, *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log.open("w"), text=True)
        assert select.select([self.process.stdout], [], [], 120)[0], log.read_text()
        words = self.process.stdout.readline().split()
        assert words[:1] == ["ready"], log.read_text()
        self.grpc, self.rest_port, self.token = words[2], words[4].rpartition(":")[2], token
        self.base, self.log, self.tls, self.rest_name = base, log, tls, "double"
        self.channel = grpc.secure_channel(self.grpc, tls.grpc) if tls else grpc.insecure_channel(self.grpc)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    def request(self, x) -> predict_pb2.PredictRequest:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "double"
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array(x, np.float32)))
        return request

    def predict(self, x) -> predict_pb2.PredictResponse:
        metadata = [("authorization", f"Bearer {self.token}")] if self.token else []
        return self.predictions.Predict(self.request(x), timeout=30, metadata=metadata)

    def http(self, path: str, body=None, headers: dict[str, str] | None = None) -> tuple[int, dict]:
        data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
        scheme, context = ("https", self.tls.rest) if self.tls else ("http", None)
        request = urllib.request.Request(
            f"{scheme}://127.0.0.1:{self.rest_port}/v1/models/{self.rest_name}{path}", data, headers or {}
        )
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                self.headers = answer.headers
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            self.headers = error.headers
            return error.code, json.load(error)

    def get(self, path: str) -> tuple[int, str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.rest_port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()

    def end(self) -> None:
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
