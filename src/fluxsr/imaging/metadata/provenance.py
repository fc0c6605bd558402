"""Provenance: state in the metadata of an output which program, model and settings made it (docs/provenance.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from xml.sax.saxutils import escape

from fluxsr.imaging.formats import Format, png
from fluxsr.imaging.metadata.xml_text import replaced
from fluxsr.imaging.metadata.xmp import NAMESPACES, items_in
from fluxsr.imaging.raster import Metadata

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
_OWN = "fluxsr"  # prefix of our own properties, and keyword of our text in a PNG
_ADDRESSES = {prefix: address for address, prefix in NAMESPACES.items()}
_EMPTY = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    f'<rdf:RDF xmlns:rdf="{_ADDRESSES["rdf"]}"></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
).encode()


def marked(found: Metadata, form: Format, made: Mapping[str, str]) -> Metadata:
    """Return the metadata of an output with a statement of what made it, in XMP and in the texts of a PNG.

    What the photograph says about its program and source stays. Our own properties describe the last run.

    Args:
        found: metadata of the output without the statement.
        form: format of the output.
        made: our own properties, among them "Version".
    """
    program = f"{_OWN} {made['Version']}"
    if form.xmp:
        found = replace(found, xmp=_with_properties(found.xmp or _EMPTY, program, made))
    if form.texts:
        texts = [chunk for chunk in found.texts if png.keyword(chunk) != _OWN]
        if all(png.keyword(chunk) != "Software" for chunk in texts):
            texts.append((b"tEXt", f"Software\0{program}".encode("latin-1")))
        line = "; ".join(f"{name}: {value}" for name, value in made.items())
        found = replace(found, texts=(*texts, (b"iTXt", f"{_OWN}\0\0\0\0\0{line}".encode())))
    return found


def _with_properties(packet: bytes, program: str, made: Mapping[str, str]) -> bytes:
    """Return an XMP packet with the properties. A packet without RDF states nothing, and is replaced."""
    items = items_in(packet)
    there = {item.name: item for item in items}
    rdf = there.get("rdf:RDF")
    if rdf is None or rdf.inside[0] == rdf.stop:  # none, or one without an end tag
        return _with_properties(_EMPTY, program, made)
    own = {f"{_OWN}:{name}": _quoted(value) for name, value in made.items()}
    added = {"xmp:CreatorTool": _quoted(program), "Iptc4xmpExt:DigitalSourceType": SOURCE_TYPE, **own}
    edits = [(*item.inside, own[item.name].encode()) for item in items if item.name in own]
    if added := {name: value for name, value in added.items() if name not in there}:
        prefixes = dict.fromkeys(name.partition(":")[0] for name in added)
        spaces = "".join(f' xmlns:{prefix}="{_ADDRESSES[prefix]}"' for prefix in prefixes)
        values = "".join(f' {name}="{value}"' for name, value in added.items())
        about = there.get("rdf:about")  # all descriptions in a packet must be about the same thing
        subject = packet[slice(*about.inside)].decode().replace('"', "&quot;") if about else ""
        description = f'<rdf:Description xmlns:rdf="{_ADDRESSES["rdf"]}" rdf:about="{subject}"{spaces}{values}/>'
        edits.append((rdf.inside[1], rdf.inside[1], description.encode()))
    return replaced(packet, edits)


def _quoted(value: str) -> str:
    return escape(value, {'"': "&quot;", "'": "&apos;"})
