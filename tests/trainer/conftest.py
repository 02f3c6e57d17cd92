"""TensorFlow as the trainer's tests need it: quiet, and with four logical CPUs as replicas."""

import os

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
NUM_CPUS = 4


@pytest.fixture(scope="session", autouse=True)
def logical_cpus() -> None:
    import tensorflow as tf

    if len(tf.config.list_logical_devices("CPU")) < NUM_CPUS:
        pytest.fail("TensorFlow was started before the tests could ask for logical CPUs")


def pytest_configure() -> None:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * NUM_CPUS)
