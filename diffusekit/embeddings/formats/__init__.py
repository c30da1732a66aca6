"""The formats of token files, one module for each. `embeddings/files.py` chooses among them."""

PICKLE_ENDINGS = (".pt", ".bin", ".ckpt", ".pth", ".pkl", ".pti")
ENDINGS = (".safetensors", ".png", *PICKLE_ENDINGS)
