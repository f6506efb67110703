"""What breaks an engine: memory, the GPU and its driver, the machine, the compilers, its processes.

The words are those of vLLM, torch, CUDA, NCCL and the kernel.
"""

from __future__ import annotations

from serving.errors import FailureKind
from serving.failure.rule import Rule

MEMORY_HINT = "lower max_model_len, max_num_seqs or kv_cache_bytes, or quantize the weights"

TAKEN = (
    Rule(
        FailureKind.PORT_TAKEN,
        r"address already in use|Errno 98\b|EADDRINUSE|only one usage of each socket address",
        "another process listens there; leave the port to servetune",
        launch_only=True,
    ),
)

MEMORY = (
    Rule(
        FailureKind.OOM_LAUNCH,
        r"is less than desired (GPU|CPU) memory utilization|Error in memory profiling\. Initial free memory",
        "something else holds this memory: find it with nvidia-smi (servetune doctor names it) and end it, "
        "or lower gpu_memory_utilization",
    ),
    Rule(
        FailureKind.OOM_LAUNCH,
        r"No available memory for the cache blocks|To serve at least one request with"
        r"|KV\s+cache is needed, which is larger than the available"
        r"|larger than the maximum number of tokens that can be stored in KV cache"
        r"|is less than requested memory for kv",
        "the weights fit, the KV cache does not: lower max_model_len, raise gpu_memory_utilization or "
        "kv_cache_bytes, or set kv_cache_dtype: fp8",
    ),
    Rule(
        FailureKind.OOM_LAUNCH,
        r"CUDA out of memory|OutOfMemoryError|CUDA error: out of memory|cudaErrorMemoryAllocation"
        r"|CUBLAS_STATUS_ALLOC_FAILED|HIP out of memory|Cuda failure 2 'out of memory'"
        r"|CUDA Error: out of memory|NVML_SUCCESS == r INTERNAL ASSERT FAILED",
        f"{MEMORY_HINT}; lower gpu_memory_utilization when it runs out in warm-up or graph capture",
    ),
    Rule(
        FailureKind.OOM_LAUNCH,
        r"DefaultCPUAllocator: can't allocate memory|Cannot allocate memory|\bMemoryError\b"
        r"|std::bad_alloc",
        f"the machine's own memory is full: {MEMORY_HINT}",
    ),
)

DRIVER = (
    Rule(
        FailureKind.UNSUPPORTED,
        r"no kernel image is available|PTX was compiled with an unsupported toolchain"
        r"|compute capability \S+ is not (supported|compatible)|is not compatible with the current PyTorch",
        "this build of the engine lacks the kernel on this device: choose an engine_version built for its "
        "compute capability (servetune doctor shows it) and the driver's CUDA version",
    ),
    Rule(
        FailureKind.CRASH,
        r"NVIDIA driver on your system is too old|CUDA driver version is insufficient"
        r"|Error 80[0-4]: |unsupported display driver|forward compatibility was attempted"
        r"|Found no NVIDIA driver|No CUDA GPUs are available|no CUDA-capable device is detected"
        r"|libcuda\.so\S* cannot open|NVML Shared Library Not Found|Driver/library version mismatch"
        r"|Unexpected error from cudaGetDeviceCount|CUDA initialization: |Failed to infer device type"
        r"|Torch not compiled with CUDA enabled"
        r"|CUDA error: (initialization error|system not yet initialized)",
        "the engine finds no usable GPU: run nvidia-smi; update the driver to the engine's CUDA version, or "
        "choose an engine_version built for the driver's; in a container add --gpus all",
    ),
    Rule(
        FailureKind.CRASH,
        r"ImportError: \S+\.so\S*: cannot open shared object file|ImportError: .*undefined symbol: "
        r"|version `GLIBC\S+' not found"
        r"|Numba needs NumPy|cannot import name '\w+' from '(torch|transformers|vllm|numpy)",
        "the engine's environment does not fit together: remove its folder in .engines and run make engines",
        launch_only=True,
    ),
    Rule(
        FailureKind.CRASH,
        r"uncorrectable ECC error|fallen off the bus|GPU is lost|NVRM: Xid"
        r"|NVML: Unknown Error|all CUDA-capable devices are busy or unavailable",
        "the GPU itself failed: see nvidia-smi -q -d ECC and dmesg | grep Xid, reset it or take it out "
        "of use; no setting helps",
    ),
)

GPU_FAULT = (
    Rule(
        FailureKind.CRASH,
        r"CUDA error: (an illegal|device-side assert|misaligned|operation not|invalid arg)"
        r"|illegal memory access|unspecified launch failure|cudaErrorIllegalAddress"
        r"|CUBLAS_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR)|CUDNN_STATUS_\w*(FAILED|ERROR)",
        "a kernel of the engine failed: try another attention_backend, enforce_eager: true or "
        "engine_version; env CUDA_LAUNCH_BLOCKING=1 makes the traceback name it",
    ),
)

MACHINE = (
    Rule(
        FailureKind.CRASH,
        r"failed to extend /dev/shm|creating shared memory segment|Bus error|insufficient shared memory"
        r"|posix_fallocate failed|unable to (open|write to) (file|shared memory)[^\n]*(shm|torch_)",
        "the shared memory (/dev/shm) is full or too small for NCCL: start the container with --shm-size=16g "
        "or --ipc=host, and delete stale files there",
    ),
    Rule(
        FailureKind.CRASH,
        r"No space left on device|Errno 28\b|Disk quota exceeded|Errno 122\b",
        "a disk is full: see df -h for ~/.cache/vllm, ~/.cache/huggingface, ~/.triton and /tmp, or move them "
        "with VLLM_CACHE_ROOT, HF_HOME, TRITON_CACHE_DIR and TMPDIR",
    ),
    Rule(
        FailureKind.CRASH,
        r"PermissionError|Errno 13\b|Read-only file system|Errno 30\b",
        "the engine may not read or write there: own the folder, or move the caches with VLLM_CACHE_ROOT, "
        "HF_HOME, TRITON_CACHE_DIR and HOME",
        launch_only=True,
    ),
    Rule(
        FailureKind.CRASH,
        r"Too many open files|can't start new thread|pthread_create failed",
        "the machine's limits are too low: raise ulimit -n and ulimit -u",
    ),
)

TOOLS = (
    Rule(
        FailureKind.CRASH,
        r"fatal error: (Python|std\w+|cuda\w*|\w+)\.h\w*: No such file|Failed to find C compiler"
        r"|[Nn]o such file or directory: '([^']*/)?(ninja|nvcc|gcc|g\+\+|cc|c\+\+)'"
        r"|[Cc]ould not find nvcc|nvcc: not found"
        r"|CUDA_HOME environment variable is not set|Could not find CUDA|cannot find -lcuda",
        "the engine compiles kernels at start and lacks the tools: install gcc, python3-dev, ninja and the "
        "CUDA toolkit (nvcc, CUDA_HOME), or set enforce_eager: true",
    ),
    Rule(
        FailureKind.CRASH,
        r"ptxas\S* fatal\s*: Value 'sm_\w+' is not defined|nvcc fatal\s*: Unsupported gpu architecture",
        "the compiler is older than the GPU: set env TRITON_PTXAS_PATH=/usr/local/cuda/bin/ptxas and "
        "CUDA_HOME of a newer CUDA toolkit, or choose a newer engine_version",
    ),
    Rule(
        FailureKind.CRASH,
        r"nvcc fatal|ptxas (fatal|error)|Command '\['ninja'|Ninja build failed|ninja: build stopped"
        r"|Error building extension"
        r"|BackendCompilerFailed|InductorError|torch\._dynamo\.exc\.\w+|triton\.compiler\.errors\.\w+"
        r"|Internal Triton PTX codegen error|PTXASError",
        "compiling a kernel failed: set enforce_eager: true, delete ~/.cache/vllm, ~/.cache/flashinfer and "
        "~/.triton, or choose another attention_backend or engine_version",
    ),
)

PROCESSES = (
    Rule(
        FailureKind.HANG,
        r"Watchdog caught collective operation timeout",
        "one GPU stopped answering the others: try env NCCL_P2P_DISABLE=1, extra_args "
        "disable-custom-all-reduce, and NCCL_DEBUG=INFO to see where",
    ),
    Rule(
        FailureKind.CRASH,
        r"NCCL error|peer access is not supported|DistBackendError"
        r"|nccl(System|Internal|UnhandledCuda|Remote|InvalidUsage)Error"
        r"|NCCL WARN [^\n]*([Ff]ail|[Ee]rror)|Gloo connectFullMesh failed|DistNetworkError|DistStoreError",
        "the GPUs could not talk to each other: env NCCL_DEBUG=INFO tells why; try env NCCL_P2P_DISABLE=1 "
        "with extra_args disable-custom-all-reduce, --ipc=host in a container, or tensor_parallel_size: 1",
    ),
    Rule(
        FailureKind.KILLED,
        r"(died unexpectedly \(exit code: -9\)|pid \d+ died, exit code: -9)",
        "something else on this machine ended a process of the engine: dmesg -T | grep -i 'out of memory' "
        "tells if it was the kernel",
    ),
    Rule(
        FailureKind.CRASH,
        r"Fatal Python error: [^\n]*|Segfault encountered|Segmentation fault|\*\*\* SIG\w+ received"
        r"|terminate called after throwing[^\n]*(\n  what\(\)[^\n]*)?",
        "a crash in native code: try another attention_backend, enforce_eager: true or engine_version",
        consequence=True,
    ),
    Rule(
        FailureKind.KILLED,
        r"died unexpectedly \(exit code: -15\)",
        "something else on this machine ended a process of the engine: see dmesg -T and the service manager",
        consequence=True,
    ),
    Rule(
        FailureKind.CRASH,
        r"(Worker proc|Engine core proc|EngineCore) ?\S* died unexpectedly|VllmWorkerProcess pid \d+ died"
        r"|Engine process \(pid \d+\) died|Engine core process \S+ died|Process \S+ \(PID: \d+\) died"
        r"|[Ee]ngine core exited unexpectedly",
        "one of its processes ended without a word: killed from outside (see dmesg -T), or a crash in "
        "native code",
        consequence=True,
    ),
    Rule(
        FailureKind.NOT_READY,
        r"TimeoutError: Timed out waiting for (new )?engine",
        "the engine gave up waiting for itself: set env VLLM_ENGINE_READY_TIMEOUT_S=1800, and limits.ready_s "
        "in the scenario no lower",
        launch_only=True,
        consequence=True,
    ),
    Rule(
        FailureKind.HANG,
        r"RPC call to \w+ timed out"
        r"|shm_broadcast\.py[^\n]*\n(?:[^\n]*\n){0,2}(?P<detail>[^\n]*\bTimeoutError)\b",
        "a step took longer than the engine waits (VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS, 300 s): see where "
        "with py-spy dump --pid; first compilations and NCCL are the usual reasons",
        consequence=True,
    ),
)
