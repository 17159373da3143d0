"""Datasets that change from epoch to epoch."""

import torch


class EpochDataset(torch.utils.data.Dataset):
    """A dataset whose items depend on the epoch, `self.epoch`."""

    def __init__(self):
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # so that persistent workers see set_epoch

    @property
    def epoch(self) -> int:
        """The epoch, 0 until it is set."""
        return self._epoch.item()

    def set_epoch(self, epoch: int) -> None:
        """Selects the items of this epoch (0 or more), also in data loader workers that are already running."""
        self._epoch.fill_(epoch)
