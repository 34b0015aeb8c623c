"""Where a suite runs: in a guest of Tenon's, and on the host."""
import json
import os
import resource
import select
import subprocess
import tempfile
import time

from suites.program import Results
from suites.terminal import SuiteError, say

SILENCE_MARGIN_SECONDS = 300


def images(tenon, flavour):
    """Kernel and initramfs of Tenon's image cache, fetched where they are missing."""
    for attempt in range(2):
        listing = json.loads(subprocess.run([tenon, "image", "ls", "--json"], capture_output=True, check=True).stdout)
        kernels = [kernel["path"] for kernel in listing["kernels"] if kernel["flavour"] == flavour]
        if kernels and os.path.exists(listing.get("initramfs") or ""):
            return kernels[0], listing["initramfs"]
        if attempt == 0:
            subprocess.run([tenon, "image", "fetch", "--flavour", flavour], check=True)
    raise SuiteError(f"no {flavour} kernel in Tenon's cache: see `tenon image ls`")


def guest_command(options, suite, kernel, initrd):
    more = ["--engine-options", options.engine_options] if options.engine_options else []
    more += ["--stats"] if options.stats else []
    return [str(options.tenon), "run", "--engine", options.engine, "--cpus", str(options.cpus),
            "--memory", suite.memory, "--kernel", str(kernel), "--initrd", str(initrd), *more]


def runner_words(options):
    """The last arguments of run_programs."""
    return [str(options.cpus), *(["verbose"] if options.verbose else [])]


def host_command(options, runner, plan, work):
    return [str(runner), str(plan), str(work), *runner_words(options)]


def lines_of(process, silence_limit):
    rest = b""
    while True:
        if not select.select([process.stdout], [], [], silence_limit)[0]:
            raise TimeoutError
        some = os.read(process.stdout.fileno(), 65536)
        if not some:
            break
        *lines, rest = (rest + some).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")


def processor_seconds():
    """Of all processes started here that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(place, command, count, silence_limit, verbose):
    """One run of all programs. The results' seconds are those of the whole run, with the guest's boot."""
    results = Results()
    start, processor_start = time.monotonic(), processor_seconds()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
        try:
            for line in lines_of(process, silence_limit + SILENCE_MARGIN_SECONDS):
                name = results.take(line)
                if verbose and name is None:
                    print(f"{place}: {line}", flush=True)
                if name is not None:
                    result = results.get(name)
                    if verbose or not result.is_good() or len(results.by_name) % 20 == 0:
                        say(f"{place}: {len(results.by_name)} of {count}: {name}: {result.outcome()}, "
                            f"{result.seconds:.1f} s")
                elif line.startswith("FAIL "):
                    say(f"{place}: {line}")
            process.wait(timeout=SILENCE_MARGIN_SECONDS)
        except (TimeoutError, subprocess.TimeoutExpired):
            say(f"{place}: nothing heard for {silence_limit + SILENCE_MARGIN_SECONDS} s: ended")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
        errors.seek(0)
        said = errors.read().splitlines()
    for line in said if verbose or not results.is_complete or "--stats" in command else []:
        say(f"{place}: | {line}")
    if not results.is_complete:
        say(f"{place}: the run did not end as it should, exit status {process.returncode}")
    results.seconds, results.processor_seconds = time.monotonic() - start, processor_seconds() - processor_start
    return results
