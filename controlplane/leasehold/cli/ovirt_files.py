"""Reads what an oVirt engine's REST API answers about MAC pools, data centers, clusters and VMs, as JSON or XML.

Both have the same names (oVirt's API model, types MacPool, DataCenter, Cluster, Vm, Nic): `/macpools` answers
`mac_pools` of `mac_pool`, `/vms?follow=nics` `vms` of `vm` with `nics` of `nic`. XML has ids as attributes, JSON has
`"true"` and `"false"` for booleans, and leaves the outer name of a list out. A file may be one such answer, or an
object or element with several of them.
"""

import json
from collections.abc import Iterator
from typing import Any
from xml.parsers import expat

from leasehold.cli.arguments import checked, checked_id
from leasehold.domain.values import ScopeKind, VnicSpec
from leasehold.errors import FieldInvalid
from leasehold.service.ovirt import Engine, EnginePool, EngineScope
from leasehold.web.mac_pools import MacPoolIn
from leasehold.web.vnics import NamedVnicIn

_KINDS: dict[str, ScopeKind] = {"data_center": "data_center", "cluster": "cluster"}
_ABOVE = {"cluster": "data_center"}
_DEEPEST = 64

Node = dict[str, Any]
"""A JSON object, or an XML element with its attributes, and its children as lists by name."""


def read(content: bytes, name: str) -> Engine:
    """What is in the file of this name. Raises FieldInvalid for what is no such answer, or holds nothing of use."""
    root = _parse(content.removeprefix(b"\xef\xbb\xbf").lstrip(), name)
    pools = tuple(_pool(each, name) for each in _collection(root, "mac_pools", "mac_pool", name))
    scopes = tuple(
        EngineScope(
            kind=kind,
            id=_id(each, word, name),
            parent=_link(each, _ABOVE[word], name) if word in _ABOVE else None,
            mac_pool=_link(each, "mac_pool", name),
        )
        for word, kind in _KINDS.items()
        for each in _collection(root, f"{word}s", word, name)
    )
    vms = list(_collection(root, "vms", "vm", name))
    if not pools and not scopes and not vms:
        raise _invalid(name, "it has no mac_pool, cluster, data_center or vm. Save what the engine's API answers")
    if vms and not any("nics" in each for each in vms):
        raise _invalid(name, "its VMs come without their NICs. Ask the engine for /vms?follow=nics")
    return Engine(mac_pools=pools, scopes=scopes, nics=tuple(nic for vm in vms for nic in _nics(vm, name)))


def joined(engines: list[Engine]) -> Engine:
    """What several files say together."""
    return Engine(
        mac_pools=tuple(each for engine in engines for each in engine.mac_pools),
        scopes=tuple(each for engine in engines for each in engine.scopes),
        nics=tuple(each for engine in engines for each in engine.nics),
    )


def _parse(content: bytes, name: str) -> Node:
    try:
        root = _xml(content, name) if content.startswith(b"<") else json.loads(content)
    except expat.ExpatError as error:
        raise _invalid(name, f"it is not XML: {error}") from None
    except (ValueError, LookupError, RecursionError) as error:
        raise _invalid(name, f"it is neither JSON nor XML: {error}") from None
    if not isinstance(root, dict):
        raise _invalid(name, "it is no JSON object, and no XML element with others in it")
    return root


def _xml(content: bytes, name: str) -> object:
    """The root element. Any DOCTYPE is refused: entities are declared there, and the engine never sends one."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    top: Node = {}
    open_elements: list[Node] = [top]
    texts: list[str] = [""]

    def begin(tag: str, attributes: dict[str, str]) -> None:
        if len(open_elements) > _DEEPEST:
            raise _invalid(name, f"its elements are nested deeper than {_DEEPEST}")
        open_elements.append(dict(attributes))
        texts.append("")

    def end(tag: str) -> None:
        node, text = open_elements.pop(), texts.pop().strip()
        siblings = open_elements[-1].setdefault(tag, [])
        if not isinstance(siblings, list):
            raise _invalid(name, f"{tag} is both an attribute and an element")
        siblings.append(node or text)

    def read_text(text: str) -> None:
        texts[-1] += text

    def refuse(*_declaration: object) -> None:
        raise _invalid(name, "it has a DOCTYPE, which is refused. Save the engine's answer as it came")

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = read_text, refuse
    parser.Parse(content, True)
    (root,) = top.values()
    return root[0]


def _children(node: Node, word: str) -> list[Any]:
    """JSON has one as itself and several as a list; XML always has a list."""
    value = node.get(word)
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _collection(node: Node, words: str, word: str, name: str) -> Iterator[Node]:
    """The items of a list, with its outer name or without."""
    found = _children(node, word)
    for outer in _children(node, words):
        if isinstance(outer, dict):
            found = found + (_children(outer, word) if "id" not in outer else [outer])
    for each in found:
        if not isinstance(each, dict):
            raise _invalid(name, f"{word}: {each!r} is no object with fields")
        yield each


def _text(node: Node, word: str, name: str) -> str:
    """A field's text; empty if there is none."""
    values = _children(node, word)
    if not values:
        return ""
    if len(values) > 1 or isinstance(values[0], dict | list):
        raise _invalid(name, f"{word}: {values!r} is not one text")
    return str(values[0])


def _flag(node: Node, word: str, name: str) -> bool:
    text = _text(node, word, name).lower()
    if text not in ("", "true", "false"):
        raise _invalid(name, f"{word}: {text!r} is neither true nor false")
    return text == "true"


def _id(node: Node, word: str, name: str) -> str:
    text = _text(node, "id", name)
    if not text:
        raise _invalid(name, f"a {word} has no id")
    return checked_id(text, name, word, "id")


def _link(node: Node, word: str, name: str) -> str | None:
    """The id of what a field refers to; None if it refers to nothing."""
    links = [each for each in _children(node, word) if isinstance(each, dict)]
    return _id(links[0], word, name) if links else None


def _pool(node: Node, name: str) -> EnginePool:
    pool_id = _id(node, "mac_pool", name)
    ranges = [
        {"from": _text(each, "from", name), "to": _text(each, "to", name)}
        for outer in _children(node, "ranges")
        if isinstance(outer, dict)
        for each in _collection(outer, "ranges", "range", name)
    ]
    body = checked(
        MacPoolIn,
        {
            "name": _text(node, "name", name),
            "description": _text(node, "description", name),
            "allow_duplicates": _flag(node, "allow_duplicates", name),
            "default_pool": _flag(node, "default_pool", name),
            "ranges": tuple(ranges),
        },
        name,
        "mac_pools",
        pool_id,
    )
    return EnginePool(
        id=pool_id,
        name=body.name,
        description=body.description,
        allow_duplicates=body.allow_duplicates,
        default_pool=body.default_pool,
        ranges=tuple(each.value() for each in body.ranges),
    )


def _nics(vm: Node, name: str) -> Iterator[VnicSpec]:
    vm_id = _id(vm, "vm", name)
    vm_name = _text(vm, "name", name) or vm_id
    lists = [each for each in _children(vm, "nics") if isinstance(each, dict)]
    for nic in (each for outer in lists for each in _collection(outer, "nics", "nic", name)):
        mac = next((_text(each, "address", name) for each in _children(nic, "mac") if isinstance(each, dict)), "")
        fields = {
            "id": _id(nic, "nic", name),
            "vm": vm_name,
            "name": _text(nic, "name", name) or "nic",
            "cluster": _link(vm, "cluster", name),
            "vm_pool": _link(vm, "vm_pool", name),
            "mac": mac or None,
        }
        body = checked(NamedVnicIn, fields, name, "vms", vm_name, "nics", fields["id"] or "")
        yield body.spec(body.id)


def _invalid(name: str, why: str) -> FieldInvalid:
    return FieldInvalid(f"{name}: {why}.", field=name)
