"""A Cloud TPU slice as the host of a run: made when the run begins, made again when it is taken away, given back."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from cluster.remote_hosts import RemoteHosts, WorkersOfAgents
from cluster.supervisor.events import Event, HostDraining
from cluster.tpu.patience import Clock, Patience, WallClock
from cluster.tpu.provider import SliceRequest, State, TpuError, TpuProvider, Unavailable
from cluster.tpu.slice_keeper import NoResources, SliceKeeper
from cluster.worker_output import Sink

_log = logging.getLogger(__name__)
_LOOK_S = 5.0
_HEALTH_S = 60.0
# A host installs packages first. One that needs longer is not given up, but the person is told where to look.
_JOIN_S = 900.0
# So long a refusal of the first request may take to be known before the run counts as begun.
_OPEN_S = 60.0


class TpuHosts(WorkersOfAgents):
    """One slice, whose first host has an agent: that host's worker drives all chips of the slice.

    The slice outlives neither the run nor its own hour. What comes to the hosts' program is left in the run folder by
    `publish`,
    because whoever may read the metadata of a project's machines need not be allowed to join a run.

    Args:
        provider: gives the slice.
        requests: what to ask for, the first that works; all of one name, which is the host's.
        run: label of the run, the same whenever the run is started again, and no other run's.
        listen: address of this machine that the hosts reach.
        publish: gets the address and the secret that an agent needs, before anything is asked for.
        conceal: takes them back: no host joins any more.
        max_run_s: seconds after which the slice must be gone.
        wait_s: seconds to wait for a slice; None: for ever.
        on_output: gets the lines that workers print, and must not block.
        announce: gets each sentence for the person.
        patience: with the provider.
    """

    def __init__(
        self,
        provider: TpuProvider,
        requests: Sequence[SliceRequest],
        run: str,
        *,
        listen: str,
        publish: Callable[[str, str], object],
        conceal: Callable[[], object],
        max_run_s: float,
        wait_s: float | None,
        notice_s: float = 30.0,
        on_output: Sink = lambda output: None,
        announce: Callable[[str], object] = lambda text: None,
        patience: Patience | None = None,
    ) -> None:
        self._provider, self._listen, self._publish, self._conceal = provider, listen, publish, conceal
        self._wait_s, self._notice_s, self._announce, self._on_output = wait_s, notice_s, announce, on_output
        patience = patience or Patience()
        self._clock = _Interruptible(patience.clock)

        def keeper(clock: Clock) -> SliceKeeper:
            own = Patience(clock, patience.random, patience.first_s, patience.most_s, patience.give_up_s)
            return SliceKeeper(provider, requests, run, max_run_s, own, self._tell)

        # What gives the slice back at the end is not interrupted by it.
        self._keeper, self._last_keeper = keeper(self._clock), keeper(patience.clock)
        self._patience = patience
        self._on_event: Callable[[Event], object] = lambda event: None
        self._zones = {request.zone for request in requests}
        self._known, self._look_now, self._unwanted = threading.Event(), threading.Event(), threading.Event()
        self._refusal: TpuError | None = None
        self._thread = threading.Thread(target=self._keep, name="tpu-slice", daemon=True)

    def open(self, on_event: Callable[[Event], object]) -> None:
        """Asks for the slice, without waiting for it: its host joins when it is there.

        Raises:
            TpuError: the request is refused for good.
        """
        self._on_event = on_event
        self._agents = RemoteHosts(
            self._listen,
            on_output=self._on_output,
            on_gone=lambda host: self._look_now.set(),
            end_agent=self._is_gone,
        )
        self._agents.report_to(on_event)
        self._publish(self._agents.address, self._agents.secret)
        self._thread.start()
        self._known.wait(_OPEN_S)
        if self._refusal is not None:
            raise self._refusal

    def release(self, host: str) -> None:
        """Gives the slice back, and makes another."""
        if self._agents is not None:
            self._agents.release(host)
        self._unwanted.set()
        self._look_now.set()

    def close(self) -> None:
        """Ends the workers, and deletes the slice, whatever state it is in.

        Raises:
            LeftBehind: the slice could not be seen to be gone.
        """
        self._clock.interrupt()
        self._look_now.set()
        if self._agents is not None:
            self._agents.close()
        if self._thread.ident is None:
            return
        self._conceal()
        # It may be in the middle of a request, whose answer tells whether there is a slice.
        self._thread.join()
        try:
            self._last_keeper.release()
        except TpuError:
            if self._refusal is None:  # which has said already that there is no way to the provider
                raise

    def _tell(self, reason: str) -> None:
        self._known.set()
        self._announce(f"no slice yet: {reason}")

    def _is_gone(self, host: str) -> bool:
        """Whether a host has ended for certain: its slice has."""
        try:  # once: the lease of an agent that nobody can tell about is over long before a keeper gives up
            found = [self._provider.find(self._keeper.name, zone) for zone in self._zones]
        except TpuError:
            return False
        return all(each is None or each.state.is_dead for each in found)

    # On a thread of its own.

    def _keep(self) -> None:
        """Keeps a slice, until it is interrupted or refused."""
        try:
            while True:
                self._obtain()
                self._guard()
        except _Interrupted:
            pass
        except TpuError as error:
            self._refusal = error
            if self._known.is_set():
                self._announce(f"there will be no slice: {error}")
        finally:
            self._known.set()

    def _obtain(self) -> None:
        while True:
            try:
                found = self._keeper.obtain(self._wait_s if self._wait_s is not None else float("inf"))
            except NoResources as error:
                self._announce(str(error))  # who decides that the run has waited for long enough is the supervisor
                continue
            except Unavailable as error:
                _log.warning("the provider of slices does not answer: %s", error)
                continue
            self._known.set()
            self._announce(f"the slice {found.name} in {found.zone} is ready ({found.accelerator})")
            return

    def _guard(self) -> None:
        """Returns when the slice is lost, or not wanted any more."""
        assert self._agents is not None
        since = healthy_at = time.monotonic()
        has_joined = has_notice = False
        while True:
            self._look_now.wait(_LOOK_S)
            self._look_now.clear()
            self._clock.check()
            if self._unwanted.is_set():
                self._unwanted.clear()
                self._keeper.release()
                return
            has_joined = has_joined or self._agents.has(self._keeper.name)
            if not has_joined and time.monotonic() - since > _JOIN_S:
                has_joined = True  # said once
                self._announce(
                    f"the slice {self._keeper.name} is ready and has not joined for {_JOIN_S:.0f} s: look at what its "
                    "first host says (sudo journalctl -u google-startup-scripts)"
                )
            try:
                found = self._keeper.look()
                if found is None or found.state.is_dead or found.state is State.DELETING:
                    state = "gone" if found is None else found.state.value
                    self._announce(f"the slice {self._keeper.name} is {state}: another one is made in its place")
                    return
                if not has_notice and self._agents.has(found.name) and time.monotonic() - healthy_at > _HEALTH_S:
                    healthy_at = time.monotonic()
                    has_notice = self._provider.health(found.name, found.zone).maintenance
                    if has_notice:
                        self._on_event(HostDraining(time.monotonic(), found.name, self._notice_s))
            except Unavailable as error:
                _log.warning("the provider of slices does not answer: %s", error)


class _Interrupted(Exception):
    """The run is over."""


class _Interruptible:
    """A clock whose sleepers can be woken."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._over = clock, threading.Event()

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock.now()

    def sleep(self, seconds: float) -> None:
        """Returns after so long.

        Raises:
            _Interrupted: the run is over.
        """
        if isinstance(self._clock, WallClock):
            self._over.wait(seconds)
        else:
            self._clock.sleep(seconds)
        self.check()

    def check(self) -> None:
        """Raises _Interrupted when the run is over."""
        if self._over.is_set():
            raise _Interrupted

    def interrupt(self) -> None:
        """Says that the run is over."""
        self._over.set()
