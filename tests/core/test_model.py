"""Reading loses nothing and touches no weight; writing is whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

from optimizer.core import model as edge
from optimizer.core import region, wire
from optimizer.core.errors import BadInput, GraphwrightError, ToolFailure
from optimizer.core.graph import Model, check, lower
from optimizer.core.model import graph_hash, read, to_proto, weights, write
from optimizer.core.tensor import Tensor

STORED = sorted(Path(onnx.__file__).parent.glob("backend/test/data/**/*.onnx"))


def weighty(rows: int = 1024, layers: int = 3, seed: int = 0) -> ModelProto:
    """y = x·W₀·W₁·…·C, with `layers` + 1 weights of rows² float32, one of them a Constant, and a small bias."""
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((rows, rows), dtype=np.float32) for _ in range(layers + 1)]
    names = [f"v{i}" for i in range(layers)]
    nodes = [helper.make_node("MatMul", [a, f"w{i}"], [b]) for i, (a, b) in enumerate(zip(["x", *names], names))]
    nodes += [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(weights[-1])),
        helper.make_node("MatMul", [names[-1], "c"], ["p"]),
        helper.make_node("Add", ["p", "bias"], ["y"]),
    ]
    inits = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights[:-1])]
    inits.append(numpy_helper.from_array(np.ones(1, np.float32), "bias"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", rows])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", rows])
    graph = helper.make_graph(nodes, "g", [x], [y], inits)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single file of 16 MiB, above the size from which files are split."""
    path = tmp_path_factory.mktemp("big") / "big.onnx"
    path.write_bytes(weighty().SerializeToString())
    assert path.stat().st_size > edge.WHOLE
    return path


def loaded(path: Path) -> ModelProto:
    """What onnx loads, without the field data_location that it leaves behind where data was external."""
    proto = onnx.load(path)
    for g in _graphs(proto.graph):
        for t in (*g.initializer, *(a.t for n in g.node for a in n.attribute if a.HasField("t"))):
            t.ClearField("data_location")
    return proto


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def listing(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ── reading and writing loses nothing ─────────────────────────────────────────────────────────────────────────────────


def mark_all_changed(m: Model) -> None:
    """Every node as if a rewrite had touched it: its proto is dropped, so that all of it is written anew."""
    for g in m.graphs():
        g.touched = True
    for n in m.nodes():
        assert n.attributes is not None
        if not n.bodies:
            n.proto = None
        n.dirty = True


def same_but_for_what_a_node_says_of_itself(a: ModelProto, b: ModelProto) -> bool:
    """Equal protos, but a node that was written anew has no documentation and no empty name or domain."""
    for p in (a, b):
        for n in (n for g in _graphs(p.graph) for n in g.node):
            n.ClearField("doc_string")
            n.ClearField("metadata_props")
            if n.domain in ("", "ai.onnx"):
                n.ClearField("domain")
            if not n.name:
                n.ClearField("name")
            for x in n.attribute:
                x.ClearField("doc_string")
    return a == b


def _graphs(g: Any) -> list[Any]:
    inner = [x for n in g.node for a in n.attribute for x in ([a.g] if a.HasField("g") else list(a.graphs))]
    return [g, *(y for x in inner for y in _graphs(x))]


def test_node_tests_of_onnx(node_cases: list[Any]) -> None:
    count = 0
    for case in node_cases:
        data = case.model.SerializeToString()
        if case.model.opset_import[0].version < 7:
            continue
        m = read(data)
        check(m)
        assert lower(m).SerializeToString() == data, case.name
        mark_all_changed(m)
        assert same_but_for_what_a_node_says_of_itself(lower(m), ModelProto.FromString(data)), case.name
        count += 1
    assert count > 1500


def test_stored_models_of_onnx(tmp_path: Path) -> None:
    """Old ones are refused with directions; all the same, what is refused would have come back whole."""
    read_, old = 0, 0
    for path in STORED:
        proto = onnx.load(path, load_external_data=False)
        try:
            m = read(path)
            read_ += 1
        except BadInput as e:
            assert "opset" in e.what and str(path) in str(e)
            m = edge.lift(proto)
            old += 1
        check(m)
        assert lower(m).SerializeToString() == proto.SerializeToString(), path
        [written] = write(m, tmp_path / f"{read_}-{old}.onnx")
        assert written.read_bytes() == proto.SerializeToString()
    assert read_ > 30 and old > 100


def test_a_large_single_file_comes_back_byte_for_byte(big: Path, tmp_path: Path) -> None:
    m = read(big)
    assert sum(t.region is not None for _, t in edge._tensors(m)) == 4
    [out] = write(m, tmp_path / "out.onnx")
    assert out.read_bytes() == big.read_bytes()
    assert to_proto(m) == onnx.load(big)
    mark_all_changed(m)
    assert same_but_for_what_a_node_says_of_itself(to_proto(m), onnx.load(big))


def test_every_way_to_hand_in_a_model_reads_the_same(big: Path, tmp_path: Path) -> None:
    proto = onnx.load(big)
    before = proto.SerializeToString()
    import onnx_ir

    class ONNXProgram:
        model_proto = proto

    class PathLike:
        def __fspath__(self) -> str:
            return str(big)

    data = big.read_bytes()
    for source in (big, str(big), PathLike(), data, bytearray(data), memoryview(data), proto, ONNXProgram()):
        m = read(source)
        assert graph_hash(m) == graph_hash(read(big))
        assert to_proto(m).SerializeToString() == before
        for n in list(m.graph)[:1]:
            n.dirty = True
    assert proto.SerializeToString() == before, "the caller's proto is as it was"
    onnx.save(onnx.load(big), tmp_path / "e.onnx", save_as_external_data=True, location="e.data")
    for ir in (onnx_ir.from_proto(proto), onnx_ir.load(tmp_path / "e.onnx")):
        got = to_proto(read(ir)).graph
        assert [t.raw_data for t in got.initializer] == [t.raw_data for t in proto.graph.initializer]
        assert [n.output for n in got.node] == [n.output for n in proto.graph.node]


def test_a_model_lives_without_the_object_it_came_from(big: Path) -> None:
    data = bytearray(big.read_bytes())
    m = read(data)
    want = graph_hash(m), hashlib.sha256(to_proto(m).SerializeToString()).hexdigest()
    data[:] = bytes(len(data))
    del data
    assert (graph_hash(m), hashlib.sha256(to_proto(m).SerializeToString()).hexdigest()) == want


def test_ordinary_objects_are_not_imported_for() -> None:
    code = "import sys; from optimizer.core.model import read; print('onnx_ir' in sys.modules, 'torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "False"]


# ── external data ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_external_data_round_trip(big: Path, tmp_path: Path) -> None:
    single = read(big)
    path, data = write(single, tmp_path / "out.onnx", external=True)
    assert (path.name, data.name) == ("out.onnx", "out.onnx.data")
    assert loaded(path) == onnx.load(big)
    onnx.checker.check_model(path)
    for t in onnx.load(path, load_external_data=False).graph.initializer:
        where = {e.key: e.value for e in t.external_data}
        assert where == {} if t.name == "bias" else where["location"] == data.name and int(where["offset"]) % 4096 == 0
    m = read(path)
    assert m.source is not None and [f.path for f in m.source.external] == [data]
    assert to_proto(m) == onnx.load(big) and graph_hash(m) == graph_hash(single)
    again = write(m, tmp_path / "again" / "out.onnx") if (tmp_path / "again").mkdir() is None else []
    assert [digest(p) for p in again] == [digest(path), digest(data)], "external stays external; same bytes"
    [inlined] = write(m, tmp_path / "single.onnx", external=False)
    assert inlined.read_bytes() == big.read_bytes()


def test_small_weights_go_inside_and_equal_regions_are_written_once(tmp_path: Path) -> None:
    data = np.arange(700, dtype=np.float32).tobytes()
    (tmp_path / "data.bin").write_bytes(data)
    proto = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[n] x) => (float[n] y) { y = Sum(x, a, b, s, l) }')  # fmt: skip
    for name, offset, n in (("a", 0, 600), ("b", 0, 600), ("s", 40, 3), ("l", 400, 600)):
        t = proto.graph.initializer.add(name=name, dims=[n], data_type=1, data_location=TensorProto.EXTERNAL)
        t.external_data.extend(region.reference("data.bin", offset, n * 4))
    (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
    m = read(tmp_path / "in.onnx")
    path, out = write(m, tmp_path / "out.onnx")
    assert out.stat().st_size == 2432 + 2400, "a and b share their bytes, l begins at the next multiple of 64"
    tensors = {t.name: t for t in onnx.load(path, load_external_data=False).graph.initializer}
    assert tensors["s"].raw_data == data[40:52] and not tensors["s"].external_data
    assert to_proto(read(path)) == to_proto(m)


def test_new_and_small_file_weights_can_be_external_too(tmp_path: Path) -> None:
    proto = weighty(rows=32)
    m = read(proto)
    v = next(iter(m.graph.initializers))
    v.tensor = Tensor.of(np.full((32, 32), 7, np.float32))
    path, _ = write(m, tmp_path / "out.onnx", external=True)
    got = loaded(path).graph
    assert np.all(numpy_helper.to_array(got.initializer[0]) == 7)
    assert got.initializer[1] == proto.graph.initializer[1]
    assert got.node[3].attribute[0].t == proto.graph.node[3].attribute[0].t


def test_new_weights_spill_and_are_written(big: Path, tmp_path: Path) -> None:
    m = read(big)
    v = next(iter(m.graph.initializers))
    fresh = np.random.default_rng(5).standard_normal((1024, 1024)).astype(np.float16)
    v.tensor = Tensor.of(fresh)
    assert (
        v.tensor.region is not None and np.array_equal(v.tensor.numpy(), fresh) and not v.tensor.numpy().flags.writeable
    )
    [out] = write(m, tmp_path / "out.onnx")
    assert np.array_equal(numpy_helper.to_array(onnx.load(out).graph.initializer[0]), fresh)
    row = weights(m)[0]
    assert row["file"] is None and row["sha256"] == hashlib.sha256(fresh.tobytes()).hexdigest()


def test_new_weights_of_every_dtype_spill_unchanged() -> None:
    rng = np.random.default_rng(1)
    for dtype in (np.float32, np.float64, np.int8, np.bool_, np.complex64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        array = rng.integers(0, 2, (3, 1 << 20)).astype(dtype)
        for a in (array, array.T, array[:, ::-1]):
            t = Tensor.of(a)
            assert t.region is not None and t.numpy().dtype == a.dtype and t.shape == a.shape
            assert np.array_equal(t.numpy().view(np.uint8), np.ascontiguousarray(a).view(np.uint8))


def test_a_full_scratch_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    spilled = Tensor.of(np.ones(1 << 20, np.float32))
    assert spilled.region is not None

    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ToolFailure, match="No space left on device") as e:
        Tensor.of(np.zeros(1 << 20, np.float32))
    assert "TMPDIR" in (e.value.fix or "")
    assert np.all(spilled.numpy() == 1)


def test_a_disk_that_fails_while_reading(big: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", fails)
    with pytest.raises(ToolFailure, match="Input/output error") as e:
        read(big)
    assert e.value.at == str(big)


# ── hashes and rows ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_graph_hash_is_of_the_graph_and_not_of_its_weights(big: Path) -> None:
    h = graph_hash(read(big))
    assert h.startswith("sha256:") and len(h) == 71
    assert graph_hash(read(weighty(seed=1))) == h, "other weights"
    assert graph_hash(read(weighty(rows=1000))) != h, "other dims"
    other = weighty()
    other.graph.initializer[-1].raw_data = np.full(1, 2, np.float32).tobytes()
    assert graph_hash(read(other)) != h, "a small constant is part of the graph"
    code = f"from optimizer.core.model import *; print(graph_hash(read({str(big)!r})))"
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=env).strip() == h


def test_rows_say_where_weights_lie(big: Path, tmp_path: Path) -> None:
    rows = weights(read(big))
    assert [r["name"] for r in rows] == ["w0", "w1", "w2", "c"], "bias is too small"
    data = big.read_bytes()
    for r, full in zip(rows, weights(read(big), full=True)):
        assert r["file"] == "big.onnx" and r["length"] == 4 << 20 and r["mtime_ns"] == big.stat().st_mtime_ns
        assert "sha256" not in r
        assert full["sha256"] == hashlib.sha256(data[r["offset"] : r["offset"] + r["length"]]).hexdigest()
    path, _ = write(read(big), tmp_path / "out.onnx", external=True)
    external = weights(read(path), full=True)
    assert {r["file"] for r in external} == {"out.onnx.data"}
    assert [r["sha256"] for r in external] == [r["sha256"] for r in weights(read(big), full=True)]
    assert [r["sha256"] for r in weights(read(data))] == [r["sha256"] for r in external], "in memory: by content"


# ── whole or not at all ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_can_be_written_over_the_file_it_is_mapped_from(big: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(big.read_bytes())
    m = read(path)
    with pytest.raises(BadInput, match="exists already"):
        write(m, path)
    assert write(m, path, force=True) == [path]
    assert path.read_bytes() == big.read_bytes()
    write(m, path, force=True, external=True)
    assert loaded(path) == onnx.load(big), "the old file lives on as long as the model that was read from it"
    assert listing(tmp_path) == ["model.onnx", "model.onnx.data"]


def test_data_beside_the_output_is_not_taken_over_unasked(big: Path, tmp_path: Path) -> None:
    (tmp_path / "out.onnx.data").write_bytes(b"someone's")
    for external in (True, False):
        with pytest.raises(BadInput, match="exists already") as e:
            write(read(big), tmp_path / "out.onnx", external=external)
        assert e.value.at == str(tmp_path / "out.onnx.data")
    write(read(big), tmp_path / "out.onnx", external=False, force=True)
    assert (tmp_path / "out.onnx.data").read_bytes() == b"someone's"


def test_external_data_that_is_still_read_is_never_replaced(big: Path, tmp_path: Path) -> None:
    path, data = write(read(big), tmp_path / "a.onnx", external=True)
    data.rename(tmp_path / "b.onnx.data")
    proto = onnx.load(path, load_external_data=False)
    tensors = [*proto.graph.initializer, *(a.t for n in proto.graph.node for a in n.attribute)]
    for t in tensors:
        for e in t.external_data:
            e.value = e.value.replace("a.onnx.data", "b.onnx.data")
    path.write_bytes(proto.SerializeToString())
    m = read(path)
    before = {p.name: digest(p) for p in tmp_path.iterdir()}
    for target, why in (
        ("a.onnx", "cannot be rewritten in place"),
        ("b.onnx", "would replace weights"),
        ("b.onnx.data", "would replace weights"),
    ):
        for external in (None, False):
            with pytest.raises(BadInput, match=why):
                write(m, tmp_path / target, force=True, external=external)
    (tmp_path / "link.onnx").symlink_to("a.onnx")
    with pytest.raises(BadInput, match="cannot be rewritten in place"):
        write(m, tmp_path / "link.onnx", force=True)
    (tmp_path / "link.onnx").unlink()
    assert {p.name: digest(p) for p in tmp_path.iterdir()} == before


def test_places_that_cannot_be_written_to(big: Path, tmp_path: Path) -> None:
    m = read(big)
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for target, why in (
        (tmp_path / "nowhere" / "out.onnx", "No such file"),
        (tmp_path / "file" / "out.onnx", "Not a directory"),
        (tmp_path / "folder", "not a regular file"),
        (Path("/dev/null"), "not a regular file"),
        (Path("/proc/out.onnx"), "cannot be written here"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(BadInput, match=why) as e:
            write(m, target, force=True)
        assert e.value.at and e.value.fix
    with pytest.raises(BadInput, match="no printable text"):
        write(m, os.fsdecode(os.fsencode(tmp_path) + b"/out\xff.onnx"), external=True)
    assert listing(tmp_path) == ["file", "folder"] and listing(tmp_path / "folder") == []


def test_an_old_pair_loses_its_model_before_its_data(
    big: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill at any step between leaves no model, or a whole old or new pair; never a model with another's data."""
    steps: list[tuple[str, str]] = []
    rename, unlink = Path.replace, Path.unlink

    def note_rename(self: Path, target: Path) -> Path:
        steps.append(("rename", target.name))
        return rename(self, target)

    def note_unlink(self: Path, missing_ok: bool = False) -> None:
        if self.exists():
            steps.append(("remove", self.name))
        unlink(self, missing_ok)

    m = read(big)
    write(m, tmp_path / "out.onnx", external=True)
    monkeypatch.setattr(Path, "replace", note_rename)
    monkeypatch.setattr(Path, "unlink", note_unlink)
    write(m, tmp_path / "out.onnx", external=True, force=True)
    assert steps == [("remove", "out.onnx"), ("rename", "out.onnx.data"), ("rename", "out.onnx")]


def failing(error: BaseException) -> Callable[..., Any]:
    calls = 0

    def copy(*args: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise error
        return os_copy(*args)

    return copy


os_copy = os.copy_file_range


@pytest.mark.parametrize("external", [True, False])
@pytest.mark.parametrize("force", [True, False])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ToolFailure),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), ToolFailure),
        (OSError(errno.EACCES, "Permission denied"), BadInput),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (MemoryError(), MemoryError),
    ],
)
def test_a_failure_leaves_everything_as_it_was(
    big: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    error: BaseException, raised: type[BaseException], external: bool, force: bool,
) -> None:  # fmt: skip
    m = read(big)
    out = tmp_path / "out.onnx"
    if force:
        write(m, out, external=external)
    before = {p.name: digest(p) for p in tmp_path.iterdir()}
    monkeypatch.setattr(os, "copy_file_range", failing(error))
    with pytest.raises(raised) as e:
        write(m, out, external=external, force=force)
    assert {p.name: digest(p) for p in tmp_path.iterdir()} == before
    assert not isinstance(e.value, GraphwrightError) or (e.value.fix and str(out) in str(e.value))


def test_where_the_kernel_does_not_copy_we_do(big: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "copy_file_range", failing(OSError(errno.EXDEV, "Invalid cross-device link")))
    write(read(big), tmp_path / "half.onnx")
    monkeypatch.delattr(os, "copy_file_range")
    write(read(big), tmp_path / "none.onnx")
    assert digest(tmp_path / "half.onnx") == digest(tmp_path / "none.onnx") == digest(big)


CHILD = """
import os, resource, sys, time
from optimizer.core.model import read, write
from optimizer.core.errors import GraphwrightError
source, out, how = sys.argv[1:]
m = read(source)
if how == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 << 20, 6 << 20))
else:
    copy, calls = os.copy_file_range, []
    def slow(*args):
        calls.append(1)
        if len(calls) == 3:
            print("busy", flush=True)
            time.sleep(60)
        return copy(*args)
    os.copy_file_range = slow
try:
    write(m, out, external=True, force=True)
except GraphwrightError as e:
    print(type(e).__name__, e, sep="|")
    sys.exit(e.exit_code)
"""


def test_a_full_disk(big: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(big), str(tmp_path / "out.onnx"), "limit"], capture_output=True, text=True
    )
    assert done.returncode == 3 and done.stdout.startswith("ToolFailure|the output could not be written"), done
    assert listing(tmp_path) == []


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_writing(big: Path, tmp_path: Path, sent: signal.Signals) -> None:
    write(read(big), tmp_path / "out.onnx", external=True)
    before = {p.name: digest(p) for p in tmp_path.iterdir()}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(big), str(tmp_path / "out.onnx"), "slow"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a job in the background ignores it
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "busy\n"
    assert len(listing(tmp_path)) == 4, "two temporary files beside the targets"
    child.send_signal(sent)
    assert child.wait(60) in (143, 130, -signal.SIGINT)
    child.stdout.close()
    assert {p.name: digest(p) for p in tmp_path.iterdir()} == before


def test_permissions_are_those_of_any_new_file(big: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    [out] = write(read(big), tmp_path / "out.onnx")
    assert out.stat().st_mode == (tmp_path / "plain").stat().st_mode


# ── size ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

MEASURE = """
import resource, sys, time
from optimizer.core import model
from onnx import defs
defs.has("Add", 17)
base, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
m = model.read(sys.argv[1])
model.write(m, sys.argv[2])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024, time.process_time() - start)
"""


def measured(source: Path, out: Path) -> tuple[float, float]:
    """MiB of memory and CPU seconds that reading and writing in a fresh process add."""
    text = subprocess.check_output([sys.executable, "-c", MEASURE, str(source), str(out)], text=True)
    memory, seconds = map(float, text.split())
    return memory, seconds


def test_weights_never_come_into_memory(tmp_path: Path) -> None:
    source = tmp_path / "in.onnx"
    source.write_bytes(weighty(rows=2048, layers=7).SerializeToString())
    assert source.stat().st_size > 128 << 20
    memory, _ = measured(source, tmp_path / "out.onnx")
    assert memory < 16
    write(read(source), tmp_path / "external.onnx", external=True)
    memory, _ = measured(tmp_path / "external.onnx", tmp_path / "again.onnx")
    assert memory < 16
    assert digest(tmp_path / "out.onnx") == digest(source)


def test_reading_two_thousand_nodes_costs_little_more_than_parsing_them() -> None:
    nodes = [helper.make_node("Relu", [f"v{i}"], [f"v{i + 1}"], f"/layer.{i}/Relu") for i in range(2000)]
    x = helper.make_tensor_value_info("v0", TensorProto.FLOAT, ["n"])
    y = helper.make_tensor_value_info("v2000", TensorProto.FLOAT, ["n"])
    data = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), ir_version=8).SerializeToString()
    read(data)

    def best(f: Callable[[], object]) -> float:
        seconds: list[float] = []
        for _ in range(7):
            start = time.process_time()
            f()
            seconds.append(time.process_time() - start)
        return min(seconds)

    # what any Python reader must do: parse, and ask each node for its five fields
    def floor() -> None:
        for n in ModelProto.FromString(data).graph.node[:]:
            _ = n.op_type, n.domain, n.name, n.input[:], n.output[:], n.attribute[:]

    assert best(lambda: read(data)) < 6 * best(floor)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A single file of 2.2 GiB, mostly a hole, so that it takes little of the disk."""
    proto = weighty(rows=32)
    n = 1100 << 20
    head = proto.SerializeToString()
    path = tmp_path / "large.onnx"
    tensors: list[tuple[bytes, bytes]] = []
    for i in range(2):
        t = TensorProto(name=f"big{i}", data_type=TensorProto.UINT8, dims=[n]).SerializeToString()
        raw = b"\x4a" + wire._varint(n)
        tensors.append((b"\x2a" + wire._varint(len(t) + len(raw) + n) + t + raw, bytes([i + 1, 2, 3])))
    total = sum(len(t) + n for t, _ in tensors)
    with path.open("wb") as f:
        f.write(head + b"\x3a" + wire._varint(total))
        for t, first in tensors:
            f.write(t)
            start = f.tell()
            f.write(first)
            f.seek(start + n)
        f.truncate(f.tell())
    assert path.stat().st_size > edge.LIMIT
    return path


@pytest.mark.slow
def test_a_single_file_above_two_gibibytes(large: Path, tmp_path: Path) -> None:
    memory, _ = measured(large, tmp_path / "out.onnx")
    assert memory < 16
    assert (tmp_path / "out.onnx.data").stat().st_size > edge.LIMIT > (tmp_path / "out.onnx").stat().st_size
    m = read(tmp_path / "out.onnx")
    assert graph_hash(m) == graph_hash(read(large))
    for i, v in enumerate(v for v in m.graph.initializers if v.name.startswith("big")):
        assert v.const is not None and v.const[:4].tolist() == [i + 1, 2, 3, 0]
    with pytest.raises(ToolFailure, match="2 GiB"):
        to_proto(m)
    with pytest.raises(ToolFailure, match="2 GiB"):
        write(m, tmp_path / "single.onnx", external=False)


@pytest.mark.slow
def test_a_proto_above_two_gibibytes(tmp_path: Path) -> None:
    proto = weighty(rows=32)
    for i in range(2):
        proto.graph.initializer.add(name=f"big{i}", data_type=2, dims=[1100 << 20], raw_data=bytes([i]) * (1100 << 20))
    m = read(proto)
    check(m)
    write(m, tmp_path / "out.onnx")
    del m
    loaded = read(tmp_path / "out.onnx")
    for i, v in enumerate(v for v in loaded.graph.initializers if v.name.startswith("big")):
        assert v.const is not None and np.all(v.const[:: 1 << 20] == i)


def test_a_model_that_only_its_external_data_makes_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens above the limit, with a small limit."""
    monkeypatch.setattr(edge, "LIMIT", 10_000)
    m = read(weighty(rows=64))
    path, data = write(m, tmp_path / "out.onnx")
    assert data.stat().st_size == 4 * 64 * 64 * 4 and path.stat().st_size < 2000
    with pytest.raises(ToolFailure, match="must be external"):
        write(m, tmp_path / "single.onnx", external=False)
    with pytest.raises(ToolFailure, match="save it to a file instead"):
        to_proto(m)


def test_what_a_lost_buffer_says(big: Path) -> None:
    proto = lower(read(big))
    import gc

    gc.collect()
    with pytest.raises(ToolFailure, match="was let go of"):
        region.Region.of(proto.graph.initializer[0])
