"""YAML that can be read in one way only: no aliases, no tags, no repeated keys, not deep.

Aliases make bombs, tags make objects, and a repeated key makes two readers see
two documents; a policy needs none of them.
"""

from typing import Any

import yaml

from fabric.model.errors import Malformed

_DEPTH_MAX = 8
# The C reader is ten times faster; wheels have it, a build from source may not.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # the base is chosen at run time
    """Safe loader that refuses a repeated or unhashable key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
                raise Malformed("a key must be plain text")
            key = self.construct_object(key_node, deep=True)
            if key in mapping:
                raise Malformed("a key stands twice; remove one")
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping


def read(data: bytes) -> object:
    """Parse one document of UTF-8 text into lists, dicts and scalars; raises Malformed."""
    try:
        text = data.decode()
        _check_events(text)
        return _construct(text)
    except UnicodeDecodeError as exc:
        raise Malformed("is not UTF-8; save it as UTF-8") from exc
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 0
        raise Malformed(f"is not YAML near line {line}") from exc
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as exc:
        raise Malformed("is not YAML") from exc


def _construct(text: str) -> object:
    loader = _Loader(text)
    try:
        value: object = loader.get_single_data()
    finally:
        loader.dispose()
    return value


def _check_events(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise Malformed("has an anchor or alias; write the value out")
        if getattr(event, "tag", None):
            raise Malformed("has a tag; remove it")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEPTH_MAX:
                raise Malformed("is nested too deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
