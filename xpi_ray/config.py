"""The form of every configuration value: frozen, typed, and closed to unknown keys.

A configuration is read once, where a program starts; inner code receives the parts it needs.
"""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable value whose unknown keys are errors, not silently ignored spelling mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
