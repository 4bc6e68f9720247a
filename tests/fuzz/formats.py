"""Mutations that know the other formats: pictures, zarr folders, model files, masks, YAML."""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

from tests.fuzz.mutate import (
    NUMBERS,
    WORDS,
    dump_json,
    mutate_bytes,
    mutate_json,
    strange_value,
)
from tests.fuzz.seeds import Files
from tests.fuzz.tiff import mutate_tiff

DOCUMENTS = ("zarr.json", ".zarray", ".zattrs", ".zgroup")


def mutate_tiff_file(files: Files, random: Random, seeds: list[Files]) -> Files:
    """A TIFF, by its structure or by its bytes."""
    (name, content), *_ = files.items()
    if random.random() < 0.75:
        return {name: mutate_tiff(content, random)}
    return {name: mutate_bytes(content, random, _firsts(seeds))}


def mutate_picture(files: Files, random: Random, seeds: list[Files]) -> Files:
    """A PNG by its chunks, a JPEG by its segments, a VRT as text; all by their bytes."""
    (name, content), *rest = files.items()
    kind = name.rpartition(".")[2]
    if kind == "png" and random.random() < 0.6:
        content = _mutate_png(content, random)
    elif kind == "jpg" and random.random() < 0.6:
        content = _mutate_jpeg(content, random)
    elif kind == "vrt" and random.random() < 0.7:
        content = _mutate_text(content, random)
    else:
        content = mutate_bytes(content, random, _firsts(seeds))
    return {name: content, **dict(rest)}


def _mutate_png(content: bytes, random: Random) -> bytes:
    chunks, place = [], 8
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    index = random.randrange(len(chunks))
    kind, data = chunks[index]
    how = random.random()
    if how < 0.35:
        header = bytearray(chunks[0][1])
        place, code = random.choice(
            ((0, ">I"), (4, ">I"), (8, "B"), (9, "B"), (10, "B"), (12, "B"))
        )
        number = random.choice(NUMBERS) % 2 ** (8 * struct.calcsize(code))
        struct.pack_into(code, header, place, number)
        chunks[0] = (b"IHDR", bytes(header))
    elif how < 0.5:
        chunks[index] = (kind, mutate_bytes(data, random))
    elif how < 0.65:
        added = random.choice((b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"PLTE", b"tRNS", b"acTL", b"fdAT",
                               b"IEND", b"IDAT", b"gAMA", b"eXIf", b"pHYs"))  # fmt: skip
        bomb = b"Comment\0\0" + zlib.compress(bytes(20_000_000), 9)
        data = random.choice((b"", random.randbytes(40), bomb, b"x" * 70000))
        chunks.insert(index, (added, data))
    elif how < 0.75:
        del chunks[index]
    elif how < 0.85:
        chunks.insert(random.randrange(len(chunks)), chunks.pop(index))
    else:
        zipped = zlib.compress(bytes(random.choice((0, 100, 10**7))))
        chunks = [(k, zipped if k == b"IDAT" else d) for k, d in chunks]
    parts = [content[:8]]
    for kind, data in chunks:
        sum_ = zlib.crc32(kind + data)
        parts.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", sum_))
    return b"".join(parts)


def _mutate_jpeg(content: bytes, random: Random) -> bytes:
    data, place, segments = bytearray(content), 2, []
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        segments.append(place)
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
    frames = [s for s in segments if 0xC0 <= data[s + 1] <= 0xC2]
    segment = random.choice(frames if frames and random.random() < 0.5 else segments)
    start, size = segment + 4, struct.unpack_from(">H", data, segment + 2)[0] - 2
    how = random.random()
    if segment in frames and how < 0.6:
        struct.pack_into(">H", data, start + random.choice((1, 3)), random.choice(NUMBERS) % 65536)
    elif how < 0.8 and size > 0:
        data[start + random.randrange(size)] = random.randrange(256)
    elif how < 0.9:
        del data[segment : start + size]
    else:
        struct.pack_into(">H", data, segment + 2, random.choice(NUMBERS) % 65536)
    return bytes(data)


def mutate_zarr(files: Files, random: Random, seeds: list[Files]) -> Files:
    """A zarr folder: mostly its metadata, also its chunks, and what files there are."""
    files = dict(files)
    for _ in range(random.choice((1, 1, 1, 2))):
        documents = [n for n in files if n.rpartition("/")[2] in DOCUMENTS]
        chunks = [name for name in files if name not in documents]
        how = random.random()
        if how < 0.8 or not chunks:
            name = random.choice(documents)
            files[name] = _mutate_document(files[name], random)
        elif how < 0.93:
            name = random.choice(chunks)
            files[name] = mutate_bytes(files[name], random, [files[random.choice(chunks)]])
        elif how < 0.97:
            del files[random.choice(list(files))]
            if not files:
                return {"image/nothing": b""}
        else:
            one, other = random.choice(list(files)), random.choice(list(files))
            files[one], files[other] = files[other], files[one]
    return files


def _mutate_document(content: bytes, random: Random) -> bytes:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return mutate_bytes(content, random)
    if random.random() < 0.3 and (arrays := _of_arrays(document)):
        key = random.choice(list(arrays))
        document = json.loads(json.dumps(document))
        for name, value in arrays[key](random).items():
            document[name] = value
    else:
        document = mutate_json(document, random)
    return dump_json(document, random)


def _of_arrays(document: Any) -> dict[str, Callable[[Random], dict[str, Any]]]:
    """Changes that arrays of zarr 3 and of zarr 2 are most likely to mind."""
    if not isinstance(document, dict) or "shape" not in document:
        return {}
    shape = document["shape"]
    several = len(shape) if isinstance(shape, list) else 3

    def sides(random: Random) -> list[int]:
        numbers = [random.choice((1, 2, 3, 32, *NUMBERS)) for _ in range(several)]
        return [-n for n in numbers] if random.random() < 0.05 else numbers

    changes: dict[str, Callable[[Random], dict[str, Any]]] = {
        "shape": lambda random: {"shape": sides(random)},
        "fill": lambda random: {"fill_value": strange_value(random)},
    }
    if "chunk_grid" in document:
        changes |= {
            "chunks": lambda random: {
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": sides(random)}}
            },
            "codecs": lambda random: {"codecs": _codecs(random, sides(random))},
            "dtype": lambda random: {"data_type": random.choice(_TYPES)},
        }
    else:
        changes |= {
            "chunks": lambda random: {"chunks": sides(random)},
            "codec": lambda random: {"compressor": _codec(random)},
            "filters": lambda random: {"filters": [_codec(random) for _ in range(2)]},
            "dtype": lambda random: {"dtype": random.choice(("|O", "<f2", "|u1", ">i8", "|V8", "|S4",
                                                             "<U9", "<M8[s]", "<c16", "|b1"))},
        }  # fmt: skip
    return changes


_TYPES = ("bool", "int8", "uint64", "float16", "float64", "complex64", "string", "bytes", "r16",
          "variable_length_utf8", "numpy.datetime64", "object", "structured", "float128")  # fmt: skip
_CODECS = ("bytes", "zstd", "gzip", "blosc", "crc32c", "transpose", "sharding_indexed", "vlen-utf8",
           "vlen-bytes", "numcodecs.pickle", "numcodecs.zlib", "numcodecs.lzma", "numcodecs.delta",
           "numcodecs.fixedscaleoffset", "os.system", "cast_value")  # fmt: skip


def _codecs(random: Random, sides: list[int]) -> list[Any]:
    """A chain of codecs, sharding and odd names among them."""
    inner = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if random.random() < 0.5:
        index = [*inner, {"name": random.choice(("crc32c", "zstd", "gzip"))}]
        return [{"name": "sharding_indexed", "configuration": {
            "chunk_shape": sides, "codecs": inner, "index_codecs": index,
            "index_location": random.choice(("start", "end", "middle"))}}]  # fmt: skip
    chain: list[Any] = [*inner]
    for _ in range(random.choice((1, 2, 3))):
        configuration = random.choice(
            (
                {},
                {"level": random.choice(NUMBERS)},
                {"order": sides},
                {"checksum": False, "level": 1},
            )
        )
        chain.append({"name": random.choice(_CODECS), "configuration": configuration})
    random.shuffle(chain)
    return chain


def _codec(random: Random) -> Any:
    names = ("zlib", "gzip", "bz2", "lzma", "blosc", "zstd", "lz4", "delta", "pickle", "json2",
             "msgpack2", "vlen-utf8", "categorize", "fixedscaleoffset", "astype", "packbits", "shuffle",
             "quantize", "crc32", "base64", "imagecodecs_jpeg", "os.system")  # fmt: skip
    return {"id": random.choice(names), "level": 1, "dtype": "<u1", "elementsize": 4}


def mutate_mask(files: Files, random: Random, seeds: list[Files]) -> Files:
    """A mask and what lies beside it: plan, ledger, run and record, then the arrays."""
    content_of, files = files, dict(files)
    ours = [n for n in files if "/.tilepipe/" in n or n.endswith(".run.json")]
    others_ = [n for n in files if n not in ours]
    for _ in range(random.choice((1, 1, 2))):
        name = random.choice(ours if random.random() < 0.7 else others_)
        content = files[name]
        if name.endswith("/ledger"):
            files[name] = _mutate_ledger(content, random)
        elif name.endswith("json") and random.random() < 0.9:
            files[name] = _mutate_document(content, random)
        elif name.endswith(".tif") and files[name] is content_of[name] and random.random() < 0.7:
            files[name] = mutate_tiff(content, random)
        else:
            files[name] = mutate_bytes(content, random)
    return files


def _mutate_ledger(content: bytes, random: Random) -> bytes:
    lines = content.splitlines(keepends=True)
    index = random.randrange(len(lines)) if lines else 0
    if not lines or random.random() < 0.3:
        return mutate_bytes(content, random)
    body = dump_json(mutate_json(json.loads(lines[index][9:]), random), random)
    lines[index] = b"%08x %s\n" % (zlib.crc32(body), body)
    return b"".join(lines)


def mutate_safetensors(files: Files, random: Random, seeds: list[Files]) -> Files:
    """A model file: its header, the document in it, its length, its tensors."""
    ((name, content),) = files.items()
    (length,) = struct.unpack("<Q", content[:8])
    header, tensors = json.loads(content[8 : 8 + length]), content[8 + length :]
    how = random.random()
    if how < 0.2:
        return {name: mutate_bytes(content, random, _firsts(seeds))}
    if how < 0.7:
        document = json.loads(header["__metadata__"]["tilepipe"])
        text = dump_json(mutate_json(document, random), random).decode(errors="replace")
        header["__metadata__"]["tilepipe"] = text
        head = json.dumps(header).encode()
    elif how < 0.9:
        head = dump_json(mutate_json(header, random), random)
    else:
        head, tensors = json.dumps(header).encode(), mutate_bytes(tensors, random)
    length = random.choice(NUMBERS) % 2**64 if random.random() < 0.05 else len(head)
    return {name: struct.pack("<Q", length) + head + tensors}


def mutate_onnx(files: Files, random: Random, seeds: list[Files]) -> Files:
    """An ONNX file: nodes, attributes, weights, sides, the document in its metadata."""
    import onnx

    ((name, content),) = files.items()
    if random.random() < 0.2:
        return {name: mutate_bytes(content, random, _firsts(seeds))}
    proto = onnx.ModelProto.FromString(content)
    for _ in range(random.choice((1, 1, 2, 3))):
        random.choice(_ONNX_OPERATIONS)(proto, random, onnx)
    return {name: proto.SerializeToString()}


def _onnx_node(proto: Any, random: Random, onnx: Any) -> None:
    nodes = proto.graph.node
    if not nodes:
        return
    node = random.choice(nodes)
    how = random.randrange(8)
    if how == 0:
        node.op_type = random.choice(
            ("Conv", "Relu", "MatMul", "Resize", "Loop", "If", "Scan", "Identity", "Tile", "Expand",
             "ConstantOfShape", "Range", "Pad", "RandomNormal", "Custom", "", "GridSample", "Shape",
             "NonZero", "OneHot", "Concat", "Softmax", "Transpose", "Slice", "EyeLike", "Gather")
        )  # fmt: skip
    elif how == 1:
        node.domain = random.choice(("", "evil", "ai.onnx.ml", "com.microsoft", "ai.onnx.training"))
    elif how == 2 and node.input:
        node.input[random.randrange(len(node.input))] = random.choice(
            ["", "x", "nothing", *node.output, *(t.name for t in proto.graph.initializer)]
        )
    elif how == 3:
        nodes.remove(node)
    elif how == 4:
        node.output[:] = random.choice((["y"], [], [""], ["a", "b"], list(node.input)))
    elif how == 5:
        nodes.append(node)
    elif how == 6:
        del node.input[:]
    else:
        node.attribute.append(
            onnx.helper.make_attribute(
                random.choice(
                    ("pads", "strides", "kernel_shape", "dilations", "group", "perm", "axis")
                ),
                random.choice(
                    (
                        [2**30, 2**30],
                        [0, 0],
                        [-1, -1],
                        [1] * 4,
                        [2**20] * 4,
                        2**40,
                        0,
                        -1,
                        1.5,
                        "text",
                    )
                ),
            )
        )


def _onnx_attribute(proto: Any, random: Random, onnx: Any) -> None:
    nodes = [node for node in proto.graph.node if node.attribute]
    if not nodes:
        return
    attribute = random.choice(random.choice(nodes).attribute)
    if attribute.ints:
        index = random.randrange(len(attribute.ints))
        attribute.ints[index] = random.choice((-1, 0, 1, 3, 2**16, 2**20, 2**31, 2**40, -(2**40)))
    elif random.random() < 0.5:
        attribute.i = random.choice((-1, 0, 7, 2**31, 2**62))
    else:
        attribute.type = random.randrange(15)


def _onnx_weight(proto: Any, random: Random, onnx: Any) -> None:
    weights = proto.graph.initializer
    if not weights:
        return
    tensor = random.choice(weights)
    how = random.randrange(7)
    if how == 0:
        tensor.dims[:] = random.choice(([2**40], [2**31, 2**31], [0], [-1], [1, 1], [], [3] * 9))
    elif how == 1:
        tensor.data_type = random.randrange(0, 26)
    elif how == 2:
        tensor.raw_data = mutate_bytes(tensor.raw_data, random)
    elif how == 3:
        tensor.data_location = 1
        where = random.choice(("../../../../etc/passwd", "/etc/passwd", "weights.bin", "", "\0"))
        tensor.external_data.add(key="location", value=where)
    elif how == 4:
        tensor.name = random.choice(("", "x", "y", "w0", "w1"))
    elif how == 5:
        weights.remove(tensor)
    else:
        raw = bytes(tensor.raw_data)
        if len(raw) >= 8:
            number = random.choice((-1, 0, 1, 2**16, 2**20, 2**31, 2**40, 2**62))
            tensor.raw_data = struct.pack("<q", number) + raw[8:]


def _onnx_sides(proto: Any, random: Random, onnx: Any) -> None:
    values = [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]
    if not values:
        return
    value = random.choice(values)
    tensor = value.type.tensor_type
    how = random.randrange(5)
    if how == 0 and tensor.shape.dim:
        random.choice(tensor.shape.dim).dim_value = random.choice((0, -1, 1, 188, 2**20, 2**40))
    elif how == 1:
        tensor.elem_type = random.randrange(0, 26)
    elif how == 2:
        del tensor.shape.dim[:]
    elif how == 3:
        value.name = random.choice(("", "x", "y", "z"))
    else:
        proto.graph.input.append(value)


def _onnx_document(proto: Any, random: Random, onnx: Any) -> None:
    for entry in proto.metadata_props:
        if entry.key == "tilepipe":
            try:
                document = mutate_json(json.loads(entry.value), random)
            except (ValueError, RecursionError):
                continue
            entry.value = dump_json(document, random).decode(errors="replace")


def _onnx_head(proto: Any, random: Random, onnx: Any) -> None:
    how = random.randrange(4)
    if how == 0:
        proto.ir_version = random.choice((0, -1, 1, 3, 8, 99, 2**40))
    elif how == 1 and proto.opset_import:
        proto.opset_import[0].version = random.choice((0, -1, 1, 7, 17, 99, 2**40))
    elif how == 2 and proto.opset_import:
        proto.opset_import[0].domain = random.choice(("", "evil", "ai.onnx"))
    else:
        function = proto.functions.add(name="Custom", domain="evil", input=["a"], output=["b"])
        function.opset_import.add(domain="", version=17)
        function.opset_import.add(domain="evil", version=1)
        # A function that calls itself.
        function.node.add(op_type="Custom", domain="evil", input=["a"], output=["b"])
        proto.opset_import.add(domain="evil", version=1)
        if proto.graph.node:
            node = random.choice(proto.graph.node)
            node.op_type, node.domain = "Custom", "evil"


_ONNX_OPERATIONS: tuple[Callable[[Any, Random, Any], None], ...] = (
    _onnx_node, _onnx_node, _onnx_attribute, _onnx_weight, _onnx_weight, _onnx_sides,
    _onnx_document, _onnx_document, _onnx_head,
)  # fmt: skip


def mutate_yaml(files: Files, random: Random, seeds: list[Files]) -> Files:
    """A configuration as text: values, keys, aliases, tags, nesting."""
    ((name, content),) = files.items()
    how = random.random()
    if how < 0.3:
        return {name: mutate_bytes(content, random, _firsts(seeds))}
    if how < 0.9:
        return {name: _mutate_text(content, random)}
    number = random.choice((10, 30, 200))
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, number)]
    laughs = "\n".join(lines)
    cyclic = "window: &w [*w]\nmodel: &m {m: *m}\n"
    tags = "window: !!python/object/apply:os.system ['exit 1']\n"
    deep = "window: " + "[" * random.choice((100, 5000, 100_000))
    merge = f"<<: [{', '.join(['{window: 1}'] * 1000)}]\nwindow: 188\n"
    date = "window: 2024-13-45\nmodel: 0x1F\nlevel: 1e999\nmemory: 0b1\nverify: 1_0\nthreads: 190:20:30\n"
    number_ = "window: " + "9" * random.choice((50, 5000, 100_000))
    text = random.choice((laughs, f"window: *a{number - 1}\n{laughs}", cyclic, tags, deep, merge, date,
                          f"{laughs}\nwindow: *a{number - 1}", number_))  # fmt: skip
    return {name: text.encode()}


_VALUES = (
    "0", "-1", "1e400", ".nan", ".inf", "true", "null", "~", "[]", "{}", "[1, 2]", "'x'", "2GB", "1e9TB",
    "99999999999999999999", "!!python/name:os.system", "&a [*a]", "\"\\x1b[31m\"", "2001-01-01",
    "auto", "cuda", "tcp://127.0.0.1:1", "[[[[]]]]", "- 1", "? x", "!!binary aGk=", "!!set {a}", "1:30",
    "\"\\ud800\"", "/dev/null", "../x", "http://x/", "nan", "inf", "0.25um", "1" * 400,
)  # fmt: skip


def _mutate_text(content: bytes, random: Random) -> bytes:
    """Text with a number, a word or a line of it replaced, doubled or gone."""
    text = content.decode(errors="replace")
    for _ in range(random.choice((1, 1, 2, 4))):
        found = list(re.finditer(r"-?\d+(\.\d+)?|[\w./]+|\".*?\"", text)) or [None]
        part = random.choice(found)
        how = random.random()
        if part is not None and how < 0.6:
            words = (*_VALUES, *map(str, NUMBERS), *WORDS)
            text = text[: part.start()] + random.choice(words) + text[part.end() :]
        else:
            lines = text.split("\n")
            index = random.randrange(len(lines))
            lines[index : index + 1] = random.choice(
                ([], [lines[index]] * 2, ["  " + lines[index]])
            )
            text = "\n".join(lines)
    return text.encode(errors="surrogatepass")


def _firsts(seeds: list[Files]) -> list[bytes]:
    return [next(iter(files.values())) for files in seeds]


MUTATORS: dict[str, Callable[[Files, Random, list[Files]], Files]] = {
    "tiff": mutate_tiff_file,
    "picture": mutate_picture,
    "zarr": mutate_zarr,
    "model": mutate_safetensors,
    "onnx": mutate_onnx,
    "mask": mutate_mask,
    "config": mutate_yaml,
}
"""What makes a mutant of a seed, for each family."""
