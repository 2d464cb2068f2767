"""What a model in fewer bits must pass before it serves: at the start in this process, adapters that come later in one
of their own, because the service holds no full precision any more and its model answers meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from tuneloop.core.errors import ModelError, TuneloopError
from tuneloop.flows.agreement import Agreement, Measured, Subject, check, measure, questions
from tuneloop.models.config import ModelConfig
from tuneloop.models.fewer_bits import Scheme, hold
from tuneloop.models.find import Base, find_base
from tuneloop.models.load import load_model
from tuneloop.models.precision import pick_dtype
from tuneloop.render.load import renderer_of
from tuneloop.render.template import Renderer
from tuneloop.serve.config import QuantizeConfig
from tuneloop.track import console

POLITE = 10  # as `nice`: the service that answers meanwhile comes first


class Gate:
    """The agreement of one model with itself in full precision, alone and with each adapter.

    model: what was named to be served, a run or a base. base: of it, without adapter. `facts`: what is known so far.
    Each adapter is asked what its own run was validated with, the base alone what the model served was.
    """

    def __init__(self, model: str, base: Base, renderer: Renderer, scheme: Scheme, limits: QuantizeConfig) -> None:
        self._model, self._base, self._renderer, self._limits = model, base, renderer, limits
        self._scheme: Scheme = scheme
        self.facts: dict[str, Any] = {"quantize": scheme, "agreement": {}}
        self._comparing: BaseProcess | None = None
        self._stopped = False

    def hold(self, model: PreTrainedModel, adapters: Iterable[Path | None]) -> None:
        """Holds a model in fewer bits for good, if it agrees with each adapter (None: alone). Raises ModelError."""
        fewer = hold(model, self._scheme)
        console.decided("precision", fewer.said)
        for adapter in dict.fromkeys(adapters):
            self._check(adapter, partial(measure, model, fewer))

    def pass_adapter(self, adapter: Path) -> None:
        """Compares a further adapter, unless it is remembered. Raises ModelError where it differs too much."""
        self._check(adapter, self._measured_apart)

    def stop(self) -> None:
        """Ends a comparison under way; no further adapter passes. Takes no lock: a signal handler calls it."""
        self._stopped = True
        if self._comparing is not None:
            self._comparing.kill()

    def _check(self, adapter: Path | None, measured: Measured) -> None:
        subject = Subject(self._scheme, self._renderer, self._base, adapter)
        examples = questions(Path(self._model) if adapter is None else adapter.parent.parent)
        agreement = check(subject, examples, self._limits, measured)
        console.decided("agreement", f"{subject.name}: {agreement}")
        self.facts["agreement"][subject.name] = asdict(agreement)

    def _measured_apart(self, subject: Subject, prompts: Sequence[Sequence[int]], prose: bool) -> Agreement:
        context = get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        given = (theirs, self._model, subject.adapter, self._scheme, prompts, prose)
        process = context.Process(target=_compare, args=given, name="tuneloop-agreement", daemon=True)
        process.start()
        theirs.close()
        self._comparing = process
        if self._stopped:
            process.kill()
        try:
            found = ours.recv()
        except EOFError:
            process.join()
            if self._stopped:
                raise ModelError("the service is shutting down") from None
            raise ModelError(
                f"{subject.name}: the comparison with full precision broke off (exit code {process.exitcode}); it "
                "needs memory for the base in bf16 beside the service, whose log tells more"
            ) from None
        process.join()
        if isinstance(found, TuneloopError):
            raise found
        return found


def _compare(
    told: Connection, model: str, adapter: Path | None, scheme: Scheme, prompts: Sequence[Sequence[int]], prose: bool
) -> None:
    """In a process of its own: loads the base anew and tells the agreement, or the TuneloopError in its way."""
    os.nice(POLITE)
    try:
        found = find_base(ModelConfig(base=model))
        base = replace(found, adapter=None)
        dtype, _ = pick_dtype(base.config.dtype, "cpu")
        loaded = load_model(base, dtype, seed=0, device="cpu")
        subject = Subject(scheme, renderer_of(found), base, adapter)
        told.send(measure(loaded, hold(loaded, scheme), subject, prompts, prose))
    except TuneloopError as error:
        told.send(error)
