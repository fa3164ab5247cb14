"""UAP: one perturbation for all inputs, and an encoder of what it does to a model.

Peng, Li, Chen, Zhang, Zhu and Xue, *Fingerprinting Deep Neural Networks Globally via Universal
Adversarial Perturbations*, CVPR 2022; the perturbation is that of Moosavi-Dezfooli, Fawzi, Fawzi
and Frossard, *Universal adversarial perturbations*, CVPR 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fpbench import (
    Access,
    Case,
    Classification,
    Fingerprint,
    Fingerprinter,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Share,
    TrialError,
    deepfool,
    folded,
    hookimpl,
    log_probabilities,
)

BATCH = 256
"""Inputs that the whole ensemble answers at once."""


@dataclass(frozen=True, kw_only=True)
class UAP(Fingerprinter):
    """Ask anchors with and without the target's universal perturbation; an encoder reads both.

    DeepFool pushes training points that the perturbation does not fool yet just over the boundary;
    what it adds, over a batch, is added to the perturbation, which is clipped to `xi`. The anchors
    are the training points nearest to the K = n_queries / 2 means of the target's logits. A model's
    signature is its probabilities on every anchor, plain and perturbed. An encoder learns from the
    target and its ensemble, by a supervised contrastive loss, to bring signatures of stolen models
    together and those of others away from them. The matching rate is (1 + cos) / 2 of a suspect's
    encoding to the target's.

    Views are the signature taken at the anchors' neighbours instead, for the encoder to learn from.

    xi:          the perturbation's largest element, as a share of the input range. CVPR 2017 has
                 10 of 255, for ImageNet, which fools next to nobody on small images (0.4 % of the
                 digits); 0.3 is usual for MNIST, and fools three quarters.
    fooling:     the share of points fooled that is enough; 0.8, public code for CVPR 2017.
    passes:      passes over those points at most; ours.
    samples:     training points that the perturbation is made on; ours.
    batch:       points pushed at a time; one in CVPR 2017, more are ours.
    steps:       DeepFool's iterations at most; 10, ibid.
    overshoot:   DeepFool's eta; 0.02, ibid.
    reads:       what the encoder reads of a reply: its "probs", or "logits", which are
                 log-probabilities less their mean over the classes; ours.
    views:       training points nearest each mean, the anchor first; 100 or 200 in public code.
    temperature: tau of the contrastive loss; 0.2, ibid.
    hidden:      widths of the encoder's layers, the last is the encoding's; 50 and 20, ibid.
    epochs:      Adam steps, each on one view of every model of the ensemble; ours.
    lr:          Adam's learning rate; 0.0005, ibid.
    """

    name = "uap"
    supports = Classification
    accepts = frozenset({Access.PROBS})
    needs_ensemble = True
    paper = (
        "Peng, Li, Chen, Zhang, Zhu and Xue, Fingerprinting Deep Neural Networks Globally via "
        "Universal Adversarial Perturbations, CVPR 2022"
    )
    claim = "breaches detected with confidence above 99.99 % within 20 fingerprints of a suspect"
    quick = {"samples": 100, "passes": 2, "epochs": 100}  # noqa: RUF012

    xi: PositiveFloat = 0.3
    fooling: Share = 0.8
    passes: Positive = 10
    samples: Positive = 256
    batch: Positive = 64
    steps: Positive = 10
    overshoot: NonNegativeFloat = 0.02
    reads: Literal["probs", "logits"] = "probs"
    views: Positive = 20
    temperature: PositiveFloat = 0.2
    hidden: tuple[Positive, ...] = (50, 20)
    epochs: Positive = 1000
    lr: PositiveFloat = 5e-4

    def construct(self, case: Case) -> Fingerprint:
        inputs = case.scenario.data("train").inputs
        shift = universal(self, case, _drawn(inputs, self.samples, case))
        anchors = self._anchors(case, inputs)
        low, high = case.scenario.input_range
        pairs = torch.cat([anchors, (anchors + shift).clamp(low, high)], dim=1)
        signatures, stolen = self._signatures(case, pairs)
        encoder = self._encoder(case, signatures, stolen)
        with torch.no_grad():
            evidence = {"encoding": encoder(signatures[0, 0]), **encoder.state_dict()}
        return Fingerprint(pairs[0].cpu(), {name: t.cpu() for name, t in evidence.items()})

    def match(self, fingerprint: Fingerprint, replies: Tensor) -> float:
        weights = dict(fingerprint.evidence)
        expected = weights.pop("encoding")
        encoder = encoder_of(replies.numel(), self.hidden)
        encoder.load_state_dict(weights)
        with torch.no_grad():
            # A broken model's NaN is a probability of zero.
            logs = log_probabilities(replies.nan_to_num(), Access.PROBS)
            found = encoder(self._read(logs).flatten())
        return min(max((1 + float(F.cosine_similarity(expected, found, dim=0))) / 2, 0.0), 1.0)

    def _anchors(self, case: Case, inputs: Tensor) -> Tensor:
        """(views, K, *input_shape): each anchor first, then its neighbours, nearest first."""
        from sklearn.cluster import KMeans  # seconds to import

        count = self.n_queries // 2
        if not 1 <= count <= len(inputs) or self.views > len(inputs):
            raise TrialError(
                f"expected from 2 to {2 * len(inputs)} queries (pairs of training points) and at "
                f"most {len(inputs)} views, got {self.n_queries} and {self.views}; change uap's "
                "n_queries or views"
            )
        x = inputs.to(case.device)
        with torch.no_grad():
            logits = torch.cat([case.target(part) for part in x.split(BATCH)])
        seed = int(torch.randint(2**31, (), generator=case.rng))
        means = KMeans(count, n_init=1, random_state=seed).fit(logits.cpu()).cluster_centers_
        far = torch.cdist(torch.from_numpy(means).to(logits), logits)
        return x[far.topk(self.views, largest=False).indices.T]

    def _read(self, logs: Tensor) -> Tensor:
        """Return what the encoder reads of log-probabilities (..., classes)."""
        return logs.exp() if self.reads == "probs" else logs - logs.mean(-1, keepdim=True)

    @torch.no_grad()
    def _signatures(self, case: Case, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the signatures of the target, its positives and its negatives on pairs
        (views, 2 K, ...), each (views, 2 K * classes); and which of them are stolen."""
        ensemble = case.ensemble
        assert ensemble is not None, "the harness gives an ensemble to methods that need one"
        parts = []
        for x in pairs.flatten(0, 1).split(BATCH):
            outputs = torch.cat([case.target(x)[None], *ensemble.outputs(x)])
            parts.append(self._read(log_probabilities(outputs, Access.OUTPUT)))
        replies = torch.cat(parts, dim=1)
        stolen = torch.arange(len(replies), device=replies.device) <= len(ensemble.positives)
        return replies.reshape(len(replies), len(pairs), -1), stolen

    def _encoder(self, case: Case, signatures: Tensor, stolen: Tensor) -> nn.Sequential:
        """Train it on signatures (models, views, 2 * K * classes), the target's first."""
        encoder = encoder_of(signatures.shape[-1], self.hidden).to(case.device)
        optimizer = torch.optim.Adam(encoder.parameters(), lr=self.lr, fused=True)
        row = torch.arange(len(signatures), device=case.device)
        drawn = torch.randint(self.views, (self.epochs, len(row)), generator=case.rng)
        for view in drawn.to(case.device):
            loss = contrastive(encoder(signatures[row, view]), stolen, self.temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            case.progress(loss)
        return encoder


def universal(method: UAP, case: Case, x: Tensor) -> Tensor:
    """The perturbation that fools the target on most of the batch x; |its elements| <= xi."""
    low, high = case.scenario.input_range
    most = method.xi * (high - low)
    shift = best = torch.zeros_like(x[0])
    record = 0.0
    with torch.no_grad():
        labels = case.target(x).argmax(1)
    target = folded(case.target, x)
    for _ in range(method.passes):
        order = torch.randperm(len(x), generator=case.rng).to(x.device)
        for part in order.split(method.batch):
            start = (x[part] + shift).clamp(low, high)
            with torch.no_grad():
                start = start[case.target(start).argmax(1) == labels[part]]
            if len(start):
                moved = deepfool(
                    target,
                    start,
                    (low, high),
                    steps=method.steps,
                    overshoot=method.overshoot,
                    along_border=True,
                )
                shift = (shift + (moved - start).sum(0)).clamp(-most, most)
        with torch.no_grad():
            now = case.target((x + shift).clamp(low, high)).argmax(1)
        fooled = float((now != labels).double().mean())
        if fooled > record:
            record, best = fooled, shift
        if fooled >= method.fooling:
            break
    return best


def contrastive(codes: Tensor, stolen: Tensor, temperature: float) -> Tensor:
    """The supervised contrastive loss of encodings (n, d) in two classes, `stolen` or not.

    Khosla et al., *Supervised Contrastive Learning*, NeurIPS 2020, equation 2.
    """
    codes = F.normalize(codes, dim=1)
    alone = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    near = (codes @ codes.T / temperature).masked_fill(alone, float("-inf"))
    log = near.log_softmax(1).masked_fill(alone, 0)
    friends = (stolen[:, None] == stolen) & ~alone
    # A class of one has no friends to be near to.
    return -((log * friends).sum(1) / friends.sum(1).clamp_min(1)).mean()


def encoder_of(inputs: int, widths: tuple[int, ...]) -> nn.Sequential:
    """A fully connected network with ReLU between layers; none at its end, so that encodings can
    point away from each other."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers[:-1])


def _drawn(inputs: Tensor, n: int, case: Case) -> Tensor:
    return inputs[torch.randperm(len(inputs), generator=case.rng)[:n]].to(case.device)


@hookimpl
def fpbench_fingerprinters() -> list[type[Fingerprinter]]:
    return [UAP]
