import os
import signal
import subprocess
import sys
import threading

import pytest

from trainer.stop_request import StopRequest, stop_on_signals


def test_the_first_reason_counts():
    stop = StopRequest()
    assert not stop
    stop.request("SIGTERM")
    stop.request("SIGINT")
    assert stop
    assert stop.reason == "SIGTERM"


def test_another_thread_can_ask_and_wait():
    stop = StopRequest()
    asker = threading.Thread(target=stop.request, args=("test",))
    asker.start()
    assert stop.wait(timeout_s=10)
    asker.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_and_the_handlers_come_back(number):
    before = signal.getsignal(number)
    with stop_on_signals(StopRequest()) as stop:
        os.kill(os.getpid(), number)
        assert stop.wait(timeout_s=10)
        assert stop.reason == number.name
    assert signal.getsignal(number) is before


def test_the_second_interrupt_ends_the_process_at_once():
    script = """
import os, signal, threading
from trainer.stop_request import StopRequest, stop_on_signals
with stop_on_signals(StopRequest()) as stop:
    print("ready", flush=True)
    stop.wait()
    print(stop.reason, flush=True)
    threading.Event().wait()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "SIGINT\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == -signal.SIGINT
