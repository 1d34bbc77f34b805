"""Changes of a small model: other spellings of the same, and one thing wrong.

Each change takes a model in place and says whether it found something to change. What it makes need not be legal: who
mutates runs the model first. A change of `SPELLINGS` should leave an idiom what it is, one of `FLAWS` should not; the
judge asks only that the result answers as the changed model does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

Change = Callable[[ModelProto, Random], bool]
SPELLINGS: list[Change] = []
FLAWS: list[Change] = []
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
COMMUTATIVE = frozenset(("Add", "Mul", "Max", "Min", "And", "Or", "Xor", "Equal", "Sum", "Mean"))
KIN = (  # operators of one form
    ("Add", "Sub", "Mul", "Div"),
    ("Max", "Min"),
    ("Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal"),
    ("And", "Or", "Xor"),
    ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceSumSquare"),
    ("Relu", "Neg", "Abs", "Exp", "Tanh", "Sigmoid", "Erf", "Sqrt", "Floor", "Identity", "Reciprocal", "Softplus"),
    ("MaxPool", "AveragePool"),
    ("Softmax", "LogSoftmax"),
)


def spelling(f: Change) -> Change:
    SPELLINGS.append(f)
    return f


def flaw(f: Change) -> Change:
    FLAWS.append(f)
    return f


def mutate(model: ModelProto, random: Random, spellings: int, flaws: int) -> list[str]:
    """Apply that many changes of each kind; the names of those that found something."""
    done: list[str] = []
    for changes, count in ((SPELLINGS, spellings), (FLAWS, flaws)):
        for _ in range(count):
            change = random.choice(changes)
            if change(model, random):
                done.append(change.__name__)
    if flaws:
        loosen(model)
    return done


# ── looking at a model ────────────────────────────────────────────────────────────────────────────────────────────────


def graphs(g: GraphProto) -> Iterator[GraphProto]:
    """The graph and all bodies in it."""
    yield g
    for n in g.node:
        for a in n.attribute:
            if a.type == AttributeProto.GRAPH:
                yield from graphs(a.g)


def fresh(model: ModelProto, stem: str) -> str:
    taken = {x for g in graphs(model.graph) for n in g.node for x in (*n.input, *n.output)}
    taken |= {x.name for g in graphs(model.graph) for x in (*g.input, *g.initializer)}
    return next(name for k in range(1 << 20) if (name := f"{stem}{k}") not in taken)


def loosen(model: ModelProto) -> None:
    """The outputs keep their types and ranks, and declare no sizes any more."""
    for k, o in enumerate(model.graph.output):
        for i, d in enumerate(o.type.tensor_type.shape.dim):
            d.dim_param = f"o{k}_{i}"
    for g in graphs(model.graph):
        del g.value_info[:]
        for o in () if g is model.graph else g.output:
            if o.type.HasField("tensor_type"):
                o.type.tensor_type.ClearField("shape")


def _constants(model: ModelProto, kinds: str, *, single: bool | None = None) -> list[tuple[TensorProto, np.ndarray]]:
    """Initializers, and values of Constant nodes, of these numpy kinds."""
    found: list[tuple[TensorProto, np.ndarray]] = []
    for g in graphs(model.graph):
        tensors = [
            *g.initializer,
            *(a.t for n in g.node if n.op_type == "Constant" for a in n.attribute if a.HasField("t")),
        ]
        for t in tensors:
            if t.data_type == TensorProto.STRING:
                continue
            x = numpy_helper.to_array(t)
            if x.dtype.kind in kinds and (single is None or single == (x.size == 1)):
                found.append((t, x))
    return found


def _store(t: TensorProto, x: Any) -> None:
    t.CopyFrom(numpy_helper.from_array(np.asarray(x), t.name))


def _nodes(model: ModelProto, *ops: str) -> list[tuple[GraphProto, int, NodeProto]]:
    return [(g, i, n) for g in graphs(model.graph) for i, n in enumerate(g.node) if not ops or n.op_type in ops]


def _number(model: ModelProto, name: str) -> float | None:
    """The one float that this name is, if it is a constant of one."""
    return next((float(x.reshape(-1)[0]) for t, x in _constants(model, "f", single=True) if t.name == name), None)


def _add_constant(model: ModelProto, like: str, number: float) -> str:
    """Another constant of the type and shape of the one called `like`."""
    x = next(x for t, x in _constants(model, "f", single=True) if t.name == like)
    name = fresh(model, "k")
    with np.errstate(all="ignore"):
        model.graph.initializer.append(numpy_helper.from_array(np.full(x.shape, number, x.dtype), name))
    return name


def _insert(g: GraphProto, at: int, node: NodeProto) -> None:
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in g.node]
    nodes.insert(at, node)
    del g.node[:]
    g.node.extend(nodes)


# ── other spellings ───────────────────────────────────────────────────────────────────────────────────────────────────


@spelling
def retype(model: ModelProto, random: Random) -> bool:
    """float everywhere → float16 or double everywhere"""
    to = random.choice((TensorProto.FLOAT16, TensorProto.DOUBLE))
    dtype = helper.tensor_dtype_to_np_dtype(to)
    for g in graphs(model.graph):
        for i in (*g.input, *g.output, *g.value_info):
            if i.type.tensor_type.elem_type == TensorProto.FLOAT:
                i.type.tensor_type.elem_type = to
        for n in g.node:
            for a in n.attribute:
                if n.op_type == "Cast" and a.name == "to" and a.i == TensorProto.FLOAT:
                    a.i = to
                if a.HasField("t") and a.t.data_type == TensorProto.FLOAT:
                    _store(a.t, numpy_helper.to_array(a.t).astype(dtype))
        for t in g.initializer:
            if t.data_type == TensorProto.FLOAT:
                with np.errstate(over="ignore"):
                    _store(t, numpy_helper.to_array(t).astype(dtype))
    return True


@spelling
def reweigh(model: ModelProto, random: Random) -> bool:
    """other weights"""
    found = _constants(model, "f", single=False)
    for t, x in found:
        _store(t, _weights(random, x.shape, x.dtype, positive=bool((x > 0).all())))
    return bool(found)


def _weights(random: Random, shape: tuple[int, ...], dtype: Any, *, positive: bool) -> np.ndarray:
    draw = np.random.default_rng(random.getrandbits(32))
    x = np.abs(draw.standard_normal(shape)) + 0.1 if positive else draw.standard_normal(shape)
    return x.astype(dtype)


@spelling
def resize(model: ModelProto, random: Random) -> bool:
    """one size → another, in inputs, constants, and where integers are that size"""
    shapes = [d for i in model.graph.input for d in i.type.tensor_type.shape.dim]
    sizes = {d.dim_value for d in shapes if d.dim_value > 1} | {
        d for t, _ in _constants(model, "f") for d in t.dims if d > 1
    }
    if not sizes:
        return False
    old = random.choice(sorted(sizes))
    new = random.choice([k for k in (1, 2, 3, 4, 5, 6, 7) if k != old])
    for d in shapes:
        if d.dim_value == old:
            d.dim_value = new
    for t, x in _constants(model, "f"):
        if old in x.shape:
            shape = tuple(new if d == old else d for d in x.shape)
            _store(t, _weights(random, shape, x.dtype, positive=bool((x > 0).all())))
    for t, x in _constants(model, "i"):
        if x.size > 1 and (x == old).any():
            _store(t, np.where(x == old, new, x).astype(x.dtype))
    loosen(model)
    return True


@spelling
def respell_dims(model: ModelProto, random: Random) -> bool:
    """a dim name → a number or another name; a number → a name"""
    dims = [d for i in model.graph.input for d in i.type.tensor_type.shape.dim]
    if not dims:
        return False
    one = random.choice(dims)
    kind, value = ("dim_param", one.dim_param) if one.dim_param else ("dim_value", one.dim_value)
    same = [d for d in dims if getattr(d, kind) == value]
    for d in same if random.random() < 0.7 else [one]:
        if kind == "dim_param" and random.random() < 0.6:
            d.dim_value = 4
        else:
            d.dim_param = "M" if random.random() < 0.9 else ""
    loosen(model)
    return True


@spelling
def constant_node(model: ModelProto, random: Random) -> bool:
    """an initializer → a Constant node, or an Identity of it"""
    plain = [k for k, t in enumerate(model.graph.initializer) if all(i.name != t.name for i in model.graph.input)]
    if not plain:
        return False
    k = random.choice(plain)
    t = TensorProto.FromString(model.graph.initializer[k].SerializeToString())
    if random.random() < 0.5:
        del model.graph.initializer[k]
        node = helper.make_node("Constant", [], [t.name], value=t)
    else:
        model.graph.initializer[k].name = fresh(model, "w")
        node = helper.make_node("Identity", [model.graph.initializer[k].name], [t.name])
    _insert(model.graph, 0, node)
    return True


@spelling
def swap_operands(model: ModelProto, random: Random) -> bool:
    """a + b → b + a"""
    found = [n for _, _, n in _nodes(model, *COMMUTATIVE) if len(n.input) == 2]
    if found:
        n = random.choice(found)
        n.input[:] = n.input[::-1]
    return bool(found)


@spelling
def respell(model: ModelProto, random: Random) -> bool:
    """x / c → x · (1/c), √x → x^½, x² → x · x, x − c → x + (−c), and back"""
    found: list[Callable[[], None]] = []
    for g, at, n in _nodes(model, "Div", "Mul", "Sub", "Add", "Sqrt", "Pow", "Neg", "Reciprocal"):
        c = _number(model, n.input[1]) if len(n.input) == 2 else None
        if n.op_type in ("Div", "Mul") and c:
            found.append(lambda n=n, c=c: _retarget(model, n, "Mul" if n.op_type == "Div" else "Div", 1 / c))
        elif n.op_type in ("Sub", "Add") and c is not None:
            found.append(lambda n=n, c=c: _retarget(model, n, "Add" if n.op_type == "Sub" else "Sub", -c))
        elif n.op_type == "Pow" and c == 2:
            found.append(lambda n=n: _become(n, "Mul", n.input[0], n.input[0]))
        elif n.op_type == "Mul" and len(n.input) == 2 and n.input[0] == n.input[1]:
            found.append(lambda n=n: _power(model, n, 2.0))
        elif n.op_type == "Sqrt":
            found.append(lambda n=n: _power(model, n, 0.5))
        elif n.op_type == "Reciprocal":
            found.append(lambda n=n: _power(model, n, -1.0))
        del g, at
    if found:
        random.choice(found)()
    return bool(found)


def _become(n: NodeProto, op: str, *operands: str) -> None:
    n.op_type = op
    n.input[:] = operands


def _retarget(model: ModelProto, n: NodeProto, op: str, number: float) -> None:
    _become(n, op, n.input[0], _add_constant(model, n.input[1], number))


def _power(model: ModelProto, n: NodeProto, exponent: float) -> None:
    kinds = [i.type.tensor_type.elem_type for i in model.graph.input if i.type.tensor_type.elem_type in FLOATS]
    dtype = helper.tensor_dtype_to_np_dtype(kinds[0] if kinds else TensorProto.FLOAT)
    name = fresh(model, "k")
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(exponent, dtype), name))
    _become(n, "Pow", n.input[0], name)


@spelling
def reshape_scalar(model: ModelProto, random: Random) -> bool:
    """a number → a tensor of one element, of another rank"""
    found = _constants(model, "f", single=True)
    if found:
        t, x = random.choice(found)
        _store(t, x.reshape(random.choice(((), (1,), (1, 1)))))
        loosen(model)
    return bool(found)


@spelling
def other_opset(model: ModelProto, random: Random) -> bool:
    """the same nodes at another opset"""
    for o in model.opset_import:
        if o.domain == "":
            o.version = random.choice((13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25))
            model.ir_version = 8 if o.version < 19 else 10 if o.version < 23 else 11
    return True


# ── one thing wrong ───────────────────────────────────────────────────────────────────────────────────────────────────


@flaw
def nudge(model: ModelProto, random: Random) -> bool:
    """a number a little, or altogether, different"""
    found = _constants(model, "fi", single=True if random.random() < 0.7 else None)
    if not found:
        return False
    t, x = random.choice(found)
    if not x.size:
        return False
    x = x.copy()
    flat = x.reshape(-1)
    i = random.randrange(flat.size)
    with np.errstate(all="ignore"):
        if x.dtype.kind == "i":
            flat[i] += random.choice((-1, 1, 2, -2))
        else:
            flat[i] = flat[i] * random.choice((1 + 1e-6, 1.0001, 1.01, 2, -1, 0)) + random.choice((0, 0, 0, 1, 1e-9))
    _store(t, x)
    return True


@flaw
def other_attribute(model: ModelProto, random: Random) -> bool:
    """an attribute of another value"""
    kinds = (AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT)
    found = [a for _, _, n in _nodes(model) for a in n.attribute if a.type in kinds]
    if not found:
        return False
    a = random.choice(found)
    if a.type == AttributeProto.INT:
        a.i = random.choice((a.i + 1, a.i - 1, 1 - a.i, -1, 0))
    elif a.type == AttributeProto.FLOAT:
        a.f = random.choice((a.f * 2, a.f + 1, 0.0, -a.f))
    else:
        xs = list(a.ints)
        if random.random() < 0.6:
            random.shuffle(xs)
        elif xs:
            xs[random.randrange(len(xs))] += random.choice((-1, 1))
        a.ints[:] = xs
    loosen(model)
    return True


@flaw
def expose(model: ModelProto, random: Random) -> bool:
    """an inner value is an output as well"""
    g = model.graph
    have = {o.name for o in g.output}
    made = [o for n in g.node for o in n.output if o and o not in have]
    if made:
        g.output.add(name=random.choice(made))  # whoever runs the model first gives it its type
    return bool(made)


@flaw
def rewire(model: ModelProto, random: Random) -> bool:
    """an operand is another value"""
    g = random.choice(list(graphs(model.graph)))
    if not g.node:
        return False
    at = random.randrange(len(g.node))
    n = g.node[at]
    earlier = [o for m in g.node[:at] for o in m.output if o] + [i.name for i in model.graph.input]
    if not n.input or not earlier:
        return False
    n.input[random.randrange(len(n.input))] = random.choice(earlier)
    loosen(model)
    return True


@flaw
def kin(model: ModelProto, random: Random) -> bool:
    """another operator of the same form"""
    found = [(n, ops) for _, _, n in _nodes(model) for ops in KIN if n.op_type in ops and not n.domain]
    if found:
        n, ops = random.choice(found)
        n.op_type = random.choice([o for o in ops if o != n.op_type])
    return bool(found)


@flaw
def overridable(model: ModelProto, random: Random) -> bool:
    """an initializer is a default that may be overridden"""
    found = [t for t in model.graph.initializer if all(i.name != t.name for i in model.graph.input)]
    if found and model.ir_version >= 4:
        t = random.choice(found)
        model.graph.input.append(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)))
    return bool(found)


@flaw
def twin(model: ModelProto, random: Random) -> bool:
    """a node twice, with one reader at the second"""
    g = model.graph
    used = {i for n in g.node for i in n.input}
    found = [k for k, n in enumerate(g.node) if len(n.output) == 1 and n.output[0] in used]
    if not found:
        return False
    k = random.choice(found)
    copy = NodeProto.FromString(g.node[k].SerializeToString())
    old, copy.output[0] = copy.output[0], fresh(model, "twin")
    readers = [(n, i) for n in g.node for i, x in enumerate(n.input) if x == old]
    n, i = random.choice(readers)
    n.input[i] = copy.output[0]
    _insert(g, k + 1, copy)
    return True


@flaw
def between(model: ModelProto, random: Random) -> bool:
    """an operator between two others"""
    g = random.choice(list(graphs(model.graph)))
    inner = {o for n in g.node for o in n.output}
    found = [(k, i) for k, n in enumerate(g.node) for i, x in enumerate(n.input) if x in inner]
    if not found:
        return False
    k, i = random.choice(found)
    name = fresh(model, "b")
    node = helper.make_node(random.choice(("Relu", "Neg", "Identity", "Abs", "Tanh")), [g.node[k].input[i]], [name])
    g.node[k].input[i] = name
    _insert(g, k, node)
    return True


@flaw
def special(model: ModelProto, random: Random) -> bool:
    """a weight that is NaN, infinite, −0 or 0"""
    found = _constants(model, "f")
    if not found:
        return False
    t, x = random.choice(found)
    if x.size:
        x = x.copy()
        x.reshape(-1)[random.randrange(x.size)] = random.choice((np.nan, np.inf, -np.inf, -0.0, 0.0))
        _store(t, x)
    return True


@flaw
def drop_operand(model: ModelProto, random: Random) -> bool:
    """an operand that may be left out is"""
    opset = next(o.version for o in model.opset_import if o.domain == "")
    found: list[tuple[NodeProto, int]] = []
    for _, _, n in _nodes(model):
        if not n.domain and n.op_type != "Loop" and defs.has(n.op_type, max_inclusive_version=opset):
            s = defs.get_schema(n.op_type, opset)
            found += [(n, i) for i, p in zip(range(len(n.input)), s.inputs) if p.option == p.option.Optional]
            if s.inputs and s.inputs[-1].option == s.inputs[-1].option.Variadic:
                found += [(n, len(n.input) - 1)] * (len(n.input) > 1)
    if not found:
        return False
    n, i = random.choice(found)
    if i == len(n.input) - 1:
        del n.input[i]
    else:
        n.input[i] = ""
    loosen(model)
    return True


@flaw
def share(model: ModelProto, random: Random) -> bool:
    """two constants of one type are one"""
    found = _constants(model, "fi")
    pairs = [
        (s.name, t.name)
        for s, x in found
        for t, y in found
        if s.name < t.name and x.shape == y.shape and x.dtype == y.dtype
    ]
    if not pairs:
        return False
    a, b = random.choice(pairs)
    for _, _, n in _nodes(model):
        n.input[:] = [a if i == b else i for i in n.input]
    return True
