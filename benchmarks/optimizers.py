"""Graphwright beside its peers: nodes left, time, whole commands, memory → benchmarks/results/optimizers.json.

    make bench-optimizers                                   # everything
    python benchmarks/optimizers.py --only nodes,time --models minilm,blocks-2000 --tools onnxsim,graphwright

Resumable: what the results file holds already, of the same model bytes and the same versions, is not measured again
(`--again` measures it again). Runs in an environment made of benchmarks/requirements.txt. This process imports nothing
but the standard library: the peak memory of a child counts from that of its parent.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import platform
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import tables
from peers import COMMANDS, TOOLS
from tables import BASELINE, OURS, RESULTS

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = "graphwright.benchmarks.optimizers/1"

# Who is asked about which synthetic model: beyond 2k nodes most peers need minutes a call, and no target rests on them.
IN_PROCESS = {
    "blocks-1000": tuple(TOOLS),
    "blocks-2000": tuple(TOOLS),
    "blocks-20000": (BASELINE, OURS),
    "blocks-100000": (OURS,),
    "bert-base": tuple(TOOLS),
}
WHOLE_COMMANDS = dict.fromkeys(("blocks-400", "blocks-2000", "bert-base"), tuple(COMMANDS))
PEAK_MEMORY = {"bert-base": tuple(COMMANDS), "transformer-3gb": (OURS,)}
JUDGED = ("blocks-2000", "blocks-20000", "bert-base")
TRANSIENT = ("transformer-3gb",)  # deleted after use

Json = dict[str, Any]
Asked = dict[str, tuple[str, ...]]  # model → the tools that are asked about it


# ------------------------------------------------------------------------------------------------------------- children


class Child:
    """`SCRIPT NAME` in a process of its own; a request that outlasts its limit ends the process."""

    def __init__(self, name: str, *, single_core: bool = False, script: str = "peers.py") -> None:
        # Thread pools size themselves by the cores that a process may use: one core, one thread.
        core = {max(os.sched_getaffinity(0))}
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "benchmarks" / script), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=(lambda: os.sched_setaffinity(0, core)) if single_core else None,
        )

    def ask(self, limit: float, **request: Any) -> Json:
        """The answer within `limit` seconds, or `{"failed": why}`."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answered, _, _ = select.select([self.process.stdout], [], [], limit)
            if not answered:
                return {"failed": f"more than {limit:g} s"}
            if line := self.process.stdout.readline():
                return json.loads(line)
        except BrokenPipeError:
            pass
        return {"failed": ending(self.process.wait())}

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def once(name: str, limit: float, **request: Any) -> Json:
    with Child(name) as child:
        return child.ask(limit, **request)


def ending(code: int) -> str:
    return f"died of {signal.Signals(-code).name}" if code < 0 else f"exit {code}"


def run_command(argv: Sequence[str], limit: float) -> Json:
    """CPU and wall seconds, and peak RSS in MB (mapped files included), of one whole command."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        program = Path(sys.executable).parent / argv[0]
        try:
            process = subprocess.Popen([program, *argv[1:]], stdout=log, stderr=log, start_new_session=True)
        except FileNotFoundError:
            return {"failed": f"{argv[0]} is not installed"}
        timer = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        timer.cancel()
        process.returncode = code = os.waitstatus_to_exitcode(status)
        if code:
            log.seek(0)
            last = log.read().decode(errors="replace").strip().splitlines()[-1:]
            return {"failed": f"more than {limit:g} s" if wall >= limit else " ".join([ending(code), *last])[:300]}
    return {"cpu": usage.ru_utime + usage.ru_stime, "wall": wall, "rss": usage.ru_maxrss * 1024 / 1e6}


# --------------------------------------------------------------------------------------------------------- measurements


def spread(samples: Iterable[float]) -> Json:
    values = list(samples)
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def interleaved(calls: dict[str, Callable[[], Json]], *, seconds: float, most: int) -> Json:
    """Rounds in which every tool is called once, in turning order; the first warms up and sets how many follow.

    A tool that fails drops out. The ratios are of one round: what slows the machine for a while slows both.
    """
    samples: dict[str, list[Json]] = {tool: [] for tool in calls}
    failed: dict[str, Json] = {}
    rounds, done = 1, 0
    while done <= rounds:
        order = [tool for tool in calls if tool not in failed]
        turn = done % max(len(order), 1)
        for tool in order[turn:] + order[:turn]:
            answer = calls[tool]()
            if "failed" in answer:
                failed[tool] = answer
            else:
                samples[tool].append(answer)
        if done == 0:
            spent = sum(sample["wall"] for kept in samples.values() for sample in kept)
            rounds = max(3, min(most, int(seconds / spent))) if spent else 0
        done += 1
    kept = {tool: samples[tool][1:] for tool in calls if tool not in failed}
    tools: Json = {tool: failed.get(tool) or summary(kept[tool]) for tool in calls}
    for tool, base in ((tool, base) for tool in kept for base in kept if base != OURS and tool != base):
        tools[tool].setdefault("ratio", {})[base] = {
            key: spread(a[key] / b[key] for a, b in zip(kept[tool], kept[base], strict=True)) for key in ("cpu", "wall")
        }
    return tools


def summary(samples: Sequence[Json]) -> Json:
    return {key: spread(sample[key] for sample in samples) for key in samples[0]}


class Benchmark:
    """One run: what was asked for, and the results file, written after every record."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.cards = {path.stem: str(path) for path in sorted((ROOT / "models").glob("*.toml"))}
        self.located: dict[str, Json] = {}
        self.versions = {tool: metadata.version(tool) for tool in TOOLS if tool != OURS} | {OURS: own_version()}
        self.results: Json = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        self.results |= {"schema": SCHEMA, "machine": machine(), "date": today(), "versions": self.versions}

    def wanted(self, models: Asked) -> Iterator[tuple[str, tuple[str, ...]]]:
        for model, tools in models.items():
            chosen = tuple(tool for tool in tools if tool in self.options.tools)
            if chosen and (self.options.models is None or model in self.options.models):
                yield model, chosen

    def every_card(self) -> Asked:
        return dict.fromkeys(self.cards, tuple(TOOLS))

    def locate(self, model: str) -> Json:
        if model not in self.located:
            self.located[model] = once("locate", 600, model=self.cards.get(model, model))
        return self.located[model]

    def store(self, table: str, model: str, record: Json) -> None:
        self.results.setdefault(table, {})[model] = record
        partial = RESULTS.with_suffix(".partial")
        text = json.dumps(self.results, indent=1, sort_keys=True)
        partial.write_text(text.replace(f"{ROOT}/", "").replace(str(Path.home()), "~") + "\n")
        partial.replace(RESULTS)

    def old(self, table: str, model: str) -> Json:
        record = self.results.get(table, {}).get(model, {})
        return record if not self.options.again and record.get("sha256") == self.locate(model).get("sha256") else {}

    def measure(self, table: str, models: Asked, how: Callable[[str, tuple[str, ...], Path], Json]) -> None:
        """One record a model: all its tools in the same minutes, or the record that is there already."""
        for model, tools in self.wanted(models):
            versions = {tool: self.versions[tool] for tool in tools}
            if self.old(table, model).get("versions") == versions:
                continue
            where = self.locate(model)
            if "failed" in where:
                record: Json = where
            else:
                with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                    tell(f"{table} {model}")
                    record = {"sha256": where["sha256"], "bytes": Path(where["path"]).stat().st_size}
                    record |= {"tools": how(where["path"], tools, Path(folder))}
            self.store(table, model, record | {"versions": versions, "date": today()})
            if model in TRANSIENT and "path" in where:
                for path in Path(where["path"]).parent.glob(f"{model}*"):
                    path.unlink()

    def nodes(self) -> None:
        """What each tool leaves, and what the judge says of it; a tool is asked again only when its version changes."""
        for model, tools in self.wanted(self.every_card() | {name: IN_PROCESS[name] for name in JUDGED}):
            where, card = self.locate(model), self.cards.get(model)
            if "failed" in where:
                self.store("nodes", model, where | {"date": today()})
                continue
            record = self.old("nodes", model)
            if not record:
                source = self.judge(where["path"], where["path"], card)
                record = {"sha256": where["sha256"], "source": source, "tools": {}, "versions": {}}
            for tool in tools:
                if record["versions"].get(tool) == self.versions[tool]:
                    continue
                tell(f"nodes {model} {tool}")
                with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                    result = str(Path(folder, f"{model}.onnx"))
                    verdict = once(tool, self.options.timeout, source=where["path"], result=result)
                    if "failed" not in verdict:
                        verdict = self.judge(where["path"], result, card)
                record["tools"][tool], record["versions"][tool] = verdict, self.versions[tool]
                self.store("nodes", model, record | {"date": today()})

    def judge(self, source: str, result: str, card: str | None) -> Json:
        return once("judge", 600, source=source, result=result, card=card)

    def time(self) -> None:
        """CPU s of load + passes + save in process, one thread; every tool a warm process of its own."""

        def how(source: str, tools: tuple[str, ...], folder: Path) -> Json:
            with contextlib.ExitStack() as stack:
                children = {tool: stack.enter_context(Child(tool, single_core=True)) for tool in tools}
                return interleaved(
                    {
                        tool: lambda child=child, result=str(folder / f"{tool}.onnx"): child.ask(
                            self.options.timeout, source=source, result=result
                        )
                        for tool, child in children.items()
                    },
                    seconds=self.options.seconds,
                    most=15,
                )

        self.measure("time", IN_PROCESS | self.every_card(), how)

    def command(self) -> None:
        """CPU and wall s of whole commands, imports included."""

        def how(source: str, tools: tuple[str, ...], folder: Path) -> Json:
            return interleaved(self.commands(source, tools, folder), seconds=self.options.seconds, most=5)

        self.measure("command", WHOLE_COMMANDS, how)

    def memory(self) -> None:
        """Peak RSS of whole commands, mapped files included."""

        def how(source: str, tools: tuple[str, ...], folder: Path) -> Json:
            return {tool: call() for tool, call in self.commands(source, tools, folder).items()}

        self.measure("memory", PEAK_MEMORY, how)

    def commands(self, source: str, tools: tuple[str, ...], folder: Path) -> dict[str, Callable[[], Json]]:
        return {
            tool: lambda tool=tool: run_command(
                COMMANDS[tool](source, str(folder / f"{tool}.onnx")), self.options.timeout
            )
            for tool in tools
        }


TABLES: dict[str, Callable[[Benchmark], None]] = {
    "nodes": Benchmark.nodes,
    "time": Benchmark.time,
    "command": Benchmark.command,
    "memory": Benchmark.memory,
}


# ------------------------------------------------------------------------------------------------ what was it, and when


def own_version() -> str:
    """VERSION+HASH of every source file, committed or not: two runs compare only if the code was the same."""
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    rooms = (ROOT / "optimizer", ROOT / "passes")
    files = sorted(path for room in rooms for kind in ("py", "toml") for path in room.rglob(f"*.{kind}"))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    return f"{version[1] if version else 0}+{code[:12]}"


def machine() -> Json:
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    def names(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description="Graphwright beside its peers, on this machine.")
    parser.add_argument("--only", type=names, default=list(TABLES), help=f"of {','.join(TABLES)}")
    parser.add_argument("--models", type=names, help="names of cards and of synthetic models; all without it")
    parser.add_argument("--tools", type=names, default=list(TOOLS), help=f"of {','.join(TOOLS)}")
    parser.add_argument("--timeout", type=float, default=120, help="seconds that one call may take")
    parser.add_argument("--seconds", type=float, default=10, help="what the rounds of one model aim to take together")
    parser.add_argument("--again", action="store_true", help="measure what the results file already holds")
    options = parser.parse_args()
    if unknown := [*set(options.only) - set(TABLES), *set(options.tools) - set(TOOLS)]:
        parser.error(f"unknown: {', '.join(unknown)}")
    benchmark = Benchmark(options)
    for table in options.only:
        TABLES[table](benchmark)
    print(tables.render("goals", benchmark.results))


if __name__ == "__main__":
    main()
