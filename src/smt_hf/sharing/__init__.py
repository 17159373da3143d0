"""Sharing a trained model: the record of its training, its model card, and the way to the Hub."""

from .card import write_card
from .hub import check_repo_id, make_repository, share_folder
from .record import TrainingStage, read_stages

__all__ = ["TrainingStage", "check_repo_id", "make_repository", "read_stages", "share_folder", "write_card"]
