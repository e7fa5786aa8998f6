"""Rows of a reference, however its file is cut: every row that was asked for, once, in order, in whole tiles."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packed_rtn import Parts, ct_mxfp4, fp8, modelopt_nvfp4
from safetensors.torch import save_file

from srdd.models import beside_reference
from srdd.models.beside_reference import Rows
from srdd.models.files.checkpoint import open_checkpoint
from srdd.runs.scans.stored import scan_stored


@given(
    cuts=st.lists(st.integers(1, 300), min_size=1, max_size=5),
    first=st.integers(0, 400),
    count=st.none() | st.integers(0, 900),
    step=st.integers(1, 3),
)
def test_rows_are_those_of_a_slice(cuts: list[int], first: int, count: int | None, step: int) -> None:
    whole = torch.arange(sum(cuts)).float()[:, None]
    rows = Rows(whole.split(cuts), first, None if count is None else first + count, step)
    for _ in range(2):  # they can be read again
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(beside_reference, "_VALUES", 1)
            found = list(rows)
        assert all(len(chunk) == 128 for chunk in found[:-1])
        read = [value for chunk in found for value in chunk[:, 0].tolist()]
        assert read == whole[:, 0].tolist()[rows.first : rows.stop : step]


@pytest.mark.parametrize("pack", [ct_mxfp4, modelopt_nvfp4, lambda x: fp8(x, 128, 128)], ids=["mx", "nv", "fp8_block"])
@pytest.mark.parametrize("whole", [False, True])
def test_many_chunks_are_one_weight(
    pack: Callable[[np.ndarray], Parts], whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk for every 128 rows of 300: scales of a tensor and tiles reach across, blocks are numbered through."""
    if not whole:
        monkeypatch.setattr(beside_reference, "_VALUES", 1)
    generator, name = np.random.default_rng(4), "model.layers.0.mlp.up_proj"
    x = generator.standard_normal((300, 160)).astype(np.float32) * np.exp2(generator.integers(-3, 4, (300, 1)))
    for folder, tensors in (("plain", {"weight": torch.from_numpy(x).float()}), ("packed", pack(x.astype(np.float32)))):
        (tmp_path / folder).mkdir()
        save_file({f"{name}.{local}": t for local, t in tensors.items()}, tmp_path / folder / "model.safetensors")
    packed, plain = (open_checkpoint(str(tmp_path / folder)) for folder in ("packed", "plain"))
    (site,) = scan_stored(packed, plain, backend="reference").sites
    stored, fresh = site.formats.values()
    assert stored.whole == fresh.whole
    assert stored.whole_blocks == fresh.whole_blocks
    assert stored.merged().n == 300 * 160
