"""What a step keeps of the part that it is at: noted as long as anything holds it."""

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from vatt.models.transformer import layers_of


class InMemory:
    """Float frames and what enters a layer; the backward pass needs both of them."""

    def __init__(self, model: nn.Module) -> None:
        self._noted: list[StorageWeakRef] = []
        for layer in layers_of(model):
            layer.register_forward_pre_hook(lambda _, given: self.note(given[0]))

    def note(self, values: Tensor) -> None:
        self._noted.append(StorageWeakRef(values.untyped_storage()))

    def nothing(self) -> bool:
        """Whether all that was noted is freed."""
        return all(one.expired() for one in self._noted)
