"""What learners share whose every task adds one direction of low rank that is closed at its end."""

from newcomer.classes.lora_learner import AdaptedLearner
from newcomer.shapes import Tensor
from newcomer.store.folder import Entry


class DirectionLearner(AdaptedLearner):
    """Each entry holds the direction that its task closed, if any, and the magnitudes of all of them as they were then."""

    def _close(self) -> None:
        self.bank.close()

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {**super()._tensors(), "magnitudes": self.bank.magnitudes}
        if self._kept() < self.bank.directions:
            for p, (up, down) in enumerate(self.bank.direction(self.bank.directions - 1)):
                tensors |= {f"direction.{p}.up": up, f"direction.{p}.down": down}
        return tensors

    def _kept(self) -> int:
        """How many directions the entries hold."""
        return sum("direction.0.up" in entry.tensors for entry in self.entries)

    def _absorb(self, entry: Entry) -> None:
        super()._absorb(entry)
        tensors = entry.tensors
        count = sum(key.startswith("direction.") and key.endswith(".up") for key in tensors)
        direction = [(tensors[f"direction.{p}.up"], tensors[f"direction.{p}.down"]) for p in range(count)]
        self.bank.restore(direction, tensors["magnitudes"])
