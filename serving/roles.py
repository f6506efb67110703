"""Role: what one field of ServingConfig is to the rest of the program, declared with the field itself.

Code that needs a list of settings asks for the fields with a role (`serving.config.fields_where`) and writes
down no names of its own. Flags of an engine are in its file (`serving/engines/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

Kind = Literal["engine", "model", "setting", "intent", "server", "table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """Defaults are the careful ones: a new setting may change outputs, and is shown by its name.

    kind        engine    which program, on which kind of device; not a setting that an engine may lack
                model     which weights and tokenizer: likewise
                setting   of the engine; compared with the server's own account, and a parameter of a spec
                intent    for servetune alone; no engine sees it
                server    about a server that runs elsewhere
                table     holds further settings by names of their own
    own_place   has its own place in a scenario and in a spec, so that `settings` and `grid` may not name it
    output      same        changes when tokens come, not which: these share one evaluation of accuracy
                may_differ  other kernels or another order of sums: accuracy is measured again
                differs     other numbers are computed with: answers differ
    api         clients see it: a limit on their requests
    cost_model  `serving.costmodel` and the simulator compute with it; then it is a field of `Resolved`, too
    step_time   the time of a step depends on it
    parallel    multiplies the devices that one server takes
    eight_bit   its values that store numbers in eight bits, the one to try first in front
    masked      value     a secret in the value is found by its form
                names     a table: the names in it, too, say which values are secrets
    label       of the configuration: value (shown without its name), named, none
    tables      head (stands above the rows, or opens each row), column (where it varies), never
    """

    kind: Kind
    own_place: bool = False
    output: Literal["same", "may_differ", "differs"] = "may_differ"
    api: bool = False
    cost_model: bool = False
    step_time: bool = False
    parallel: bool = False
    eight_bit: tuple[str, ...] = ()
    masked: Literal["none", "value", "names"] = "none"
    label: Literal["value", "named", "none"] = "named"
    tables: Literal["head", "column", "never"] = "column"


def roles_of(fields: Mapping[str, FieldInfo]) -> dict[str, Role]:
    """Field -> its role, in the order of the fields. TypeError names a field that has none, or two."""
    found = {}
    for name, field in fields.items():
        roles = [part for part in field.metadata if isinstance(part, Role)]
        if len(roles) != 1:
            wanted = "Annotated[..., Role(kind=...)] (serving/roles.py)"
            raise TypeError(f"field {name} has {len(roles)} roles, and needs one: {wanted}")
        found[name] = roles[0]
    return found


def scalar_type(annotation: Any) -> type | None:
    """`int` of `Annotated[int, ...] | None`; None where there is no single class beside None."""
    if get_origin(annotation) is Annotated:
        return scalar_type(get_args(annotation)[0])
    if isinstance(annotation, type):
        return annotation
    inner = [part for part in get_args(annotation) if part is not type(None)]
    return scalar_type(inner[0]) if len(inner) == 1 and len(inner) < len(get_args(annotation)) else None
