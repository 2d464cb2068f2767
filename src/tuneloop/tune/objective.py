"""The branch `tune.objective` of the recipe: what is minimised beside or instead of the plain loss of the answers."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tuneloop.core.plugins import Branch
from tuneloop.core.recipe import InputPath

ONE_OF = ("label_smoothing", "dft", "distill", "orpo")
"""Each of them says what the loss of an answer is."""


class Keep(Branch):
    """Against forgetting: the tuned model should go on as the base does where it is not taught anything."""

    prompts: Literal["embedded"] | InputPath = "embedded"
    """`embedded` (the probes of the bundled base), or a file that data.sources can read, answers or not; .txt too."""
    weight: float = Field(default=0.1, gt=0)
    """Factor of KL(base ‖ tuned), the mean over all positions of the rows."""
    rows: int = Field(default=8, ge=1)
    """Rows that are compared in each step, drawn anew by seed and step."""


class Distill(Branch):
    """Knowledge distillation from a local model (Hinton et al. 2015, arXiv 1503.02531)."""

    teacher: InputPath
    """The teacher, as in model.base; it must have the tokenizer of the tuned model."""
    adapter: InputPath | None = None
    """Folder of an adapter on top of the teacher."""
    mix: float = Field(default=0.5, gt=0, le=1)
    """Share of the teacher: (1 - mix) · loss + mix · temperature² · divergence."""
    temperature: float = Field(default=2.0, gt=0)
    """Both distributions are softened by it; above 1 the teacher's second choices count more."""
    direction: Literal["forward", "reverse", "js"] = "forward"
    """forward: KL(teacher ‖ student); reverse: KL(student ‖ teacher); js: their symmetric mean."""


class ObjectiveConfig(Branch):
    """What is minimised. `loss` in metrics.jsonl always is the plain loss, `objective` what is minimised if it differs.

    At most one of label_smoothing, dft, distill and orpo; all others go together.
    """

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """This share of each target is spread evenly over the vocabulary; 0.1 is usual."""
    dft: bool = False
    """Dynamic Fine-Tuning: each token's loss counts as much as the model believes in it already."""
    neftune: float = Field(default=0.0, ge=0)
    """Alpha of uniform noise on the embeddings of training rows; 5 is usual. 0: none."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Every dropout probability of the model itself, while it is trained; null leaves them as they are."""
    keep: Keep | None = None
    """KL to the base on unlabelled prompts, against forgetting."""
    distill: Distill | None = None
    """Learn from the distributions of a teacher."""
    orpo: float = Field(default=0.0, ge=0)
    """Lambda of ORPO's odds ratio, for rows with a rejected answer; 0.1 is usual. 0: none."""

    @model_validator(mode="after")
    def _one_loss(self) -> Self:
        given = [name for name in ONE_OF if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: each of them says what the loss of an answer is; choose one")
        return self

    @property
    def differs(self) -> bool:
        """Whether anything else than the plain loss is minimised."""
        return self.keep is not None or any(getattr(self, name) for name in ONE_OF)

    @property
    def measured(self) -> tuple[str, ...]:
        """What is measured on validation rows beside the loss, without generating."""
        return ("orpo_loss", "preference_accuracy") if self.orpo else ()
