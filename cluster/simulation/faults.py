"""What can go wrong in a simulated run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.simulation.machines import SimulatedHost, SimulatedWorker

if TYPE_CHECKING:
    from cluster.simulation.simulation import Simulation

_SIGKILL, _SIGTERM = 9, 15


class Faults:
    """Strikes a simulation; whom, is drawn from its random numbers.

    Args:
        simulation: the victim.
    """

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    def strike(self, fault: str) -> None:
        """Lets one thing go wrong: one of `scenario.FAULTS`. Does nothing when there is nobody to strike."""
        worker, host = self._a_worker(), self._a_host()
        if "worker" in fault and worker is not None:
            self._strike_worker(fault, worker)
        elif fault == "supervisor dies":
            self._simulation.kill_supervisor(self._simulation.rng.uniform(0.5, 12.0))
        elif fault == "supervisor freezes":
            self._simulation.freeze_supervisor(self._simulation.rng.uniform(0.5, 30.0))
        elif "disk" in fault:
            self._strike_disk(fault)
        elif fault == "power fails":
            for one in self._living_hosts():
                self._simulation.crash(one, returns_after_s=self._simulation.rng.uniform(0.5, 20.0))
            if self._simulation.rng.random() < 0.5:  # a disk that had acknowledged more than it had written
                self._strike_disk("disk loses a checkpoint")
        elif fault == "network splits":
            seconds = self._simulation.rng.choice([1.0, 4.0, 15.0])
            for one in self._living_hosts():
                if self._simulation.rng.random() < 0.5:
                    self._simulation.cut_off(one, seconds)
        elif fault == "host joins":
            self._simulation.add_host(self._simulation.rng.choice([1, 2, 4]))
        elif fault == "data is damaged between two hosts":
            self._damage_a_way()
        elif fault == "preemption wave":
            for one in self._living_hosts():
                if self._simulation.rng.random() < 0.6:
                    self._drain(one)
        elif host is not None:
            self._strike_host(fault, host)

    def _strike_worker(self, fault: str, worker: SimulatedWorker) -> None:
        machines, time, rng = self._simulation.machines, self._simulation.time, self._simulation.rng
        match fault:
            case "kill a worker":
                machines.exit(worker, None, rng.choice([_SIGKILL, _SIGKILL, _SIGTERM]))
            case "worker fails":
                machines.exit(worker, rng.randint(1, 255))
            case "worker exits with 0":
                machines.exit(worker, 0)
            case "freeze a worker":
                worker.frozen = True
            case "freeze a worker for a while":
                worker.frozen = True
                time.after(rng.uniform(0.5, 20.0), machines.thaw, worker)
            case "stick a worker":
                worker.stuck = True
            case "worker cannot be killed":
                worker.unkillable = worker.stuck = True
            case "worker sends wrong data":
                worker.garbles = True
            case "worker hears wrong data":
                worker.mishears = True

    def _damage_a_way(self) -> None:
        simulation, hosts = self._simulation, self._living_hosts()
        if len(hosts) > 1:
            one, other = simulation.rng.sample(hosts, 2)
            way = (one.name, other.name)
            simulation.machines.damaged_ways.append(way)
            simulation.time.after(simulation.rng.uniform(1.0, 40.0), simulation.machines.damaged_ways.remove, way)

    def _strike_disk(self, fault: str) -> None:
        machines = self._simulation.machines
        match fault:
            case "disk loses a checkpoint":
                if machines.checkpoints:
                    machines.checkpoints.remove(machines.checkpoint_step)
            case "disk is full for a while":
                machines.disk_full = True
                self._simulation.time.after(self._simulation.rng.uniform(1.0, 30.0), self._free_disk)

    def _free_disk(self) -> None:
        self._simulation.machines.disk_full = False

    def _strike_host(self, fault: str, host: SimulatedHost) -> None:
        simulation, rng = self._simulation, self._simulation.rng
        match fault:
            case "host crashes":
                simulation.crash(host, returns_after_s=None)
            case "host crashes and returns":
                simulation.crash(host, returns_after_s=rng.uniform(0.5, 60.0))
            case "agent dies alone":
                simulation.crash(host, returns_after_s=rng.uniform(0.2, 4.0), keeps_memory=True)
            case "host is cut off":
                simulation.cut_off(host, rng.choice([1.0, 4.0, 15.0]))
            case "host leaves with notice":
                self._drain(host)
            case "host becomes slow":
                host.slowness = rng.choice([1.5, 3.0])
            case "host becomes bad":
                host.bad = True
            case "host becomes bad for a while":
                host.bad = True
                simulation.time.after(rng.uniform(1.0, 40.0), self._mend, host)
            case "memory is lost":
                host.snapshot = None

    def _drain(self, host: SimulatedHost) -> None:
        rng = self._simulation.rng
        self._simulation.drain(host, rng.choice([1.0, 5.0, 30.0]), rng.choice([None, 1.0, 20.0]))

    def _mend(self, host: SimulatedHost) -> None:
        host.bad = False

    def _living_hosts(self) -> list[SimulatedHost]:
        return [host for host in self._simulation.machines.hosts.values() if host.alive]

    def _a_host(self) -> SimulatedHost | None:
        hosts = self._living_hosts()
        return self._simulation.rng.choice(hosts) if hosts else None

    def _a_worker(self) -> SimulatedWorker | None:
        workers = [worker for worker in self._simulation.machines.workers.values() if worker.alive]
        return self._simulation.rng.choice(workers) if workers else None
