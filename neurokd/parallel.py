"""One model trained by several processes: ``torchrun --nproc-per-node N -m neurokd train ...``.

Every process draws the same batches and computes on its share of each. What crosses the samples is put together, so
that N processes do what one does, but for the order of sums:

* a batch norm in training uses the statistics of the whole batch (:func:`total` of its sums, forward and backward);
* the loss is computed from the SATs of the whole batch (:func:`gather`) in every process, whatever the loss is; each
  takes the gradient of its own samples;
* gradients of the parameters are added up (:func:`sum_gradients`), so every process makes the same optimizer step.

Process 0 alone writes and prints: :func:`private_folder` gives the others a copy of its run folder for the time of the
run. gloo carries CPU tensors, NCCL those on GPUs. Without torchrun there is no group and nothing here does anything.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from deploy.errors import TrainingError

#: How long a process waits for the others before it gives up.
PATIENCE: Final = timedelta(minutes=30)
_T = TypeVar("_T")
_leaving = ExitStack()


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def active() -> bool:
    """Whether there is a group of several processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def rank() -> int:
    """This process's number, 0 where there is no group."""
    return dist.get_rank() if active() else 0


def local_rank() -> int:
    """This process's number on its machine, 0 where there is no group."""
    return int(os.environ.get("LOCAL_RANK", "0")) if active() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if active() else 1


@contextmanager
def group() -> Iterator[None]:
    """The processes torchrun started, joined inside; only process 0 prints.

    Raises:
        TrainingError: the processes cannot find each other, or one of them ended.
    """
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    _asked(lambda: dist.init_process_group(backend, timeout=PATIENCE), "cannot join the other processes")
    try:
        if rank() == 0:
            yield
        else:
            with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
                yield
    finally:
        _leaving.close()
        dist.destroy_process_group()


def _asked(call: Callable[[], _T], what: str = "another process of the group ended or does not answer") -> _T:
    """The call's result; the group's own errors as ours."""
    try:
        return call()
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            what,
            where=f"process {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', '1')}",
            got=str(error).splitlines()[0][:200],
            allowed="every process alive and in step",
            next_step="see the message of the process that failed first; start all again, training goes on",
        ) from error


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        every = tensor.detach().clone()
        _asked(lambda: dist.all_reduce(every))
        return every

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        every = grads[0].clone()
        _asked(lambda: dist.all_reduce(every))
        return every


def total(tensor: Tensor) -> Tensor:
    """The sum over all processes, with gradient."""
    if not active():
        return tensor
    found: Tensor = _Total.apply(tensor)  # type: ignore[no-untyped-call]
    return found


def of_first(tensor: Tensor) -> Tensor:
    """Process 0's tensor; without gradient."""
    if not active():
        return tensor
    found = tensor.detach().clone()
    _asked(lambda: dist.broadcast(found, 0))
    return found


def shared(value: _T) -> _T:
    """Process 0's value, a plain Python object."""
    if not active():
        return value
    box: list[Any] = [value]
    _asked(lambda: dist.broadcast_object_list(box, 0))
    found: _T = box[0]
    return found


def share(samples: int) -> slice:
    """This process's part of a batch; parts differ by one sample at most.

    Raises:
        TrainingError: fewer samples than processes.
    """
    if samples < world():
        raise TrainingError(
            "a batch has fewer samples than there are processes",
            where="torchrun",
            got=f"{samples} samples, {world()} processes",
            allowed="at least one sample a process",
            next_step="raise the batch size, or start fewer processes",
        )
    return _part(samples, rank())


def _part(samples: int, number: int) -> slice:
    return slice(samples * number // world(), samples * (number + 1) // world())


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, samples: int) -> Tensor:
        parts = [_part(samples, number) for number in range(world())]
        ctx.part = parts[rank()]
        most = max(part.stop - part.start for part in parts)
        padded = tensor.new_zeros(most, *tensor.shape[:1], *tensor.shape[2:])
        padded[: tensor.shape[1]] = tensor.detach().transpose(0, 1)
        found = [torch.empty_like(padded) for _ in parts]
        _asked(lambda: dist.all_gather(found, padded))
        whole = torch.cat([piece[: part.stop - part.start] for piece, part in zip(found, parts, strict=True)])
        return whole.transpose(0, 1).contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0][:, ctx.part].contiguous(), None


def gather(tensor: Tensor, samples: int) -> Tensor:
    """The tensors [T, part, ...] of all processes as [T, samples, ...]; the gradient is that of the own part."""
    if not active():
        return tensor
    found: Tensor = _Gather.apply(tensor, samples)  # type: ignore[no-untyped-call]
    return found


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Add up every parameter's gradient over the processes, in one message."""
    if not active():
        return
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    message = torch.cat([grad.reshape(-1) for grad in grads])
    _asked(lambda: dist.all_reduce(message))
    at = 0
    for parameter, grad in zip(parameters, grads, strict=True):
        if parameter.grad is not None:
            parameter.grad = message[at : at + grad.numel()].view_as(grad).clone()
        at += grad.numel()


def check_equal(value: str, what: str) -> None:
    """Refuse to go on when the processes do not hold the same.

    Raises:
        TrainingError: they do not.
    """
    if not active():
        return
    found: list[Any] = [None] * world()
    _asked(lambda: dist.all_gather_object(found, value))
    if len(set(found)) > 1:
        raise TrainingError(
            f"the processes do not hold the same {what}",
            where="torchrun",
            got=", ".join(f"process {number}: {text}" for number, text in enumerate(found)),
            allowed="one value",
            next_step="use the same version, data and machine type for every process",
        )


def private_folder(folder: Path) -> Path:
    """The run folder in process 0; in the others a copy of it, as it is now, that goes when :func:`group` ends."""
    if not active():
        return folder
    files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} if not rank() else {}
    files = shared(files)
    if rank() == 0:
        return folder
    copy = Path(_leaving.enter_context(tempfile.TemporaryDirectory(prefix="neurokd-", ignore_cleanup_errors=True)))
    for name, content in files.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    return copy
