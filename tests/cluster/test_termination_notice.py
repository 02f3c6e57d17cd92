"""SIGTERM as a notice, in a process of its own: the main thread of this one belongs to the test run."""

import signal
import subprocess
import sys

import pytest

from tests.cluster.agent_workers import LIMIT_S, ROOT

pytestmark = pytest.mark.processes

# The main thread is inside a library, which waits for itself and never comes back, not even for a signal.
STUCK = """
import ctypes, os, sys
from cluster.termination_notice import on_termination
on_termination(lambda: (print("told", flush=True), os.read(0, 1) == b"x" and os._exit(7)))
print("ready", flush=True)
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)
libc.pthread_mutex_lock(mutex)
libc.pthread_mutex_lock(mutex)
"""


def test_the_notice_is_heard_while_the_main_thread_is_stuck_and_does_not_end_the_process():
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        assert process.stdout.readline() == "ready\n"
        for word in ("y", "x"):
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == "told\n"
            process.stdin.write(word)
            process.stdin.flush()
        assert process.wait(LIMIT_S) == 7
    finally:
        process.kill()
        process.communicate()
