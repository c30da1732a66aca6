"""Learning a token from a few pictures: textual inversion (Gal et al., 2022)."""
