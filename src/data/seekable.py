"""Random numbers and permutations by position: any part of them is there at once, without what is before it."""

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6  # of the Feistel network; four of random functions are a permutation that passes for random
SMALL = 1 << 20  # rows that are permuted as a whole


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash 64-bit numbers, one to one, as SplitMix64 does (Steele, Lea, Flood 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _hash(*parts: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Hash arrays of numbers together, broadcast."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = mix(state + part.astype(np.uint64))
    return state


def uniforms(seed: int, epochs: NDArray[np.int64], indices: NDArray[np.int64], n: int) -> NDArray[np.float64]:
    """Draw ``n`` numbers from [0, 1) for each of some rows, (rows, n), by seed, epoch and index alone."""
    hashed = _hash(np.array([seed]), epochs[:, None], indices[:, None], np.arange(n))
    return (hashed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permute(positions: NDArray[np.int64], n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Find what stands at some positions of a permutation of ``n`` numbers, by seed and epoch.

    It is a Feistel network on the next power of four; what it takes beyond ``n`` is permuted again until it is not
    (cycle walking: Black and Rogaway 2002).
    """
    half = np.uint64(max(1, -(-int(n - 1).bit_length() // 2)))
    mask = np.uint64((1 << int(half)) - 1)
    keys = _hash(np.array([seed]), np.array([epoch]), np.arange(ROUNDS))
    found = positions.astype(np.uint64)
    walking = np.ones(len(found), bool)
    while walking.any():
        left, right = found[walking] >> half, found[walking] & mask
        for key in keys:
            left, right = right, left ^ (mix(right ^ key) & mask)
        found[walking] = left << half | right
        walking = found >= n
    return found.astype(np.int64)
