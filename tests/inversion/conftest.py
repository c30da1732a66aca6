"""What tests of inversion share: validation images of two sampling steps, and a run that was not interrupted."""

from pathlib import Path

import pytest

from diffusekit.inversion import evaluation
from tests.helpers.inversions import learn, quick


@pytest.fixture(scope="package", autouse=True)
def _short_sampling():
    """Validation images of few steps: what is tested here does not depend on how good they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "STEPS", 2)
        yield


@pytest.fixture(scope="package")
def whole(families, tmp_path_factory) -> Path:
    """The folder of a run with the settings of `quick`, from start to end."""
    folder = tmp_path_factory.mktemp("whole")
    learn(quick(folder, families["sd1"]), folder / "out")
    return folder / "out"
