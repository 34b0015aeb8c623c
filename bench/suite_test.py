#!/usr/bin/env python3
"""Tests of the benchmark's own parts: what a guest prints, medians and ratios, the archive, the data, the report."""
import pathlib
import sys
import tempfile
import unittest
import xml.etree.ElementTree

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from suite import chart, guest_data, guest_image, machines, rows, session, workloads  # noqa: E402


def figures_of(measured, unit="s"):
    """{machine: seconds of `sh` at one vCPU in each run}"""
    figures = session.Figures()
    for machine, runs in measured.items():
        for seconds in runs:
            figures.add(1, "sh", machine, [seconds], unit)
    return figures


class OutcomeTest(unittest.TestCase):
    def setUp(self):
        self.outcome = machines.Outcome()

    def test_takes_facts_and_nothing_else(self):
        for line in ("STEP fib", "RESULT fib 12.5 ns", "RESULT fib 13 ns", "CHECK sh 00ff", "INFO kernel 6.1.0 x",
                     "SKIP avx2_fma the CPU lacks it", "FAIL cc1 signal 11"):
            self.assertTrue(self.outcome.take(line), line)
        for line in ("", "[    0.1] Linux version", "RESULTS of something", "xRESULT fib 1 ns"):
            self.assertFalse(self.outcome.take(line), line)
        self.assertEqual(self.outcome.results, {"fib": [(12.5, "ns"), (13.0, "ns")]})
        self.assertEqual(self.outcome.checks, {"sh": "00ff"})
        self.assertEqual(self.outcome.failures, {"cc1": "signal 11"})
        self.assertEqual(self.outcome.skipped, {"avx2_fma": "the CPU lacks it"})
        self.assertEqual(self.outcome.information["kernel"], "6.1.0 x")
        self.assertFalse(self.outcome.is_complete)
        self.outcome.take("DONE")
        self.assertTrue(self.outcome.is_complete)

    def test_tenon_events(self):
        rest = self.outcome.take_errors(['{"event":"start","engine":"interp"}', "not an event",
                                         '{"event":"error","message":"it died","console":["last words"]}'])
        self.assertEqual(rest, ["not an event", "it died", "last words"])
        self.assertEqual(self.outcome.information["engine"], "interp")


class RunTest(unittest.TestCase):
    """machines.run() with shell commands in the place of a virtual machine."""

    def run_shell(self, script, silence_limit=60):
        return machines.run(machines.Qemu("test", "max"), ["sh", "-c", script], silence_limit)

    def test_complete_run(self):
        outcome = self.run_shell("printf 'RESULT fib 1 ns\\r\\nDONE\\r\\n'; echo warning >&2")
        self.assertTrue(outcome.is_complete)
        self.assertEqual(outcome.results, {"fib": [(1.0, "ns")]})
        self.assertEqual(outcome.failures, {})

    def test_death_is_a_failure_of_its_step(self):
        outcome = self.run_shell("echo STEP cc1; exit 3")
        self.assertEqual(outcome.failures, {"cc1": "the run ended here, exit status 3"})

    def test_silence_ends_a_run(self):
        outcome = self.run_shell("echo STEP cc1; exec sleep 1000", silence_limit=0.2)
        self.assertIn("nothing heard", outcome.failures["cc1"])


class RowsTest(unittest.TestCase):
    def test_medians_ratios_and_the_better_model(self):
        figures = figures_of({"native": [1], "tenon": [2, 9, 3], "tcg": [12, 13, 14], "tcg-erms": [12, 12, 50]})
        row, = rows.make_rows(figures, [1])
        self.assertEqual((row.native, row.tenon, row.tcg, row.tcg_model), (1, 3, 12, "max,-erms"))
        self.assertEqual((row.tenon_over_tcg, row.native_over_tenon), (4, 3))
        self.assertFalse(row.is_slower_than_tcg)

    def test_rates_are_better_when_higher(self):
        row, = rows.make_rows(figures_of({"native": [90], "tenon": [30], "tcg": [10], "tcg-erms": [60]}, "B/s"), [1])
        self.assertEqual((row.tcg, row.tenon_over_tcg, row.native_over_tenon), (60, 0.5, 3))
        self.assertTrue(row.is_slower_than_tcg)

    def test_missing_figures_are_no_ratios(self):
        row, = rows.make_rows(figures_of({"tenon": [3]}), [1])
        self.assertIsNone(row.tenon_over_tcg)
        self.assertIsNone(rows.make_means([row])[0].tenon_over_tcg)

    def test_geometric_means(self):
        figures = figures_of({"tenon": [1], "tcg": [4]})
        figures.add(1, "gzip", "tenon", [1], "s")
        figures.add(1, "gzip", "tcg", [9], "s")
        figures.add(1, "getppid", "tenon", [1], "s")
        figures.add(1, "getppid", "tcg", [6], "s")
        means = {mean.group: mean for mean in rows.make_means(rows.make_rows(figures, [1]))}
        self.assertAlmostEqual(means["integer"].tenon_over_tcg, 6)
        self.assertAlmostEqual(means["all"].tenon_over_tcg, 6)
        self.assertEqual((means["integer"].rows, means["all"].rows), (2, 3))

    def test_second_vcpu(self):
        figures = session.Figures()
        figures.add(1, "make-j2", "tenon", [6], "s")
        figures.add(2, "make-j2", "tenon", [3], "s")
        self.assertEqual(rows.second_vcpu_throughput(rows.make_rows(figures, [1, 2])), {"tenon": 2})

    def test_wrong_results_are_noted(self):
        figures = figures_of({"tenon": [1], "tcg": [1]})
        figures.checks["sh"] = {"00": {"tenon"}, "01": {"tcg"}}
        self.assertIn("differs", rows.make_rows(figures, [1])[0].note)

    def test_formats(self):
        for value, unit, text in ((0.0123, "s", "12.3 ms"), (1.5, "s", "1.50 s"), (999.96, "ns", "1.00 µs"),
                                  (7.4, "ns", "7.40 ns"), (6.1e9, "B/s", "6.10 GB/s"), (138.6, "op/s", "139 op/s"),
                                  (100, "s", "100 s"), (None, "s", "")):
            self.assertEqual(rows.format_value(value, unit), text)
        self.assertEqual([rows.format_ratio(ratio) for ratio in (0.5, 9.94, 9.96, 123.4, None)],
                         ["0.50", "9.94", "10.0", "123", ""])


class WorkloadsTest(unittest.TestCase):
    def test_table(self):
        self.assertEqual(len({workload.name for workload in workloads.WORKLOADS}), len(workloads.WORKLOADS))
        for workload in workloads.WORKLOADS:
            self.assertIn(workload.group, workloads.RUNNING_ORDER)
            self.assertIn(workload.group, workloads.CLASSES)

    def test_plan_has_no_placeholder_left(self):
        with tempfile.TemporaryDirectory() as directory:
            plan = pathlib.Path(directory) / "plan"
            guest_data.write_plan(plan, workloads.WORKLOADS, 0.01)
            lines = plan.read_text(encoding="utf-8").splitlines()
        self.assertEqual(len(lines), len(workloads.WORKLOADS))
        for line in lines:
            self.assertNotIn("@", line)
            kind, _, repeats, count, program, *_ = line.split("\t")
            self.assertIn(kind, ("time", "parallel", "relay", "openssl"))
            self.assertGreater(int(repeats) * int(count), 0)
            self.assertTrue(program.startswith("/"))

    def test_every_micro_benchmark_is_in_the_program(self):
        sources = "".join(path.read_text(encoding="utf-8") for path in guest_image.GUEST_SOURCES.glob("micro_*.c"))
        for workload in workloads.WORKLOADS:
            if workload.kind == "relay":
                self.assertIn(f'{{"{workload.name}",', sources)

    def test_choice(self):
        chosen, boots = session.choose(["kernel", "fib"])
        self.assertEqual({workload.group for workload in chosen}, {"kernel", "micro"})
        self.assertFalse(boots)
        self.assertEqual(session.in_running_order(chosen)[-1].name, "fib")
        self.assertEqual(session.choose([]), (workloads.WORKLOADS, True))


class DataTest(unittest.TestCase):
    def test_same_bytes_every_time(self):
        self.assertEqual(guest_data.make_text(5000), guest_data.make_text(5000))
        self.assertEqual(len(guest_data.make_text(5000)), 5000)
        self.assertEqual(guest_data.CSource().text(3, 2), guest_data.CSource().text(3, 2))


class ArchiveTest(unittest.TestCase):
    @staticmethod
    def entries(data):
        """{name: (mode, content)} of a newc archive."""
        at, found = 0, {}
        while True:
            fields = [int(data[at + 6 + 8 * i:at + 14 + 8 * i], 16) for i in range(13)]
            mode, size, name_size = fields[1], fields[6], fields[11]
            name = data[at + 110:at + 110 + name_size - 1].decode()
            start = at + (110 + name_size + 3) // 4 * 4
            if name == "TRAILER!!!":
                return found
            found[name] = (mode, data[start:start + size])
            at = start + (size + 3) // 4 * 4

    def test_archive(self):
        with tempfile.TemporaryDirectory() as directory:
            tree = pathlib.Path(directory) / "tree"
            (tree / "bin").mkdir(parents=True)
            (tree / "bin/program").write_bytes(b"12345")
            (tree / "bin/program").chmod(0o755)
            target = pathlib.Path(directory) / "archive.cpio"
            guest_image.write_archive(target, tree, guest_image.DEVICES)
            found = self.entries(target.read_bytes())
        self.assertEqual(found["bin/program"], (0o100755, b"12345"))
        self.assertEqual(found["bin"][0] & 0o170000, 0o040000)
        self.assertEqual(found["dev/console"][0], guest_image.CHARACTER_DEVICE)
        self.assertLess(list(found).index("bin"), list(found).index("bin/program"))


class ChartTest(unittest.TestCase):
    FACTS = {"date": "2026-01-01 00:00 UTC", "machine": {"processor": "A <B> & C"}, "tenon": {"engine": "interp"}}

    def test_is_well_formed_with_and_without_figures(self):
        for measured in ({"native": [1], "tenon": [30], "tcg": [12]}, {"tenon": [3]}, {}):
            drawing = chart.draw(rows.make_rows(figures_of(measured), [1]), self.FACTS)
            root = xml.etree.ElementTree.fromstring(drawing)
            self.assertEqual(root.tag, "{http://www.w3.org/2000/svg}svg")

    def test_slower_rows_stand_out(self):
        drawing = chart.draw(rows.make_rows(figures_of({"native": [1], "tenon": [30], "tcg": [12]}), [1]), self.FACTS)
        self.assertIn('class="slow"', drawing)
        self.assertIn("0.40", drawing)


if __name__ == "__main__":
    unittest.main()
