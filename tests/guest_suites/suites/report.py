"""Compares what the programs did in the guest and on the host: a table for people, JSON for programs."""
import dataclasses
import datetime
import json
import os
import statistics


class Comparison:
    def __init__(self, suite, programs, guest, host):
        self.suite = suite
        self.names = [program.name for program in programs]
        self.guest = guest
        self.host = host

    def differences(self):
        return [name for name in self.names if not self.guest.get(name).same_as(self.host.get(name))]

    def failures_everywhere(self):
        """Programs that fail in the same way on both: of no interest here, but to be seen."""
        return [name for name in self.names if name not in self.differences() and not self.host.get(name).is_good()]

    def ratios(self):
        """{name: processor time in the guest over that on the host}, of those that take long enough to say so."""
        return {name: self.guest.get(name).cpu_seconds / self.host.get(name).cpu_seconds for name in self.names
                if self.host.get(name).cpu_seconds >= 0.05 and self.guest.get(name).is_good()}

    def passed(self):
        return sum(self.guest.get(name).passed for name in self.names)


def print_table(options, comparisons):
    print("| suite | version | engine | vCPUs | programs | lines that say ok | differences | fail alike | "
          "guest: wall s | processor s | host: wall s | processor s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for this in comparisons:
        print(f"| {this.suite.name} | {this.suite.version} | {options.engine} | {options.cpus} | {len(this.names)} | "
              f"{this.passed()} | {len(this.differences())} | {len(this.failures_everywhere())} | "
              f"{this.guest.seconds:.0f} | {this.guest.processor_seconds:.0f} | "
              f"{this.host.seconds:.0f} | {this.host.processor_seconds:.0f} |")
    for this in comparisons:
        print_details(this)


def print_details(this):
    for name in this.differences():
        guest, host = this.guest.get(name), this.host.get(name)
        print(f"DIFFERENT {this.suite.name} {name}: guest {guest.outcome()}, output {guest.checksum or '-'} "
              f"({guest.passed} ok); host {host.outcome()}, output {host.checksum or '-'} ({host.passed} ok)")
        for line in guest.said[-6:]:
            print(f"    guest: {line}")
        for line in host.said[-6:]:
            print(f"    host: {line}")
    for name in this.failures_everywhere():
        print(f"fails on both: {this.suite.name} {name}: {this.host.get(name).outcome()}")
    slowest = sorted(this.ratios().items(), key=lambda item: -item[1])[:5]
    if slowest:
        print(f"processor time in the guest over that on the host, {this.suite.name}: median "
              f"{statistics.median(this.ratios().values()):.1f}; most: " +
              ", ".join(f"{name} {ratio:.1f}" for name, ratio in slowest))


def write_json(path, options, comparisons):
    def rows(this):
        return {name: {"same": this.guest.get(name).same_as(this.host.get(name)),
                       "guest": dataclasses.asdict(this.guest.get(name)),
                       "host": dataclasses.asdict(this.host.get(name))} for name in this.names}
    report = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "engine": options.engine, "cpus": options.cpus, "tenon": options.tenon_version,
        "load_average": os.getloadavg()[0],
        "suites": {this.suite.name: {"version": this.suite.version, "differences": this.differences(),
                                     "guest_seconds": this.guest.seconds, "host_seconds": this.host.seconds,
                                     "guest_processor_seconds": this.guest.processor_seconds,
                                     "host_processor_seconds": this.host.processor_seconds,
                                     "programs": rows(this)} for this in comparisons},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
