"""Tokenizers of every family, trained on the spot, and chat templates of every habit."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
SENTENCES = [
    "The cat sat on the mat and the dog sat on the log.",
    "Question: what is the capital of France? Answer: the capital is Paris.",
    "Grüße aus Köln, où est la gare? 東京は日本の首都です。",
    "one two three four five six seven eight nine ten",
] * 4

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'system' %}<<SYS>>{{ m.content }}<</SYS>>{% else %} {{ m.content }}{{ eos_token }}"
    "{% endif %}{% endfor %}"
)
TRIMMED = (
    "{% for m in messages %}<|{{ 'model' if m.role == 'assistant' else m.role }}|>\n{{ m.content | trim }}</s>\n"
    "{% endfor %}{% if add_generation_prompt %}<|model|>\n{% endif %}"
)
UNCLOSED = (
    "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DATED = "Today is {{ strftime_now('%d %b %Y') }}.\n" + CHATML
CHAT_TEMPLATES = {"chatml": CHATML, "inst": INST, "trimmed": TRIMMED, "unclosed": UNCLOSED, "thinking": THINKING}


def wrap(backend: Tokenizer, **settings: Any) -> PreTrainedTokenizerFast:
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} | settings
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def byte_level(*, bos: bool = False, chat: str | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE like GPT-2's (which trims its offsets), with Llama 3's opening token if `bos`."""
    backend = Tokenizer.from_str(_byte_level_json())
    if bos:
        opening = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", 1)])
        backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), opening])
    return wrap(backend, chat_template=chat)


@lru_cache
def _byte_level_json() -> str:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return backend.to_str()


@lru_cache
def metaspace_unigram() -> PreTrainedTokenizerFast:
    """Unigram with Metaspace, like T5's and XLNet's; what it does not know is one unknown token."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    backend.train_from_iterator(
        SENTENCES, trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>")
    )
    return wrap(backend)


@lru_cache
def llama_bpe() -> PreTrainedTokenizerFast:
    """BPE over Metaspace with byte fallback and an opening token, like Llama 2's."""
    letters = sorted({letter for sentence in SENTENCES for letter in sentence.replace(" ", "▁")})
    pieces = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "▁t", "he", "▁the"]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he")]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B", [("<s>", vocabulary["<s>"])])
    backend.add_special_tokens(SPECIAL)
    return wrap(backend)


@lru_cache
def word_piece() -> PreTrainedTokenizerFast:
    """WordPiece that lower-cases, strips accents and drops control characters, with tokens around every text."""
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=160, special_tokens=SPECIAL))
    backend.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 1), ("</s>", 2)])
    return wrap(backend)


@lru_cache
def every_tokenizer() -> dict[str, PreTrainedTokenizerFast]:
    return {
        "byte-level": byte_level(),
        "byte-level with opening token": byte_level(bos=True),
        "unigram": metaspace_unigram(),
        "llama": llama_bpe(),
        "word piece": word_piece(),
    }
