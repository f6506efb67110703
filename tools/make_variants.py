"""Makes quantized checkpoints of the small model with llm-compressor, in an environment of its own.

`make variants`: W8A8, W4A16, W8A16 and FP8, each a folder beside the model with a manifest.json. Weights
are rounded to the nearest value without calibration data (activations are scaled at run time), so each
takes seconds. Running it again makes only what is missing.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from make_model import MODEL, PROVENANCE, ROOT, SCRATCH, clear, digest, python

MANIFEST = "manifest.json"
IGNORED = ["lm_head"]
GROUP = 32  # the hidden size, 576, is no multiple of the usual 128

VARIANTS: dict[str, dict[str, object]] = {
    "w8a8": {
        "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
        "input_activations": {
            "num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True,
        },
    },
    "w4a16": {
        "weights": {
            "num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP,
        },
    },
    "w8a16": {"weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}},
    "fp8": {
        "weights": {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"},
        "input_activations": {
            "num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "dynamic": True,
        },
    },
}  # fmt: skip
"""Name -> scheme in the words of compressed-tensors. The folder is <model>-<name>."""

QUANTIZE = """
import json
import sys
import llmcompressor
from compressed_tensors.quantization import QuantizationScheme
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from transformers import AutoModelForCausalLM, AutoTokenizer

source, target, scheme, ignored = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
groups = {"group_0": QuantizationScheme(targets=["Linear"], **json.loads(scheme))}
oneshot(model=model, recipe=QuantizationModifier(config_groups=groups, ignore=json.loads(ignored)))
model.save_pretrained(target, save_compressed=True)
AutoTokenizer.from_pretrained(source).save_pretrained(target)
print(llmcompressor.__version__)
"""


def main() -> int:
    """0: all variants are there. 1: one could not be made. 2: the user's to fix."""
    missing = [name for name in VARIANTS if not (folder(name) / MANIFEST).is_file()]
    if not missing:
        return 0
    if not (MODEL / PROVENANCE).is_file():
        print(f"error: {MODEL.relative_to(ROOT)} is not there\nhint: make model", file=sys.stderr)
        return 2
    from serving.install import environments
    from serving.lock import exclusive

    if environments.main(["install", "llmcompressor", "--device", "cpu"]):
        return 1
    environment = environments.find("llmcompressor", None, "cpu")
    assert environment is not None
    with exclusive(MODEL.parent / ".lock"):
        clear()
        for name in missing:
            if not (folder(name) / MANIFEST).is_file():
                make(name, environment.python)
    return 0


def folder(name: str) -> Path:
    """Where a variant lies."""
    return MODEL.with_name(f"{MODEL.name}-{name}")


def make(name: str, interpreter: Path) -> None:
    """Makes one variant, whole or not at all."""
    scheme = VARIANTS[name]
    print(f"making {folder(name).relative_to(ROOT)}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=MODEL.parent, prefix=SCRATCH) as scratch:
        made = Path(scratch) / "model"
        arguments = [str(MODEL), str(made), json.dumps(scheme), json.dumps(IGNORED)]
        version = python(interpreter, ["-c", QUANTIZE, *arguments]).split()[-1]
        manifest = {
            "variant": name,
            "made_from": MODEL.name,
            "made_from_sha256": digest(MODEL / "model.safetensors"),
            "llmcompressor": version,
            "scheme": scheme,
            "ignored": IGNORED,
            "calibration": "none: rounded to nearest, activations scaled while serving",
            "weights_bytes": sum(file.stat().st_size for file in made.glob("*.safetensors")),
            "files_sha256": {f.name: digest(f) for f in sorted(made.iterdir()) if f.is_file()},
        }
        (made / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        if folder(name).exists():
            shutil.rmtree(folder(name))
        made.rename(folder(name))


if __name__ == "__main__":
    sys.exit(main())
