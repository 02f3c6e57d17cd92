"""How a source reads from an object store: only read where its path is a URL."""

from typing import Annotated

from pydantic import Field, NonNegativeInt

from trainer.config.byte_size import ByteSize
from trainer.config.section import Section

SMALLEST_BLOCK = 4096


class StoreConfig(Section):
    """Options of reading from an object store; without effect on files of this machine."""

    cache: ByteSize = Field(default=4 * 2**30, description="most bytes of the cache on this machine's disk")
    block: Annotated[ByteSize, Field(ge=SMALLEST_BLOCK)] = Field(
        default=256 * 2**10, description="bytes that are read and cached together; at most the cache"
    )
    retries: NonNegativeInt = Field(default=6, description="tries after the first one before the run fails")
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=30.0, description="seconds after which a try has failed"
    )
    hedge: bool = Field(
        default=True, description="ask a second time when a read takes longer than 19 of 20 did, and take what is first"
    )
    ahead: NonNegativeInt = Field(default=8, description="batches that are fetched into the cache before their turn")
