"""The errors that users see: what is wrong with which value, why, and what to type next.

TuneloopError (exit 2, no traceback)
├── RecipeError       the recipe: unknown key, wrong type, impossible combination (all at once)
├── DataError         a file or a row
├── ModelError        a base, an adapter, a tokenizer, a template
│   └── Unscalable    an adapter that cannot be taken in part
├── TrainingError     a run that would learn nothing, or broke (NaN)
├── RunError          a run folder: in use, unfinished, not found
├── StoreError        the store: not reachable, of another version or secret, refusing what it was given
└── MissingExtra      an optional package is not installed
Anything else that escapes is a bug (exit 1 with traceback); ^C exits 130.
"""

from __future__ import annotations


class TuneloopError(Exception):
    """Base of all errors meant for users; `str(error)` is the whole message."""


class RecipeError(TuneloopError, ValueError):
    """The recipe cannot be used; lists every problem found, one a line."""


class DataError(TuneloopError, ValueError):
    """A data file or row cannot be used."""


class ModelError(TuneloopError, ValueError):
    """A base model, adapter, tokenizer or chat template cannot be used."""


class Unscalable(ModelError):
    """An adapter that is there or not, with nothing between: virtual tokens."""


class TrainingError(TuneloopError, RuntimeError):
    """Training would learn nothing or became non-finite."""


class RunError(TuneloopError, RuntimeError):
    """A run folder is missing, unfinished, corrupt or in use."""


class StoreError(TuneloopError, RuntimeError):
    """The store cannot be opened, cannot write, or refuses what it was given."""


class MissingExtra(TuneloopError, ImportError):
    """An optional dependency is needed; the message carries the pip line."""

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}': pip install 'tuneloop[{extra}]'")
