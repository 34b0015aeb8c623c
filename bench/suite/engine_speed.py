"""Guest instructions a second on small guests of bare code, without a kernel (bench/engine_benchmark.cc)."""
import json
import subprocess

from suite.terminal import BenchError, say


def measure(program):
    if not program.exists():
        raise BenchError(f"{program} is missing: run `make bench`, or build its target engine_benchmark")
    say("instructions a second on small guests")
    output = subprocess.run([program, "--benchmark_format=json", "--benchmark_min_time=1"], capture_output=True,
                            check=True).stdout
    return [{"guest": benchmark["name"].removeprefix("run_guest/"),
             "million_instructions_per_second": benchmark["instructions/s"] / 1e6}
            for benchmark in json.loads(output)["benchmarks"]]


def as_markdown(rows):
    if not rows:
        return []
    return ["## Instructions a second", "", "| guest (bench/guests.S) | millions |", "|---|--:|",
            *(f"| {row['guest']} | {row['million_instructions_per_second']:.0f} |" for row in rows), ""]
