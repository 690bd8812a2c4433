"""Text of numbers: every token can be told apart, so every stretch of a batch can be found again in the "
"corpus."""

import numpy as np

from bert_keras.text import TextEncoder

NUM_SPECIAL = 6


class NumberEncoder(TextEncoder):
    """The word "17" has the id 6 + 17, "?" is unknown, and words of three tokens begin at multiples of "
    "three."""

    kind = "NumberEncoder"

    def __init__(self, vocab_size=60_000):
        self.vocab_size = vocab_size
        self.pad_id, self.unk_id, self.bos_id, self.eos_id, self.del_id, self.msk_id = range(NUM_SPECIAL)
        self.special_ids = frozenset(range(NUM_SPECIAL))
        self._set_word_boundaries((i - NUM_SPECIAL) % 3 == 0 for i in range(vocab_size))

    def _encode_chunk(self, texts):
        return [[self.token_to_id(word) for word in text.split()] for text in texts]

    def id_to_token(self, token_id):
        return "?" if token_id == self.unk_id else str(token_id - NUM_SPECIAL)

    def token_to_id(self, token):
        if token == "?":
            return self.unk_id
        return NUM_SPECIAL + int(token) % (self.vocab_size - NUM_SPECIAL)

    def get_state(self):
        return {"vocab_size": self.vocab_size}

    @classmethod
    def from_state(cls, state):
        return cls(state["vocab_size"])

    def _decode(self, ids):
        return " ".join(map(self.id_to_token, ids))


def number_documents(sizes):
    """Documents of sentences of so many tokens, `[[3, 5], [2]]`; the tokens count from 0 through all of "
    "them."""
    numbers = iter(range(10**9))
    return [[[next(numbers) for _ in range(size)] for size in document] for document in sizes]


def write_documents(path, documents):
    text = "\n\n".join("\n".join(" ".join(map(str, s)) for s in document) for document in documents)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def random_sizes(seed, num_documents=9, max_sentences=13, max_tokens=17):
    rng = np.random.default_rng(seed)
    return [
        rng.integers(1, max_tokens + 1, rng.integers(1, max_sentences + 1)).tolist()
        for _ in range(num_documents)
    ]


class Places:
    """Where the tokens of `number_documents` are: found by looking at every one of them."""

    def __init__(self, documents):
        self.document_of, self.sentence_of, self.starts, self.ends = {}, {}, set(), set()
        self.sentences = [s for document in documents for s in document]
        sentence = 0
        for d, document in enumerate(documents):
            for tokens in document:
                self.starts.add(tokens[0])
                self.ends.add(tokens[-1])
                for token in tokens:
                    self.document_of[token], self.sentence_of[token] = d, sentence
                sentence += 1
        self.document_starts = {document[0][0] for document in documents}
        self.document_ends = {document[-1][-1] for document in documents}


def originals(batch):
    """The tokens of a masked batch before masking."""
    return batch.token_classification["lm"].target


def segments_of(batch, encoder):
    """For every row the numbers in A, in B (None without a pair), and `is_next` (None without it)."""
    tokens = originals(batch)
    for row in range(len(tokens)):
        size = int(batch.padding_mask[row].sum())
        ids = tokens[row].tolist()
        assert batch.padding_mask[row].tolist() == [True] * size + [False] * (len(ids) - size)
        assert ids[0] == encoder.bos_id and ids[size - 1] == encoder.eos_id
        assert ids[size:] == [encoder.pad_id] * (len(ids) - size)
        inner = ids[1 : size - 1]
        if encoder.del_id not in inner:
            assert not batch.segments[row].any() and not batch.sentence_classification
            yield [i - NUM_SPECIAL for i in inner], None, None
            continue
        cut = inner.index(encoder.del_id)
        first, second = inner[:cut], inner[cut + 1 :]
        expected = [0] * (len(first) + 2) + [1] * (len(second) + 1) + [0] * (len(ids) - size)
        assert batch.segments[row].tolist() == expected
        label = batch.sentence_classification["is_next"]
        assert label.target_mask[row] == 0
        yield [i - NUM_SPECIAL for i in first], [i - NUM_SPECIAL for i in second], int(label.target[row])


def is_run(numbers):
    """Whether the numbers count upwards by one."""
    return len(numbers) > 0 and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
