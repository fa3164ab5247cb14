"""Weights as tools write them: what can only mean one network is read, and a note says how."""

from __future__ import annotations

import argparse
import io
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from fpbench.owner import sandbox_child
from fpbench.owner.model_file import fill
from fpbench.owner.tensor_layout import RefusedError

State = dict[str, Tensor]


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


STATE: State = net().state_dict()
ADAM = torch.optim.Adam(net().parameters()).state_dict()


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read files in this process, because each sandbox loads torch anew."""

    def run(job: str, raw: bytes, *, memory: int, **order: Any) -> bytes:
        return sandbox_child.JOBS[job](order, raw, b"")

    monkeypatch.setattr("fpbench.owner.model_file.run_in_sandbox", run)


def written(what: Any, **settings: Any) -> bytes:
    out = io.BytesIO()
    torch.save(what, out, **settings)
    return out.getvalue()


def under(prefix: str, state: State = STATE) -> State:
    return {prefix + name: t for name, t in state.items()}


def without(ending: str) -> State:
    return {name: t for name, t in STATE.items() if not name.endswith(ending)}


COUNTED = {**STATE, "total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)}

READ = {
    "a state dict": (written(STATE), ""),
    "net, acc, epoch": (written({"net": STATE, "acc": 91.2, "epoch": 7}),
                        "taken from 'net' in the file, without its acc, epoch"),
    "the tutorial's": (
        written({"epoch": 3, "model_state_dict": STATE, "optimizer_state_dict": ADAM,
                 "loss": torch.tensor(0.1)}),
        "taken from 'model_state_dict'",
    ),
    "Lightning's": (written({"state_dict": under("model."), "epoch": 1, "callbacks": {},
                             "optimizer_states": [ADAM]}), "prefix 'model.' was taken off"),
    "DataParallel's": (written(OrderedDict(under("module."))), "prefix 'module.' was taken off"),
    "compiled": (save(under("_orig_mod.")), "prefix '_orig_mod.' was taken off"),
    "compiled and parallel": (save(under("module._orig_mod.")), "'module._orig_mod.' was taken"),
    "of operations counted": (written(COUNTED), "counters of operations are left out"),
    "before the counters of batches": (save(without("num_batches_tracked")), "is set to 0"),
    "with an epoch beside": (written({**STATE, "epoch": 3}), "without its epoch"),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "note"), READ.values(), ids=READ.keys())
def test_a_checkpoint_is_read_and_a_note_says_how(raw: bytes, note: str) -> None:
    notes: list[str] = []
    model = fill(net(), raw, "net", notes)
    assert all(torch.equal(t, STATE[name]) for name, t in model.state_dict().items())
    assert note in " ".join(notes)
    assert bool(notes) == bool(note)


def test_a_prefix_that_the_architecture_has_is_put_before_the_names() -> None:
    notes: list[str] = []
    model = fill(nn.DataParallel(net()), save(STATE), "net", notes)
    assert all(torch.equal(t, STATE[name[7:]]) for name, t in model.state_dict().items())
    assert "prefix 'module.' was put before" in notes[0]


def test_a_prefix_of_the_file_is_read_as_that_of_the_architecture() -> None:
    notes: list[str] = []
    model = fill(nn.DataParallel(net()), save(under("model.")), "net", notes)
    assert all(torch.equal(t, STATE[name[7:]]) for name, t in model.state_dict().items())
    assert notes == ["the prefix 'model.' of the file's tensors was read as 'module.'"]


def quantised() -> bytes:
    tensor = torch.quantize_per_tensor(torch.ones(8, 4), 0.1, 0, torch.qint8)
    return written({"0.scale": torch.tensor(0.1), "0._packed_params": (tensor, None)})


ANEW = r"torch.save\(model.state_dict\(\), 'weights.pth'\)"

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "torch.save before 1.6": (
        lambda: written(STATE, _use_new_zipfile_serialization=False),
        f"got torch.save's older form; .*{ANEW}",
    ),
    "quantised": (quantised, r"got quantised ones \(torch.qint8\); save .* before quantisation"),
    "numbers of numpy": (lambda: written({"net": STATE, "acc": np.float64(0.9)}),
                         f"imports numpy.*scalar; .*{ANEW}"),
    "a namespace": (lambda: written({"net": STATE, "args": argparse.Namespace(lr=1)}),
                    f"imports argparse.Namespace; .*{ANEW}"),
    "two networks": (lambda: written({"model": STATE, "ema": STATE}),
                     "several, 'model' and 'ema'; save those that are meant alone"),
    "two prefixes": (
        lambda: save({**under("model."), **under("ema.", net().state_dict())}),
        "lacks .* and has ema.0.bias",
    ),
    "no tensors": (lambda: written({"epoch": 1}), "a mapping of names to tensors"),
    "another layer in the mapping": (
        lambda: written({"net": without("2.bias"), "acc": 1}), "the file lacks 2.bias",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_a_checkpoint_that_is_not_read_says_what_to_do(
    make: Callable[[], bytes], sentence: str
) -> None:
    with pytest.raises(RefusedError, match=sentence) as refused:
        fill(net(), make(), "net")
    assert len(str(refused.value)) <= 400
