"""What vLLM and transformers share: weights by folder or hub id, extra flags, and why they cannot start."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from serving import devices
from serving.config import ServingConfig
from serving.costmodel import support
from serving.errors import EngineError, Failure, FailureKind
from serving.install import driver, environments
from serving.install.environment import Environment


def problems(engine: str, config: ServingConfig, environment: Environment | None, version: str) -> list[str]:
    """Reasons that any installed engine can have: not there, no weights, an unsupported method."""
    found = []
    if environment is None:
        wanted = config.engine_version or "any version"
        known = ", ".join(f"{e.version} ({e.device})" for e in environments.environments(engine))
        found.append(
            f"{engine} {wanted} for {config.device} has no lock file in serving/locks; there is {known}"
        )
    elif not environment.installed:
        found.append(f"{engine} {environment.version} for {config.device} is not installed: make engines")
    refused = driver.refused(environment) if environment and config.device == "cuda" else None
    if refused and not config.attempt:
        found.append(": ".join(refused))
    for what, name in (("model", config.model), ("checkpoint", config.checkpoint or "")):
        if looks_like_a_folder(name) and not (Path(name).expanduser() / "config.json").is_file():
            made = {"model": "make model", "checkpoint": "make variants"}[what]
            found.append(
                f"{what} folder {name} has no config.json (the small model: {made}; another: "
                f".venv/bin/hf download REPOSITORY --local-dir {name})"
            )
    if config.quantization in support.CHECKPOINTS and not config.checkpoint:
        found.append(f"quantization {config.quantization} needs `checkpoint`, the folder of such weights")
    if config.checkpoint and config.quantization not in support.CHECKPOINTS:
        found.append(
            f"checkpoint is set but quantization is {config.quantization}; it would not be known as quantized"
        )
    if not config.attempt:
        reason = support.supported(
            engine, version, config.device, config.quantization, capability(config.device)
        )
        found += [reason] if reason else []
    return found


def program(engine: str, config: ServingConfig, name: str) -> str:
    """Path of the engine's program; EngineError NOT_INSTALLED when its environment is not whole."""
    environment = environments.find(engine, config.engine_version, config.device)
    if environment is None or not environment.installed:
        version = environment.version if environment else config.engine_version or ""
        detail = f"{engine} {version} for {config.device} is not installed"
        raise EngineError(
            Failure(FailureKind.NOT_INSTALLED, detail, "make engines", settings=config.settings)
        )
    return str(environment.program(name))


def weights(config: ServingConfig) -> str:
    """What is loaded: the checkpoint or the model, folders as whole paths."""
    return place(config.checkpoint or config.model)


def place(name: str) -> str:
    """A folder as a whole path (the engine has a working directory of its own); a hub id as it is."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.exists() else name


def short_name(model: str) -> str:
    """The name requests carry: a folder's own name, or the hub id."""
    return Path(model).name if Path(model).expanduser().is_dir() else model


def looks_like_a_folder(name: str) -> bool:
    """`./x`, `/x`, `.models/x` or `~/x` rather than a hub id."""
    return name.startswith((".", "/", "~"))


def extra_flags(config: ServingConfig) -> list[str]:
    """extra_args as long flags: true is the bare flag, false its --no- form, null leaves it out."""
    found: list[str] = []
    for name, value in config.extra_args.items():
        flag = f"--{devices.long_name(name)}"
        if isinstance(value, bool):
            found.append(flag if value else f"--no-{flag[2:]}")
        elif value is not None:
            found += [flag, str(value)]
    return found


@lru_cache(maxsize=2)
def capability(device: str) -> int | None:
    """Lowest compute capability of this machine's GPUs, times ten; None without a GPU or on the CPU."""
    if device != "cuda":
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        pairs = [pynvml.nvmlDeviceGetCudaComputeCapability(handle) for handle in handles]
    finally:
        pynvml.nvmlShutdown()
    return min((major * 10 + minor for major, minor in pairs), default=None)
