"""What a confined process cannot do any more: tried for real, by a process of its own and by a served model."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from delivery.serving.landlock import NETWORK_SINCE, kernel_version
from delivery.serving.sandbox import SandboxRefused, confine
from delivery.serving.settings import ServingSettings
from launch.cli import run
from launch.exit_code import ExitCode
from tests.delivery.serving.serving_process import Server

needs_landlock = pytest.mark.skipif(not kernel_version(), reason="this kernel has no Landlock")

# Says of each attempt whether it was done, or why not.
ATTEMPTS = """
import errno, json, os, socket, subprocess, sys, tempfile
from pathlib import Path
from delivery.serving.sandbox import confine
from delivery.serving.settings import ServingSettings

base, port = Path(sys.argv[2]), int(sys.argv[3])
settings = ServingSettings.model_validate(json.loads(sys.argv[1]))
exposed = confine(settings).exposed if settings.sandbox == "on" else ()


def connect():
    socket.create_connection(("127.0.0.1", port), 5).close()


def bind(number):
    with socket.socket() as door:
        door.bind(("127.0.0.1", number))


attempts = {
    "read the model": lambda: (base / "model/1/saved_model.pb").read_bytes(),
    "read a version that came later": lambda: os.listdir(base / "model"),
    "append to the log": lambda: (base / "logs/audit.jsonl").open("a").write("x"),
    "begin the log anew": lambda: (base / "logs/next.jsonl").open("a").write("x"),
    "write a temporary file": lambda: tempfile.TemporaryFile(),
    "make a temporary folder": lambda: tempfile.TemporaryDirectory().cleanup(),
    "import a library": lambda: __import__("sqlite3"),
    "listen": lambda: bind(settings.grpc_port),
    "read a secret": lambda: (base / "secret").read_bytes(),
    "read passwords": lambda: Path("/etc/shadow").read_bytes(),
    "list a folder": lambda: os.listdir(base),
    "read another's environment": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
    "write a file": lambda: (base / "new").write_bytes(b"x"),
    "change the model": lambda: (base / "model/1/saved_model.pb").open("ab").write(b"x"),
    "remove a file": lambda: os.unlink(base / "removable"),
    "empty the log": lambda: os.truncate(base / "logs/audit.jsonl", 0),
    "move a file": lambda: os.rename(base / "movable", base / "moved"),
    "make a link": lambda: os.symlink("/", base / "link"),
    "run a program": lambda: subprocess.run(["/bin/true"], check=True),
    "connect": connect,
    "listen elsewhere": lambda: bind(0),
}
found = {}
for name, attempt in attempts.items():
    try:
        attempt()
        found[name] = "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]
print(json.dumps({"found": found, "exposed": exposed}))
"""
KEPT = [
    "read the model",
    "read a version that came later",
    "append to the log",
    "begin the log anew",
    "write a temporary file",
    "make a temporary folder",
    "import a library",
    "listen",
]


def attempts(base: Path, sandbox: str, log: str = "logs/audit.jsonl") -> tuple[dict[str, str], list[str]]:
    """What became of each attempt, and what the process says that its logs expose."""
    (base / "model" / "1").mkdir(parents=True)
    (base / "logs").mkdir()
    for name in ("secret", "removable", "movable", "logs/audit.jsonl", "model/1/saved_model.pb"):
        (base / name).write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
        taken.close()
        settings = {
            "models": [{"name": "model", "path": str(base / "model")}],
            "trust": {"allow_unsigned": True},
            "audit_log": str(base / log),
            "grpc_port": free,
            "sandbox": sandbox,
        }
        arguments = [json.dumps(settings), str(base), str(listening.getsockname()[1])]
        done = subprocess.run([sys.executable, "-c", ATTEMPTS, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return said["found"], said["exposed"]


@needs_landlock
def test_a_confined_process_keeps_what_it_needs_and_nothing_else(tmp_path: Path):
    place = Path(tempfile.gettempdir())
    before = set(place.glob("phalanx-serving-*"))
    found, exposed = attempts(tmp_path, "on")
    lost = {name: outcome for name, outcome in found.items() if name not in KEPT}
    if kernel_version() < NETWORK_SINCE:
        lost = {name: outcome for name, outcome in lost.items() if name not in ("connect", "listen elsewhere")}
    assert [found[name] for name in KEPT] == ["done"] * len(KEPT), found
    assert set(lost.values()) == {"EACCES"}, found
    assert exposed == []
    assert set(place.glob("phalanx-serving-*")) <= before  # its own is gone


@needs_landlock
def test_a_log_beside_the_models_is_warned_of_for_good_reason(tmp_path: Path):
    found, (sentence,) = attempts(tmp_path, "on", "audit.jsonl")
    assert found["change the model"] == "done" and found["remove a file"] == "EACCES"
    assert sentence.endswith(f"which holds {tmp_path / 'model'}: give audit.jsonl a folder of its own")


def test_the_same_process_does_all_of_it_with_the_sandbox_off(tmp_path: Path):
    found, _ = attempts(tmp_path, "off")
    if os.getuid():
        found.pop("read passwords")
    assert set(found.values()) == {"done"}, found


def test_a_kernel_without_landlock_is_refused_unless_the_sandbox_is_off(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr("delivery.serving.sandbox.kernel_version", lambda: 0)
    assert run(["serve", f"double={tmp_path}", "--allow-unsigned"]) == ExitCode.WRONG_REQUEST
    assert "this kernel has no Landlock" in capsys.readouterr().err
    assert run(["serve", f"double={tmp_path}", "--allow-unsigned", "--sandbox", "maybe"]) == ExitCode.WRONG_REQUEST
    assert "sandbox: Input should be 'on' or 'off'" in capsys.readouterr().err


@needs_landlock
def test_a_process_with_threads_is_refused(tmp_path: Path):
    settings = ServingSettings.model_validate(
        {"models": [{"name": "double", "path": tmp_path}], "trust": {"allow_unsigned": True}}
    )
    assert len(os.listdir("/proc/self/task")) > 1  # TensorFlow's
    with pytest.raises(SandboxRefused, match="threads run"):
        confine(settings)


def save_hostile(folder: Path) -> None:
    """A model that reads the file that a request names, and one that writes it."""
    module = tf.Module()
    paths = [tf.TensorSpec([], tf.string, name="path")]

    @tf.function(input_signature=paths)
    def read(path):
        return {"content": tf.io.read_file(path)}

    @tf.function(input_signature=paths)
    def write(path):
        with tf.control_dependencies([tf.io.write_file(path, "written")]):
            return {"path": tf.identity(path)}

    tf.saved_model.save(module, str(folder), signatures={"serving_default": read, "write": write})


@needs_landlock
@pytest.mark.processes
def test_a_hostile_model_that_is_served_reads_and_writes_nothing(tmp_path: Path):
    base = tmp_path / "hostile"
    base.mkdir()
    save_hostile(base / "1")
    (tmp_path / "secret").write_bytes(b"sesame")
    (base / "own").write_bytes(b"own")
    here = tf.saved_model.load(str(base / "1"))  # in this process, which is not confined, it does both
    assert here.signatures["serving_default"](path=tf.constant(str(tmp_path / "secret")))["content"] == b"sesame"
    here.signatures["write"](path=tf.constant(str(tmp_path / "by-this-process")))
    assert (tmp_path / "by-this-process").exists()

    def ask(signature: str, path: Path) -> bytes:
        request = predict_pb2.PredictRequest()
        request.model_spec.name, request.model_spec.signature_name = "double", signature
        request.inputs["path"].CopyFrom(tf.make_tensor_proto(np.array(str(path).encode(), object)))
        (output,) = server.predictions.Predict(request, timeout=30).outputs.values()
        return output.string_val[0]

    server = Server(base, tmp_path / "log", "--allow-unsigned")
    try:
        assert ask("serving_default", base / "own") == b"own"
        for signature, path in (("serving_default", tmp_path / "secret"), ("write", tmp_path / "by-the-server")):
            with pytest.raises(grpc.RpcError) as refused:
                ask(signature, path)
            assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert not (tmp_path / "by-the-server").exists()
        for thread in Path(f"/proc/{server.process.pid}/task").iterdir():
            assert "NoNewPrivs:\t1" in (thread / "status").read_text()
    finally:
        server.end()
