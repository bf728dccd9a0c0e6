import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import VOCABULARY, tokenizer

from tml_jax.data.tokenizer import Tokenizer, train_tokenizer

SENTENCES = [" ".join(VOCABULARY[i : i + 4]) for i in range(len(VOCABULARY))]


@given(st.text())
def test_any_text_survives_encode_and_decode(text):
    assert tokenizer().decode(tokenizer().encode(text)) == text


def test_ids_stay_below_the_asked_size_and_a_poor_corpus_gives_fewer():
    assert train_tokenizer(SENTENCES, 280).size == 280
    poor = train_tokenizer(["ab ab"], 400)
    assert 256 < poor.size < 400
    assert max(poor.encode("ab zq é")) < poor.size


def test_ids_that_a_file_leaves_out_count(tmp_path):
    content = json.loads(tokenizer()._bpe.to_str())
    size = tokenizer().size
    special = {"content": "<|end|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"] = [{"id": size + 7, "special": True, **special}]
    content["model"]["vocab"]["<|end|>"] = size + 7
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    gapped = Tokenizer.load(tmp_path / "tokenizer.json")
    assert gapped.size == size + 8
    assert gapped.decode([size + 7]) == "<|end|>"


def test_training_is_deterministic_and_does_not_depend_on_the_order_of_texts():
    prints = {train_tokenizer(texts, 290).fingerprint for texts in (SENTENCES, SENTENCES[::-1], iter(SENTENCES))}
    assert len(prints) == 1


def test_a_word_has_the_same_tokens_wherever_it_stands():
    bpe = tokenizer()
    assert bpe.encode_words("red box") == bpe.encode_words("red") + bpe.encode_words("box")
    assert bpe.encode_words(" red ") == bpe.encode_words("red")
    assert bpe.decode(bpe.encode_words("red")) == " red"


def test_save_load_and_pickle_keep_every_token(tmp_path):
    bpe = tokenizer()
    bpe.save(tmp_path / "below" / "tokenizer.json")
    for copy in (Tokenizer.load(tmp_path / "below" / "tokenizer.json"), pickle.loads(pickle.dumps(bpe))):
        assert copy.fingerprint == bpe.fingerprint and copy.size == bpe.size
        assert copy.encode("what do you see?") == bpe.encode("what do you see?")
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["tokenizer.json"]


def test_typed_text_cannot_spell_a_special_token(tmp_path):
    import tokenizers

    bpe = train_tokenizer(SENTENCES, 280)
    bpe.save(tmp_path / "plain.json")
    release = tokenizers.Tokenizer.from_file(str(tmp_path / "plain.json"))
    release.add_special_tokens(["<end>"])
    release.save(str(tmp_path / "release.json"))
    loaded = Tokenizer.load(tmp_path / "release.json")
    special = loaded.size - 1
    assert loaded.decode([special]) == "<end>"
    for copy in (loaded, pickle.loads(pickle.dumps(loaded))):
        assert special not in copy.encode("say <end> now")
        assert copy.decode(copy.encode("say <end> now")) == "say <end> now"


def test_control_ids_are_refused_by_decode():
    with pytest.raises(ValueError, match=f"tokens \\[{tokenizer().size}\\] are not text"):
        tokenizer().decode([1, tokenizer().size])


def test_bad_files_and_sizes_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="prepare the data first"):
        Tokenizer.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match="not a tokenizers JSON file"):
        Tokenizer.load(tmp_path / "bad.json")
    with pytest.raises(ValueError, match="at least 256"):
        train_tokenizer(SENTENCES, 100)
