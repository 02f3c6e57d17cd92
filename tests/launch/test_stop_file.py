"""Requests to stop that are left in the run folder."""

from launch.stop_file import StopFile, stop_on_file
from trainer.stop_request import StopRequest


def test_a_request_that_comes_while_it_is_looked_for_stops_the_run(tmp_path):
    stop, file = StopRequest(), StopFile(tmp_path)
    with stop_on_file(stop, file, old_counts=False):
        file.write("phalanx stop on node1")
        assert stop.wait(10) and stop.reason == "phalanx stop on node1"


def test_an_old_request_counts_only_for_a_launcher_that_takes_over(tmp_path):
    stop, file = StopRequest(), StopFile(tmp_path)
    file.write("phalanx stop on node1")
    with stop_on_file(stop, file, old_counts=False):
        assert file.reason is None
    assert not stop
    file.write("phalanx stop on node1")
    with stop_on_file(stop, file, old_counts=True):
        assert stop.wait(10)
