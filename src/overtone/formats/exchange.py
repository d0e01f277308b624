"""Dictionaries in and out: `import_dictionary`, `export_dictionary`, and `convert`, which is both."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overtone.core.catalogue import entries, lookup
from overtone.core.errors import CapabilityError, StoreError
from overtone.dictionaries.dictionary import Dictionary
from overtone.dictionaries.storage import load_dictionary, save_dictionary
from overtone.formats import beside
from overtone.formats.choices import Choices
from overtone.formats.format import Format
from overtone.formats.places import filled, find
from overtone.formats.plain import NO_SIGNS
from overtone.formats.translate import dictionary_of, folded, plain_of

OWN = "overtone"


@dataclass(frozen=True, eq=False)
class Imported:
    """What was read: the dictionary, the name of the format, facts (plain data such as `site`), notes for the user;
    sources: name -> fingerprint of what it was trained on, which only overtone's own folders tell."""

    dictionary: Dictionary
    format: str
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sources: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Exported:
    """What was written: the folder, the name of the format, notes on what changed form or was lost, and `exact`:
    reading it back gives the exported dictionary (its input scale folded in) bit for bit; n_latents: of what was
    written."""

    folder: Path
    format: str
    notes: tuple[str, ...] = ()
    exact: bool = True
    n_latents: int = 0


def import_dictionary(source: str | Path, format: str = "", choices: Choices | None = None) -> Imported:
    """A dictionary in any known format, in eval mode on the CPU.

    source: a local file or folder, or a hub name (org/repo, org/repo/sub/folder). format: a name of `overtone list
    formats`; "" recognises it from the files. choices: answers where the file leaves something open.
    Raises StoreError if there is no such thing or it is damaged or of no known format, SettingError where two readings
    are possible and `choices` does not choose, CapabilityError for what overtone has no part for.
    """
    place = find(source)
    known = recognise(place) if not format else _format(format)
    if known is None:
        from overtone.core.artifacts import read_manifest

        manifest = read_manifest(place, "dictionary", check_files=False)
        return Imported(load_dictionary(place), OWN, dict(manifest.facts), sources=dict(manifest.sources))
    read = known.read(place, choices or Choices())
    dictionary, kept, unused = beside.restored(known.beside(place), dictionary_of(read.plain))
    if not dictionary.origin:
        dictionary.origin = {"format": known.name, "source": str(source)}
    return Imported(dictionary, known.name, {**read.facts, **kept}, (*read.notes, *unused))


def export_dictionary(
    dictionary: Dictionary, folder: str | Path, format: str, *, facts: Mapping[str, Any] | None = None,
    split_signs: bool = False,
) -> Exported:  # fmt: skip
    """Write a dictionary into a folder in a format of `overtone list formats`; its input scale is folded in.

    facts: plain data that goes along where the format has a place for it: `site`, `target`, `model`. split_signs:
    write each signed latent as two one-sided ones (i and latents + i), which computes the same without signs. What the
    format cannot hold goes beside it, into overtone.json. Raises CapabilityError if the format cannot hold such a
    dictionary, naming the ways out, and StoreError if the folder holds something that overtone did not write.
    """
    folder, facts, dictionary = Path(folder), dict(facts or {}), _on_cpu(dictionary)
    known = _format(format)
    if split_signs and not dictionary.capabilities.signed_codes:
        raise CapabilityError(NO_SIGNS)
    if known is None:
        written = dictionary_of(plain_of(dictionary).split()) if split_signs else dictionary
        saved = save_dictionary(written, folder, facts=facts)
        return Exported(saved, OWN, _halved(dictionary, split_signs), not split_signs, written.n_latents)
    if not known.writes:
        raise CapabilityError(f"{known.name} is read, not written. Write {', '.join(writable())} instead.")
    facts.setdefault("k", (dictionary.origin.get("settings") or {}).get("k"))
    model = folded(dictionary)
    plain = plain_of(model).split() if split_signs else plain_of(model)
    if plain.rows and not known.rowwise:
        raise CapabilityError(
            f"this dictionary normalises each row by itself, and {known.name} has no way to say so. Use saelens, or "
            "keep it with --to overtone."
        )
    with filled(folder, collects=known.collects, ours="overtone.json") as part:
        notes = known.write(plain, part, facts)
        files = [path for path in part.iterdir() if path.suffix != ".yaml"]
        back = dictionary_of(known.read(part, _AS_WRITTEN).plain)
        exact = beside.keep(known.beside(part), model, facts, files, back)
    notes = (*_halved(dictionary, split_signs), *notes)
    return Exported(folder, known.name, notes, exact, plain.n_latents)


def _halved(dictionary: Dictionary, split_signs: bool) -> tuple[str, ...]:
    """The note that says what became of signed latents."""
    n = dictionary.n_latents
    return (f"latent i was written as two one-sided ones, i and {n} + i: {2 * n} latents",) if split_signs else ()


_AS_WRITTEN = Choices(unit_rows=False)


def convert(
    source: str | Path, folder: str | Path, to: str, *, format: str = "", choices: Choices | None = None,
    facts: Mapping[str, Any] | None = None, split_signs: bool = False,
) -> tuple[Imported, Exported]:  # fmt: skip
    """Read `source` and write it into `folder` in the format `to`. Arguments and errors as for the two functions above;
    `facts` add to, and take precedence over, those that the source holds. Raises StoreError too if the folder is the
    source, which would be lost."""
    place, folder = find(source), Path(folder)
    if folder.is_dir() and folder.samefile(place):
        raise StoreError(f"{folder} is what is read; writing there would replace it. Name another folder.")
    read = import_dictionary(source, format, choices)
    facts = {**read.facts, **(facts or {})}
    return read, export_dictionary(read.dictionary, folder, to, facts=facts, split_signs=split_signs)


def _on_cpu(dictionary: Dictionary) -> Dictionary:
    """The dictionary, or a copy of one that is elsewhere."""
    here = all(tensor.device.type == "cpu" for tensor in dictionary.state_dict().values())
    return dictionary if here else copy.deepcopy(dictionary).cpu()


def recognise(place: Path) -> Format | None:
    """The format of a file or folder, None for overtone's own. Raises StoreError if it has none, with a hint."""
    if place.is_dir() and (place / "dictionary.json").is_file():
        return None
    known = [entry.thing() for entry in entries("formats").values()]
    found = [format for format in known if format.recognises(place)]
    if len(found) == 1:
        return found[0]
    if found:
        raise StoreError(f"{place} looks like {' and '.join(f.name for f in found)}. Name the format (--from).")
    if place.is_file():
        raise StoreError(f"{place} is of no format that overtone reads. It reads {', '.join(f.name for f in known)}.")
    inner = sorted(p.name for p in place.iterdir() if p.is_dir() and any(f.recognises(p) for f in known))
    there = sorted(p.name for p in place.iterdir())
    hint = f"Folders in it are: name one, such as {place}/{inner[0]}." if inner else f"It holds {', '.join(there[:6])}."
    raise StoreError(f"{place} is no dictionary in a known format ({', '.join(f.name for f in known)}). {hint}")


def writable() -> list[str]:
    """Names of the formats that can be written."""
    return [OWN, *(name for name, entry in entries("formats").items() if entry.thing.writes)]


def _format(name: str) -> Format | None:
    return None if name == OWN else lookup("formats", name).thing()
