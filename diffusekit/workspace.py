"""A workspace: the folder that holds recipes, models, learned tokens and outputs."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """The folders below `path`. The default is the current directory at the time a file is opened."""

    path: Path = Path()

    @property
    def embeddings(self) -> Path:
        """Learned tokens, and a folder for each training run."""
        return self.path / "embeddings"

    @property
    def models(self) -> Path:
        """Models, LoRA, VAE files and embeddings that the user puts there."""
        return self.path / "models"

    @property
    def loras(self) -> Path:
        """LoRA files, in folders if there are many."""
        return self.path / "loras"

    @property
    def recipes(self) -> Path:
        """Recipes for training: TOML files."""
        return self.path / "training"

    @property
    def outputs(self) -> Path:
        """Generated images, a folder for each day."""
        return self.path / "outputs"


def expand(path: str) -> Path:
    """Return a path with the user's folder in the place of ~. A ~ of an unknown user stays."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
