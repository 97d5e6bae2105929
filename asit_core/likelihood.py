"""What a probe's logits mean: one class per clip (softmax) or any number of them (sigmoids).

Both give the loss of some clips, its derivative by the logits, and the scores of new clips. The
softmax or sigmoid is applied here and nowhere else: what leaves as a score is a probability.

Shape legend: N training clips, M other clips, A all classes of the data set, C classes that can be
learned from the training clips.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus


class Softmax(NamedTuple):
    """Classes that exclude each other; those without a training clip are left out."""

    class_C: Tensor  # int64, ascending
    column_N1: Tensor  # which of them each clip belongs to

    @classmethod
    def of(cls, label_N: Tensor) -> "Softmax":
        """Reads int64 labels (N,)."""
        class_C, column_N = label_N.unique(return_inverse=True)
        return cls(class_C, column_N[:, None])

    @property
    def can_learn(self) -> bool:
        """Whether there are two classes to tell apart."""
        return len(self.class_C) > 1

    @property
    def curvature_bound(self) -> float:
        """The loss bends at most this much (Bohning 1992)."""
        return 0.5

    def rows(self, index: Tensor | slice) -> "Softmax":
        """The same classes for some of the clips."""
        return self._replace(column_N1=self.column_N1[index])

    def loss_and_residual(self, logits_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy of the clips, and its derivative by the logits times N."""
        log_probability_NC = torch.log_softmax(logits_NC, dim=1)
        loss = -log_probability_NC.gather(1, self.column_N1).mean()
        residual_NC = log_probability_NC.exp_()
        residual_NC.scatter_add_(
            1, self.column_N1, -torch.ones_like(self.column_N1, dtype=loss.dtype)
        )
        return loss, residual_NC

    def log_probability(self, logits_MC: Tensor) -> Tensor:
        """Log-probabilities (M, C)."""
        return torch.log_softmax(logits_MC, dim=1)

    def can_judge(self, label_M: Tensor) -> Tensor:
        """Boolean (M,): a class without a training clip cannot be predicted and has no say."""
        return torch.isin(label_M, self.class_C)

    def summed_loss(self, logits_MC: Tensor, label_M: Tensor) -> float:
        """Summed cross-entropy of clips that `can_judge`."""
        column_M1 = torch.searchsorted(self.class_C, label_M)[:, None]
        return -float(self.log_probability(logits_MC).gather(1, column_M1).sum())

    def scores(self, logits_MC: Tensor, num_classes: int) -> Tensor:
        """Probabilities (M, A); 0 for a class without a training clip."""
        scores_MA = logits_MC.new_zeros(len(logits_MC), num_classes)
        scores_MA[:, self.class_C] = self.log_probability(logits_MC).exp()
        return scores_MA


class Sigmoids(NamedTuple):
    """Classes that may occur together, one against the rest each.

    A class that no training clip has, or every one, has nothing to learn and is left out.
    """

    class_C: Tensor  # int64, ascending
    always_A: Tensor  # boolean: classes of every training clip
    target_NC: Tensor  # float64, 0 or 1

    @classmethod
    def of(cls, label_NA: Tensor) -> "Sigmoids":
        """Reads boolean labels (N, A)."""
        always_A = label_NA.all(dim=0)
        class_C = (label_NA.any(dim=0) & ~always_A).nonzero()[:, 0]
        return cls(class_C, always_A, label_NA[:, class_C].double())

    @property
    def can_learn(self) -> bool:
        """Whether some class splits the clips."""
        return len(self.class_C) > 0

    @property
    def curvature_bound(self) -> float:
        """The largest slope of the sigmoid."""
        return 0.25

    def rows(self, index: Tensor | slice) -> "Sigmoids":
        """The same classes for some of the clips."""
        return self._replace(target_NC=self.target_NC[index])

    def loss_and_residual(self, logits_NC: Tensor) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy, summed over classes and averaged over clips; derivative times N."""
        loss = (softplus(logits_NC) - self.target_NC * logits_NC).sum(dim=1).mean()
        return loss, torch.sigmoid(logits_NC) - self.target_NC

    def can_judge(self, label_MA: Tensor) -> Tensor:
        """Boolean (M,): every clip judges the classes that can be learned."""
        return label_MA.new_ones(len(label_MA), dtype=torch.bool)

    def summed_loss(self, logits_MC: Tensor, label_MA: Tensor) -> float:
        """Binary cross-entropy, summed over clips and classes."""
        target_MC = label_MA[:, self.class_C].to(logits_MC.dtype)
        return float((softplus(logits_MC) - target_MC * logits_MC).sum())

    def scores(self, logits_MC: Tensor, num_classes: int) -> Tensor:
        """Probabilities (M, A): 0 for a class of no training clip, 1 for one of every clip."""
        scores_MA = logits_MC.new_zeros(len(logits_MC), num_classes)
        scores_MA[:, self.class_C] = torch.sigmoid(logits_MC)
        scores_MA[:, self.always_A] = 1.0
        return scores_MA


Likelihood = Softmax | Sigmoids


def likelihood_of(label: Tensor) -> Likelihood:
    """`Softmax` for int64 labels (N,), `Sigmoids` for boolean ones (N, A)."""
    return Sigmoids.of(label) if label.ndim == 2 else Softmax.of(label)
