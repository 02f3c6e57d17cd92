"""Who is let in: tokens, their limits, mutual TLS, signed models; and what the audit log keeps."""

import json
import os
import ssl
from pathlib import Path

import grpc
import pytest

from delivery.serving.audit_log import AuditLog
from delivery.serving.clients import Clients, ClientsError, create_token, read_clients, revoke_token
from delivery.serving.errors import ServingError
from delivery.serving.gateway import Call, Gateway
from delivery.serving.metrics import ServingMetrics
from delivery.serving.settings import ServingSettings
from delivery.serving.versions import Catalogue
from launch.cli import run
from tests.certificates import issue
from tests.delivery.serving.serving_process import Server, Tls, save


def code_of(call) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return refused.value.code()


@pytest.mark.processes
def test_mutual_tls_tokens_limits_and_the_audit_log(tmp_path: Path):
    authority = issue(tmp_path, "authority")
    for name in ("server", "client"):
        issue(tmp_path, name, authority)
    base = tmp_path / "double"
    base.mkdir()
    save(base / "1", 2.0)
    file, audit = tmp_path / "clients.json", tmp_path / "audit.jsonl"
    token, slow = create_token(file, "shop"), create_token(file, "slow", requests_per_s=0.01)
    assert token.partition(".")[2] not in file.read_text()

    read = {name: (tmp_path / name).read_bytes() for name in ("authority.pem", "client.pem", "client.key")}
    context = ssl.create_default_context(cafile=str(tmp_path / "authority.pem"))
    context.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
    credentials = grpc.ssl_channel_credentials(read["authority.pem"], read["client.key"], read["client.pem"])
    options = ["--allow-unsigned", "--clients", str(file), "--audit-log", str(audit)]
    options += ["--tls-certificate", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key")]
    options += ["--tls-client-ca", str(tmp_path / "authority.pem")]
    server = Server(base, tmp_path / "log", *options, tls=Tls(credentials, context), token=token)
    try:
        assert list(server.predict([[1, 2]]).outputs["scores"].float_val) == [2, 4]
        assert server.http(":predict", {"instances": [[1, 2]]}) == (200, {"predictions": [[2, 4]]})
        # No certificate, no connection.
        with grpc.secure_channel(server.grpc, grpc.ssl_channel_credentials(read["authority.pem"])) as channel:
            assert code_of(lambda: channel.unary_unary("/x/y")(b"", timeout=5)) == grpc.StatusCode.UNAVAILABLE

        server.token = "shop.guess"
        assert code_of(lambda: server.predict([[1, 2]])) == grpc.StatusCode.UNAUTHENTICATED
        assert server.http(":predict", {"instances": [[1, 2]]})[0] == 401
        server.token = slow
        assert server.http(":predict", {"instances": [[1, 2]]})[0] == 200
        assert code_of(lambda: server.predict([[1, 2]])) == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert server.http(":predict", {"instances": [[1, 2]]})[0] == 429
        assert 0 < int(server.headers["Retry-After"]) <= 100
    finally:
        server.end()
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["client"], line["code"]) for line in lines] == [
        ("shop", "OK"),
        ("shop", "OK"),
        ("", "UNAUTHENTICATED"),
        ("", "UNAUTHENTICATED"),
        ("slow", "OK"),
        ("slow", "RESOURCE_EXHAUSTED"),
        ("slow", "RESOURCE_EXHAUSTED"),
    ]
    assert "scores" not in audit.read_text() and audit.stat().st_mode & 0o077 == 0


def test_a_running_server_takes_new_tokens_and_keeps_the_old_ones_when_the_file_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("delivery.serving.clients._LOOK_EVERY_S", 0.0)
    file = tmp_path / "clients.json"
    old = create_token(file, "shop")
    clients = Clients(file)
    assert clients.recognise(f"Bearer {old}") == "shop"
    new = create_token(file, "shop")
    assert clients.recognise(f"bearer {new}") == "shop"
    for wrong in (f"Bearer {old}", "", new, "Bearer ", "Bearer shop", "Bearer nobody.x", f"Basic {new}"):
        with pytest.raises(ServingError, match="valid token"):
            clients.recognise(wrong)
    whole = file.read_text()
    file.write_text(whole[:-10])
    assert clients.recognise(f"Bearer {new}") == "shop"
    file.unlink()
    assert clients.recognise(f"Bearer {new}") == "shop"
    file.write_text(whole)
    create_token(file, "bank")
    revoke_token(file, "shop")
    with pytest.raises(ServingError, match="valid token"):
        clients.recognise(f"Bearer {new}")
    with pytest.raises(ClientsError, match="it has bank"):
        revoke_token(file, "shop")
    with pytest.raises(ClientsError, match="phalanx tokens create"):
        read_clients(tmp_path / "none.json")


def test_a_server_that_strangers_reach_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    base = tmp_path / "double"
    base.mkdir()
    save(base / "1", 2.0)
    assert run(["serve", str(base), "--allow-unsigned", "--host", "0.0.0.0"]) == 2
    assert "host=0.0.0.0 is reachable from other machines" in capsys.readouterr().err
    assert run(["serve", str(base)]) == 2
    assert "no key is trusted" in capsys.readouterr().err


def test_nothing_is_answered_without_the_audit_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog):
    settings = ServingSettings.model_validate(
        {"models": [{"name": "double", "path": tmp_path}], "trust": {"allow_unsigned": True}}
    )
    full = AuditLog(Path("/dev/full"))
    gateway = Gateway(settings, Catalogue(["double"]), ServingMetrics(), audit=full)
    for _ in range(2):
        with pytest.raises(ServingError, match="audit log") as refused, gateway.counted(Call("grpc", "predict")):
            pass
        assert refused.value.code == "UNAVAILABLE"
    assert [record.message for record in caplog.records] == [
        "the audit log cannot be written: nothing is answered until it can"
    ]

    file = tmp_path / "audit.jsonl"
    audit = AuditLog(file)
    write = os.write
    monkeypatch.setattr(os, "write", lambda to, content: write(to, content[:7]))
    with pytest.raises(OSError, match="No space"):
        audit.write(client="shop")
    monkeypatch.undo()
    audit.write(client="shop")
    assert json.loads(file.read_text().splitlines()[-1])["client"] == "shop"
