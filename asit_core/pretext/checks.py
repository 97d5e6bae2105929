"""Checks the pretext tasks' configs share."""


def check_weight(weight: float) -> None:
    """Raise ValueError unless the weight is finite and not negative."""
    if not 0.0 <= weight < float("inf"):
        raise ValueError(f"weight must be finite and at least 0, but got {weight}")


def check_prototypes(num_prototypes: int) -> None:
    """Raise ValueError for fewer than two prototypes: one could not tell anything apart."""
    if num_prototypes < 2:
        raise ValueError(f"num_prototypes must be at least 2, but got {num_prototypes}")
