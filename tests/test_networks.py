"""Networks as people write them: whatever plain torch builds and runs is built and run."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fpbench import Classification, FieldError, InputError, Pool
from fpbench.compute.stack import Stack, Way
from fpbench.engine.build import StoreLab
from fpbench.owner.given import Given
from fpbench.store.network import make_network
from fpbench.store.store import Store

NETS = """
import dataclasses
import torch
from torch import nn
from its_parts import body

class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = body()
    def forward(self, x):
        return self.body(x)

class Item(Whole):
    def __init__(self):
        super().__init__()
        self.rates = [r.item() for r in torch.linspace(0, 0.1, 3)]

class Buffered(Whole):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((1,), 0.3), persistent=False)
    def forward(self, x):
        return self.body(x - self.mean)

class Plain(Whole):
    def __init__(self):
        super().__init__()
        self.constants = {"mean": [torch.full((1,), 0.3)]}
    def forward(self, x):
        return self.body(x - self.constants["mean"][0])

class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.LazyLinear(600), nn.LazyLinear(3)
    def forward(self, x):
        return self.b(self.a(x.flatten(1)).relu())

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.b.weight = self.a.weight
    def forward(self, x):
        return self.c(self.b(self.a(x.flatten(1)).relu()))

class Mapped(Whole):
    def forward(self, x):
        return {"hidden": x, "scores": self.body(x)}

class Paired(Whole):
    def forward(self, x):
        return x.flatten(1).mean(1), self.body(x)

@dataclasses.dataclass
class Answer:
    logits: torch.Tensor
    doubled: torch.Tensor

class Structured(Whole):
    def forward(self, x):
        return Answer(self.body(x), 2 * self.body(x))

class Unclear(Whole):
    def forward(self, x):
        return self.body(x), -self.body(x)

class Broken(nn.Module):
    def __init__(self):
        raise ValueError("no such size")

class Squeezing(Whole):
    def forward(self, x):
        return self.body(x).squeeze()

class Failing(Whole):
    def forward(self, x):
        return self.body(x[:, :, :, :, 0])

def of_classes(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(4, num_classes))

def nothing():
    return None
"""


@dataclass(frozen=True)
class Squares(Classification):
    """Random squares of two by two pixels, three classes."""

    name = "squares"
    input_shape = (1, 2, 2)
    output_shape = (3,)
    input_range = (0.0, 1.0)
    architectures = {  # noqa: RUF012
        "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 3)),
    }

    def load(self) -> dict[str, Pool]:
        rng = torch.Generator().manual_seed(0)
        inputs = torch.rand(8, 1, 2, 2, generator=rng)
        return {name: Pool(inputs, torch.arange(8) % 3) for name in ("train", "test")}


SQUARES = Squares()
X = SQUARES.data("test").inputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's file of networks, with a file beside it that it imports."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "nets.py").write_text(NETS)
    (folder / "its_parts.py").write_text(
        "from torch import nn\n"
        "def body(): return nn.Sequential(nn.Flatten(), nn.Linear(4, 600), nn.Linear(600, 3))\n"
    )
    return folder


@pytest.fixture
def nets(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of the file of networks, from another folder."""
    monkeypatch.chdir(tmp_path)
    return str(folder / "nets.py")


def given(arch: str, state: dict[str, Tensor], store: Path, **more: Any) -> nn.Module:
    save_file({n: t.clone() for n, t in state.items()}, "net.safetensors")
    # Random weights may answer with positive numbers only, which could be anything.
    recipe = Given(scenario="squares", file="net.safetensors", model=f"logits:{arch}", **more)
    return recipe.make(StoreLab(SQUARES, Store(store), torch.device("cpu")))


@pytest.mark.parametrize("name", [
    "Item", "Buffered", "Plain", "Lazy", "Tied", "Mapped", "Paired", "Structured", "of_classes",
])  # fmt: skip
def test_a_network_answers_as_it_does_in_plain_torch(
    nets: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arch = f"{nets}:{name}"
    mine = SQUARES.architecture(arch)().eval()
    plain = {**mine.state_dict()}
    with torch.no_grad():
        own = mine.forward(X)
        expected = mine(X)
    raw = {"Mapped": lambda: own["scores"], "Paired": lambda: own[1],
           "Structured": lambda: own.logits}.get(name, lambda: own)()  # fmt: skip
    assert torch.equal(raw, expected)
    again = given(arch, plain, tmp_path / "store")
    assert torch.equal(again(X), expected)
    for most in (0, 2**20):  # weights that count as large, and as small
        monkeypatch.setattr("fpbench.store.network.SMALL_WEIGHTS", most)
        kept = make_network(SQUARES, arch, plain, torch.device("cpu"))
        assert kept is not None
        assert torch.equal(kept(X), expected)


def test_tied_weights_stay_tied_and_are_kept(nets: str, tmp_path: Path) -> None:
    arch = f"{nets}:Tied"
    state = SQUARES.architecture(arch)().state_dict()
    model = given(arch, {n: t for n, t in state.items() if n != "b.weight"}, tmp_path / "store")
    assert model.a.weight is model.b.weight
    recipe = Given(scenario="squares", file="net.safetensors", model=arch)
    store = Store(tmp_path / "store")
    store.save([(recipe, model, {"arch": arch, "utility": {}})], SQUARES)
    kept = store.load(recipe, SQUARES, torch.device("cpu"))
    assert torch.equal(kept(X), model(X))
    with pytest.raises(InputError, match=r"equal tensors as .*, which .*:Tied ties"):
        given(arch, {**state, "b.weight": state["b.weight"] + 1}, tmp_path / "store")


@pytest.mark.parametrize("way", ["looped", "stacked"])
def test_networks_with_tied_weights_answer_together_as_they_do_alone(nets: str, way: Way) -> None:
    models = [SQUARES.architecture(f"{nets}:Tied")() for _ in range(2)]
    with torch.no_grad():
        together = Stack(models, way)(X, shared=True)
        assert torch.allclose(together, torch.stack([model(X) for model in models]), atol=1e-6)


def test_an_output_may_be_named(nets: str, tmp_path: Path) -> None:
    arch = f"{nets}:Structured"
    state = SQUARES.architecture(arch)().state_dict()
    doubled = given(arch, state, tmp_path / "store", output="doubled")
    assert torch.allclose(doubled(X), 2 * given(arch, state, tmp_path / "store")(X))


@pytest.mark.parametrize(("name", "sentence"), [
    ("Broken", r"Broken raised ValueError: no such size$"),
    ("nothing", r"expected a network from .*:nothing, got None"),
    ("Unclear", r"expected .*:Unclear to answer with one tensor of shape \(3,\) .* got a tuple of "
                r"0 \(3,\), 1 \(3,\); name one of them, as .*:Unclear@0"),
    ("Mapped@logits", r"an output 'logits', got a dict of hidden \(1, 2, 2\), scores \(3,\)"),
    ("Squeezing", r"expected .*:Squeezing to answer a batch of 1 with \(1, 3\), got \(3,\)"),
    ("Failing", r"Failing does not take inputs of \(1, 2, 2\): too many indices .*nets.py:\d+$"),
])  # fmt: skip
def test_what_a_users_network_does_wrong_is_one_sentence(
    nets: str, tmp_path: Path, name: str, sentence: str
) -> None:
    state = SQUARES.architecture(f"{nets}:Item")().state_dict()
    with pytest.raises(InputError, match=sentence) as raised:
        given(f"{nets}:{name}", state, tmp_path / "store")
    if name == "Broken":
        line = NETS.splitlines().index('        raise ValueError("no such size")') + 1
        assert f"nets.py:{line}: " in str(raised.value)


def test_a_file_that_cannot_be_imported_is_told_with_its_line(nets: str) -> None:
    bad = Path(nets).with_name("bad.py")
    bad.write_text("import torch\n\nx = 1 / 0\n")
    with pytest.raises(FieldError, match=r"bad.py raised ZeroDivisionError at .*bad.py:3: div"):
        SQUARES.architecture(f"{bad}:make")


@pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")
def test_timms_networks_get_the_scenarios_shapes() -> None:
    class Larger(Squares):
        input_shape = (1, 32, 32)

    model = Larger().architecture("timm:test_resnet")().eval()
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    with pytest.raises(
        FieldError, match="no network 'test_resnett' in timm; did you mean test_resnet"
    ):
        Larger().architecture("timm:test_resnett")


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
def test_a_network_of_transformers_is_built_from_a_folders_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
             "intermediate_size": 8, "image_size": 2, "patch_size": 1, "num_channels": 1,
             "num_labels": 3}  # fmt: skip
    mine = ViTForImageClassification(ViTConfig(**small)).eval()
    mine.save_pretrained(tmp_path / "vit")
    monkeypatch.chdir(tmp_path)
    recipe = Given(scenario="squares", file="vit/model.safetensors", model="transformers:vit")
    model = recipe.make(StoreLab(SQUARES, Store(tmp_path / "store"), torch.device("cpu")))
    assert torch.allclose(model(X), mine(X).logits)
