"""Prompts have the length asked for, in the tokens of the model, and share no beginning unless told to."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.traffic.prompts import POOL_WORDS, Prompts, own, prompts
from serving.errors import UserError

MODEL = Path(__file__).parents[2] / ".models" / "smollm2-135m-instruct"
TEMPLATE = "{{ bos_token }}{% for m in messages %}<{{ m.role }}> {{ m.content }} <end>{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer of our own, with a BOS token and a chat template, as models have."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<end>", "<user>", "<assistant>"]
    trainer = trainers.BpeTrainer(vocab_size=6000, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    words = ["".join(letters) for letters in itertools.product("bcdfg", "aeiou", "lmnr", "aeo")]
    tokenizer.train_from_iterator([" ".join(words)] * 5, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    made = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(made / "tokenizer.json"))
    config = {"bos_token": "<s>", "chat_template": TEMPLATE}
    (made / "tokenizer_config.json").write_text(json.dumps(config))
    return made


def encoded(folder: Path, text: str, special: bool) -> int:
    from tokenizers import Tokenizer

    return len(
        Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=special).ids
    )


@pytest.mark.parametrize("length", [2, 3, 10, 128, 3000])
def test_completions_have_the_exact_length(folder: Path, length: int) -> None:
    for made in prompts(str(folder)).make([length] * 5, "a"):
        assert encoded(folder, made.text, special=True) == length


@pytest.mark.parametrize("length", [8, 40, 500])
def test_chat_counts_the_template(folder: Path, length: int) -> None:
    for made in prompts(str(folder)).make([length] * 3, "a", chat=True):
        text = f"<s><user> {made.text} <end><assistant>"
        assert encoded(folder, text, special=False) == length


def test_a_length_below_the_template_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="alone take"):
        prompts(str(folder)).make([1], "a")
    with pytest.raises(UserError, match="alone take"):
        prompts(str(folder)).make([3], "a", chat=True)


@pytest.mark.skipif(not MODEL.is_dir(), reason="the small model is not set up (make model)")
@pytest.mark.parametrize("chat", [False, True])
def test_the_small_models_own_tokenizer(chat: bool) -> None:
    found = prompts(str(MODEL))
    lengths = [64, 65, 512, 2048] * 5
    made = found.make(lengths, "a", chat=chat)
    overhead = found.overhead(chat)
    assert found.count([prompt.text for prompt in made]) == [n - overhead for n in lengths]
    assert (overhead > 20) is chat  # its template brings a system prompt


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 400), min_size=1, max_size=30), salt=st.text(max_size=5))
def test_words_are_counted_and_no_two_begin_alike(lengths: list[int], salt: str) -> None:
    texts = [prompt.text for prompt in prompts(None).make(lengths, salt)]
    assert [len(text.split()) for text in texts] == lengths
    assert len({text.split()[0] for text in texts}) == len(texts)


def test_beginnings_differ_over_more_prompts_than_words() -> None:
    found = Prompts([f"w{i}" for i in range(30)])
    texts = [prompt.text for prompt in found.make([4] * 800, "a")]
    assert len({tuple(text.split()[:2]) for text in texts}) == 800


def test_the_salt_decides() -> None:
    found = prompts(None)
    assert found.make([50] * 9, "a") == found.make([50] * 9, "a")
    one, other = found.make([50] * 500, "a"), found.make([50] * 500, "b")
    common = {p.text.split()[0] for p in one} & {p.text.split()[0] for p in other}
    pairs = {tuple(p.text.split()[:2]) for p in one} & {tuple(p.text.split()[:2]) for p in other}
    assert len(common) < 150
    assert not pairs


def test_a_shared_prefix_is_shared_and_no_more() -> None:
    texts = [prompt.text.split() for prompt in prompts(None).make([100] * 20, "a", shared=60)]
    assert len({tuple(words[:60]) for words in texts}) == 1
    assert len({words[60] for words in texts}) == 20
    whole = [prompt.text for prompt in prompts(None).make([50] * 3, "a", shared=60)]
    assert len(set(whole)) == 1
    assert len(whole[0].split()) == 50


def test_equal_blocks_are_equal_tokens_within_a_salt_only() -> None:
    made = prompts(None).make(
        [30, 25, 20, 30], "a", blocks=[[1, 2], [1, 3], [4, 2], [1, 2, 3]], block_tokens=10
    )
    first, second, third, fourth = (prompt.text.split() for prompt in made)
    assert [len(words) for words in (first, second, third, fourth)] == [30, 25, 20, 30]
    assert first[:10] == second[:10] == fourth[:10]
    assert first[10:20] == third[10:20] == fourth[10:20]
    assert first[:10] != third[:10]
    assert first[10:20] != second[10:20]
    assert first[20:] != fourth[20:]
    other = prompts(None).make([30], "b", blocks=[[1, 2]], block_tokens=10)[0].text.split()
    assert other[:10] != first[:10]


def test_longer_than_the_pool() -> None:
    (made,) = prompts(None).make([3 * POOL_WORDS + 17], "a")
    assert len(made.text.split()) == 3 * POOL_WORDS + 17


def test_own_words_are_where_they_are_said_to_be() -> None:
    found = prompts(None)
    order = found.order("a")
    for number, prompt in enumerate(found.make([1, 2, 30, 90], "a", shared=20)):
        if prompt.own:
            assert prompt.text[prompt.own_at :].startswith(prompt.own)
            assert own(order, number).startswith(prompt.own)


class MergingTokenizer:
    """Counts one token fewer from a hundred words on: merges across words, as some tokenizers do."""

    def encode_batch(self, texts: list[str], add_special_tokens: bool) -> list[object]:
        return [self.encode(text) for text in texts]

    def encode(self, text: str, add_special_tokens: bool = False) -> object:
        words = len(text.split())
        return type("Encoding", (), {"ids": [0] * (words - words // 100)})()


def test_a_tokenizer_that_merges_across_words_is_refused() -> None:
    found = Prompts([f"w{i}" for i in range(300)], MergingTokenizer())
    with pytest.raises(UserError, match="miss their length"):
        found.make([10], "a")


def test_names_that_are_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no tokenizer\.json"):
        prompts(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="tokenizer"):
        prompts(str(tmp_path / "tokenizer.json"))
