"""What `phalanx serve` can be told: the keys of its YAML file, each with an option on the command line."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from delivery.serving.otlp_endpoint import checked
from trainer.config.byte_size import ByteSize

STANDARD_ERROR = Path("-")


class Part(BaseModel):
    """A part of the settings: closed to keys that it does not declare."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSettings(Part):
    """One model to serve."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = Field(description="As clients name it.")
    path: Path = Field(description="Folder of a SavedModel, or of its versions in folders named by numbers.")
    alias: str | None = Field(
        default=None, description="Alias of a repository to follow; without one the newest version."
    )
    canary: str | None = Field(
        default=None, description="Alias or number of a version that gets a share of the requests."
    )
    canary_percent: float = Field(default=0.0, ge=0, le=100, description="That share.")
    shadow: str | None = Field(
        default=None, description="Alias or number of a version that gets a copy of the requests."
    )

    @model_validator(mode="after")
    def _canary_is_whole(self) -> ModelSettings:
        if self.canary_percent and not self.canary:
            raise ValueError(f"canary_percent={self.canary_percent:g} needs canary, the version that gets the share")
        return self


class BatchingSettings(Part):
    """How requests are put together."""

    sizes: tuple[PositiveInt, ...] = Field(
        default=(1, 2, 4, 8, 16, 32, 64), description="Rows of a batch, after padding."
    )
    latency_bound_ms: PositiveFloat = Field(
        default=200.0, description="Who would wait longer than this is refused at once."
    )
    max_queued_rows: PositiveInt = Field(default=1024, description="Rows that may wait for each version.")
    parallel: PositiveInt = Field(default=1, description="Batches of one version that are computed at once.")

    @model_validator(mode="after")
    def _sizes_rise(self) -> BatchingSettings:
        if not self.sizes or list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"batching.sizes={list(self.sizes)} must rise: write each size once, the smallest first")
        return self


class LimitSettings(Part):
    """What one client may ask for."""

    request_bytes: ByteSize = Field(default=16 << 20, ge=1024, description="Of one request.")
    tensor_bytes: ByteSize = Field(default=64 << 20, ge=1024, description="That one input may take in memory.")
    rows: PositiveInt = Field(default=4096, description="Of one request.")
    deadline_s: PositiveFloat = Field(
        default=30.0, description="Of a request that brings none, and the longest for all."
    )
    concurrent: PositiveInt = Field(default=2048, description="Requests in flight, over each protocol.")
    streams: PositiveInt = Field(
        default=64, description="gRPC requests in flight over one connection; its client keeps the others back."
    )
    pending: PositiveInt = Field(
        default=150, description="gRPC requests that may wait to be looked at; beyond, they are cancelled unseen."
    )
    memory: ByteSize | None = Field(
        default=None, description="Of the process; none: 90% of what the machine or container has."
    )


class TlsSettings(Part):
    """Certificates, PEM files."""

    certificate: Path = Field(description="Of the server, with its chain.")
    key: Path = Field(description="Its private key.")
    client_ca: Path | None = Field(
        default=None, description="Whose certificates clients must bring; none: none needed."
    )


class TrustSettings(Part):
    """What may be loaded."""

    keys: tuple[Path, ...] = Field(
        default=(), description="Public keys, or folders of them, that models must be signed with."
    )
    allow_unsigned: bool = Field(default=False, description="Load models that nobody signed.")

    @model_validator(mode="after")
    def _is_decided(self) -> TrustSettings:
        if not self.keys and not self.allow_unsigned:
            raise ValueError("no key is trusted: pass --keys with the public keys of the signers, or --allow-unsigned")
        return self


class ServingSettings(Part):
    """Everything."""

    models: tuple[ModelSettings, ...] = Field(min_length=1)
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    grpc_port: int = Field(default=8500, ge=0, le=65535, description="0: any free one.")
    rest_port: int = Field(default=8501, ge=0, le=65535, description="0: any free one.")
    batching: BatchingSettings = BatchingSettings()
    limits: LimitSettings = LimitSettings()
    tls: TlsSettings | None = None
    trust: TrustSettings
    clients: Path | None = Field(default=None, description="Who may ask, made by phalanx tokens; none: everybody.")
    audit_log: Path | None = Field(default=None, description="File that is told of every request.")
    json_log: Path | None = Field(
        default=None, description="File for one JSON object a request, batch and event; -: standard error."
    )
    cloud_project: Annotated[str, Field(pattern=r"^([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]$")] | None = Field(
        default=None, description="Project of Google Cloud that traces in the JSON log are named after."
    )
    otlp_traces_endpoint: Annotated[str, AfterValidator(checked)] | None = Field(
        default=None, description="Where OpenTelemetry's spans are posted to, with its path; none: no spans."
    )
    allow_insecure: bool = Field(default=False, description="Listen beyond this machine without TLS or authentication.")
    sandbox: Literal["on", "off"] = Field(
        default="on", description="Landlock: the process reads models and keys, writes its logs and calls nobody."
    )
    watch_every_s: PositiveFloat = Field(default=1.0, description="Between two looks for new versions.")
    drain_s: PositiveFloat = Field(default=30.0, description="For the requests in flight at the end.")
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"

    @model_validator(mode="after")
    def _log_has_a_place(self) -> ServingSettings:
        if self.cloud_project and self.json_log is None:
            raise ValueError(f"cloud_project={self.cloud_project} names traces in the JSON log: add --json-log")
        if self.json_log is not None and not self.json_log.parent.is_dir():
            raise ValueError(f"json_log={self.json_log} is in no folder: make {self.json_log.parent}, or name another")
        if self.json_log is not None and self.json_log == self.audit_log:
            raise ValueError(f"json_log and audit_log are both {self.json_log}: name two files")
        return self

    @model_validator(mode="after")
    def _is_closed_or_secure(self) -> ServingSettings:
        names = [model.name for model in self.models]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"model {twice[0]} is given twice: name them apart with NAME=PATH")
        authenticated = self.tls is not None and (self.tls.client_ca or self.clients) is not None
        if not is_loopback(self.host) and not self.allow_insecure and not authenticated:
            raise ValueError(
                f"host={self.host} is reachable from other machines: give TLS (--tls-certificate, --tls-key) with "
                "--tls-client-ca or --clients, or pass --allow-insecure"
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
