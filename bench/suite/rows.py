"""From figures to rows: medians, QEMU's better model, ratios and geometric means."""
import dataclasses
import math

from suite import machines, workloads

BOOT_TITLE = "boot, process start to shell"


@dataclasses.dataclass
class Row:
    cpus: int
    name: str
    group: str
    title: str
    unit: str
    native: float | None
    tenon: float | None
    tcg: float | None
    tcg_model: str | None  # which of QEMU's CPU models was the better one
    note: str = ""

    def times_faster(self, value, than):
        """How many times better `value` is than the figure `than`; nothing where one of the two is missing."""
        if value is None or than is None or value <= 0 or than <= 0:
            return None
        return value / than if workloads.higher_is_better(self.unit) else than / value

    @property
    def tenon_over_tcg(self):
        return self.times_faster(self.tenon, self.tcg)

    @property
    def native_over_tenon(self):
        return self.times_faster(self.native, self.tenon)

    @property
    def native_over_tcg(self):
        return self.times_faster(self.native, self.tcg)

    @property
    def is_slower_than_tcg(self):
        ratio = self.tenon_over_tcg
        return ratio is not None and ratio < 1


def make_rows(figures, cpu_counts):
    """One row for each workload and number of vCPUs, in the order of the classes."""
    titles = {workload.name: (workload.group, workload.title) for workload in workloads.WORKLOADS}
    titles["boot"] = ("boot", BOOT_TITLE)
    rows = [make_row(figures, cpus, name, *titles[name]) for cpus in cpu_counts for name in titles]
    order = list(workloads.CLASSES)
    rows = [row for row in rows if (row.native, row.tenon, row.tcg) != (None, None, None) or row.note]
    return sorted(rows, key=lambda row: (row.cpus, order.index(row.group)))


def make_row(figures, cpus, name, group, title):
    unit = figures.units.get(name, "")
    better = max if workloads.higher_is_better(unit) else min
    of_models = {model: figures.median(cpus, name, model) for model in machines.QEMU_MODELS}
    measured = {value: model for model, value in of_models.items() if value is not None}
    tcg = better(measured) if measured else None
    remarks = [*figures.failures.items(), *figures.skipped.items()]
    why = {f"{machine}: {text}" for (of_cpus, of_name, machine), text in remarks
           if (of_cpus, of_name) == (cpus, name)}
    if name in figures.wrong_results():
        why.add("the output differs between machines")
    native, tenon = figures.median(cpus, name, "native"), figures.median(cpus, name, "tenon")
    return Row(cpus, name, group, title, unit, native, tenon, tcg,
               machines.QEMU_MODELS.get(measured.get(tcg)), "; ".join(sorted(why)))


@dataclasses.dataclass
class Mean:
    cpus: int
    group: str  # a class, or "all"
    rows: int
    slower: int  # of the rows, those slower than TCG
    tenon_over_tcg: float | None
    native_over_tenon: float | None
    native_over_tcg: float | None


def geometric_mean(values):
    present = [value for value in values if value is not None]
    return math.exp(sum(map(math.log, present)) / len(present)) if present else None


def make_means(rows):
    means = []
    for cpus in sorted({row.cpus for row in rows}):
        for group in [*workloads.CLASSES, "all"]:
            chosen = [row for row in rows if row.cpus == cpus and group in (row.group, "all")]
            if chosen:
                means.append(Mean(cpus, group, len(chosen), sum(row.is_slower_than_tcg for row in chosen),
                                  geometric_mean(row.tenon_over_tcg for row in chosen),
                                  geometric_mean(row.native_over_tenon for row in chosen),
                                  geometric_mean(row.native_over_tcg for row in chosen)))
    return means


def second_vcpu_throughput(rows):
    """How much more of two compilers at once is done with two vCPUs than with one: {"tenon": 1.9, ...}."""
    found = {row.cpus: row for row in rows if row.name == "make-j2"}
    if 1 not in found or 2 not in found:
        return {}
    pairs = {name: (getattr(found[1], name), getattr(found[2], name)) for name in ("native", "tenon", "tcg")}
    return {name: one / two for name, (one, two) in pairs.items() if one and two}


def format_value(value, unit):
    """Three digits and a unit of the right size."""
    if value is None:
        return ""
    if unit == "ns":
        value, unit = value * 1e-9, "s"
    small, large = [(1e-9, "n"), (1e-6, "µ"), (1e-3, "m"), (1, "")], [(1, ""), (1e3, "k"), (1e6, "M"), (1e9, "G")]
    steps = [step for step in (small if unit == "s" else large) if value >= step[0] * 0.9995]
    factor, prefix = steps[-1] if steps else (small if unit == "s" else large)[0]
    scaled = value / factor
    digits = 0 if scaled >= 99.95 else 1 if scaled >= 9.995 else 2
    return f"{scaled:.{digits}f} {prefix}{unit}"


def format_ratio(ratio):
    if ratio is None:
        return ""
    return f"{ratio:.0f}" if ratio >= 99.5 else f"{ratio:.1f}" if ratio >= 9.95 else f"{ratio:.2f}"
