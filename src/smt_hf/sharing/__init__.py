"""What a shared model tells of itself: the record of its training and its model card."""

from .card import write_card
from .record import TrainingStage, read_stages

__all__ = ["TrainingStage", "read_stages", "write_card"]
