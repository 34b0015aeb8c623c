"""What the workloads run on: Tenon, QEMU's TCG in two CPU models, and the host itself; and how one run goes."""
import dataclasses
import json
import os
import pathlib
import re
import select
import shutil
import subprocess
import tempfile
import time

from suite.terminal import BenchError, say

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MEMORY_MIB = 1024
# Tenon's own default command line (src/cli/run_plan.cc), so that both guests boot with the same.
KERNEL_ARGUMENTS = "console=ttyS0 earlyprintk=ttyS0 panic=-1 cryptomgr.notests=1 quiet loglevel=3"
FACT = re.compile(r"^(RESULT|CHECK|STEP|SKIP|FAIL|INFO|DONE)\b ?(.*)$")


@dataclasses.dataclass
class Outcome:
    """What one run printed."""
    results: dict = dataclasses.field(default_factory=dict)  # name: [(value, unit), ...]
    checks: dict = dataclasses.field(default_factory=dict)  # name: checksum of what the program wrote
    failures: dict = dataclasses.field(default_factory=dict)  # name: why
    skipped: dict = dataclasses.field(default_factory=dict)  # name: why
    information: dict = dataclasses.field(default_factory=dict)
    events: list = dataclasses.field(default_factory=list)  # Tenon's own, of `--json`
    is_complete: bool = False
    step: str = "boot"

    def take(self, line):
        found = FACT.match(line)
        if not found:
            return False
        kind, rest = found.groups()
        name, _, text = rest.partition(" ")
        if kind == "RESULT":
            value, _, unit = text.partition(" ")
            self.results.setdefault(name, []).append((float(value), unit))
        elif kind == "CHECK":
            self.checks[name] = text
        elif kind == "FAIL":
            self.failures[name] = text
        elif kind == "SKIP":
            self.skipped[name] = text
        elif kind == "STEP":
            self.step = name
        elif kind == "INFO":
            self.information.setdefault(name, text)
        else:
            self.is_complete = True
        return True

    def take_errors(self, lines):
        """What the machine's own program said on stderr; returns what is no event of Tenon's."""
        rest = []
        for line in lines:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                rest.append(line)
        for event in self.events:
            if event.get("event") == "start":
                self.information["engine"] = event["engine"]
            elif event.get("event") == "error":
                rest += [event.get("message", ""), *event.get("console", [])]
        return rest


class Tenon:
    name = "tenon"

    def __init__(self, program, engine, stats):
        self.program = pathlib.Path(program)
        self.options = ["--json", "--engine", engine] + (["--stats"] if stats else [])
        if not os.access(self.program, os.X_OK):
            raise BenchError(f"{program} is missing: run `make build`, or give --tenon PATH")

    def command(self, kernel, initrd, cpus):
        return [str(self.program), "run", *self.options, "--cpus", str(cpus), "--memory", f"{MEMORY_MIB}M",
                "--kernel", str(kernel), "--initrd", str(initrd)]

    def boot_command(self, kernel, initrd, cpus):
        return [*self.command(kernel, initrd, cpus), "--append", "tenon.standalone"]

    def version(self):
        return subprocess.run([self.program, "--version"], capture_output=True, text=True, check=True).stdout.strip()


class Qemu:
    def __init__(self, name, model):
        self.name = name
        self.model = model

    def command(self, kernel, initrd, cpus, more_arguments=""):
        return ["qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", self.model,
                "-smp", str(cpus), "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none",
                "-serial", "stdio", "-no-reboot", "-kernel", str(kernel), "-initrd", str(initrd),
                "-append", KERNEL_ARGUMENTS + more_arguments]

    def boot_command(self, kernel, initrd, cpus):
        return self.command(kernel, initrd, cpus, " tenon.standalone")


class Native:
    """The image's programs on the host's kernel, in a root directory of their own."""
    name = "native"

    def __init__(self, image, data):
        self.image = image
        self.data = data

    def command(self, _kernel, _initrd, cpus):
        return [str(self.image.root / "init"), "--native", str(self.image.root), str(self.data), str(cpus)]

    @staticmethod
    def is_possible():
        """Whether this process may have mounts of its own, as root or in a user namespace."""
        probe = ["unshare", "--mount", "true"] if os.geteuid() == 0 else ["unshare", "--user", "--mount", "true"]
        if shutil.which("unshare") is None:
            return False
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0


QEMU_MODELS = {"tcg": "max", "tcg-erms": "max,-erms"}


def qemu_machines():
    if shutil.which("qemu-system-x86_64") is None:
        raise BenchError("qemu-system-x86_64 is missing: run tools/setup --bench, or leave it out with --vmm tenon")
    return [Qemu(name, model) for name, model in QEMU_MODELS.items()]


def lines_of(process, silence_limit):
    """Lines of the process's output as they come, each with carriage returns dropped."""
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
    if rest:
        yield rest.decode(errors="replace")


def run(machine, command, silence_limit, verbose=False):
    """One run from start to end. Whatever goes wrong inside is a failure of the step it happened in."""
    outcome = Outcome()
    start = time.monotonic()
    errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
    last_lines = []
    try:
        for line in lines_of(process, silence_limit):
            if verbose:
                say(f"{machine.name}: {line}")
            if not outcome.take(line) and line.strip():
                last_lines = [*last_lines[-9:], line]
        status = process.wait(timeout=30)
        if not outcome.is_complete:
            outcome.failures.setdefault(outcome.step, f"the run ended here, exit status {status}")
    except (TimeoutError, subprocess.TimeoutExpired):
        outcome.failures[outcome.step] = f"nothing heard for {silence_limit} s"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
    outcome.information["seconds"] = f"{time.monotonic() - start:.1f}"
    with errors:
        errors.seek(0)
        said = outcome.take_errors(errors.read().splitlines())
    for name, why in outcome.failures.items():
        say(f"{machine.name}: {name}: {why}")
    if verbose or not outcome.is_complete:
        for line in [*last_lines, *said]:
            say(f"{machine.name}: | {line}")
    for event in outcome.events:
        if event.get("event") == "stats":
            counters = " ".join(f"{name}={value}" for name, value in event.items() if name not in ("event", "subject"))
            say(f"{machine.name}: {event['subject']}: {counters}")
    return outcome
