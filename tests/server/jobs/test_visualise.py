"""The visualise job: its settings, and the files of a lesson."""

import pytest
from PIL import Image

from diffusekit.errors import UsageError
from diffusekit.server.jobs import kinds, visualise
from tests.helpers.server import opened


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"prompts": ["a", "b", "c"]}, "prompts"),
        ({"steps": 100}, "steps"),
        ({"width": 2048, "height": 2048}, "width"),
        ({"sampler": "magic"}, "sampler"),
    ],
)
def test_settings_that_a_lesson_cannot_show_are_refused(rules, values, said):
    with pytest.raises(UsageError, match=f"^`?{said}"):
        kinds.JOB_TYPES["visualise"].check(values, rules)


def test_lessons_are_found_only_by_their_jobs(tmp_path):
    (tmp_path / ".lessons" / ("0" * 16)).mkdir(parents=True)
    for number in ("..", "0" * 16, "", "../../x"):
        with pytest.raises(UsageError):
            visualise.list_files(tmp_path, number)


@pytest.mark.slow
def test_a_lesson_is_a_page_and_a_figure_for_each_part(rules):
    with opened(**rules.model_dump()) as jobs:
        job = jobs.submit(
            "visualise",
            {"prompts": ["a red <apple>", "a green apple"], "steps": 3, "seed": 1, "images": 4},
        )
        last = list(jobs.watch(job.id))[-1]
        assert last.kind == "done", last.job.failure
        found = visualise.list_files(jobs.outputs, job.id)
    assert set(found) == {"lesson", *visualise.FIGURES}
    page = found["lesson"].read_text()
    assert "&lt;apple&gt;" in page and "<apple>" not in page
    with Image.open(found["film"]) as film:
        assert film.n_frames == 3  # the last guess is the picture
    assert not last.job.pictures
