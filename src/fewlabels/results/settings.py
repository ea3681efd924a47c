"""Settings in YAML, from anybody: plain values only."""

from __future__ import annotations

from typing import Any

import yaml


class _Plain(yaml.SafeLoader):
    """The safe loader, without aliases: nine short lines of them can stand for a billion values."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read here")
        return super().compose_node(parent, index)


def load_yaml(text: str) -> Any:
    """Return the value of a YAML text; tags of Python and aliases are refused.

    Raises
    ------
    ValueError
        It is not YAML, or more than plain values.

    Examples
    --------
    >>> load_yaml("budget: 5m")
    {'budget': '5m'}
    """
    try:
        return yaml.load(text, _Plain)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    # The constructors of PyYAML raise anything for a value that does not fit its tag.
    except (yaml.YAMLError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
