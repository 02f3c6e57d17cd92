"""From the `strategy` section to an adapter; the devices it needs are made before TensorFlow starts them."""

from __future__ import annotations

import contextlib

import tensorflow as tf

from trainer.config.strategy import StrategyConfig
from trainer.group import Group
from trainer.strategies.horovod import Horovod
from trainer.strategies.mirrored import Mirrored
from trainer.strategies.multi_worker_mirrored import MultiWorkerMirrored
from trainer.strategies.one_device import OneDevice
from trainer.strategies.parameter_server import ParameterServer
from trainer.strategies.strategy import Strategy


class NotEnoughDevices(RuntimeError):
    """The machine has fewer devices than the config asks for."""


def build_strategy(config: StrategyConfig, group: Group | None = None) -> Strategy:
    """The adapter of a config. One for several workers must be built before TensorFlow starts its devices.

    Args:
        config: Fits the group.
        group: The workers, where there are several.

    Raises:
        HorovodNotUsable: Horovod is not installed, or does not fit TensorFlow.
        NotEnoughDevices: More GPUs are asked for than there are, or CPU devices were already started.
        TpuNotUsable, TpuUnreachable: This TensorFlow cannot drive a TPU, or there is none.
    """
    if config.name == "one_device":
        return OneDevice()
    if config.name == "multi_worker_mirrored":
        assert group is not None, "checked with the config"
        return MultiWorkerMirrored(group, config)
    if config.name == "horovod":
        assert group is not None, "checked with the config"
        return Horovod(group, config)
    if config.name == "parameter_server":
        assert group is not None, "checked with the config"
        return ParameterServer(group, config)
    if config.name == "tpu":
        from trainer.strategies.tpu import connect

        return connect(config)
    return Mirrored(_mirrored_devices(config.devices))


def _mirrored_devices(count: int | None) -> list[str]:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if count is not None and count > len(gpus):
            raise NotEnoughDevices(
                f"strategy.devices={count} must not exceed the {len(gpus)} GPUs of this machine: lower it"
            )
        return [f"GPU:{i}" for i in range(count or len(gpus))]
    return _logical_cpus(count or 1)


def _logical_cpus(count: int) -> list[str]:
    cpu = tf.config.list_physical_devices("CPU")[0]
    if count > 1:
        # TensorFlow may have started its devices already: there may be enough of them.
        with contextlib.suppress(RuntimeError):
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
        existing = len(tf.config.list_logical_devices("CPU"))
        if existing < count:
            raise NotEnoughDevices(
                f"strategy.devices={count} needs {count} logical CPUs, but TensorFlow has started with {existing}: "
                "begin in a fresh process"
            )
    return [f"CPU:{i}" for i in range(count)]
