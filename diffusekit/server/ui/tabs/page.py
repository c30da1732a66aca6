"""The components of the whole page, by tab. Handlers get it when every tab has been laid out."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ..context import PageContext, Updates
from .gallery import GalleryComponents
from .generate import GenerateComponents
from .learn import LearnComponents
from .see import SeeComponents
from .tokens import TokensComponents


@dataclass(frozen=True)
class Page:
    """Every tab's components, and `tabs`, the row of tabs itself."""

    context: PageContext
    tabs: gr.Tabs
    generate: GenerateComponents
    gallery: GalleryComponents
    learn: LearnComponents
    see: SeeComponents
    tokens: TokensComponents

    def open_tab(self, name: str) -> Updates:
        return {self.tabs: gr.Tabs(selected=name)}

    def use_token(self, name: str, prompt: str) -> Updates:
        """Write a learned token into the prompt of the Generate tab, and open that tab."""
        prompt = (prompt or "").rstrip()
        written = f"{prompt} <{name}>" if prompt else f"a picture of <{name}>"
        return {self.generate.form.prompt: written} | self.open_tab("generate")
