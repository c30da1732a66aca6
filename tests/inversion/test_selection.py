"""Which vectors of a run are the best, and when training stops."""

from diffusekit.inversion.selection import Selection, is_better


def test_the_best_evaluation_is_kept_not_the_last():
    base = {"reconstruction": 0.2, "editability": 0.5}
    good = {"reconstruction": 0.4, "editability": 0.48}
    closer = {"reconstruction": 0.5, "editability": 0.46}
    overfit = {"reconstruction": 0.9, "editability": 0.1}
    assert is_better(good, {}, base) and is_better(closer, good, base)
    assert not is_better(good, closer, base)
    assert not is_better(overfit, good, base) and is_better(good, overfit, base)
    assert is_better({"reconstruction": 0.1, "editability": 0.3}, overfit, base)


def test_without_scores_the_newest_is_the_best():
    selection = Selection(baseline={})
    assert selection.update(5, {}) and selection.update(10, {})
    assert selection.best_step == 10 and selection.stale == 0


def test_training_goes_on_while_either_score_gets_better():
    selection, stale = Selection(baseline={"reconstruction": 0.2, "editability": 0.4}), []
    scores = ((0.5, 0.4), (0.4, 0.41), (0.4, 0.43), (0.4, 0.44), (0.6, 0.4), (0.7, 0.1))
    for step, (reconstruction, editability) in enumerate(scores, 1):
        selection.update(step, {"reconstruction": reconstruction, "editability": editability})
        stale.append(selection.stale)
    # 0.01 more editability is noise, and a high reconstruction with too little editability is no progress
    assert stale == [0, 1, 0, 1, 0, 1]
    assert selection.best == {"reconstruction": 0.6, "editability": 0.4} and selection.best_step == 5
