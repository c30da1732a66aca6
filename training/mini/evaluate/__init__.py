"""Grading of `mini` with six kinds of questions, as GenEval asks them."""
