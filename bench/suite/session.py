"""One invocation: which programs run which workloads, in turns, and all figures that came out."""
import contextlib
import fcntl
import os
import pathlib
import shlex
import shutil
import statistics
import tempfile
import time

from suite import boot, guest_data, guest_image, machines, workloads
from suite.terminal import say

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tenon/bench"


class Figures:
    """All figures of an invocation: by vCPUs, workload and machine, one list of repeats for each run."""

    def __init__(self):
        self.runs = {}  # (cpus, workload, machine): [[value, ...], ...]
        self.units = {}  # workload: unit
        self.checks = {}  # workload: {checksum: {machine, ...}}
        self.failures = {}  # (cpus, workload, machine): why
        self.skipped = {}  # likewise, where there is nothing wrong
        self.information = {}  # machine: {name: text}
        self.events = []  # what Tenon said of itself in each run, with --stats its counters

    def add(self, cpus, name, machine, values, unit):
        self.runs.setdefault((cpus, name, machine), []).append(values)
        self.units[name] = unit

    def add_outcome(self, cpus, machine, outcome):
        for name, measured in outcome.results.items():
            self.add(cpus, name, machine, [value for value, _ in measured], measured[0][1])
        for name, checksum in outcome.checks.items():
            self.checks.setdefault(name, {}).setdefault(checksum, set()).add(machine)
        for name, why in outcome.failures.items():
            self.failures[cpus, name, machine] = why
        for name, why in outcome.skipped.items():
            self.skipped[cpus, name, machine] = why
        self.information.setdefault(machine, outcome.information)
        if outcome.events:
            self.events.append({"cpus": cpus, "machine": machine, "events": outcome.events})

    def add_earlier(self, report, wanted):
        """The figures of an earlier report's JSON for the workloads `wanted`, of machines that have none here."""
        present = {machine for _, _, machine in self.runs}
        for raw in report["raw"]:
            if raw["machine"] not in present and raw["workload"] in wanted:
                self.runs[raw["cpus"], raw["workload"], raw["machine"]] = raw["runs"]
                self.units[raw["workload"]] = raw["unit"]

    def median(self, cpus, name, machine):
        """The median over the runs of each run's median, or nothing."""
        runs = self.runs.get((cpus, name, machine))
        return statistics.median(statistics.median(run) for run in runs) if runs else None

    def wrong_results(self):
        """Workloads whose output was not the same everywhere."""
        return {name: sums for name, sums in self.checks.items() if len(sums) > 1}


class Session:
    def __init__(self, options, chosen, boots):
        self.options = options
        self.chosen = chosen  # workloads that run in the guest
        self.boots = boots
        self.figures = Figures()
        self.tenon = machines.Tenon(options.tenon, options.engine, options.stats)

    @contextlib.contextmanager
    def prepared(self):
        """Everything a run needs, in a work folder of its own: several sessions may run at once."""
        CACHE.mkdir(parents=True, exist_ok=True)
        remove_abandoned_work()
        with open(CACHE / "lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.kernel, self.boot_initrd = boot.image_paths(self.tenon.program, self.options.flavour)
            self.image = guest_image.build(CACHE)
            self.work = tempfile.TemporaryDirectory(prefix="work-", dir=CACHE)
            data = pathlib.Path(self.work.name) / "data"
            shutil.copytree(guest_data.prepare(CACHE, self.options.scale), data)
        with self.work:
            guest_data.write_plan(data / "plan", in_running_order(self.chosen), self.options.scale)
            self.initrd = guest_image.with_data(self.image, data, pathlib.Path(self.work.name) / "initramfs.cpio")
            self.machines = self.chosen_machines(data)
            yield self

    def chosen_machines(self, data):
        chosen = []
        if "tenon" in self.options.vmm:
            chosen.append(self.tenon)
        if "qemu" in self.options.vmm:
            chosen += machines.qemu_machines()
        if "native" in self.options.vmm:
            if machines.Native.is_possible():
                chosen.append(machines.Native(self.image, data))
            else:
                say("no native figures: mounts of our own are neither allowed to this user nor in a user namespace")
        return chosen

    def run(self):
        for cpus in self.options.cpus:
            for number in range(1, self.options.runs + 1):
                for machine in self.machines:
                    self.run_once(cpus, number, machine)
        for name, sums in self.figures.wrong_results().items():
            say(f"WRONG RESULT: {name}: its output differs: " +
                "; ".join(f"{checksum} on {', '.join(sorted(where))}" for checksum, where in sums.items()))

    def show_command(self):
        """Prints Tenon's command with an initramfs that stays."""
        label = "-".join(self.options.only)[:80] or "all"
        kept = shutil.copy(self.initrd, CACHE / f"kept-{label}-{self.options.scale:g}.cpio")
        print(shlex.join(self.tenon.command(self.kernel, kept, self.options.cpus[0])))
        return 0

    def run_once(self, cpus, number, machine):
        if self.boots and machine.name != "native":
            say(f"boot, {cpus} vCPU, run {number} of {self.options.runs}: {machine.name}")
            command = machine.boot_command(self.kernel, self.boot_initrd, cpus)
            self.figures.add(cpus, "boot", machine.name, [boot.seconds_to_prompt(command)], "s")
        if self.chosen:
            say(f"{len(self.chosen)} workloads, {cpus} vCPU, run {number} of {self.options.runs}: {machine.name}")
            outcome = machines.run(machine, machine.command(self.kernel, self.initrd, cpus), self.options.timeout,
                                   self.options.verbose)
            self.figures.add_outcome(cpus, machine.name, outcome)


def remove_abandoned_work():
    """Work folders of sessions that were killed: none runs for a day."""
    for folder in CACHE.glob("work-*"):
        if time.time() - folder.stat().st_mtime > 24 * 3600:
            shutil.rmtree(folder, ignore_errors=True)


def choose(names):
    """The workloads behind the words of --only: names and classes. Also whether boots are among them."""
    if not names:
        return workloads.WORKLOADS, True
    chosen = [workload for workload in workloads.WORKLOADS if workload.name in names or workload.group in names]
    return chosen, "boot" in names


def in_running_order(chosen):
    """Kernel work first, large memory last: QEMU's TLB grows with what a program touches and shrinks slowly, and each
    of its flushes then costs more than a fresh guest's would."""
    order = list(workloads.RUNNING_ORDER)
    return sorted(chosen, key=lambda workload: order.index(workload.group))
