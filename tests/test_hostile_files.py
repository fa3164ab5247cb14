"""Model files of people who mean harm: each is refused in one sentence, and nothing of it runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn
from toys import wide

from fpbench import InputError
from fpbench.owner.model_file import fill, kind_of, most_bytes, read
from fpbench.owner.tensor_layout import RefusedError, header


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that is there once somebody's code has run."""
    return tmp_path / "canary"


class Payload:
    """Unpickled, it makes the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def empty() -> nn.Module:
    with torch.device("meta"):
        return wide()


def zipped(**files: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return out.getvalue()


def saved(what: Any) -> bytes:
    out = io.BytesIO()
    torch.save(what, out)
    return out.getvalue()


def tensors(entries: Any, body: bytes = b"", claims: int | None = None) -> bytes:
    """A safetensors file of any header and body."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if claims is None else claims) + text + body


def claim(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def named(name: str, entry: Any, times: int) -> bytes:
    """A header in which a name stands many times."""
    one = json.dumps(name) + ":" + json.dumps(entry)
    return ("{" + ",".join(times * [one]) + "}").encode()


HEADERS = {
    "a header of 100 GB": (tensors({}, claims=100_000_000_000), "claims 100,000,000,000 in a file"),
    "a header cut short": (tensors({"a": claim()}, claims=5_000), "invalid header length"),
    "no JSON": (tensors(b'{"a": '), "invalid JSON in header"),
    "brackets without end": (tensors(b'{"a":' + b"[" * 100_000), "recursion limit"),
    "a name 1.5 million times": (tensors(named("a", claim(), 1_500_000), b"1234"), "at most 16,"),
    "a wrong name 1.5 million times": (tensors(named("a", 1, 1_500_000)), "invalid JSON in header"),
    "tensors that overlap": (
        tensors({"a": claim(), "b": claim(offsets=(2, 6))}, b"123456"), "offset for tensor `b`",
    ),
    "a gap": (tensors({"a": claim(), "b": claim(offsets=(8, 12))}, b"x" * 12), "tensor `b`"),
    "an offset outside": (tensors({"a": claim(offsets=(4, 8))}, b"1234"), "offset for tensor `a`"),
    "a body too long": (tensors({"a": claim()}, b"12345"), "file not fully covered"),
    "a shape below zero": (tensors({"a": claim(shape=(-1,))}, b"1234"), "integer `-1`"),
    "a shape that is a float": (tensors({"a": claim(shape=(1.0,))}, b"1234"), "point `1.0`"),
    "a shape without end": (tensors({"a": claim(shape=(2**62, 2**62))}, b"1234"), "overflow"),
    "a size of 4,400 digits": (
        tensors(json.dumps({"a": claim()}).replace("[1]", f"[{'9' * 4400}]").encode(), b"1234"),
        "number out of range",
    ),
    "4,400 digits where nobody looks": (
        tensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":' + b"9" * 4400 + b"}}",
                b"1234"),
        "expected safetensors, got",
    ),
    "a type that is none": (tensors({"a": claim(dtype="F1")}, b"1234"), "unknown variant `F1`"),
    "a type that is a list": (tensors({"a": claim(dtype=["F32"])}, b"1234"), "invalid type: seq"),
    "offsets that are one": (tensors({"a": claim(offsets=(0,))}, b"1234"), "invalid length 1"),
    "an entry that is none": (tensors({"a": 1}), "invalid type: integer `1`"),
    "metadata that are numbers": (tensors({"__metadata__": {"a": 1}}), "expected a string"),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "sentence"), HEADERS.values(), ids=HEADERS.keys())
def test_a_lying_header_is_refused_before_a_tensor_is_read(raw: bytes, sentence: str) -> None:
    assert kind_of(raw) == "safetensors"
    began = time.process_time()
    with pytest.raises(RefusedError, match=sentence) as refused:
        header(raw)
    assert time.process_time() - began < 2
    assert len(str(refused.value)) <= 400
    assert "\n" not in str(refused.value)


def state(**changes: torch.Tensor | None) -> bytes:
    """The toy's weights in a file, some of them changed, or left out."""
    own: dict[str, torch.Tensor | None] = {**wide().state_dict(), **changes}
    return save({name: t for name, t in own.items() if t is not None})


WEIGHTS = {
    "not a number": (state(**{"0.bias": torch.full((16,), torch.nan)}), "finite numbers, got"),
    "infinite": (state(**{"0.bias": torch.full((16,), -torch.inf)}), "finite numbers, got"),
    "one missing": (state(**{"0.bias": None}), "6 tensors of wide; the file lacks 0.bias"),
    "one extra": (state(backdoor=torch.ones(1)), "the file has backdoor"),
    "another shape": (state(**{"0.bias": torch.ones(17)}), r"0.bias of shape \(16,\) for wide"),
    "another type": (state(**{"0.bias": torch.ones(16).long()}), "0.bias of type F32 .* got I64"),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "sentence"), WEIGHTS.values(), ids=WEIGHTS.keys())
def test_only_an_architectures_own_tensors_are_taken(raw: bytes, sentence: str) -> None:
    with pytest.raises(RefusedError, match=sentence):
        fill(empty(), raw, "wide")


def test_a_type_of_safetensors_that_no_architecture_has_is_refused() -> None:
    own = {name: t for name, t in wide().state_dict().items() if name != "0.bias"}
    raw = save({**own, "0.bias": torch.ones(16).to(torch.float8_e5m2)})
    with pytest.raises(RefusedError, match=r"0.bias of type F32 .* got F8_E5M2"):
        fill(empty(), raw, "wide")


def test_weights_of_another_precision_are_converted() -> None:
    raw = save({name: t.to(torch.float64) for name, t in wide().state_dict().items()})
    assert {t.dtype for t in fill(empty(), raw, "wide").state_dict().values()} == {torch.float32}


ARCHIVES = {
    "TorchScript": (zipped(m__code__net_dot_py=b"", m__data_dot_pkl=b"", m__constants_dot_pkl=b""),
                    "got a TorchScript archive, which is a program"),
    "torch.export": (zipped(m__archive_format=b"pt2", m__models__model_dot_json=b"{}"),
                     "got a torch.export archive, which is a program"),
    "any zip": (zipped(readme=b"hello"), "expected a zip file of torch.save"),
    "a torn zip": (zipped(readme=b"hello")[:-9], "expected a zip file of torch.save, got"),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 30, "got a gzip file"),
    "nothing": (b"", "got another file"),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "sentence"), ARCHIVES.values(), ids=ARCHIVES.keys())
def test_archives_that_are_no_state_dict_are_not_opened(raw: bytes, sentence: str) -> None:
    with pytest.raises(RefusedError, match=sentence):
        fill(empty(), raw, "wide")


def test_a_zip_bomb_is_refused_by_what_it_claims() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/data.pkl", b"")
        archive.writestr("m/data/0", b"\0" * 50_000_000)
    assert len(out.getvalue()) < 100_000
    with pytest.raises(RefusedError, match="compressed or overlapping ones"):
        fill(empty(), out.getvalue(), "wide")


def test_a_bare_pickle_is_refused_and_not_read(canary: Path) -> None:
    with pytest.raises(RefusedError, match="got a pickle"):
        fill(empty(), pickle.dumps({"0.weight": Payload(canary)}), "wide")
    assert not canary.exists()


def test_a_payload_in_a_state_dict_does_not_run(canary: Path) -> None:
    raw = saved({**wide().state_dict(), "0.weight": Payload(canary)})
    with pytest.raises(RefusedError, match=r"one that imports posix\.system"):
        fill(empty(), raw, "wide")
    assert not canary.exists()


def test_a_whole_module_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"imports torch\.nn\.modules"):
        fill(empty(), saved(wide()), "wide")


def test_a_state_dict_of_torch_save_is_read() -> None:
    model = wide()
    found = fill(empty(), saved(model.state_dict()), "wide").state_dict()
    assert all(torch.equal(t, found[name]) for name, t in model.state_dict().items())


def test_a_device_a_folder_and_a_file_too_long_are_no_model_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file, found something else"):
        read(Path("/dev/zero"), 100)
    with pytest.raises(InputError, match="expected a file, found something else"):
        read(tmp_path, 100)
    with pytest.raises(InputError, match="could not read it: No such file"):
        read(tmp_path / "none", 100)
    long = tmp_path / "long"
    with long.open("wb") as file:
        file.truncate(10**12)  # a file of holes: no disk, and a terabyte to whoever reads it
    with pytest.raises(InputError, match=r"expected at most .* bytes, .* got 1,000,000,000,000"):
        read(long, most_bytes(empty()))
