"""Grading of `mini` with the six questions of GenEval and two of our own."""
