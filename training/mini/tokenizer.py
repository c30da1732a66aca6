"""A CLIP byte-pair tokenizer in which every word of the world is one token.

Merges are learned from the list of words until each word is one token. All 256 bytes are tokens too, so the tokenizer
reads any text.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from .world.captions import vocabulary

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77


def build(folder: Path) -> CLIPTokenizer:
    """Write the tokenizer to `folder` and load it with transformers.

    An existing tokenizer is kept. The trainer breaks ties at random, so a new one would have other ids for the same
    words, and the networks know only the ids that they were trained with.
    """
    if (folder / "tokenizer.json").exists():
        return CLIPTokenizer.from_pretrained(folder)
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=10_000,
        min_frequency=1,
        end_of_word_suffix="</w>",
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    trained.train_from_iterator(vocabulary(), trainer)
    merges = [tuple(m) for m in _merges(trained)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = alphabet + [f"{a}</w>" for a in alphabet] + ["".join(m) for m in merges] + [START, END]
    ids = {token: i for i, token in enumerate(dict.fromkeys(entries))}
    tokenizer = CLIPTokenizer(
        vocab=ids,
        merges=merges,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=LENGTH,
    )
    tokenizer.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def _merges(trained: Tokenizer) -> list[list[str]]:
    return json.loads(trained.to_str())["model"]["merges"]
