"""A batch as every loss reads it: the tokens, their documents, and the target of every state."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from .models.documents_smt import check_names, columns_on, document_starts, separate_padding

IGNORED = -100  # a target that every loss ignores


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of tokens, built once from the columns of a micro-batch and read by models, losses, counts and logs.

    Attributes:
        input_ids: `(B, T)`.
        documents: `(B, T)`, -1 for padding: the only mask that the losses use; `None` for one document per row without padding.
        labels: `(B, T)` token ids at their own positions, as everywhere in `transformers`: label t + 1 is predicted from the
            memory after token t. -100 is ignored. `input_ids` if the data has no labels; `None` if there are `shift_labels`.
        shift_labels: `(B, T)` targets that are already aligned: target t is predicted from the memory after token t. They
            replace `labels` and are not changed by padding or documents.
        padded: whether the rows came with an `attention_mask`.
        continued: bool `(B,)`, rows whose first document began before the window and whose memory is carried over.
    """

    input_ids: torch.Tensor
    documents: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    shift_labels: torch.Tensor | None = None
    padded: bool = False
    continued: torch.Tensor | None = None

    @classmethod
    def of(cls, columns: Mapping[str, torch.Tensor]) -> "Batch":
        """Builds a batch from the output of a data collator, without the columns that no loss reads.

        Packed rows mark where a document begins with `documents`, or with `position_ids` that restart at 0.

        Raises:
            TypeError: for a column under its name from version 0.1.
        """
        check_names(columns)
        input_ids, mask = columns["input_ids"], columns.get("attention_mask")
        labels, shift_labels = columns.get("labels"), columns.get("shift_labels")
        if shift_labels is not None:
            labels = None
        elif labels is None:
            labels = input_ids
        documents = separate_padding(input_ids, mask, columns.get("documents"), columns.get("position_ids"))
        return cls(input_ids, documents, labels, shift_labels, mask is not None, columns.get("continued"))

    def first(self, length: int) -> "Batch":
        """The first `length` columns."""
        return self[:, :length]

    def __getitem__(self, columns) -> "Batch":
        """Indexes rows and columns, as in a tensor `(B, T)`."""
        cut = {name: getattr(self, name) for name in ("input_ids", "documents", "labels", "shift_labels")}
        cut = {name: None if value is None else value[columns] for name, value in cut.items()}
        return Batch(**cut, padded=self.padded, continued=self.continued)

    @cached_property
    def begins(self) -> torch.Tensor | None:
        """Bool `(B, T)`: the first token of every document within the window; `None` if that is only the first column."""
        return None if self.documents is None else document_starts(self.documents)

    @cached_property
    def targets(self) -> torch.Tensor:
        """`(B, T + 1)`: entry t + 1 is the target of the state after position t, entry 0 that of the empty context.

        Padding is not a target, and the first token of a document is not a target of the document before; both are -100.
        """
        ignored = self.input_ids.new_full((len(self.input_ids), 1), IGNORED)
        if self.shift_labels is not None:
            return torch.cat([ignored, self.shift_labels], dim=1)
        labels = self.labels
        if self.documents is not None:
            later = self.begins.clone()
            later[:, 0] = False  # read from the empty context
            labels = labels.masked_fill(later | (self.documents < 0), IGNORED)
        return torch.cat([labels, ignored], dim=1)

    @cached_property
    def start_targets(self) -> torch.Tensor:
        """`(B, T)`: the labels predicted from the initial memory, the first of every document; -100 elsewhere."""
        if self.documents is None:
            first = torch.zeros_like(self.input_ids, dtype=torch.bool)
            first[:, 0] = True
        else:
            first = self.begins.clone()
        if self.continued is not None:
            first &= (first.cumsum(dim=1) > 1) | ~self.continued[:, None]
        return self.labels.masked_fill(~first, IGNORED)

    def targets_of(self, columns: torch.Tensor) -> torch.Tensor:
        """The targets `(B, ...)` of the states after `columns`; column -1 is the empty context.

        Args:
            columns: `(N,)` or `(S, J)`, shared by all rows; or `(B, S, J)`, one set per row; columns past the window have no target.
        """
        columns = columns_on(self.targets.device, columns + 1)
        if columns.dim() == 3:
            columns = columns.clamp(max=self.targets.shape[1] - 1)
            return self.targets.gather(1, columns.flatten(1)).view_as(columns)
        return self.targets[:, columns]

    def counted(self, columns: torch.Tensor) -> torch.Tensor:
        """Placeholder targets for comparing memories, `(B, N)`: 0, or -100 at padding and past the window.

        Args:
            columns: `(N,)`, shared by all rows; or `(B, N)`, one set per row.
        """
        columns = columns_on(self.input_ids.device, columns)
        if columns.dim() == 2:
            length = self.input_ids.shape[1]
            beyond = columns >= length
            if self.documents is not None:
                beyond = beyond | (self.documents.gather(1, columns.clamp(max=length - 1)) < 0)
            return torch.zeros_like(columns).masked_fill(beyond, IGNORED)
        counted = torch.zeros_like(self.input_ids[:, columns])
        return counted if self.documents is None else counted.masked_fill(self.documents[:, columns] < 0, IGNORED)

    def future_targets(self, positions: torch.Tensor, horizon: int) -> torch.Tensor:
        """The targets for decoding `horizon` tokens from the memories after `positions`.

        Args:
            positions: `(M,)` in -1..T-1.
            horizon: T_f.

        Returns:
            `(B, M, T_f)`: step j of position t is the target of the state after position t + j; -100 past the window and
            past the end of the context's document.
        """
        batch_size, length = self.input_ids.shape
        positions = columns_on(self.input_ids.device, positions)
        states = positions[:, None] + torch.arange(horizon, device=positions.device)  # the state after position t + j
        inside = states < length
        future = self.targets[:, (states + 1).clamp(max=length)]
        if self.documents is not None:
            own = self.documents[:, positions.clamp(min=0)][..., None]
            inside = inside & (self.documents[:, states.clamp(min=0, max=length - 1)] == own)
        return future.masked_fill(~inside.expand(batch_size, -1, -1), IGNORED)
