"""Which files are the shards of a data set: a folder, a pattern with * and {000..099}, and what lies in the name of each part.

Reading order: find_shards, _of_folder, _of_pattern, _refuse_gaps.
"""

import re
from collections import defaultdict
from glob import glob, has_magic
from pathlib import Path

from firstlight.data.places import missing
from firstlight.errors import ConfigError, DataError

PART_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test", "testing": "test"}
"""The words that stand for a part in the name of a shard or of a folder."""
MAX_SHARDS = 100_000
_WORD = re.compile(r"[a-z]+")
_OF = re.compile(r"(?<!\d)(\d+)-of-(\d+)(?!\d)")
_NUMBER = re.compile(r"(?<!\d)(\d+)(?=\D*$)")

Shards = dict[str, list[Path]]
"""The files of each part, in their order."""


def find_shards(path: str, data_dir: Path, *, suffix: str, others: dict[str, str | None]) -> Shards:
    """Return the shards of each part that there is.

    path: a folder with the shards, or with a folder for each part; or a pattern, which {part} makes one for each part, and which names the
    training part alone otherwise. others: patterns or folders of further parts. A relative path is tried from the working directory, then
    from the data folder. Raises DataError for a shard that is missing among others, ConfigError for a pattern that is none.
    """
    if "{part}" in path:
        parts = {
            part: _of_pattern(path.replace("{part}", part), data_dir, suffix, required=part == "train") for part in ("train", "val", "test")
        }
    elif (folder := _folder(path, data_dir)) is not None:
        parts = _of_folder(folder, suffix)
    else:
        files = _of_pattern(path, data_dir, suffix)
        parts = _by_name({file: file.stem for file in files}, path) if has_magic(path) else {"train": files}
    for part, other in others.items():
        if other is not None:
            folder = _folder(other, data_dir)
            parts[part] = _of_pattern(other, data_dir, suffix) if folder is None else _inside(folder, suffix)
            if not parts[part]:
                raise DataError(f"{folder} holds no {suffix} files; correct data.{part}_path")
    return {part: [file.resolve() for file in files] for part, files in parts.items() if files}


def expand(pattern: str) -> list[str]:
    """Return what a pattern with braces stands for, as a shell has it: {a,b}, {000..099}, {000..041,043..099}."""
    found = [""]
    for number, piece in enumerate(re.split(r"\{([^{}]*)\}", pattern)):
        choices = _choices(piece, pattern) if number % 2 else [piece]
        if len(found) * len(choices) > MAX_SHARDS:
            raise ConfigError(f"{pattern!r} names more than {MAX_SHARDS:,} shards; that many are not read")
        found = [begun + choice for begun in found for choice in choices]
    if "{" in found[0] or "}" in found[0]:
        raise ConfigError(f"{pattern!r} has a brace too many; write a range as train-{{000..099}}.tar")
    return found


def _choices(inside: str, pattern: str) -> list[str]:
    choices: list[str] = []
    for item in inside.split(","):
        numbers = re.fullmatch(r"(\d{1,12})\.\.(\d{1,12})", item)
        if numbers is None and ".." in item:
            raise ConfigError(f"{pattern!r}: {{{item}}} is no range of numbers; write one as {{000..099}}")
        if numbers is None:
            choices.append(item)
            continue
        first, last = (int(number) for number in numbers.groups())
        if last < first or last - first >= MAX_SHARDS:
            raise ConfigError(f"{pattern!r}: {{{item}}} is no range of at most {MAX_SHARDS:,} numbers; write one as {{000..099}}")
        choices += [str(number).zfill(len(numbers[1])) for number in range(first, last + 1)]
    return choices


def part_named(name: str) -> str | None:
    """Return the part that a name speaks of, such as `val` for imagenet-validation-00003-of-00010.parquet; None where it names none."""
    found = {PART_NAMES[word] for word in _WORD.findall(name.lower()) if word in PART_NAMES}
    return found.pop() if len(found) == 1 else None


def _folder(path: str, data_dir: Path) -> Path | None:
    """Return the folder at a path, or None where it is no folder."""
    given = Path(path).expanduser()
    return next((folder for folder in (given, data_dir / given) if folder.is_dir()), None)


def _inside(folder: Path, suffix: str) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.name.endswith(suffix) and not path.name.startswith(".") and path.is_file())
    _refuse_gaps(files)
    return files


def _of_folder(folder: Path, suffix: str) -> Shards:
    """Return the parts in a folder: by the names of its folders, else by those of its files; without any, all is the training part."""
    files = _inside(folder, suffix)
    below = {path: _inside(path, suffix) for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")}
    below = {path: shards for path, shards in below.items() if shards}
    if not files and len(below) == 1 and not part_named(next(iter(below)).name):
        return _of_folder(next(iter(below)), suffix)  # such as the data/ of a repository
    if not files and not below:
        raise DataError(f"{folder} holds no {suffix} files; name the folder or the pattern of the shards with data.path")
    names = {path: path.stem for path in files} or {path: inside.name for inside, shards in below.items() for path in shards}
    return _by_name(names, folder)


def _by_name(names: dict[Path, str], where: Path | str) -> Shards:
    """Return files by the part that the name of each speaks of; where none names one, all are the training part."""
    named = {path: part_named(name) for path, name in names.items()}
    parts: Shards = defaultdict(list)
    for path, part in named.items():
        if part is None and any(named.values()):
            raise DataError(
                f"{where}: {path.name} names no part (train, val or test) as others do; rename it, or leave it out of data.path"
            )
        parts[part or "train"].append(path)
    if "train" not in parts:
        raise DataError(f"{where} has no training shards, only {', '.join(parts)}; name them with data.path")
    return parts


def _of_pattern(pattern: str, data_dir: Path, suffix: str, *, required: bool = True) -> list[Path]:
    """Return the files that a pattern stands for, from the working directory, else from the data folder."""
    if ":" in pattern.split("/")[0][2:]:
        raise ConfigError(f"{pattern!r} lies on the network or is a pipe; copy the shards to a disk and name them there")
    given, names = Path(pattern).expanduser(), []
    for base in (given, data_dir / given):
        names = expand(str(base))
        found = [path for name in names for path in _matches(name)]
        if any(path.exists() for path in found):
            break
    else:
        if not required:
            return []
        raise missing(f"every shard of {pattern!r}", [Path.cwd(), data_dir], "correct data.path")
    absent = [path for path in found if not path.is_file()]
    if absent:
        raise _absent(absent, len(found))
    if wrong := next((path for path in found if not path.name.endswith(suffix)), None):
        raise DataError(f"{wrong} is no {suffix} file; correct data.path")
    if any(map(has_magic, names)):
        _refuse_gaps(found)
    return found


def _matches(name: str) -> list[Path]:
    return [Path(path) for path in sorted(glob(name))] if has_magic(name) else [Path(name)]  # noqa: PTH207  # of absolute paths too


def _absent(paths: list[Path], total: int) -> DataError:
    """Return the error for shards that are not there, with the pattern that leaves them out."""
    others = f" ({len(paths):,} of {total:,} shards are)" if len(paths) > 1 else f" ({total:,} shards belong together)"
    pattern = _NUMBER.sub("{000..041,043..099}", paths[0].stem, count=1)
    example = "" if _OF.search(paths[0].stem) else f", or name those that are there, such as {pattern}{paths[0].suffix}"
    return DataError(f"{paths[0]} is missing{others}; put it back{example}")


def _refuse_gaps(files: list[Path]) -> None:
    """Raise DataError where the numbers in the names of files say that one of them is missing."""
    families: dict[tuple[str, str, int], dict[int, Path]] = defaultdict(dict)
    for path in files:
        place = _OF.search(path.stem) or _NUMBER.search(path.stem)
        if place is not None:
            total = int(place[2]) if place.re is _OF else 0
            behind = "" if total else path.name[place.end(1) :]  # behind the total each may have a hash of its own
            families[path.name[: place.start(1)], behind, total][int(place[1])] = path
    for (before, behind, total), found in families.items():
        first = min(found)
        wanted = range(first if first < 2 else 0, (first if first < 2 else 0) + total) if total else range(first, max(found) + 1)
        if len(wanted) > min(2 * len(found), MAX_SHARDS) and not total:  # with more gaps than files these are no numbers of shards
            continue
        width = min(len(path.stem[len(before) :].split("-")[0]) for path in found.values()) if total else 0
        width = width or min(len(path.name) - len(before) - len(behind) for path in found.values())
        ending = f"-of-{str(total).zfill(width)}{next(iter(found.values())).suffix}" if total else behind
        lacking = [number for number in wanted[:MAX_SHARDS] if number not in found]
        if lacking:
            parent = next(iter(found.values())).parent
            raise _absent([parent / f"{before}{str(number).zfill(width)}{ending}" for number in lacking], len(wanted))
