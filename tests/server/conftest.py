"""What tests of several parts of the server share: settings with folders of the test's own, and images to upload."""

import pytest

from diffusekit.settings import ServeSettings


@pytest.fixture
def rules(tmp_path):
    """Settings of a server whose folders are below the test's own."""
    return ServeSettings(device="cpu", state=str(tmp_path / "state"), outputs=str(tmp_path / "outputs"))


@pytest.fixture(scope="session")
def owl(tmp_path_factory):
    """The files of five images of an owl."""
    from training.mini.photos import write_photos

    folder = tmp_path_factory.mktemp("owl")
    write_photos("owl", folder)
    return sorted(folder.iterdir())
