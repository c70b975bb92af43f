import subprocess
import sys

from lmexp.tokenizers.bpe import BPETokenizer

TEXTS = ["low lower lowest newer newest wider widest " * 5, "naïve 日本語 🙂 " * 5]


def train(vocab_size: int = 320) -> BPETokenizer:
    return BPETokenizer.train(TEXTS, vocab_size=vocab_size, min_frequency=2)


def test_vocabulary_has_the_size_asked_for() -> None:
    assert train(280).vocab_size == 280
    assert train(257).vocab_size == 257


def test_vocabulary_stays_small_where_nothing_is_frequent() -> None:
    assert BPETokenizer.train(["abc"], vocab_size=1000, min_frequency=2).vocab_size == 257


def test_frequent_words_become_one_token() -> None:
    tokenizer = train()
    assert len(tokenizer.encode("lowest")) < len("lowest")
    assert len(tokenizer.encode(" lowest lower")) < len(" lowest lower") / 3


def test_bytes_of_each_token_are_those_it_decodes_to() -> None:
    tokenizer = train()
    table = tokenizer.token_bytes()
    for token in range(tokenizer.eos_id):
        text = tokenizer.decode([token])
        if "\ufffd" not in text:
            assert table[token] == len(text.encode())
    assert sorted(table[:256]) == [1] * 256


def test_every_byte_is_known() -> None:
    tokenizer = BPETokenizer.train(["a"], vocab_size=257, min_frequency=2)
    text = "".join(map(chr, range(0x300))) + "🙂"
    assert tokenizer.encode_with_bytes(text)[1].sum() == len(text.encode()) == len(tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_literal_eos_is_ordinary_text() -> None:
    tokenizer = BPETokenizer.train(["<eos> <eos>" * 50], vocab_size=300, min_frequency=2)
    ids = tokenizer.encode("<eos>")
    assert tokenizer.eos_id not in ids
    assert tokenizer.decode(ids) == "<eos>"


def test_a_fork_after_encoding_is_silent_and_works() -> None:
    script = (
        "import os\n"
        "from lmexp.tokenizers.bpe import BPETokenizer\n"
        "t = BPETokenizer.train(['ab ' * 99], vocab_size=260, min_frequency=2)\n"
        "ids = [list(i) for i in t.encode_batch(['ab ab'] * 64)]\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(0 if [list(i) for i in t.encode_batch(['ab ab'] * 64)] == ids else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
