"""What is in each shard, found once and kept in the cache: labels, and where the images lie. Names are not kept; a fault finds its own.

An entry of the cache belongs to a path and to how it is read, and counts for as long as the file is the same.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from firstlight.data.stored import Identity, Rows, identity_of
from firstlight.errors import DataError, StorageError
from firstlight.files import cache_dir, make_dir, sha256, write_bytes

VERSION = 1


@dataclass(frozen=True, eq=False)
class ShardIndex:
    """labels: int64 [N], NO_LABEL where a sample has none. places: int64 [M, K], what the reader of this kind of shard needs.

    about: what else the shard says, such as the names of the classes.
    """

    path: Path
    identity: Identity
    labels: Rows
    places: Rows
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.labels)


Contents = tuple[int, int, Rows, list[Any]]
"""Rows before, number of the shard, rows in the shard, and the bytes of each image."""
Look = Callable[[Sequence[Path]], Iterator[tuple[Rows, Rows, dict[str, Any]]]]
"""Yields labels, places and the rest of shards, one after the other."""


def index_shards(paths: Sequence[Path], look: Look, how: list[Any]) -> list[ShardIndex]:
    """Return what is in the shards, looking into those alone that the cache does not know.

    how: the settings that decide what is found. Raises DataError that names the shard and what is wrong with it.
    """
    identities = {path: identity_of(path) for path in paths}
    folder = cache_dir() / "shards"
    entries = {path: folder / f"{sha256(json.dumps([VERSION, str(path), how]).encode())[:32]}.bin" for path in paths}
    found = {path: index for path in paths if (index := _read(entries[path], path, identities[path])) is not None}
    unknown = [path for path in paths if path not in found]
    for path, (labels, places, about) in zip(unknown, look(unknown), strict=True):
        if not len(labels):
            raise DataError(f"{path} holds no images; leave it out, or make it anew")
        found[path] = ShardIndex(path, identities[path], labels, places, about)
        if identity_of(path) != identities[path]:
            raise DataError(f"{path} changed while it was looked at; wait until it is written, and start again")
        with suppress(StorageError):
            make_dir(folder)
            write_bytes(entries[path], _packed(found[path]))
    return [found[path] for path in paths]


def _packed(index: ShardIndex) -> bytes:
    arrays = index.labels.astype("<i8").tobytes() + index.places.astype("<i8").tobytes()
    facts = {"identity": index.identity, "num": len(index), "shape": index.places.shape, "about": index.about}
    header = json.dumps(facts | {"checksum": sha256(json.dumps(facts).encode() + arrays)})
    return header.encode() + b"\n" + arrays


def _read(entry: Path, path: Path, identity: Identity) -> ShardIndex | None:
    """Return what an entry of the cache holds whole and of this file; anything else is found again."""
    try:
        header, _, arrays = entry.read_bytes().partition(b"\n")
        facts = json.loads(header)
        if sha256(json.dumps({key: facts[key] for key in ("identity", "num", "shape", "about")}).encode() + arrays) != facts["checksum"]:
            return None
        labels, places = np.frombuffer(arrays, "<i8", facts["num"]), np.frombuffer(arrays, "<i8", offset=facts["num"] * 8)
        index = ShardIndex(path, tuple(facts["identity"]), labels, places.reshape(facts["shape"]), facts["about"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return index if index.identity == identity else None
