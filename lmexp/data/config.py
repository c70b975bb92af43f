"""Configs of the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmexp import plugins
from lmexp.checks import at_least, one_of
from lmexp.errors import ConfigError

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

    from lmexp.data.sources import Documents
    from lmexp.tokenizers.base import Tokenizer

SPLITS = ("hash", "tail")
DOCUMENTS = ("file", "line")


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """What a model learns from."""

    kind: str = "???"

    def build(self, *, tokenizer: Tokenizer | None, seed: int) -> LightningDataModule:
        """The data module, where it is not made from a corpus."""
        raise NotImplementedError


@dataclass(kw_only=True, slots=True)
class CorpusConfig(DataConfig):
    """Documents of text, made into one stream of tokens and cut into sequences."""

    batch_size: int = 8
    """Sequences in an optimizer step, over all devices and micro-batches together."""
    sequence_length: int = 256
    """Tokens in a sequence."""
    cache_dir: str | None = None
    """Folder of the token caches; null is cache/ in the folder of all runs."""
    split: str = "hash"
    """hash: a document's own content decides where it goes, the same whatever else the corpus holds.
    tail: the end of the text is held out, validation before test; a document over a border is cut there."""
    validation_fraction: float = 0.05
    """Share held out for validation: of the documents (split=hash) or of the characters (split=tail)."""
    test_fraction: float = 0.05
    """Share held out for the test at the end."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "sequence_length"):
            at_least(f"data.{name}", getattr(self, name), 1)
        one_of("data.split", self.split, SPLITS)
        for name in ("validation_fraction", "test_fraction"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"data.{name} is {getattr(self, name)}; expected a share from 0 to below 1, e.g. 0.05"
                )
        if self.validation_fraction + self.test_fraction >= 1:
            raise ConfigError(
                f"data.validation_fraction ({self.validation_fraction}) + data.test_fraction "
                f"({self.test_fraction}) must be below 1, or nothing is left to train on; "
                f"try data.validation_fraction=0.05 data.test_fraction=0.05"
            )

    def documents(self) -> Documents:
        """The corpus, read anew each time it is iterated."""
        raise NotImplementedError


@dataclass(kw_only=True, slots=True)
class StdlibConfig(CorpusConfig):
    """The source of the Python standard library, without its tests; a document a file."""

    kind: str = "stdlib"

    def documents(self) -> Documents:
        from lmexp.data.sources import stdlib

        return stdlib()


@dataclass(kw_only=True, slots=True)
class TextFilesConfig(CorpusConfig):
    """UTF-8 text files."""

    kind: str = "text_files"
    path: str = ""
    """A file, a folder, or a glob such as "books/**/*.txt"; relative to where the command is typed."""
    pattern: str = "*.txt"
    """Which files of a folder belong to the corpus, at any depth; hidden ones never do."""
    document: str = "file"
    """file: each file is a document. line: each line is one; blank lines are skipped."""

    def __post_init__(self) -> None:
        CorpusConfig.__post_init__(self)
        one_of("data.document", self.document, DOCUMENTS)

    def documents(self) -> Documents:
        from lmexp.data.sources import text_files

        return text_files(self.path, pattern=self.pattern, lines=self.document == "line")


@dataclass(kw_only=True, slots=True)
class CustomDataConfig(DataConfig):
    """A LightningDataModule of the user's; it may take tokenizer and seed."""

    kind: str = "custom"
    target: str = ""
    """my_pkg.module:ClassName, in a package trusted with -p my_pkg."""
    args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the class, checked against its signature."""

    def __post_init__(self) -> None:
        plugins.check_target("data", self.target)

    def build(self, *, tokenizer: Tokenizer | None, seed: int) -> LightningDataModule:
        from lmexp.data.module import custom_data_module

        return custom_data_module(self.target, self.args, tokenizer=tokenizer, seed=seed)
