"""YAML in which every value is text, as it is written: YAML 1.1 makes booleans, octal numbers and dates of names."""

from __future__ import annotations

from typing import Any

import yaml

from hubel.bounded import BoundError, check_yaml
from hubel.data.annotations.parse import InvalidAnnotation

MAX_BYTES = 1 << 20
EMPTY = ("", "null", "Null", "NULL", "~")
"""How YAML writes that an entry has no value."""


_Base: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # ten times as fast, where PyYAML has it


class _Loader(_Base):  # type: ignore[misc]
    """Refuses a name that is given twice, of which other loaders keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
                seen.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if not str(node.tag).startswith("tag:yaml.org,2002:") or "python" in node.tag:
            raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag!r} is not read", node.start_mark)
        return super().construct_object(node, deep)


def load(text: str) -> dict[str, Any]:
    """The named entries of a YAML file; raises :class:`InvalidAnnotation` if it has none, or is not YAML."""
    try:
        check_yaml(text)
        content = yaml.load(text, _Loader)
    except BoundError as error:
        raise InvalidAnnotation(str(error)) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise InvalidAnnotation(f"is not valid YAML ({where}{error.problem})") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidAnnotation(f"is not valid YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise InvalidAnnotation("has no named entries")
    return content


def entry(content: dict[str, Any], name: str) -> Any:
    """A value; ``None`` where it is missing or empty."""
    value = content.get(name)
    return None if isinstance(value, str) and value in EMPTY else value
