"""Sparse fine-tuning: a fixed fraction of the weights is trained, chosen once, wherever in the matrices they stand.

After FISH masks (Sung et al. 2021, arXiv 2111.09839) and composable sparse fine-tuning (Ansell et al. 2022, arXiv
2110.07560). peft's SHiRA is not used: it allots every layer the same r·(m + n) entries where Fisher information differs
by orders of magnitude between layers, knows nn.Linear only (no GPT-2, no fused experts), and adds its sparse update to
a fresh copy of every weight in every forward pass. Here the model computes with its own weights at full speed, the
optimizer holds the chosen entries only, and the result is a whole model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tuneloop.tune.methods import Method, Setting

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


class Sparse(Method):
    """The most important weights of the layers' matrices are trained, all others stay bit for bit as they are."""

    adapter: ClassVar[bool] = False

    fraction: float = Field(0.005, gt=0, le=1)
    """Share of the layers' weights that is trained, over all layers together."""
    select: Literal["fisher", "magnitude", "random"] = "fisher"
    """fisher: largest mean squared gradient on training rows; magnitude: largest absolute value; random: by seed."""
    rows: int = Field(256, ge=1)
    """Training rows that Fisher information is measured on, spread over all."""
    targets: str | list[str] = "auto"
    """Names (endings) of the layers to choose from; auto: every matrix of every layer, not embeddings and head."""

    def apply(self, model: PreTrainedModel) -> PreTrainedModel:
        from tuneloop.core.errors import ModelError
        from tuneloop.models import blocks

        model.requires_grad_(False)
        endings = () if self.targets == "auto" else (self.targets,) if isinstance(self.targets, str) else self.targets
        found = False
        for name, parameter, part in blocks.parts(model):
            wanted = not endings or name.removesuffix(".weight").endswith(tuple(endings))
            if isinstance(part, int) and parameter.ndim >= 2 and wanted:
                parameter.requires_grad_(True)
                found = True
        if not found:
            raise ModelError(f"tune.method.sparse.targets: no matrix of this model ends in {', '.join(endings)}")
        return model

    def count(self, model: PreTrainedModel) -> int:
        return max(1, round(self.fraction * super().count(model)))

    def entries(self, model: PreTrainedModel, setting: Setting) -> dict[str, Tensor]:
        import torch

        candidates = {name: p for name, p in model.named_parameters() if p.requires_grad}
        sizes = [p.numel() for p in candidates.values()]
        if self.select == "random":
            draw = torch.Generator().manual_seed(setting.seed)
            chosen = torch.randperm(sum(sizes), generator=draw)[: self.count(model)]
        else:
            scores = self._fisher(candidates, setting) if self.select == "fisher" else _magnitudes(candidates)
            chosen = torch.cat([score.flatten() for score in scores]).topk(self.count(model), sorted=False).indices
        chosen = chosen.sort().values.to(model.device)
        ends = torch.tensor(sizes).cumsum(0)
        parts = torch.tensor_split(chosen, torch.searchsorted(chosen.cpu(), ends[:-1]).tolist())
        starts = (ends - torch.tensor(sizes)).tolist()
        # a matrix without any entry stays in: a continued run takes its entries from the checkpoint
        return {name: part - start for name, part, start in zip(candidates, parts, starts, strict=True)}

    def words(self, model: PreTrainedModel) -> str:
        of = Method.count(self, model)
        return f"trained: {self.count(model):,} of {of:,} weights of the layers' matrices, chosen by {self.select}"

    def _fisher(self, candidates: dict[str, nn.Parameter], setting: Setting) -> list[Tensor]:
        """Sum of squared gradients: the diagonal of the empirical Fisher information, up to a factor."""
        import torch

        sums = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in candidates.items()}
        for gradients in setting.gradients(self.rows):
            for name, total in sums.items():
                if name in gradients:
                    total.add_(gradients[name].float().square_())
        return list(sums.values())


def _magnitudes(candidates: dict[str, nn.Parameter]) -> list[Tensor]:
    return [p.detach().float().abs() for p in candidates.values()]
