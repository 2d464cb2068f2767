"""Float32 master weights, gradient accumulation and clipping around torch optimizers.

A bfloat16 model computes fast, but its weights cannot hold small updates: the optimizer works on float32 masters and
the model gets rounded copies. Gradients of micro-batches are added up in float32 too, so 1×N and N×1 agree.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tuneloop.tune.optimizers import OptimizerChoice
from tuneloop.tune.rates import factors

GROW_AFTER = 2000
"""Steps without overflow after which float16's loss scale is doubled, as in torch.amp.GradScaler."""
LARGEST_SCALE = 2.0**24


class MasterOptimizer:
    """Optimizers over float32 copies of a model's trainable parameters (the parameters themselves where they are)."""

    def __init__(
        self,
        named: Mapping[str, nn.Parameter],
        choice: OptimizerChoice,
        learning_rate: float,
        own_factors: Mapping[str, float] | None = None,
        entries: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`own_factors` of the method on the learning rate, by name; 1 where none is given.

        `entries`: places in flattened parameters of which only these are trained; their master is a vector of them.
        """
        self.model_weights = dict(named)
        self.entries = dict(entries or {})
        self.half = any(weight.dtype is torch.float16 for weight in self.model_weights.values())
        # float16 gradients vanish below 6e-8: scaled up, then down again
        self.loss_scale = 2.0**14 if self.half else 1.0
        self.good_steps = 0  # in float16, since the loss scale last changed
        self.masters = {name: self._master(name, p) for name, p in named.items()}
        for name in self.entries:  # at once, so that whole gradients of all matrices never exist together
            named[name].register_post_accumulate_grad_hook(lambda weight, name=name: self._collect(name, weight))
        shares = factors(self.masters, choice.layer_decay, own_factors or {})
        rates = {name: learning_rate * share for name, share in shares.items()}
        matrices = {name for name, weight in self.model_weights.items() if _is_matrix(weight)}
        self.optimizers: list[Optimizer] = choice.build(self.masters, rates, matrices)
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]

    def _master(self, name: str, weight: nn.Parameter) -> nn.Parameter:
        if name in self.entries:
            chosen = weight.detach().flatten().index_select(0, self.entries[name])
            return nn.Parameter(chosen.to(torch.promote_types(weight.dtype, torch.float32)))
        # beside float16 those in float32 get a master too (on the same memory), where gradients are unscaled
        own = weight.dtype in (torch.float32, torch.float64) and not self.half
        return weight if own else nn.Parameter(weight.detach().float())

    def accumulate(self) -> None:
        """Moves the gradients of a micro-batch into the masters."""
        for name, weight in self.model_weights.items():
            if self.masters[name] is not weight and weight.grad is not None:
                self._collect(name, weight)

    def _collect(self, name: str, weight: Tensor) -> None:
        """Adds the weight's gradient to its master's and frees it."""
        assert weight.grad is not None
        grad, master = weight.grad, self.masters[name]
        weight.grad = None
        if name in self.entries:
            grad = grad.flatten().index_select(0, self.entries[name])
        if grad.numel() == 0:  # no entry of this matrix is trained; Adafactor would divide by their number
            return
        grad = grad.to(master.dtype)
        grad = grad.div_(self.loss_scale) if self.loss_scale != 1 else grad
        master.grad = grad if master.grad is None else master.grad.add_(grad)

    def back_off(self) -> bool:
        """After an overflow in float16: drops the gradient and halves the loss scale. False: there is none to halve."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.loss_scale /= 2
        self.good_steps = 0
        return self.loss_scale >= 1

    def gradient_norm(self) -> Tensor:
        """2-norm of the whole accumulated gradient."""
        grads = [master.grad for master in self.masters.values() if master.grad is not None]
        return torch.nn.utils.get_total_norm(grads)

    def step(self, factor: float, clip: float, norm: Tensor) -> None:
        """One update at `factor` times the peak rates, then fresh rounded weights and empty gradients."""
        masters = [master for master in self.masters.values() if master.grad is not None]
        if 0 < clip < float(norm) + 1e-6:  # as torch has it; else it would multiply all by 1
            torch.nn.utils.clip_grads_with_norm_(masters, clip, norm)
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.publish()
        self.good_steps += self.half
        if self.good_steps >= GROW_AFTER:
            self.loss_scale, self.good_steps = min(2 * self.loss_scale, LARGEST_SCALE), 0

    @torch.no_grad()
    def publish(self) -> None:
        """Copies the masters into the model's weights, rounding to its dtype."""
        for name, weight in self.model_weights.items():
            if name in self.entries:
                weight.view(-1).index_copy_(0, self.entries[name], self.masters[name].to(weight.dtype))
            elif self.masters[name] is not weight:
                weight.copy_(self.masters[name])

    def state(self) -> dict[str, Tensor]:
        """Masters and optimizer state as flat tensors, for safetensors."""
        tensors = {f"master/{name}": master.detach() for name, master in self.masters.items()}
        tensors |= {f"entries/{name}": places for name, places in self.entries.items()}
        places: set[int] = set()
        for number, (optimizer, keys) in enumerate(self._keyed()):
            for key, master in keys:
                for field, value in optimizer.state.get(master, {}).items():
                    tensor = torch.as_tensor(value)
                    shared = tensor.data_ptr() in places  # bitsandbytes' code tables; safetensors refuses such
                    places.add(tensor.data_ptr())
                    tensors[f"state/{number}/{field}/{key}"] = tensor.clone() if shared else tensor
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restores what `state` gave, bit for bit."""
        with torch.no_grad():
            for name, master in self.masters.items():
                if name in self.entries:  # those of the run, should another choice have been made now
                    self.entries[name] = tensors[f"entries/{name}"].to(master.device)
                    master.data = tensors[f"master/{name}"].to(master.device, copy=True)
                else:
                    master.copy_(tensors[f"master/{name}"])
        for number, (optimizer, keys) in enumerate(self._keyed()):
            for key, master in keys:
                prefix, suffix = f"state/{number}/", f"/{key}"
                fields = [n[len(prefix) : -len(suffix)] for n in tensors if n.startswith(prefix) and n.endswith(suffix)]
                optimizer.state[master] = {
                    field: _restored(tensors[f"{prefix}{field}{suffix}"], master.device) for field in fields
                }
        self.publish()

    def _keyed(self) -> list[tuple[Optimizer, list[tuple[str, nn.Parameter]]]]:
        names = {id(master): name for name, master in self.masters.items()}
        return [
            (optimizer, [(names[id(p)], p) for group in optimizer.param_groups for p in group["params"]])
            for optimizer in self.optimizers
        ]


def _is_matrix(weight: Tensor) -> bool:
    """More than one size above 1: IA3's factors [n, 1] are vectors."""
    return sum(size > 1 for size in weight.shape) > 1


def _restored(value: Tensor, device: torch.device) -> Tensor | int:
    """A field of an optimizer's state; a whole number alone was a plain int (bitsandbytes counts its steps so)."""
    return int(value) if value.ndim == 0 and value.dtype is torch.int64 else value.clone().to(device)
