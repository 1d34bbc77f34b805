"""The command line: exit codes, streams, directions, speed; every verb as a user types it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import onnx
import onnx.parser
import pytest

import optimizer
from optimizer.cli.main import VERBS, main
from optimizer.cli.parser import Parser

MODEL = """
<ir_version: 8, opset_import: ["" : 17], producer_name: "hand">
tiny (float[N, 4] x) => (float[N, 4] y)
<float[4] b = {1.0, 2.0, 3.0, 4.0}>
{
  one = Constant<value: tensor = float[1] {1.0}>()
  [add] s = Add(x, b)
  [noop] i = Identity(s)
  [mul] m = Mul(i, one)
  [relu] y = Relu(m)
}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.onnx"
    onnx.save(onnx.parser.parse_model(MODEL), path)
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The same interface, another function."""
    path = tmp_path / "other.onnx"
    onnx.save(onnx.parser.parse_model(MODEL.replace("Relu(m)", "Neg(m)")), path)
    return path


class Ran:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def graphwright(capsys: pytest.CaptureFixture[str]):
    def run(*argv: object) -> Ran:
        code = main([str(a) for a in argv])
        return Ran(code, *capsys.readouterr())

    return run


def process(*argv: object, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "optimizer", *map(str, argv)], capture_output=True, text=True, check=False, **more
    )  # type: ignore[call-overload]


# ── import and help are quick ─────────────────────────────────────────────────────────────────────────────────────────

HEAVY = ("numpy", "onnx", "onnxruntime", "rich", "networkx")
PROBE = f"import sys; {{}}; print([m for m in {HEAVY!r} if m in sys.modules])"


@pytest.mark.parametrize(
    "statement",
    [
        "import optimizer",
        "import optimizer; dir(optimizer); optimizer.BadInput",
        "import os; sys.stdout = open(os.devnull, 'w'); from optimizer.cli.main import main; main(['--help'])",
        *(f"from optimizer.cli.main import main; main(['{verb}', '--hel'])" for verb in VERBS),
    ],
)
def test_nothing_heavy_is_imported(statement: str) -> None:
    code = PROBE.format(statement).replace("print(", "sys.stdout = sys.__stdout__; print(")
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


@pytest.mark.parametrize("argv", [["--help"], ["optimize", "--help"]])
def test_help_takes_at_most_a_fifth_of_a_second(argv: list[str]) -> None:
    def seconds(*command: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        return time.perf_counter() - start

    best = min(seconds("-m", "optimizer", *argv) for _ in range(5))
    python = min(seconds("-c", "pass") for _ in range(5))
    assert best <= max(0.2, 5 * python), "a loaded machine is slow in starting Python as well"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_the_common_flags(verb: str, graphwright) -> None:
    ran = graphwright(verb, "--help")
    assert ran.code == 0 and not ran.err
    assert ran.out.startswith(f"usage: graphwright {verb} ")
    for flag in ("--format", "--quiet", "--verbose", "exit codes"):
        assert flag in ran.out


def test_flags_of_a_verb_are_those_of_the_contract() -> None:
    """No flag that does not exist yet, none forgotten: interface.md, "Verbs"."""
    common = {"-h", "--help", "--format", "-q", "--quiet", "-v", "--verbose"}
    rewriting = {"-o", "--target", "--feeds", "--no-validate", "--keep-failed", "--expect", "--force", "--dry-run"}
    contract = {
        "optimize": rewriting
        | {"-O", "--passes", "--without", "--keep-functions", "--dim", "--shape", "--inputs", "--outputs", "--rename"}
        | {"--graphsurgeon", "--custom-ops", "--bench", "--hash", "--seed", "--verify", "--refused"},
        "prune": rewriting | {"--threshold", "--sparsity", "--scope", "--ignore", "--seed"},
        "quantize": rewriting | {"--samples", "--ignore", "--bench", "--seed"},
        "validate": {"--feeds", "--dim", "--seeds", "--tolerance", "--lossy", "--custom-ops", "--expect", "--seed"}
        | {"--histogram", "--provider", "--executor", "--save-feeds", "--golden", "--layers"},
        "bisect": {
            "-o",
            "--force",
            "-O",
            "--passes",
            "--target",
            "--without",
            "--check",
            "--bench",
            "--feeds",
            "--seed",
        }
        | {"--dim", "--seeds", "--tolerance", "--custom-ops"},
        "bench": {"--provider", "--threads", "--dim", "--feeds", "--time", "--expect", "--seed"},
        "diff": {"--exit-code"},
        "inspect": {"--census"},
        "explain": set[str](),
        "doctor": {"--provider"},
    }
    import importlib

    for verb, flags in contract.items():
        parser = Parser(verb, "")
        importlib.import_module(f"optimizer.cli.{verb}").arguments(parser)
        found = {s for action in parser._actions for s in action.option_strings}
        assert found == flags | common, verb


# ── exit 2: usage and input, with directions ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("argv", "what", "fix"),
    [
        (["optimise", "m"], "unknown verb 'optimise'", "did you mean optimize?"),
        (["zzz"], "unknown verb 'zzz'", "--help"),
        (["--format", "json", "inspect"], "the verb comes before its flags", "--help"),
        (
            ["optimize", "m", "-o", "o", "--threshold", "1"],
            "unknown flag --threshold",
            "is a flag of graphwright prune",
        ),
        (["optimize", "m", "--opset", "17"], "unknown flag --opset", "a model keeps its opset"),
        (["optimize", "m", "--output", "o"], "unknown flag --output", "did you mean -o OUT?"),
        (["optimize", "m", "--in", "x"], "unknown flag --in", "did you mean --inputs?"),
        (["inspect", "m", "--cencus"], "unknown flag --cencus", "did you mean --census?"),
        (["diff", "a", "b", "--out", "x"], "unknown flag --out", "--help lists"),
        (["quantize", "m", "-o", "o", "--zzz"], "unknown flag --zzz", "--help lists"),
        (["optimize", "m", "-x"], "unknown flag -x", "--help lists"),
        (["prune", "m", "-o", "o", "--sparsity", "30%"], "'30%' is not a number, as in 0.3", "--help"),
        (["prune", "m", "-o", "o", "--treshold", "1"], "unknown flag --treshold", "did you mean --threshold?"),
        (["optimize", "m", "-o", "o", "-O3"], "invalid choice: 3", "--help"),
        (["optimize", "m", "-o", "o", "-O1", "--passes", "fold"], "not allowed with argument", "--help"),
        (["optimize", "m"], "nowhere to write the result", "-o OUT.onnx"),
        (["prune", "m", "-o", "o"], "one of the arguments --threshold --sparsity is required", "--help"),
        (["optimize", "m", "-o", "o", "--dim", "batch"], "'batch' is not NAME=N", "--help"),
        (["optimize", "m", "-o", "o", "--dim", "batch=0"], "'batch=0' is not NAME=N", "--help"),
        (["optimize", "m", "-o", "o", "--shape", "x=1,a"], "'x=1,a' is not INPUT=SHAPE", "--help"),
        (["diff", "a"], "required: B", "--help"),
        (["inspect", "a", "b"], "unexpected argument 'b'", "--help"),
        (["explain", "a", "b", "c"], "unexpected argument 'c'", "RULE"),
        (["validate", "a", "b", "--seeds", "0"], "not a number of at least 1", "--help"),
        (["doctor", "--provider", "cudda"], "unknown provider 'cudda'", "did you mean cuda?"),
        (["explain", "constnt"], "no rule is called 'constnt'", "did you mean constant?"),
    ],
)
def test_usage_errors_are_directions(argv: list[str], what: str, fix: str, graphwright) -> None:
    ran = graphwright(*argv)
    assert ran.code == 2 and not ran.out
    assert ran.err.startswith("error: ") and what in ran.err.splitlines()[0]
    assert fix in ran.err.partition("  fix: ")[2]
    assert "Traceback" not in ran.err


def test_a_model_that_is_not_there(tmp_path: Path, model: Path, graphwright) -> None:
    ran = graphwright("inspect", tmp_path / "tinny.onnx")
    assert ran.code == 2
    assert ran.err == f"error: no such model: {tmp_path}/tinny.onnx\n  fix: did you mean {model}?\n"


def test_a_folder_is_no_model(tmp_path: Path, model: Path, graphwright) -> None:
    ran = graphwright("inspect", tmp_path)
    assert ran.code == 2
    assert ran.err == f"error: the model is a folder\n  at: {tmp_path}\n  fix: name a file in it, as in {model}\n"


def test_a_folder_to_write_to_must_be_there(tmp_path: Path, model: Path, graphwright) -> None:
    ran = graphwright("optimize", model, "-o", tmp_path / "no" / "out.onnx")
    assert ran.code == 2 and not (tmp_path / "no").exists()
    assert ran.err.startswith("error: the output cannot be written here: No such file or directory\n")
    assert "fix: check that the folder exists" in ran.err


def test_a_result_alone_explains_nothing(model: Path, graphwright) -> None:
    ran = graphwright("explain", model)
    assert ran.code == 2 and f"graphwright explain {model} NODE" in ran.err


def test_a_file_that_is_no_model(tmp_path: Path, graphwright) -> None:
    path = tmp_path / "no.onnx"
    path.write_bytes(b"hello")
    ran = graphwright("inspect", path)
    assert ran.code == 2 and str(path) in ran.err and "Traceback" not in ran.err


def test_a_pass_that_is_not_there(model: Path, tmp_path: Path, graphwright) -> None:
    ran = graphwright("optimize", model, "-o", tmp_path / "o.onnx", "--passes", "normalise")
    assert ran.code == 2 and "did you mean 'normalize'?" in ran.err
    assert not (tmp_path / "o.onnx").exists()


def test_verbose_shows_where_an_error_came_from(tmp_path: Path, graphwright) -> None:
    assert "Traceback" in graphwright("inspect", tmp_path / "none.onnx", "-v").err


# ── exit 3: the tool's own failures ───────────────────────────────────────────────────────────────────────────────────


def test_a_bug_is_exit_3_with_directions(model: Path, monkeypatch: pytest.MonkeyPatch, graphwright) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("odd\x1b[31m")

    monkeypatch.setattr(optimizer, "inspect", broken, raising=False)
    ran = graphwright("inspect", model)
    assert ran.code == 3 and not ran.out
    lines = ran.err.splitlines()
    assert lines[0].startswith("error: a bug in graphwright: KeyError: ") and "\x1b" not in ran.err
    assert re.fullmatch(r"  at: optimizer/cli/inspect\.py:\d+", lines[1])
    assert "-v" in lines[2] and len(lines) == 3


def test_a_full_disk_is_exit_3(model: Path, monkeypatch: pytest.MonkeyPatch, graphwright) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/there/out.onnx")

    monkeypatch.setattr(optimizer, "inspect", full, raising=False)
    ran = graphwright("inspect", model)
    assert ran.code == 3
    assert ran.err.startswith("error: no space left on device\n  at: /there/out.onnx\n  fix: ")


def test_an_interrupt_is_130_and_quiet(model: Path, monkeypatch: pytest.MonkeyPatch, graphwright) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(optimizer, "inspect", interrupted, raising=False)
    ran = graphwright("inspect", model)
    assert (ran.code, ran.out, ran.err) == (130, "", "interrupted\n")


# ── exit 0, 1 and 4: verdicts ─────────────────────────────────────────────────────────────────────────────────────────


def test_optimize_writes_validates_and_is_explained(model: Path, tmp_path: Path, graphwright) -> None:
    out = tmp_path / "out.onnx"
    ran = graphwright("optimize", model, "-o", out)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("tiny.onnx → out.onnx ") and "\nvalidated  pass  " in ran.out
    receipt = json.loads(Path(f"{out}.receipt.json").read_text())
    assert receipt["argv"] == ["optimize", str(model), "-o", str(out)]
    diff = graphwright("diff", model, out)
    assert diff.code == 0 and " by the log   interface same   opset 17 = 17" in diff.out
    life = graphwright("explain", out, "noop")
    assert life.code == 0 and life.out.splitlines()[0].startswith("noop   now: ") and "Identity → " in life.out


def test_verbose_prints_a_line_an_edit_on_stderr(model: Path, tmp_path: Path, graphwright) -> None:
    ran = graphwright("optimize", model, "--dry-run", "-v")
    assert ran.code == 0
    lines = [line for line in ran.err.splitlines() if re.match(r"\d+ \w+ \((exact|rounding), evidence ", line)]
    edits = int(re.search(r"normalize (\d+)", ran.out)[1])  # type: ignore[index]
    assert len(lines) >= edits > 0 and "evidence" not in ran.out


def test_dry_run_writes_nothing(model: Path, tmp_path: Path, graphwright) -> None:
    before = sorted(tmp_path.iterdir())
    ran = graphwright("optimize", model, "-o", tmp_path / "out.onnx", "--dry-run")
    assert ran.code == 0 and sorted(tmp_path.iterdir()) == before


def test_declined_validation_is_exit_0(model: Path, tmp_path: Path, graphwright) -> None:
    ran = graphwright("optimize", model, "-o", tmp_path / "out.onnx", "--no-validate")
    assert ran.code == 0 and "declined" in ran.out and (tmp_path / "out.onnx").exists()


def test_without_a_runtime_it_is_written_and_exit_4(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graphwright
) -> None:
    monkeypatch.setattr("optimizer.runtime.session.available", lambda: None)
    ran = graphwright("optimize", model, "-o", tmp_path / "out.onnx")
    assert ran.code == 4 and "not validated" in ran.out and (tmp_path / "out.onnx").exists()


def test_an_expectation_that_fails_is_exit_1_and_keeps_the_result_aside(
    model: Path, tmp_path: Path, graphwright
) -> None:
    out = tmp_path / "out.onnx"
    ran = graphwright("optimize", model, "-o", out, "--expect", "nodes<=0", "--keep-failed")
    assert ran.code == 1 and "nodes<=0" in ran.out and not out.exists()
    assert (tmp_path / "out.failed.onnx").exists() and (tmp_path / "out.failed.onnx.receipt.json").exists()


def test_validate_passes_and_fails(model: Path, other: Path, graphwright) -> None:
    assert graphwright("validate", model, model).code == 0
    ran = graphwright("validate", model, other)
    assert ran.code == 1 and ran.out.startswith('fail  output "y"')


def test_validate_of_a_binding_that_decides_nothing_is_exit_4(model: Path, tmp_path: Path, graphwright) -> None:
    broken = tmp_path / "broken.onnx"
    proto = onnx.load(model)
    proto.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(proto, broken)
    assert graphwright("validate", broken, model).code == 4


def test_diff_exit_code_only_when_asked(model: Path, other: Path, graphwright) -> None:
    assert graphwright("diff", model, other).code == 0
    assert graphwright("diff", model, other, "--exit-code").code == 1
    assert graphwright("diff", "--exit-code", model, model).code == 0


def test_doctor_is_exit_4_for_what_cannot_run(graphwright) -> None:
    ran = graphwright("doctor", "--provider", "tensorrt", "--format", "json")
    runs = json.loads(ran.out)["providers"]["tensorrt"]["runs"]
    assert ran.code == (0 if runs else 4)
    assert graphwright("doctor", "--provider", "cpu").code == 0


# ── streams ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_json_is_one_document_and_nothing_else(model: Path, other: Path, tmp_path: Path, graphwright) -> None:
    guest = tmp_path / "guest.py"
    guest.write_text("def noisy(graph):\n    print('hello from a guest')\n    return graph\n")
    commands = [
        ("optimize", model, "-o", tmp_path / "o.onnx", "--graphsurgeon", f"{guest}:noisy", "-v"),
        ("prune", model, "--sparsity", "0.5", "--dry-run"),
        ("validate", model, other),
        ("diff", model, other),
        ("inspect", model),
        ("explain",),
        ("explain", "constant"),
        ("doctor",),
    ]
    for command in commands:
        ran = graphwright(*command, "--format", "json")
        document = json.loads(ran.out, parse_constant=lambda x: pytest.fail(f"{x} is no JSON"))
        assert re.fullmatch(r"graphwright\.\w+/1", document["schema"]), command
        assert ran.out.isascii()
    assert graphwright(*commands[0], "--force").err.startswith("hello from a guest\n")


def test_whatever_a_screen_holds_is_escaped_line_by_line(
    model: Path, monkeypatch: pytest.MonkeyPatch, graphwright
) -> None:
    class Answer:
        exit_code = 0

        def __str__(self) -> str:
            return "one \x1b[31m\ntwo\r"

    monkeypatch.setattr(optimizer, "inspect", lambda *_, **__: Answer(), raising=False)
    assert graphwright("inspect", model).out == "one \\x1b[31m\ntwo\\r\n"


EVIL = "\x1b]0;owned\x07\n\x9b31m\u202e"


def test_json_knows_no_infinity(model: Path, monkeypatch: pytest.MonkeyPatch, graphwright) -> None:
    class Answer:
        exit_code = 0

        def to_dict(self) -> dict[str, object]:
            return {"error": float("inf"), "worst": [float("nan"), 1.5], "path": Path("x"), 3: "three"}

    monkeypatch.setattr(optimizer, "inspect", lambda *_, **__: Answer(), raising=False)
    document = json.loads(graphwright("inspect", model, "--format", "json").out)
    assert document == {"error": None, "worst": [None, 1.5], "path": "x", "3": "three"}


def test_control_characters_never_reach_the_terminal(tmp_path: Path, graphwright) -> None:
    proto = onnx.parser.parse_model(MODEL)
    proto.producer_name = EVIL
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = EVIL
    for node in proto.graph.node:
        node.name += "\u202e"
    path, changed, refused = (tmp_path / name for name in ("evil.onnx", "changed.onnx", "refused.onnx"))
    onnx.save(proto, path)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    proto.graph.node[4].op_type = "Neg"
    onnx.save(proto, changed)
    proto.graph.node[4].name = EVIL
    onnx.save(proto, refused)
    out = tmp_path / "out.onnx"
    for command in [
        ("inspect", path),
        ("inspect", path, "--format", "json"),
        ("diff", path, changed),
        ("optimize", path, "-o", out, "-v", "--no-validate"),
        ("explain", out, "noop\u202e"),
        ("explain", out, EVIL),
        ("inspect", refused),
        ("bench", EVIL),
        (EVIL,),
    ]:
        ran = graphwright(*command)
        text = ran.out + ran.err
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text), command
        assert re.search(r"\\x07|\\u0007|\\u202e", text) or command[0] == "optimize", command
        assert not any(line.startswith("\\x9b") for line in text.splitlines()), "a name may not begin a line"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(("verb", "code"), [("diff", 1), ("inspect", 0), ("--help", 0), ("-h", 0)])
def test_a_reader_that_leaves_does_not_change_the_exit_code(
    verb: str, code: int, unbuffered: str, model: Path, other: Path
) -> None:
    arguments = {"diff": ["diff", model, other, "--exit-code"], "inspect": ["inspect", model], "--help": ["--help"]}
    command = [sys.executable, "-m", "optimizer", *map(str, arguments.get(verb, ["optimize", "--help"]))]
    read, write = os.pipe()
    os.close(read)
    with contextlib.closing(os.fdopen(write, "w")) as stdout:
        ran = subprocess.run(
            command, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (code, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("argv", [["--version"], ["optimize", "--help"], ["doctor"]])
def test_an_answer_that_cannot_be_written_is_exit_3(argv: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "optimizer", *argv]
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 3 and ran.stderr.startswith("error: no space left on device\n"), ran.stderr
    assert len(ran.stderr.splitlines()) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal is a Unix thing")
@pytest.mark.parametrize("quiet", [False, True])
def test_progress_is_for_terminals_and_on_stderr(model: Path, quiet: bool) -> None:
    import pty

    main_side, terminal = pty.openpty()
    command = [sys.executable, "-m", "optimizer", "validate", str(model), str(model), *["-q"][: int(quiet)]]
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"}
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, text=True, env=environment, check=True)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error
        while block := os.read(main_side, 1 << 16):
            shown += block
    os.close(main_side)
    assert ran.stdout.startswith("pass  ") and "\x1b" not in ran.stdout
    assert (b"validate" in shown) != quiet


def test_an_ascii_terminal_gets_escapes(model: Path) -> None:
    ran = process("explain", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert ran.returncode == 0 and "\\u2192" in ran.stdout


def test_module_and_script_are_one_and_without_color_in_a_pipe(model: Path) -> None:
    ran = process("optimize", model, "--dry-run", env={**os.environ, "FORCE_COLOR": "1"})
    assert ran.returncode == 0 and "\x1b" not in ran.stdout + ran.stderr
    script = Path(sys.executable).with_name("graphwright")
    assert subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout == (
        f"graphwright {optimizer.__version__}\n"
    )


def test_quiet_silences_warnings(model: Path, monkeypatch: pytest.MonkeyPatch, graphwright) -> None:
    import warnings

    real = optimizer.inspect

    def warns(*a, **k):
        warnings.warn("the machine is busy", stacklevel=1)
        return real(*a, **k)

    monkeypatch.setattr(optimizer, "inspect", warns, raising=False)
    assert graphwright("inspect", model).err == "warning: the machine is busy\n"
    assert graphwright("inspect", model, "-q").err == ""


# ── screens ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def normal(text: str) -> str:
    """Figures are placeholders."""
    return re.sub(r"\d+(\.\d+)?(e-?\d+)?", "0", text)


def test_the_screen_of_optimize(model: Path, tmp_path: Path, graphwright) -> None:
    ran = graphwright("optimize", model, "-o", tmp_path / "out.onnx", "--passes", "normalize cleanup")
    assert normal(ran.out) == normal(
        "tiny.onnx → out.onnx        --passes  portable  opset 17\n"
        "nodes      5 → 4          Constant 1→0\n"
        "file       290 B → 260 B    session start 1 → 1 ms\n"
        "phases     normalize 1 · cleanup 0 edits    0.00 s\n"
        "validated  pass  1 output × 3 bindings × 3 seeds, optimizations off and on; "
        "worst error 0 of scale (limit 1e-5)\n"
        "receipt    out.onnx.receipt.json        why a node is what it is: graphwright explain out.onnx NODE\n"
    )


def test_the_screen_of_inspect(model: Path, graphwright) -> None:
    assert normal(graphwright("inspect", model).out) == normal(
        "tiny.onnx   IR 8, opset 17, 290 B, 5 nodes, 5 parameters (float32)   producer hand\n"
        "in  x float32 [N, 4]     out  y float32 [N, 4]\n"
        "ops Add 1, Constant 1, Identity 1, Mul 1, Relu 1     subgraphs 0   functions 0   external data none\n"
    )


def test_the_screen_of_diff(model: Path, other: Path, graphwright) -> None:
    assert graphwright("diff", model, other).out == (
        "nodes 5 = 5   matched 4 by name   interface same   opset 17 = 17\n"
        "- Relu   relu   (1 node)\n"
        "+ Neg                     relu\n"
    )


def test_the_screen_of_doctor(graphwright) -> None:
    lines = graphwright("doctor").out.splitlines()
    assert re.fullmatch(
        r"python \S+ · graphwright \S+ · onnx \S+ · numpy \S+ · runtime onnxruntime(-gpu)? \S+ \(cpu.*\)", lines[0]
    )
    assert re.fullmatch(r"cpu       .+ → row cpu-(vnni|avx2|arm)", lines[1])
    assert all(re.match(r"(cuda    |tensorrt)  (yes|no: .+      fix: .+)$", line) for line in lines[2:4])
