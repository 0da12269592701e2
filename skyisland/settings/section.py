"""What a section of the settings is: a struct, named as its table of the file.

Every key has a default, so an island runs without a file. When a section is made, from a file or in
code, it checks its keys against each other and raises `Refused`. The string beneath a field is its
documentation: `config/skyisland.toml` is generated from these strings.
"""

from __future__ import annotations

from msgspec import Struct


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings file."""
