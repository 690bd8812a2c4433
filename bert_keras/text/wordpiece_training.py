"""Training a WordPiece vocabulary: the `tokenizers` trainer, made reproducible."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import CharDelimiterSplit
from tokenizers.trainers import WordPieceTrainer


def train_wordpieces(
    texts: Iterable[str], vocab_size: int, special: Sequence[str], min_frequency: int, max_alphabet: int
) -> list[str]:
    """Learns a vocabulary from texts whose words are separated by single spaces.

    The trainer of the library numbers the pieces of one character in the order of a hash table, which differs
    from run to run, and breaks ties between equally frequent pairs by those numbers. Here it is told all of
    these pieces beforehand, in a fixed order, so equal texts give equal vocabularies.

    Args:
        texts: cleaned texts.
        vocab_size: the number of pieces wanted.
        special: the pieces that come first.
        min_frequency: the least count of a pair of pieces that is joined.
        max_alphabet: at most so many characters are kept, the most frequent first. Words with others are left
            out.

    Returns:
        `vocab_size` pieces: the special ones, the characters, then the others in the order they were learned.

    Raises:
        ValueError: `vocab_size` is too small for the characters of the text, or larger than what can be
            learned.
    """
    words: Counter[str] = Counter()
    for text in texts:
        words.update(text.split(" "))
    del words[""]
    alphabet = _alphabet(words, max_alphabet)
    first = [*special, *alphabet, *(f"##{character}" for character in alphabet)]
    if vocab_size < len(first):
        raise ValueError(
            f"vocab_size: expected at least {len(first)}, got {vocab_size}: there are {len(special)} special "
            f"tokens and {len(alphabet)} characters, each at the start of a word and within. Raise it, or "
            "lower max_alphabet."
        )
    tokenizer = Tokenizer(WordPiece(unk_token=special[1]))
    tokenizer.pre_tokenizer = CharDelimiterSplit(" ")
    trainer = WordPieceTrainer(
        vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=first, show_progress=False
    )
    tokenizer.train_from_iterator(_repeat_words(words, set(alphabet)), trainer)
    ids = tokenizer.get_vocab()
    if len(ids) < vocab_size:
        raise ValueError(
            f"vocab_size: expected at most {len(ids)} for this text with min_frequency={min_frequency}, got "
            f"{vocab_size}. Lower it, or train on more text."
        )
    return sorted(ids, key=ids.__getitem__)


def _alphabet(words: Counter[str], max_alphabet: int) -> list[str]:
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    most_frequent = sorted(characters, key=lambda character: (-characters[character], character))
    return sorted(most_frequent[:max_alphabet])


def _repeat_words(words: Counter[str], alphabet: set[str]) -> Iterator[str]:
    """Each word as often as it was seen, as texts of up to 1,000 words."""
    for word in sorted(words):
        if alphabet.issuperset(word):
            count = words[word]
            while count > 0:
                yield " ".join(repeat(word, min(count, 1000)))
                count -= 1000
