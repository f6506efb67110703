"""Text that other programs read: YAML, JSON, PromQL strings, names, quantities, each escaped.

YAML 1.1 and 1.2 readers disagree on `on`, `08` and `12:30`, so every string that is not plainly a word is
quoted; the numbers of a manifest that must be text (environment, annotations) are then text for all of them.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

import yaml

LABEL_LIMIT = 40
"""Characters of a name: Kubernetes allows 63, and suffixes such as -canary or a content hash are added."""

PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"))


class Dumper(yaml.SafeDumper):
    """SafeDumper that quotes strings and repeats shared values instead of writing anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: Dumper, value: str) -> yaml.ScalarNode:
    if PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value)
    block = "\n" in value and not re.search(r"[^\S\n]\n|[^\x20-\x7e\n]|^\s", value)
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if block else '"')


Dumper.add_representer(str, _text)


def yaml_text(*documents: object) -> str:
    """Documents as YAML: keys in the order given, every doubtful string quoted, non-ASCII kept."""
    return "---\n".join(
        yaml.dump(plain(d), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=4096) for d in documents
    )


def json_text(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Mappings and sequences as dicts and lists; None is left out, for vLLM reads null as the text None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def promql_string(value: str) -> str:
    """A PromQL string literal. All but harmless ASCII and letters is escaped, so that Grafana's `$var`,
    Argo's `{{args}}` and annotation templates find nothing of theirs inside."""
    return '"' + "".join(c if _harmless(c) else _escaped(c) for c in value) + '"'


def _harmless(c: str) -> bool:
    return c.isalnum() or c in " _./:@+-,"


def _escaped(c: str) -> str:
    code = ord(c)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def dns_label(text: str) -> str:
    """A Kubernetes name: `text` lowered and cut, with a hash of it whenever something was lost."""
    label = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if label == text and len(label) <= LABEL_LIMIT and label[:1].isalpha():
        return label
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    kept = label[: LABEL_LIMIT - 8].strip("-")
    return f"{kept if kept[:1].isalpha() else f'm-{kept}'.strip('-')}-{digest}"


def one_line(text: str) -> str:
    """`text` without anything that could end a comment line or hide what follows."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def kube_text(value: str) -> str:
    """An argument or environment value: the kubelet expands $(NAME), so that is escaped."""
    return value.replace("$(", "$$(")


def compose_text(value: str) -> str:
    """A value in a compose file, where $NAME is interpolated."""
    return value.replace("$", "$$")


def shell(value: str) -> str:
    return shlex.quote(value)


def mebibytes(size_bytes: float) -> str:
    """A Kubernetes quantity, rounded up."""
    return f"{-int(-size_bytes // 2**20)}Mi"


def seconds(value_s: float) -> str:
    """A Prometheus and Gateway duration in whole seconds, rounded up."""
    return f"{-int(-value_s // 1)}s"


def bound(limit_s: float) -> str:
    """A histogram bound as the Prometheus client writes it in `le`."""
    return repr(float(limit_s))
