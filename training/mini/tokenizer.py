"""A CLIP byte-pair tokenizer in which every word of the world is one token.

Byte-pair merges are learned from the list of words until each is whole; all 256 bytes stay as a
fall-back, so any text at all can be read.
"""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from .world.captions import vocabulary

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77


def build(folder: Path) -> CLIPTokenizer:
    """Write the tokenizer to `folder` and load it back with transformers.

    One that is there already is kept: the trainer breaks ties by chance, and other ids are other words.
    """
    if (folder / "tokenizer.json").exists():
        return CLIPTokenizer.from_pretrained(folder)
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=10_000,
        min_frequency=1,
        end_of_word_suffix="</w>",
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    learner.train_from_iterator(vocabulary(), trainer)
    merges = [tuple(m) for m in _merges(learner)]
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


def _merges(learner: Tokenizer) -> list[list[str]]:
    return json.loads(learner.to_str())["model"]["merges"]
