"""The section `data.service`: processes beside the training that read its batches."""

from typing import Annotated

from pydantic import Discriminator, Field, PositiveInt, Tag, model_validator

from trainer.config.section import Section


class ServiceRange(Section):
    """As many service workers as the measured waiting asks for."""

    min: PositiveInt = Field(default=1, description="fewest service workers")
    max: PositiveInt = Field(description="most service workers")

    @model_validator(mode="after")
    def _is_a_range(self) -> "ServiceRange":
        if self.min > self.max:
            raise ValueError(
                f"data.service.workers.min={self.min} must be at most data.service.workers.max={self.max}: "
                "exchange them"
            )
        return self

    @classmethod
    def written_out(cls, number: object) -> dict[str, object]:
        """The keys that a plain number stands for, so that one of them can be set alone."""
        return {"min": number, "max": number}


def _form(value: object) -> str:
    return "name=range" if isinstance(value, dict | ServiceRange) else "name=number"


# The tags look like those of sections chosen by name, which messages about a config leave out of a setting's place.
ServiceWorkers = Annotated[
    Annotated[PositiveInt, Tag("name=number")] | Annotated[ServiceRange, Tag("name=range")], Discriminator(_form)
]


class DataServiceConfig(Section):
    """Service workers, which the training processes ask for batches; the curve is the same with and without them."""

    workers: ServiceWorkers = Field(
        description="processes that read batches beside the training: a number, or {min: 1, max: 8} for as many as the "
        "measured waiting for data asks for"
    )
    cpus_per_worker: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="CPUs that Ray keeps free for each of them, with cluster.kind=ray"
    )

    @property
    def fewest(self) -> int:
        """The fewest service workers."""
        return self.workers.min if isinstance(self.workers, ServiceRange) else self.workers

    @property
    def most(self) -> int:
        """The most service workers."""
        return self.workers.max if isinstance(self.workers, ServiceRange) else self.workers
