"""Text to test on: lines that every Python has, real novels if they are at hand, and oddities of Unicode."""

import os
import pydoc_data.topics
import random
import sysconfig
from pathlib import Path

import pytest

STRANGE = [
    "",
    " ",
    "\t\n\r\n",
    "a",
    "Hello, world!",
    "emoji 😀😃 👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️ ☺ \U0001fae8 \U0001fac6",
    "中文字符和English混排，第三句。𠀀𪛟 㐂 豈",
    "日本語のテキスト。カタカナ、ひらがな ｶﾞｷﾞ ～",
    "한국어 텍스트입니다 \u1112\u1161\u11ab",
    "combining: e\u0301 a\u030a\u0323 n\u0303 o\u0338 \u0301alone z\u0300\u0301\u0302\u0303\u0304",
    "é vs e\u0301, Å vs \u212b, K vs \u212a, ﬁ ﬀ ǆ Ǆ ½ ①",
    "İstanbul ı I i̇ ŞİŞLİ",
    "ΟΔΥΣΣΕΥΣ Σ ΑΣ. ΑΣΑ Σ' ΆΣ\u0301 ΑΣ-Β",
    "Straße STRASSE ẞ ﬃ",
    "controls \x00\x01\x07\x08\x0b\x0c\x1b\x1c\x1d\x1e\x1f\x7f\x80\x85\x9f end",
    "zero\u200bwidth\u200cjoin\u200der\u2060word\ufeffbom soft\u00adhyphen \u180e",
    "\ufeffBOM at start",
    "spaces:\u00a0\u1680\u2000\u2003\u2009\u202f\u205f\u3000 lines\u2028paragraphs\u2029end",
    "rtl: שלום עולם שָׁלוֹם \u200f\u202bالسلام عليكم\u202c مُحَمَّد ١٢٣",
    "हिन्दी में पाठ ไทย ภาษาไทย ગુજરાતી தமிழ்",
    "replacement \ufffd and noncharacters \ufffe\uffff\U0010ffff private \ue000\uf8ff\U000f0000",
    "unassigned \u0378\u0530\U000e0080 new \u20c0\u061d\u2e53",
    "[MASK] [CLS][SEP] [UNK]x[PAD] [mask] <msk> <pad> <s> </s> <unk> <del> <eos> <bos>",
    "##ing ## # @@ </w> hello</w> ▁under ▁",
    "a" * 99 + " " + "b" * 100 + " " + "c" * 101 + " " + "d" * 199 + " " + "e" * 200 + " " + "f" * 201,
    "x" * 5000,
    "é" * 201 + " " + "e\u0301" * 150 + " " + "😀" * 300,
    "!" * 300 + "?" * 3 + "..." + "…" + "—–―" + "´`'’",
    "don't can't we'll I'm o'clock 'tis U.S.A. e.g. Mr. Smith's $3.50 10:30am a+b=c C++ x\\y\\\\z",
    "http://example.com/a_b?c=d&e=f me@example.com #tag @user 50% ~approx~ {a|b} (c) [d] <e>",
    "schÃ¶n â€œquotedâ€\u009d &lt;b&gt; &amp;amp; \x1b[31mred\x1b[0m",
    "line one\nline two\r\nline three\n\n\n  line four  \n",
    "tabs\tand   many     spaces",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝓢𝓬𝓻𝓲𝓹𝓽 ＦＵＬＬＷＩＤＴＨ ⓒⓘⓡⓒⓛⓔ",
]


def python_lines(num_lines: int) -> list[str]:
    """Lines of the language reference and of the standard library, which every Python has."""
    lines = [line for topic in sorted(pydoc_data.topics.topics) for line in _topic(topic)]
    library = Path(sysconfig.get_path("stdlib"))
    for name in (
        "argparse.py",
        "datetime.py",
        "inspect.py",
        "typing.py",
        "tarfile.py",
        "turtle.py",
        "_pydecimal.py",
    ):
        path = library / name
        if len(lines) < 3 * num_lines and path.exists():
            lines += path.read_text(encoding="utf-8").split("\n")
    lines = [line for line in lines if line.strip()]
    step = max(1, len(lines) // num_lines)
    return lines[::step][:num_lines]


def _topic(topic: str) -> list[str]:
    return pydoc_data.topics.topics[topic].split("\n")


def novel_lines(num_lines: int) -> list[str]:
    """Lines of real novels; skips the test without them."""
    if "BERT_KERAS_DATA" not in os.environ:
        pytest.skip("set BERT_KERAS_DATA to the folder of data sets")
    folder = Path(os.environ["BERT_KERAS_DATA"], "gutenberg")
    lines: list[str] = []
    for name in ("valid.txt", "train.txt"):
        with open(folder / name, encoding="utf-8") as file:
            lines += [line.rstrip("\n") for _, line in zip(range(num_lines - len(lines)), file, strict=False)]
    return lines


def random_texts(num_texts: int, seed: int = 0) -> list[str]:
    """Texts of characters from everywhere in Unicode, among them many that are awkward."""
    generator = random.Random(seed)
    awkward = sorted({c for text in STRANGE for c in text})
    texts = []
    for _ in range(num_texts):
        characters = []
        for _ in range(generator.randint(1, 40)):
            kind = generator.random()
            if kind < 0.5:
                characters.append(generator.choice(awkward))
            elif kind < 0.7:
                characters.append(generator.choice("aeiouAEIOU  .,'-\n"))
            elif kind < 0.9:
                characters.append(chr(generator.randrange(1, 0x3100)))
            else:
                code = generator.randrange(0x3100, 0x110000 - 0x800)
                characters.append(chr(code if code < 0xD800 else code + 0x800))
        texts.append("".join(characters))
    return texts
