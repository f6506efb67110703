"""Cluster: Ray runs the trials, on the GPUs of this box or on many machines. The only user of ray."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from search.cluster.worker import TrialDone, TrialJob, run
from serving.errors import UserError

LOCAL = "local"
LOOPBACK = ("127.0.0.1:", "localhost:")


class Lost(Exception):  # noqa: N818 -- what happened, and not to us
    """The machine of a trial is gone."""


@dataclass(frozen=True)
class Cluster:
    """`slots` trials at a time; `cpus` and `gpus` of each, as Ray counts them."""

    slots: int
    cpus: float
    gpus: float

    @classmethod
    def join(cls, address: str, device: str, *, simulated: bool, devices: int = 1) -> Cluster:
        """The cluster at `address`, or this box (`local`). `devices`: of one trial.

        UserError without ray, without a cluster there, or when no trial fits. A real engine on a CPU takes a
        whole machine, so that no two measure each other.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if address == LOCAL or address.startswith(LOOPBACK):
            # Otherwise Ray takes 127.0.0.1 for the machine's outer address.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "--ray needs ray, which is not installed", "pip install 'servetune[ray]'"
            ) from error
        if address != LOCAL:
            _answers(address)
        here: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            ray.init(log_to_driver=False, **(here if address == LOCAL else {"address": address}))
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise UserError(
                f"no Ray cluster at {address}: {error}", "--ray local, or ray start --head"
            ) from error
        known: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        nodes = [node["Resources"] for node in known if node["Alive"]]
        cpus = 1.0 if simulated or device == "cuda" else min(node.get("CPU", 0.0) for node in nodes)
        gpus = float(devices) if device == "cuda" and not simulated else 0.0
        slots = sum(
            int(min(node.get("CPU", 0.0) // cpus, node.get("GPU", 0.0) // gpus if gpus else 1e9))
            for node in nodes
        )
        if slots < 1:
            ray.shutdown()
            found = "; ".join(f"{n.get('CPU', 0):g} CPU, {n.get('GPU', 0):g} GPU" for n in nodes)
            raise UserError(f"no machine of the cluster has room for a trial ({found})", f"{gpus:g} GPU each")
        return cls(slots, cpus, gpus)

    def submit(self, job: TrialJob) -> Any:
        """A reference to ask for later. Ray retries nothing: what is lost is the searcher's to repeat."""
        import ray

        task = ray.remote(run).options(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0)
        return task.remote(job)

    def first(self, references: Sequence[Any]) -> Any:
        """Waits for any of them to end, well or not."""
        import ray

        done, _ = ray.wait(list(references), num_returns=1)
        return done[0]

    def result(self, reference: Any) -> TrialDone:
        """Lost when its machine is gone; what the trial itself raised, as it was."""
        import ray

        try:
            done: TrialDone = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause or error from error
        except ray.exceptions.RayError as error:
            raise Lost(str(error).split("\n")[0]) from error
        return done

    def leave(self) -> None:
        """Ends what still runs; engines end with their workers."""
        import ray

        ray.shutdown()


def _answers(address: str) -> None:
    """Ray itself waits for minutes. UserError when nobody listens at HOST:PORT."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise UserError(
            f"--ray {address}: not a HOST:PORT", "--ray local, or the address ray start --head prints"
        )
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise UserError(
            f"no Ray cluster at {address}: {error}", "--ray local, or ray start --head"
        ) from error
