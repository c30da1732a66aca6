"""Learn a token from a few images: textual inversion (Gal et al., 2022)."""
