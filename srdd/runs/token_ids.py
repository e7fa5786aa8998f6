"""Token ids as a run takes them: checked against the model, and named in the document.

Not here: texts, and packing them into sequences (calibration.py).

Worked number: two sequences of 512 tokens are identified by two hashes of 16 hexadecimal digits; the same sequence
twice is refused.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from srdd.documents.parts import Calibration
from srdd.errors import CalibrationError
from srdd.models.modules import require_module
from srdd.runs.calibration import Sequences, check_batch_size
from srdd.runs.pieces import owner


def token_ids_of(sequences: Tensor | Sequences | None, model: nn.Module) -> tuple[Tensor, Calibration]:
    """Token ids [count, length] and what a document says of them.

    Raises CalibrationError, also for ids that the model has no embedding for: on a GPU such an id ends every later use
    of the device.
    """
    require_module(model)
    if sequences is None:
        raise CalibrationError("activations need token ids: pass sequences [count, length], or sites='weight'")
    if not isinstance(sequences, Tensor | Sequences):
        raise CalibrationError(
            f"expected token ids as a torch tensor [count, length], found {type(sequences).__name__}; convert them, "
            "e.g. torch.tensor(rows), or tokenizer(texts, return_tensors='pt').input_ids without padding"
        )
    ids = sequences if isinstance(sequences, Tensor) else sequences.token_ids
    if ids.dim() != 2 or ids.dtype not in (torch.int64, torch.int32) or ids.numel() == 0:
        raise CalibrationError(f"expected token ids as integers [count, length], found {ids.dtype} {tuple(ids.shape)}")
    known = _vocabulary(model)
    if known is not None and not 0 <= int(ids.min()) <= int(ids.max()) < known:
        raise CalibrationError(
            f"found token ids {int(ids.min())} to {int(ids.max())}, this model has 0 to {known - 1}; "
            "use its own tokenizer"
        )
    hashes = [hashlib.sha256(row.to(torch.int64).numpy().tobytes()).hexdigest()[:16] for row in ids.cpu()]
    if len(set(hashes)) != len(hashes):
        raise CalibrationError("a calibration sequence occurs twice; its weight and the standard errors would be wrong")
    if isinstance(sequences, Tensor):  # each row is a document
        return ids, Calibration(source="token ids given", seq_len=ids.shape[1], sequence_hashes=hashes)
    if sequences.pieces and len(sequences.pieces) != len(ids):
        raise CalibrationError(
            f"{len(ids)} sequences with the documents of {len(sequences.pieces)}; take parts of both"
        )
    owners = [owner(pieces, ids.shape[1]) for pieces in sequences.pieces]
    return ids, Calibration(
        source=sequences.source,
        read=sequences.read,
        data_sha256=sequences.data_sha256,
        seq_len=ids.shape[1],
        sequence_hashes=hashes,
        documents=[piece.document for piece in owners],
        offsets=[piece.offset for piece in owners],
        dropped=sequences.dropped,
        seed=sequences.seed,
    )


def _vocabulary(model: nn.Module) -> int | None:
    """How many token ids the model has embeddings for; None when it does not tell."""
    find = getattr(model, "get_input_embeddings", None)
    try:
        table = find() if callable(find) else None
    except NotImplementedError:  # transformers' answer where there is none
        return None
    count = getattr(table, "num_embeddings", None)
    return count if isinstance(count, int) else None


def batches_of(token_ids: Tensor, batch_size: int, device: torch.device | str = "cpu") -> list[Tensor]:
    """The sequences in order, `batch_size` at a time, on the device; the last batch may be smaller."""
    check_batch_size(batch_size)
    return [token_ids[i : i + batch_size].to(device) for i in range(0, len(token_ids), batch_size)]
