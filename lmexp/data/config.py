"""Configs of the data."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from lmexp import plugins
from lmexp.checks import at_least, not_empty, one_of
from lmexp.errors import ConfigError

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

    from lmexp.data.sources.base import Source
    from lmexp.tokenizers.base import Tokenizer

SPLITS = ("hash", "tail")
DOCUMENTS = ("file", "line")
WINDOWS = ("stream", "packed", "padded")
MOST_DOCUMENT_BYTES = 1 << 30
SYNTHETIC = ("copy", "reverse", "markov", "commands")


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """What a model learns from."""

    kind: str = "???"

    def build(self, *, tokenizer: Tokenizer | None, seed: int) -> LightningDataModule:
        """The data module, where it is not made from a corpus."""
        raise NotImplementedError


@dataclass(kw_only=True, slots=True)
class CorpusConfig(DataConfig):
    """Documents of text, made into tokens and cut into sequences."""

    batch_size: int = 8
    """Sequences in an optimizer step, over all devices and micro-batches together."""
    sequence_length: int = 256
    """Tokens in a sequence."""
    windows: str = "stream"
    """stream: documents stand one after another, and sequences are cut anywhere.
    packed: whole documents are packed into sequences, best fit; none sees another, positions restart in each.
    padded: a document a sequence, filled up with padding. A document longer than a sequence is cut into several."""
    cache_dir: str | None = None
    """Folder of the token caches; null is cache/ in the folder of all runs."""
    prepare_workers: int | None = None
    """Processes that read and tokenize; null is one a core. The tokens are the same for any number."""
    split: str = "hash"
    """hash: a document's own content decides where it goes, the same whatever else the corpus holds.
    tail: the end of the text is held out, validation before test; a document over a border is cut there."""
    validation_fraction: float = 0.05
    """Share held out for validation: of the documents (split=hash) or of the characters (split=tail)."""
    test_fraction: float = 0.05
    """Share held out for the test at the end."""
    min_characters: int = 1
    """Shorter documents are dropped, and counted."""
    max_characters: int | None = None
    """Longer documents are dropped, and counted; null keeps them."""
    drop_duplicates: bool = False
    """Keep only the first of documents with the same text. They are counted either way."""
    max_document_bytes: int = 1 << 26
    """A document or line with more bytes is quarantined, so that memory stays bounded."""
    max_quarantined: int | None = 1000
    """Bad documents that may be set aside before the job fails; null is no limit."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "sequence_length", "prepare_workers", "min_characters", "max_document_bytes"):
            at_least(f"data.{name}", getattr(self, name), 1)
        if self.max_document_bytes > MOST_DOCUMENT_BYTES:
            raise ConfigError(
                f"data.max_document_bytes is {self.max_document_bytes}; expected at most {MOST_DOCUMENT_BYTES}: a "
                f"document is read into memory"
            )
        at_least("data.max_quarantined", self.max_quarantined, 0)
        not_empty("data.cache_dir", self.cache_dir, "outputs/cache")
        at_least("data.max_characters", self.max_characters, self.min_characters)
        one_of("data.windows", self.windows, WINDOWS)
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

    def source(self) -> Source:
        """Where the documents come from."""
        raise NotImplementedError

    def sources(self) -> dict[str, CorpusConfig]:
        """Name -> config of each source; a corpus that is no mixture is its only source, without a name."""
        return {"": self}

    def shares(self) -> dict[str, float]:
        """Name -> share of the training sequences that each source gives; they sum to 1."""
        return {"": 1.0}

    def given_splits(self) -> tuple[str, ...]:
        """Which of validation and test have documents of their own, instead of a share of the others."""
        return ()

    def has_split(self, name: str) -> bool:
        """Whether there is a validation or test split."""
        return any(name in c.given_splits() or getattr(c, f"{name}_fraction") > 0 for c in self.sources().values())


@dataclass(kw_only=True, slots=True)
class StdlibConfig(CorpusConfig):
    """The source of the Python standard library, without its tests; a document a file."""

    kind: str = "stdlib"

    def source(self) -> Source:
        from lmexp.data.sources.stdlib import StdlibSource

        return StdlibSource(self)


@dataclass(kw_only=True, slots=True)
class FilesConfig(CorpusConfig):
    """Files on disk."""

    path: str = ""
    """A file, a folder, or a glob such as "books/**/*.txt"; relative to where the command is typed."""
    pattern: str = "*"
    """Which files of a folder belong to the corpus, at any depth; hidden ones never do."""
    validation_pattern: str | None = None
    """Which files of the folder are the validation split; null holds data.validation_fraction out."""
    test_pattern: str | None = None
    """Which files of the folder are the test split; null holds data.test_fraction out."""

    def __post_init__(self) -> None:
        CorpusConfig.__post_init__(self)
        for name in ("pattern", "validation_pattern", "test_pattern"):
            not_empty(f"data.{name}", getattr(self, name), "'*.txt'")

    def given_splits(self) -> tuple[str, ...]:
        return tuple(name for name in ("validation", "test") if getattr(self, f"{name}_pattern") is not None)


@dataclass(kw_only=True, slots=True)
class TextFilesConfig(FilesConfig):
    """UTF-8 text files, plain or compressed (.gz, .zst)."""

    kind: str = "text_files"
    pattern: str = "*.txt"
    """Which files of a folder belong to the corpus, at any depth; hidden ones never do."""
    document: str = "file"
    """file: each file is a document. line: each line is one; blank lines are skipped."""
    keep_blank_lines: bool = False
    """With document=line: a blank line is a document too, without text, whose end is predicted. Figures that were
    published of WikiText count these."""

    def __post_init__(self) -> None:
        FilesConfig.__post_init__(self)
        one_of("data.document", self.document, DOCUMENTS)
        if self.keep_blank_lines and self.document != "line":
            raise ConfigError(
                f"data.keep_blank_lines=true needs lines as documents, got data.document={self.document}; "
                f"set data.document=line, or take data.keep_blank_lines away"
            )

        if self.keep_blank_lines and self.drop_duplicates:
            raise ConfigError(
                "data.keep_blank_lines=true keeps blank lines, of which data.drop_duplicates=true would leave one; "
                "take one of the two away"
            )

    def source(self) -> Source:
        from lmexp.data.sources.text_files import TextFilesSource

        return TextFilesSource(self)


@dataclass(kw_only=True, slots=True)
class RecordsConfig(FilesConfig):
    """Files of records, each of which makes a document."""

    field: str = "text"
    """Field that holds the text: a name, a path such as "meta.title", or the number of a column; of "a|b" the first
    that a record has. A list of texts is joined by line ends."""
    template: str | None = None
    """The text made from several fields, e.g. "{title}\\n\\n{body}"; null takes field alone."""

    def __post_init__(self) -> None:
        FilesConfig.__post_init__(self)
        not_empty("data.field", self.field, "text")
        not_empty("data.template", self.template, "'{title} {body}'")


@dataclass(kw_only=True, slots=True)
class JsonLinesConfig(RecordsConfig):
    """JSON: an object a line, or a file that holds an array of objects or one object; plain, .gz or .zst."""

    kind: str = "json_lines"
    pattern: str = "*.json*"
    """Which files of a folder belong to the corpus, at any depth; hidden ones never do."""

    def source(self) -> Source:
        from lmexp.data.sources.json_lines import JsonLinesSource

        return JsonLinesSource(self)


@dataclass(kw_only=True, slots=True)
class CsvConfig(RecordsConfig):
    """Tables as text: comma-, tab- or otherwise separated; plain, .gz or .zst."""

    kind: str = "csv"
    pattern: str = "*.csv"
    """Which files of a folder belong to the corpus, at any depth; hidden ones never do."""
    delimiter: str = ","
    """Character between columns."""
    quote: str | None = '"'
    """Character around a value that holds delimiters or line ends; null is none."""
    header: bool = True
    """Whether the first line names the columns; without it they are 0, 1, 2, ..."""

    def __post_init__(self) -> None:
        RecordsConfig.__post_init__(self)
        for name in ("delimiter", "quote"):
            value = getattr(self, name)
            if value is not None and (len(value) != 1 or value in "\r\n"):
                raise ConfigError(f"data.{name} is {value!r}; expected one character, e.g. data.{name}=';'")
        if self.quote == self.delimiter:
            raise ConfigError(
                f"data.quote is {self.quote!r}, as data.delimiter is; expected another character, or null"
            )

    def source(self) -> Source:
        from lmexp.data.sources.csv_files import CsvSource

        return CsvSource(self)


@dataclass(kw_only=True, slots=True)
class ParquetConfig(RecordsConfig):
    """Parquet files."""

    kind: str = "parquet"
    pattern: str = "*.parquet"
    """Which files of a folder belong to the corpus, at any depth; hidden ones never do."""

    def source(self) -> Source:
        from lmexp.data.sources.parquet import ParquetSource

        return ParquetSource(self)


@dataclass(kw_only=True, slots=True)
class HFConfig(CorpusConfig):
    """A data set of Hugging Face's `datasets`: a name on the hub, or a local folder."""

    kind: str = "hf"
    path: str = ""
    """A folder (of save_to_disk, or of data files), or a name on the hub such as wikitext."""
    revision: str | None = None
    """Commit of the hub's repository, 40 hex digits; a name on the hub needs it, so that the data can't change."""
    subset: str | None = None
    """Which of the data set's configurations, e.g. wikitext-2-raw-v1; null where it has one only."""
    train_split: str = "train"
    """The data set's split to train on, from which data.validation_fraction and data.test_fraction are held out."""
    validation_split: str | None = None
    """The data set's split to validate on; null holds data.validation_fraction out."""
    test_split: str | None = None
    """The data set's split to test on; null holds data.test_fraction out."""
    field: str = "text"
    """Column that holds the text."""
    template: str | None = None
    """The text made from several columns, e.g. "{question}\\n{answer}"; null takes field alone."""

    def __post_init__(self) -> None:
        CorpusConfig.__post_init__(self)
        not_empty("data.field", self.field, "text")
        not_empty("data.template", self.template, "'{question} {answer}'")
        for name in ("revision", "subset", "train_split", "validation_split", "test_split"):
            not_empty(f"data.{name}", getattr(self, name), "train" if name.endswith("split") else "...")

    def given_splits(self) -> tuple[str, ...]:
        return tuple(name for name in ("validation", "test") if getattr(self, f"{name}_split") is not None)

    def source(self) -> Source:
        from lmexp.data.sources.hf import HFSource

        return HFSource(self)


@dataclass(kw_only=True, slots=True)
class SyntheticConfig(CorpusConfig):
    """Documents made by a rule: what a model could learn of them is known."""

    kind: str = "synthetic"
    rule: str = "copy"
    """copy, reverse: letters, then the same again. markov: a chain with known entropy. commands: as in SCAN."""
    n_documents: int = 10_000
    """Number of documents."""
    min_length: int = 4
    """Shortest document in symbols (copy, reverse: before the copy; commands: not read)."""
    max_length: int = 16
    """Longest document in symbols; lengths are equally likely."""
    n_symbols: int = 16
    """Different symbols of copy, reverse and markov: the first letters of the alphabet."""
    generator_seed: int = 0
    """Decides the documents, and the chain of markov."""

    def __post_init__(self) -> None:
        CorpusConfig.__post_init__(self)
        one_of("data.rule", self.rule, SYNTHETIC)
        for name in ("n_documents", "min_length"):
            at_least(f"data.{name}", getattr(self, name), 1)
        at_least("data.max_length", self.max_length, self.min_length)
        if not 2 <= self.n_symbols <= 26:
            raise ConfigError(f"data.n_symbols is {self.n_symbols}; expected 2 to 26 letters")

    def source(self) -> Source:
        from lmexp.data.sources.synthetic import SyntheticSource

        return SyntheticSource(self)


@dataclass(kw_only=True, slots=True)
class MixtureConfig(CorpusConfig):
    """Several sources; each gives a fixed share of the training sequences."""

    kind: str = "mixture"
    parts: dict[str, DataConfig] = field(default_factory=dict)
    """Name -> source, any kind of data. Splits and cleaning are set in each, batches and windows here."""
    weights: dict[str, float] = field(default_factory=dict)
    """Name -> share of the training sequences, in any unit; a source without a weight has 1."""

    def __post_init__(self) -> None:
        CorpusConfig.__post_init__(self)
        if not self.parts:
            raise ConfigError(
                "data.parts is empty; a mixture needs sources, e.g. in a YAML of yours: defaults: "
                "[/schema/data@_here_: mixture, /data@parts.code: stdlib, /data@parts.books: text_files, _self_]"
            )
        for name, part in self.parts.items():
            self._check_part(name, part)
        for name, weight in self.weights.items():
            if name not in self.parts:
                hint = plugins.did_you_mean(name, self.parts)
                raise ConfigError(f"data.weights has {name!r}; expected one of {', '.join(self.parts)}{hint}")
            if not 0 < weight < float("inf"):
                raise ConfigError(f"data.weights.{name} is {weight}; expected a positive number")

    def _check_part(self, name: str, part: DataConfig) -> None:
        if not name.isidentifier():
            raise ConfigError(f"data.parts has {name!r}; expected letters, digits and _ (it names files and figures)")
        if not isinstance(part, CorpusConfig) or isinstance(part, MixtureConfig):
            raise ConfigError(f"data.parts.{name} is data={part.kind}; expected a corpus that is no mixture itself")
        defaults = {f.name: f.default for f in fields(CorpusConfig)}
        for key in ("batch_size", "sequence_length", "windows", "cache_dir", "prepare_workers"):
            if getattr(part, key) != defaults[key]:
                raise ConfigError(
                    f"data.parts.{name}.{key} is {getattr(part, key)!r}, but the mixture decides it: set data.{key}"
                )

    def source(self) -> Source:
        raise NotImplementedError("a mixture has several: sources()")

    def sources(self) -> dict[str, CorpusConfig]:
        return {name: part for name, part in self.parts.items() if isinstance(part, CorpusConfig)}

    def shares(self) -> dict[str, float]:
        weights = {name: self.weights.get(name, 1.0) for name in self.parts}
        total = sum(weights.values())
        return {name: weight / total for name, weight in weights.items()}


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
