"""How many accelerators a server takes: tensor x pipeline x context x data parallel. Counted here only.

The sizes may be settings of ours or flags in `extra_args`, in any spelling that vLLM's parser takes: with or
without `--`, dashes or underscores, its short names, numbers or text. The later one wins, as on its command
line. Light on purpose: the simulated server starts from it too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.config import ServingConfig

TENSOR, PIPELINE, DATA = "tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size"
CONTEXT = "prefill-context-parallel-size"
RANK = "data-parallel-rank"

SHORT = {
    "tp": TENSOR,
    "pp": PIPELINE,
    "dp": DATA,
    "pcp": CONTEXT,
    "dcp": "decode-context-parallel-size",
    "dpn": RANK,
    "dpr": "data-parallel-start-rank",
    "dpl": "data-parallel-size-local",
    "dpa": "data-parallel-address",
    "dpp": "data-parallel-rpc-port",
    "dpb": "data-parallel-backend",
    "dph": "data-parallel-hybrid-lb",
    "dpe": "data-parallel-external-lb",
    "ep": "enable-expert-parallel",
}
"""vLLM's short names of the flags about parallelism (`engine/arg_utils.py`) -> the long ones. The others
(experts, decode context, addresses) share out the same devices."""

SEVERAL_MACHINES = frozenset({"nnodes", "node-rank", "data-parallel-address", "data-parallel-start-rank"})


@dataclass(frozen=True, slots=True)
class Parallel:
    """The sizes of one server. `context`: of the prefill, which takes devices of its own."""

    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    data: int = 1

    @property
    def devices(self) -> int:
        return self.tensor * self.pipeline * self.context * self.data


ONE = Parallel()


def long_name(flag: str) -> str:
    """A flag's long name without dashes before it, however it was written: `-dp`, `data_parallel_size`."""
    plain = flag.lstrip("-").replace("_", "-")
    return SHORT.get(plain, plain)


def parallel(flags: Mapping[str, object], tensor: int = 1) -> Parallel | None:
    """The sizes that these flags ask for; `tensor`: where they say nothing of it. None: no number.

    A server told its own data-parallel rank is one of several, which others start: it counts itself alone.
    """
    sizes: dict[str, int] = {TENSOR: tensor}
    ranked = False
    for flag, value in flags.items():
        name = long_name(flag)
        if value is None:
            continue
        if name in (TENSOR, PIPELINE, CONTEXT, DATA):
            text = str(value).strip()
            if isinstance(value, bool) or not re.fullmatch(r"\+?0*[1-9][0-9]*", text, re.ASCII):
                return None
            sizes[name] = int(text)
        ranked = ranked or name == RANK
    data = 1 if ranked else sizes.get(DATA, 1)
    return Parallel(sizes[TENSOR], sizes.get(PIPELINE, 1), sizes.get(CONTEXT, 1), data)


def of_config(config: ServingConfig) -> Parallel | None:
    """The sizes of what would be launched; None where a size is no number."""
    if not config.extra_args:
        return Parallel(config.tensor_parallel_size)
    return parallel(config.extra_args, config.tensor_parallel_size)


def count(config: ServingConfig) -> int | None:
    """Accelerators of one server. None: not known, as of a server elsewhere that states no `gpus`."""
    if config.gpus is not None:
        return config.gpus
    if config.url is not None or config.engine == "endpoint":
        return None
    sizes = of_config(config)
    return None if sizes is None else sizes.devices


def spans_machines(config: ServingConfig) -> bool:
    """Whether its devices need not all be on this machine."""
    names = {long_name(flag): value for flag, value in config.extra_args.items()}
    backends = {str(names.get(n)) for n in ("distributed-executor-backend", "data-parallel-backend")}
    return bool(SEVERAL_MACHINES & names.keys()) or "ray" in backends
