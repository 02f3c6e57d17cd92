"""What stands in for nccl4py and cuda.core is like them: runs where the extra `nccl` is installed, GPU or not."""

import inspect

import pytest

from cluster.process_group.nccl import Library, NcclMissing, offer
from tests.cluster.process_group import nccl_stand_in as stand_in

nccl = pytest.importorskip("nccl.core", reason="needs the extra nccl")
bindings = pytest.importorskip("nccl.bindings.nccl")
cuda = pytest.importorskip("cuda.core")


@pytest.mark.parametrize("name", ["send", "recv", "allreduce", "get_async_error", "get_last_error", "abort"])
def test_calls_of_the_communicator_fit(name):
    of_it = inspect.signature(getattr(nccl.Communicator, name)).parameters
    expected = inspect.signature(getattr(stand_in.Communicator, name)).parameters
    assert [(each, of_it[each].kind) for each in expected] == [(each, told.kind) for each, told in expected.items()]
    more = [told for each, told in of_it.items() if each not in expected]
    assert all(told.default is not inspect.Parameter.empty for told in more), "nothing else has to be given"


def test_a_communicator_is_made_as_the_stand_in_is():
    told = list(inspect.signature(nccl.Communicator.init).parameters)
    assert told == list(inspect.signature(stand_in.Communicator.__init__).parameters)[3:]
    assert nccl.NCCLConfig(blocking=False).blocking is False
    assert nccl.SUM == 0


def test_results_have_their_numbers_and_errors_their_status():
    results = bindings.Result
    names = ("Success", "SystemError", "RemoteError", "Timeout", "InProgress", "InvalidUsage")
    assert [int(results[name]) for name in names] == [0, 2, 6, 8, 7, 5]
    bindings.check_status(int(results.InProgress))  # which raises nothing: what is under way is no error
    with pytest.raises(bindings.NCCLError) as raised:
        bindings.check_status(int(results.RemoteError))
    assert raised.value.status == 6
    assert "remote process" in nccl.get_error_string(6)


def test_devices_streams_and_events_have_what_is_used():
    assert {"uuid", "set_current", "create_stream", "sync"} <= set(dir(cuda.Device))
    assert {"record", "sync"} <= set(dir(cuda.Stream))
    assert "is_done" in dir(cuda.Event)


def test_the_installed_library_is_loaded_and_says_why_it_cannot_be_used():
    try:
        library = Library.load()
    except NcclMissing as missing:
        pytest.skip(str(missing))
    assert library.version.startswith("2.")
    import numpy as np

    array = np.zeros(3, np.float32)
    view = library.view_of(array)
    assert (view.ptr, view.dtype) == (array.__array_interface__["data"][0], np.float32)
    identity = library.nccl.get_unique_id()
    assert bytes(library.nccl.UniqueId.from_bytes(bytes(identity))) == bytes(identity)
    told = offer(0, library, makes_id=True)
    assert set(told) == {"gpu", "nccl", "id"} or "check the driver" in told["why"]
