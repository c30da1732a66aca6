"""Files that the server keeps: gallery, tokens, uploads, trash."""
