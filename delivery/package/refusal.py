"""Why a package is refused."""

from __future__ import annotations


class PackageRefused(Exception):
    """A package must not be used. The message is one sentence that names the file and the rule.

    Attributes:
        file: The path below the package that is at fault, as text that is safe to print; "" for the whole of it.
        rule: The short name of the rule, for programs: `added`, `changed`, `operation`, ...
    """

    def __init__(self, rule: str, file: str, sentence: str) -> None:
        super().__init__(sentence)
        self.rule, self.file = rule, file


def shown(name: str | bytes, most: int = 120) -> str:
    """A name from an untrusted package as it may be printed: control and invisible characters escaped, cut short.

    >>> shown("a\\u202eb\\n")
    "'a\\\\u202eb\\\\n'"
    >>> shown("variables/variables.index")
    'variables/variables.index'
    """
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name
    text = text if len(text) <= most else text[:most] + "..."
    return text if text and text.isascii() and text.isprintable() and " " not in text else ascii(text)
