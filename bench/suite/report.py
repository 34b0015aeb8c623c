"""The report of an invocation: a Markdown table, all raw figures as JSON, and a chart."""
import dataclasses
import datetime
import json
import os
import pathlib
import shutil
import subprocess

from suite import chart, engine_speed, machines, packages, workloads
from suite.rows import format_ratio, format_value, make_means, make_rows, second_vcpu_throughput
from suite.terminal import BenchError, say

DIRECTORY = machines.ROOT / "build/bench"
PARTIAL_DIRECTORY = DIRECTORY / "part"  # of runs that leave something out, so that they replace no whole report
PUBLISHED = machines.ROOT / "docs/performance"
# In the report's folder, and under which name it is published.
FILES = {"report.md": "figures.md", "report.json": "figures.json", "report.svg": "chart.svg"}


def write(session, load, engine_rows):
    """Prints the Markdown to stdout, and writes all files."""
    facts = about(session, load)
    rows = make_rows(session.figures, session.options.cpus)
    text = as_markdown(facts, rows, engine_rows)
    is_whole = not session.options.only and {"tenon", "qemu"} <= set(session.options.vmm)
    print(text if is_whole else text.partition("\n## ")[2], end="", flush=True)
    directory = DIRECTORY if is_whole else PARTIAL_DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.md").write_text(text, encoding="utf-8")
    (directory / "report.json").write_text(as_json(facts, rows, engine_rows, session.figures), encoding="utf-8")
    (directory / "report.svg").write_text(chart.draw(rows, facts), encoding="utf-8")
    say(f"also in {directory.relative_to(machines.ROOT)}: {', '.join(FILES)}")


def publish():
    missing = [name for name in FILES if not (DIRECTORY / name).exists()]
    if missing:
        raise BenchError(f"no report to publish in {DIRECTORY}: run bench/run first")
    PUBLISHED.mkdir(parents=True, exist_ok=True)
    for source, target in FILES.items():
        shutil.copy(DIRECTORY / source, PUBLISHED / target)
    say(f"published to {PUBLISHED.relative_to(machines.ROOT)}: {', '.join(FILES.values())}")


# ---- what was measured, where and when -------------------------------------------------------------------------------

def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"


def first_line_of(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=machines.ROOT)
    except FileNotFoundError:
        return ""
    return done.stdout.partition("\n")[0]


def about(session, load):
    figures, options = session.figures, session.options
    versions = session.image.versions
    guest = next((figures.information[name] for name in ("tenon", "tcg") if name in figures.information), {})
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": {"processor": processor(), "cpus": os.cpu_count(), "kernel": os.uname().release, "load": load,
                    "load_after": os.getloadavg()[0]},
        "tenon": {"version": session.tenon.version(), "commit": first_line_of("git", "rev-parse", "--short", "HEAD"),
                  "engine": figures.information.get("tenon", {}).get("engine", options.engine)},
        "qemu": first_line_of("qemu-system-x86_64", "--version"),
        "guest": {"kernel": guest.get("kernel", ""), "memory_mib": machines.MEMORY_MIB,
                  "packages": versions["packages"], "compiler": versions["compiler"]},
        "options": {"runs": options.runs, "cpus": options.cpus, "scale": options.scale, "machines": options.vmm},
    }


# ---- JSON ------------------------------------------------------------------------------------------------------------

def as_json(facts, rows, engine_rows, figures):
    raw = [{"cpus": cpus, "workload": name, "machine": machine, "unit": figures.units[name], "runs": runs}
           for (cpus, name, machine), runs in figures.runs.items()]
    document = {
        **facts,
        "rows": [{**dataclasses.asdict(row), "tenon_over_tcg": row.tenon_over_tcg,
                  "native_over_tenon": row.native_over_tenon} for row in rows],
        "means": [dataclasses.asdict(mean) for mean in make_means(rows)],
        "second_vcpu_throughput": second_vcpu_throughput(rows),
        "interpreter": engine_rows,
        "checksums": {name: {checksum: sorted(where) for checksum, where in sums.items()}
                      for name, sums in figures.checks.items()},
        "tenon_events": figures.events,
        "raw": raw,
    }
    return json.dumps(document, indent=1) + "\n"


# ---- Markdown --------------------------------------------------------------------------------------------------------

def as_markdown(facts, rows, engine_rows):
    machine, tenon, guest, options = facts["machine"], facts["tenon"], facts["guest"], facts["options"]
    programs = ", ".join(f"{name} {guest['packages'][name]}" for name in packages.PROGRAM_PACKAGES)
    lines = [
        "# Measured side by side", "",
        f"{facts['date']}: {machine['processor']}, {machine['cpus']} CPUs, Linux {machine['kernel']}; load before "
        f"{machine['load']:.2f}. {tenon['version']} ({tenon['commit']}), engine {tenon['engine']}; "
        f"{facts['qemu'] or 'no QEMU'}. Guests: Linux {guest['kernel']}, {guest['memory_mib']} MiB. "
        f"Programs: {programs}. "
        f"Medians of {options['runs']}" + (f", work scaled by {options['scale']:g}." if options["scale"] != 1 else "."), "",
        "Native: the same files on the host's kernel. TCG: the better of `-cpu max` and `-cpu max,-erms` in each row. "
        "Faster: how many times faster Tenon is than TCG. Distance: how many times slower Tenon is than native.", "",
    ]
    for cpus in sorted({row.cpus for row in rows}):
        chosen = [row for row in rows if row.cpus == cpus]
        lines += [f"## {cpus} vCPU{'s' if cpus > 1 else ''}", "", *means_table(chosen), "", *rows_table(chosen), ""]
    throughput = second_vcpu_throughput(rows)
    if throughput:
        lines += ["## A second vCPU", "", "Throughput of two compilers at once with two vCPUs, of that with one: "
                  + ", ".join(f"{name} {ratio:.2f}" for name, ratio in throughput.items()) + ".", ""]
    return "\n".join([*lines, *engine_speed.as_markdown(engine_rows)])


def means_table(rows):
    if not any(row.tenon_over_tcg or row.native_over_tcg for row in rows):
        return []
    lines = ["| geometric mean over | rows | slower than TCG | faster | distance | TCG's distance |",
             "|---|--:|--:|--:|--:|--:|"]
    for mean in make_means(rows):
        title = workloads.CLASSES.get(mean.group, "all rows")
        slower = f"**{mean.slower}**" if mean.slower else "0"
        lines.append(f"| {title} | {mean.rows} | {slower} | {format_ratio(mean.tenon_over_tcg)} | "
                     f"{format_ratio(mean.native_over_tenon)} | {format_ratio(mean.native_over_tcg)} |")
    return lines


def rows_table(rows):
    lines = ["| workload | class | native | Tenon | TCG | faster | distance | |", "|---|---|--:|--:|--:|--:|--:|---|"]
    for row in rows:
        remarks = (["**slower than TCG**"] if row.is_slower_than_tcg else []) + ([row.note] if row.note else [])
        lines.append(f"| {row.title} | {row.group} | {format_value(row.native, row.unit)} | "
                     f"{format_value(row.tenon, row.unit)} | {format_value(row.tcg, row.unit)} | "
                     f"{format_ratio(row.tenon_over_tcg)} | {format_ratio(row.native_over_tenon)} | "
                     f"{'; '.join(remarks)} |")
    return lines
