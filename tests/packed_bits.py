"""Packed tensors decoded a second time, with ml_dtypes and numpy: bits by hand, no code of srdd."""

import ml_dtypes
import numpy as np

E2M1, E2M3, E3M2 = (np.dtype(getattr(ml_dtypes, f"float{n}fn")) for n in ("4_e2m1", "6_e2m3", "6_e3m2"))
E4M3, E5M2, E8M0 = (np.dtype(getattr(ml_dtypes, f"float8_{n}")) for n in ("e4m3fn", "e5m2", "e8m0fnu"))


def nibbles(raw: np.ndarray) -> np.ndarray:
    """uint8 [..., n] to float32 [..., 2 n], low nibble first."""
    return np.stack([raw & 15, raw >> 4], -1).reshape(*raw.shape[:-1], -1).view(E2M1).astype(np.float32)


def six(raw: np.ndarray, element: np.dtype) -> np.ndarray:
    """uint8 [..., 3 n] to float32 [..., 4 n]: a row's bits in order, lowest first, six to a code."""
    bits = np.unpackbits(raw, axis=-1, bitorder="little").reshape(*raw.shape[:-1], -1, 6)
    return (bits << np.arange(6, dtype=np.uint8)).sum(-1).astype(np.uint8).view(element).astype(np.float32)


def power(raw: np.ndarray) -> np.ndarray:
    """E8M0 bytes to float32."""
    return raw.view(E8M0).astype(np.float32)


def tiled(values: np.ndarray, scales: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """values [N, K] times the scale of each tile of rows x columns, product in float32."""
    n, k = values.shape
    spread = scales.repeat(rows, 0)[:n].repeat(columns, 1)[:, :k]
    with np.errstate(over="ignore", invalid="ignore"):
        return values * spread


def blocked(scales: np.ndarray) -> np.ndarray:
    """[N, C] bytes in NVIDIA's order of tiles of 128 x 4, zeros where it is padded. One byte at a time."""
    n, c = scales.shape
    across = -(-c // 4)
    out = np.zeros(-(-n // 128) * across * 512, np.uint8)
    for row in range(n):
        for column in range(c):
            tile = (row // 128) * across + column // 4
            out[tile * 512 + (row % 32) * 16 + (row % 128 // 32) * 4 + column % 4] = scales[row, column]
    return out
