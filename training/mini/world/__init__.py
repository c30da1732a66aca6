"""The synthetic world that `mini` is trained on: subjects, backgrounds, styles, scenes and captions."""
