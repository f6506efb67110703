"""Evaluates the small model's variants, damaged ones included, each on its real engine, and gates them.

    .venv/bin/python tools/accuracy_grid.py OUT [VARIANT ...]      default: all that can be had here

Each variant is evaluated into OUT/<name> (again: what is there is not asked again), then held against
OUT/bf16 by the gate's own rules; the table in docs/accuracy.md is made of this. The damaged models are
made in OUT/models by the transformers environment.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.accuracy import cache, evaluation
from bench.accuracy.evaluate import Life, evaluate
from bench.accuracy.scorecard import claims
from bench.accuracy.settings import Accuracy
from bench.accuracy.tasks import tasks
from servetune.report.evaluation import Bar
from serving.claims import overall
from serving.config import ServingConfig
from serving.engines import engine
from serving.errors import EngineError
from serving.install import environments
from serving.launch.launch import launch

MODEL = str(Path(".models/smollm2-135m-instruct").resolve())
VLLM = {"engine": "vllm", "model": MODEL, "enforce_eager": True, "max_model_len": 2048, "max_num_seqs": 32,
        "kv_cache_bytes": 1 << 30}  # fmt: skip
HF = {"engine": "transformers", "model": MODEL}
VARIANTS: dict[str, dict[str, Any]] = {
    "bf16": VLLM,
    "bf16-again": VLLM,
    "w8a8": {**VLLM, "quantization": "w8a8", "checkpoint": f"{MODEL}-w8a8"},
    "w4a16": {**VLLM, "quantization": "w4a16", "checkpoint": f"{MODEL}-w4a16"},
    "int8": {**VLLM, "quantization": "int8", "attempt": True},
    "noise-25": {**VLLM, "model": "noise-25"},
    "noise-10": {**VLLM, "model": "noise-10"},
    "template": {**VLLM, "model": "template"},
    "hf-bf16": HF,
    "hf-bnb-8bit": {**HF, "quantization": "bnb-8bit"},
    "hf-bnb-4bit": {**HF, "quantization": "bnb-4bit"},
}
TASKS = ("facts", "text", "answers", "chat", "continuations", "wordings", "repeats", "structured", "security")
ITEMS = {"facts": 1200, "answers": 240, "chat": 240, "continuations": 24, "wordings": 100, "repeats": 40,
         "structured": 40}  # fmt: skip
DAMAGE = """\
import shutil, sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
source, target = Path(sys.argv[1]), Path(sys.argv[2])
for percent in (10, 25):
    folder = target / f"noise-{percent}"
    shutil.copytree(source, folder, dirs_exist_ok=True)
    weights, seed = load_file(source / "model.safetensors"), torch.Generator().manual_seed(1)
    for name, w in weights.items():
        if w.ndim == 2:
            noise = torch.randn(w.shape, generator=seed)
            weights[name] = (w.float() + percent / 100 * w.float().std() * noise).to(w.dtype)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
shutil.copytree(source, target / "template", dirs_exist_ok=True)
template = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
(target / "template" / "chat_template.jinja").write_text(template)
"""


def damaged(folder: Path) -> None:
    """Models with noise of 10 and 25% of each matrix's own spread, and one with another chat template."""
    where = environments.find("transformers", None, "cpu")
    if where is None or not where.installed:
        raise SystemExit("error: the transformers environment is not installed\nhint: make engines")
    subprocess.run([str(where.python), "-c", DAMAGE, MODEL, str(folder)], check=True)


def score(name: str, out: Path) -> None:
    """Launches and evaluates one variant, unless its evaluation is complete."""
    if evaluation.state(out / name) == "finished":
        return
    settings = VARIANTS[name]
    if not Path(settings["model"]).is_absolute():
        settings = {**settings, "model": str((out / "models" / settings["model"]).resolve())}
        if not Path(settings["model"]).is_dir():
            damaged(out / "models")
    config = ServingConfig.model_validate(settings)
    chosen, users = engine(config.engine), 8 if config.engine == "vllm" else 1
    print(f"{name}: starting", file=sys.stderr)
    with launch(chosen, config, out / "launches" / name) as server, Bar() as bar:
        life = Life(server.alive, server.why_dead, lambda: chosen.reset_prefix_cache(server.endpoint.url))
        wanted = Accuracy(tasks=TASKS if users > 1 else ("answers",), items=ITEMS if users > 1 else 100)
        evaluate(
            server.endpoint, tasks(wanted.tasks), wanted, out / name, users, bar, life=life, tokenizer=config.model,
            identity=cache.identity(config, server.endpoint.version, config.device),
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("variants", nargs="*", default=list(VARIANTS), metavar="VARIANT")
    options = parser.parse_args()
    for name in options.variants:
        try:
            score(name, options.out)
        except EngineError as error:
            print(f"{name}: {error.message}", file=sys.stderr)
    print("variant\tverdict\ttask\tcandidate against baseline\td (interval)\tverdict of the task")
    for name in options.variants:
        base = "hf-bf16" if name.startswith("hf-") else "bf16"
        if name == base or None in (
            evaluation.state(options.out / name),
            evaluation.state(options.out / base),
        ):
            continue
        again = options.out / "bf16-again"
        own = evaluation.load(again) if evaluation.state(again) and base == "bf16" else None
        found = claims(
            evaluation.load(options.out / name), evaluation.load(options.out / base), Accuracy(), own
        )
        for one in found:
            interval = "" if one.interval is None else f" ({one.interval[0]:+.3f} to {one.interval[1]:+.3f})"
            effect = "" if one.effect is None else f"{one.effect:+.4f}{interval}"
            print(f"{name}\t{overall(found)}\t{one.name}\t{one.note}\t{effect}\t{one.verdict}")


if __name__ == "__main__":
    main()
