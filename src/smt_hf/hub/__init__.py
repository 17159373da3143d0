"""Sharing a trained model: the record of its training, its model card, and the upload to the Hub."""

from .card import CARD, SAMPLES, card_text, is_own_card, weights_digest, write_card
from .push import check_repo_id, make_repository, share_folder
from .record import TrainingStage, public_name, read_stages

__all__ = [
    "CARD",
    "SAMPLES",
    "TrainingStage",
    "card_text",
    "check_repo_id",
    "is_own_card",
    "make_repository",
    "public_name",
    "read_stages",
    "share_folder",
    "weights_digest",
    "write_card",
]
