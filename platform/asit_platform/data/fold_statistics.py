"""Mean and deviation of log-mel values, kept so that they can be merged fold by fold."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FoldStatistics:
    """Sums over log-mel values, mergeable: so a mean can be formed without the test fold."""

    count: int
    mean: float
    m2: float  # sum of squared deviations from the mean

    def merge(self, other: "FoldStatistics") -> "FoldStatistics":
        """Statistics of both together (Chan et al. 1979: stable, unlike a sum of squares)."""
        count = self.count + other.count
        if count == 0:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * other.count / count
        m2 = self.m2 + other.m2 + delta * delta * self.count * other.count / count
        return FoldStatistics(count, mean, m2)
