"""Batches: what belongs together, and the target of every state, against slow, obvious computations."""

import pytest
import torch

from smt_hf.batch import Batch


def batch_of(input_ids, **columns) -> Batch:
    columns = {name: torch.as_tensor(values) for name, values in columns.items()}
    return Batch.of({"input_ids": torch.as_tensor(input_ids), **columns})


def test_targets_follow_the_tokens():
    assert batch_of([[5, 6, 7]]).targets.tolist() == [[5, 6, 7, -100]]


def test_targets_stop_at_documents_and_padding():
    batch = batch_of([[9, 9, 5, 6, 7, 8]], attention_mask=[[0, 0, 1, 1, 1, 1]], documents=[[0, 0, 0, 0, 1, 1]])
    # the first token after the padding and the first of the second document are read from no earlier state
    assert batch.targets.tolist() == [[-100, -100, -100, 6, -100, 8, -100]]
    assert batch.start_targets.tolist() == [[-100, -100, 5, -100, 7, -100]]
    assert batch.documents.tolist() == [[-1, -1, 0, 0, 1, 1]]


def test_positions_that_begin_again_are_documents():
    batch = batch_of([[9, 5, 6, 7, 8, 9]], attention_mask=[[0, 1, 1, 1, 1, 0]], position_ids=[[0, 0, 1, 0, 1, 0]])
    assert (
        batch.targets.tolist()
        == batch_of(
            [[9, 5, 6, 7, 8, 9]], attention_mask=[[0, 1, 1, 1, 1, 0]], documents=[[0, 0, 0, 1, 1, 1]]
        ).targets.tolist()
    )
    assert batch_of([[5, 6]], documents=[[0, 1]], position_ids=[[0, 1]]).documents.tolist() == [[0, 1]]
    assert batch_of([[5, 6]], position_ids=[[0, 1]]).documents is None


def test_padding_inside_a_document_does_not_end_it():
    batch = batch_of([[5, 6, 9, 7]], attention_mask=[[1, 1, 0, 1]])
    assert batch.begins.tolist() == [[True, False, False, False]]
    assert batch.targets.tolist() == [[5, 6, -100, 7, -100]]


def test_aligned_labels_stay_as_they_are():
    batch = batch_of([[5, 6, 7]], shift_labels=[[-100, 3, 4]], attention_mask=[[0, 1, 1]])
    assert batch.targets.tolist() == [[-100, -100, 3, 4]]


def test_the_start_of_a_carried_document_is_no_target_of_the_initial_memory():
    documents = [[0, 0, 1], [0, 0, 1]]
    batch = batch_of([[5, 6, 7], [5, 6, 7]], documents=documents, continued=[True, False])
    assert batch.start_targets.tolist() == [[-100, -100, 7], [5, -100, 7]]


@pytest.mark.parametrize("with_labels", [False, True])
def test_future_targets_against_a_loop(with_labels):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(20, (4, 12), generator=generator)
    labels = torch.randint(20, (4, 12), generator=generator)
    documents = torch.randint(2, (4, 12), generator=generator).cumsum(dim=1) // 3
    batch = batch_of(tokens, documents=documents, **({"shift_labels": labels} if with_labels else {}))
    positions, horizon = torch.tensor([-1, 0, 4, 10, 11]), 5
    future = batch.future_targets(positions, horizon)
    for row in range(4):
        for m, t in enumerate(positions.tolist()):
            for j in range(horizon):
                state = t + j
                expected = -100
                if state < 12 and documents[row, max(state, 0)] == documents[row, max(t, 0)]:
                    expected = batch.targets[row, state + 1].item()
                assert future[row, m, j].item() == expected


def test_a_part_has_the_targets_of_the_whole():
    batch = batch_of([[5, 6, 7, 8]], labels=[[1, -100, 3, 4]], documents=[[0, 0, 1, 1]])
    part = batch.first(3)
    assert part.targets[:, :3].equal(batch.targets[:, :3]) and part.begins.equal(batch.begins[:, :3])


def test_a_column_of_old_is_refused():
    with pytest.raises(TypeError, match="document_ids is now called documents"):
        batch_of([[1, 2]], document_ids=[[0, 0]])
