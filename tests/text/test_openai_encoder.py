"""OpenAITextEncoder against the published algorithm, id by id, and its worker processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gpt_reference
import pytest
from samples import STRANGE, novel_lines, python_lines, random_texts

from bert_keras.text import OpenAITextEncoder
from bert_keras.text.openai_tokenizer import standardize

ftfy = pytest.importorskip("ftfy")
pytest.importorskip("spacy")


@pytest.fixture(scope="module")
def words():
    from spacy.lang.en import English

    tokenizer = English().tokenizer
    return lambda text: [token.text for token in tokenizer(text)]


@pytest.fixture(scope="module", params=["small", "published"])
def files(request, gpt_files):
    if request.param == "small":
        return gpt_files
    if "BERT_KERAS_DATA" not in os.environ:
        pytest.skip("set BERT_KERAS_DATA to the folder of data sets")
    folder = Path(os.environ["BERT_KERAS_DATA"], "openai-gpt")
    return folder / "encoder_bpe_40000.json", folder / "vocab_40000.bpe"


@pytest.fixture(scope="module")
def text_encoder(files):
    return OpenAITextEncoder(*files, num_workers=1)


def reference_ids(files, words, texts):
    vocab = json.loads(files[0].read_text(encoding="utf-8"))
    lines = files[1].read_text(encoding="utf-8").split("\n")[1:-1]
    ranks = {tuple(line.split()): rank for rank, line in enumerate(lines)}
    cache: dict[str, list[int]] = {}
    return [gpt_reference.encode(text, vocab, ranks, ftfy.fix_text, words, cache) for text in texts]


@pytest.mark.parametrize("source", ["python", "novels", "unicode"])
def test_agrees_with_the_reference(files, text_encoder, words, source):
    is_only_check = "BERT_KERAS_DATA" not in os.environ
    num_lines = 10_000 if is_only_check or "40000" in files[1].name else 2000
    texts = {
        "python": lambda: python_lines(num_lines),
        "novels": lambda: novel_lines(num_lines // 2),
        "unicode": lambda: STRANGE + random_texts(1000),
    }[source]()
    expected = reference_ids(files, words, texts)
    for text, actual, ids in zip(texts, text_encoder.encode_batch(texts), expected, strict=True):
        assert actual == ids, text


def test_agrees_with_transformers(files, text_encoder):
    port = pytest.importorskip("transformers.models.openai.tokenization_openai")
    slow = port.OpenAIGPTTokenizer(str(files[0]), str(files[1]))
    for line in python_lines(1000) + STRANGE + random_texts(500):
        if (
            "\\" not in line
        ):  # The port sets backslashes apart; its `tokenize` also lower-cases before spaCy splits.
            assert text_encoder.encode(line) == slow.convert_tokens_to_ids(slow._tokenize(line)), line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wait—what?  (No…)", "Wait - what ? ( No... )"),
        ("a+b=c\\d/e", "a + b=c\\d / e"),
        ("--**!!", "-- ** !!"),
        ("it´s\u00a0one\t two", "it's one two"),
        ("  one \r\n\n two ", "one \n two"),
        ("", ""),
    ],
)
def test_standardize_by_hand(text, expected):
    assert standardize(text) == expected


def test_special_tokens_follow_the_vocabulary(files, text_encoder):
    size = len(json.loads(files[0].read_text(encoding="utf-8")))
    ids = [getattr(text_encoder, f"{name}_id") for name in ("pad", "bos", "del", "eos", "msk")]
    assert ids == list(range(size, size + 5)) and text_encoder.vocab_size == size + 5
    assert text_encoder.unk_id == 0 and text_encoder.special_ids == {0, *ids}
    assert text_encoder.encode("\u4e2d\u6587") == [0, 0]


def test_published_sizes(files, text_encoder):
    if "40000" in files[1].name:
        assert text_encoder.vocab_size == 40_483 and text_encoder.msk_id == 40_482
        ids = text_encoder.encode("Hello, world!\n\nYes")
        pieces = ["hello</w>", ",</w>", "world</w>", "!</w>", "\n</w>", "yes</w>"]
        assert [text_encoder.id_to_token(i) for i in ids] == pieces
        assert text_encoder.decode(ids) == "hello , world !\nyes"


def test_processes_give_the_same_ids_and_recover(gpt_files):
    texts = python_lines(10_000) + STRANGE
    alone = OpenAITextEncoder(*gpt_files, num_workers=1)
    expected = alone.encode_flat(texts)
    text_encoder = OpenAITextEncoder(*gpt_files, num_workers=2)
    texts_many = [f"{text}" for text in texts]
    assert sum(map(len, texts_many)) > 400_000
    for _ in range(2):
        ids, lengths = text_encoder.encode_flat(texts_many)
        assert ids.tolist() == expected[0].tolist() and lengths.tolist() == expected[1].tolist()
    (ended,) = [worker for worker in [text_encoder._pool._idle.get()]]
    ended.kill()
    ended.wait()
    text_encoder._pool._idle.put(ended)
    with pytest.raises(RuntimeError, match="process ended"):
        text_encoder.encode_flat(texts_many)
    assert text_encoder.encode_flat(texts_many)[0].tolist() == expected[0].tolist()
    with pytest.raises(ValueError, match=r"texts\[10000\]: character 1 .*U\+DC80"):
        text_encoder.encode_flat([*texts_many[:10_000], "a\udc80"])
    text_encoder.close()


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may ignore it
print("main", flush=True)
from bert_keras.text import OpenAITextEncoder
text_encoder = OpenAITextEncoder(sys.argv[1], sys.argv[2], num_workers=2)
texts = ["some words that are all to be tokenised"] * 40_000
text_encoder.encode_flat(texts)
print(*[text_encoder._pool._idle.get().pid for _ in range(2)], flush=True)
if sys.argv[3] == "interrupt":
    import os, threading
    text_encoder.close()
    pool = text_encoder._pool_for(1_000_000)
    workers = [pool._idle.get() for _ in range(2)]
    print(*[worker.pid for worker in workers], flush=True)
    for worker in workers:
        pool._idle.put(worker)
    threading.Timer(3, os.killpg, [0, signal.SIGINT]).start()
    while True:
        text_encoder.encode_flat(texts)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals and process groups")
@pytest.mark.parametrize("way", ["normal", "interrupt"])
def test_no_process_is_left_behind(gpt_files, tmp_path, way):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")  # Has no `if __name__ == "__main__"`, on purpose.
    process = subprocess.run(
        [sys.executable, str(script), *map(str, gpt_files), way],
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
        check=False,
    )
    assert process.stdout.count("main") == 1, process.stderr
    assert process.returncode in ((0,) if way == "normal" else (1, -signal.SIGINT, 130)), process.stderr
    pids = [int(pid) for line in process.stdout.split("\n")[1:] for pid in line.split()]
    assert len(pids) == (2 if way == "normal" else 4)
    deadline = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("name", ["ftfy", "spacy"])
def test_a_missing_library_names_the_extra(gpt_files, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf'{name}.*pip install "bert_keras\[openai\]"'):
        OpenAITextEncoder(*gpt_files)


def test_damaged_files(gpt_files, tmp_path):
    encoder_path, bpe_path = gpt_files
    vocab, merges = encoder_path.read_bytes(), bpe_path.read_bytes()
    bad = tmp_path / "bad"
    for content, words in [
        (b"", "not JSON"),
        (vocab[: len(vocab) // 2], "truncated"),
        (b"[1, 2]", "JSON object"),
        (b'{"<unk>": 0, "a": 2}', "without gaps"),
        (b'{"<unk>": 0, "a": 0}', "without gaps"),
        (b'{"a": 0}', "'<unk>'"),
        (b"\x00\x01", "NUL"),
        (b'{"<unk>": 0, "a": 1}', "belong together"),
    ]:
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            OpenAITextEncoder(bad, bpe_path)
    for content, words in [
        (b"", "#version"),
        (merges.split(b"\n", 1)[1], "#version"),
        (merges.rstrip(b"\n")[:-3], "truncated|belong together"),
        (merges + b"one two three\n", "two pieces on line 302"),
        (merges + b"\n", "two pieces on line 302"),
        (merges + b"zq qz\n", "no piece 'zq'"),
        (b"\xff\xfe", "UTF-8"),
    ]:
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            OpenAITextEncoder(encoder_path, bad)
    with pytest.raises(FileNotFoundError, match="encoder_path"):
        OpenAITextEncoder(tmp_path / "missing", bpe_path)
    with pytest.raises(FileNotFoundError, match="bpe_path"):
        OpenAITextEncoder(encoder_path, tmp_path / "missing")
    with pytest.raises(ValueError, match="num_workers"):
        OpenAITextEncoder(encoder_path, bpe_path, num_workers=0)
