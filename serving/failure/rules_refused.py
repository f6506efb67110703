"""What an engine refuses: a command line, a model, a number of GPUs, a setting.

The words are those of vLLM, transformers, Triton and pydantic, most of them read only while it starts:
under load, refused requests say the same.
"""

from __future__ import annotations

from serving.errors import FailureKind
from serving.failure.rule import Rule

COMMAND_LINE = (
    Rule(
        FailureKind.BAD_FLAG,
        r"(?m)^.*(error: (unrecognized arguments|argument |ambiguous option|the following arguments)"
        r"|No such option|Invalid value for|Got unexpected extra argument|invalid choice)"
        r"(.*validation errors? for \w+(\n.+){1,2}|.*$)",
        "the engine's own parser refused the command line; servetune-flags.txt beside it lists its flags",
        launch_only=True,
    ),
)


MODEL = (
    Rule(
        FailureKind.UNSUPPORTED,
        r"contains custom code which must be executed|requires you to execute the \w+ file in that repo"
        r"|set the option [`'\"]?trust_remote_code\W+True",
        "the model brings Python code of its own, which servetune never runs (trust_remote_code stays off): "
        "choose an engine version that knows this architecture, or a checkpoint without custom code",
        launch_only=True,
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"GatedRepoError|trying to access a gated repo|Cannot access gated repo|(401|403) Client Error"
        r"|Invalid credentials in Authorization header",
        "the hub refused: accept the model's licence there and set HF_TOKEN, or name a local folder as model",
        launch_only=True,
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"is not a local folder and is not a valid model identifier"
        r"|Repo id must (be in the form|use alphanumeric)"
        r"|RepositoryNotFoundError|RevisionNotFoundError|Invalid `?[rR]epository ID|EntryNotFoundError"
        r"|does not appear to have a file named|Can't load (the configuration|tokenizer|the model) (of|for)"
        r"|Cannot find any model weights|No such file or directory: '[^']*(config|tokenizer)[^'/]*\.json'"
        r"|[Cc]ouldn't connect to '?https://huggingface\.co|outgoing traffic has been disabled"
        r"|No tokenizer file found|is not a valid git identifier|cannot find the appropriate snapshot folder",
        "the model or its tokenizer is not there: check model (a folder with config.json, or a hub id), "
        "revision and the network",
        launch_only=True,
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"does not recognize this architecture|Model architectures \[[^\]]*\] (are not supported|failed)"
        r"|has no vLLM implementation|Cannot find model module"
        r"|Tokenizer class \S+ does not exist|Unrecognized (configuration|processing) class"
        r"|GGUF model with architecture|Architecture \S+ not supported",
        "this version of the engine does not know the model: choose a newer engine_version",
        launch_only=True,
    ),
    Rule(
        FailureKind.CRASH,
        r"SafetensorError|Error while deserializing header|PytorchStreamReader failed"
        r"|_pickle\.UnpicklingError|invalid load key",
        "a weights file is cut short or damaged: delete it and download the model again",
    ),
)


PARALLEL = (
    Rule(
        FailureKind.UNSUPPORTED,
        r"must be divisible by (the )?(tensor[ _]parallel|tp_size)"
        r"|is not divisible by weight quantization block"
        r"|not aligned with the quantized weight shape|is not divisible by\s+min_thread"
        r"|not divisible by tensor parallel|divided by tensor (model )?parallel|divide by tp_size",
        "choose a tensor_parallel_size that divides the attention heads and the quantized blocks: 1, 2, 4, 8",
        launch_only=True,
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"world_size \(\d+\) (must|is less)|larger than the number of available GPUs|exceeds available GPUs"
        r"|number of required GPUs exceeds|invalid device ordinal|is larger than the number of GPUs"
        r"|placement group.*tensor parallel|Current node has no GPU available",
        "lower tensor_parallel_size to the number of GPUs that nvidia-smi lists and CUDA_VISIBLE_DEVICES "
        "leaves",
        launch_only=True,
    ),
)


SETTINGS = (
    Rule(
        FailureKind.UNSUPPORTED,
        r"bfloat16 is only supported|Bfloat16 is only supported|is not supported for quantization method \S+"
        r"|does not support (bf|b?float)\w*16\b|dtype \S+ is not supported",
        "set dtype: float16 (bfloat16 needs compute capability 8.0), or choose another quantization",
        launch_only=True,
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"not supported in this architecture|fp8e4nv|requires GPU compute capability >= 8\.9"
        r"|FP8 \w+ (is|are) (only|not) supported",
        "FP8 needs compute capability 8.9 (Ada, Hopper): choose int8 or w4a16, and kv_cache_dtype: auto",
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"requires (the )?bitsandbytes|Please install (the )?\S*bitsandbytes|No module named 'bitsandbytes'"
        r"|ImportError: (Using|Loading) .*(bitsandbytes|bnb)",
        "bitsandbytes is not in the engine's environment: engine: transformers brings it, or choose another "
        "quantization",
        launch_only=True,
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"[Nn]o valid attention backend|Invalid attention backend|[Hh]ead[ _]size \S+ is not supported"
        r"|Selected backend \S+ is not valid|is not valid for this configuration"
        r"|(FlashAttention|FlashInfer|FlashMLA|Triton)\S* (only|does not) support"
        r"|kv_cache_dtype \S+ (is )?not supported|Unsupported data type of kv cache"
        r"|block[ _]size.{0,20} (is )?not supported",
        "leave attention_backend and kv_cache_dtype to the engine (unset, auto), or choose others",
        launch_only=True,
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"Failed to find a kernel|No compiled .* kernel|has no attribute '(cutlass|marlin|gptq|awq)[^']*'"
        r"|'_OpNamespace' '_C' object has no attribute|Could not run '[^']+' with arguments from the"
        r"|_C::\w+\(\) expected at most 0 argument|not implemented for '(Half|BFloat16|Float8|Char)",
        "this build of the engine lacks the kernel on this device; "
        "serving/costmodel/support.py lists what works",
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"Unknown quantization method|Unsupported quantization method|(?i:quantization) is not supported"
        r"|is not supported for the current GPU|M(in|inimum) capability: \d"
        r"|Quantization scheme is not supported|does not support \w+ quantization"
        r"|does not support the\s+deployment configuration[^\n]*"
        r"|currently not supported in this platform|(?i:quantization method) \S+ is not"
        r"|does not match the quantization method specified|is not supported on this (device|platform|GPU)",
        "choose another quantization, dtype or engine version: serving/costmodel/support.py lists what works",
        launch_only=True,
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"max_model_len \(?\d+\)? is greater than the derived",
        "lower max_model_len to what the model's config.json allows",
        launch_only=True,
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"Value error, [^\n]*",
        "the engine refused a setting or a combination: change or leave out what it names",
        launch_only=True,
    ),
    Rule(
        FailureKind.UNSUPPORTED,
        r"ValidationError: \d+ validation errors? for [^\n]*(\n[^\n]+){0,2}|NotImplementedError"
        r"|ValueError: .*(not supported|unsupported|must be|should be|cannot be)",
        "the engine refused a setting or a combination: change or leave out what it names",
        launch_only=True,
    ),
)
