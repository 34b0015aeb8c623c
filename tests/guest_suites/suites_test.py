#!/usr/bin/env python3
"""Tests of the tool's own parts: the program that runs a plan, taking its lines, comparing, and the archive."""
import pathlib
import subprocess
import sys
import tempfile
import types
import unittest

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from suites import image, program, report  # noqa: E402


class RunnerTest(unittest.TestCase):
    """guest/run_programs.c on the host."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.work = pathlib.Path(cls.folder.name)
        subprocess.run(["gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-o", cls.work / "run_programs",
                        HERE / "guest/run_programs.c"], check=True)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def run_scripts(self, scripts, at_once=1, output="all", limit=60):
        program.write_plan(self.work / "plan", {"PATH": "/usr/bin:/bin", "COLOUR": "blue"}, [
            program.Program(name, output, limit, ["/bin/sh", "-c", script]) for name, script in scripts.items()])
        done = subprocess.run([self.work / "run_programs", self.work / "plan", self.work / "programs", str(at_once)],
                              capture_output=True, text=True, check=True)
        results = program.Results()
        for line in done.stdout.splitlines():
            results.take(line)
        self.assertTrue(results.is_complete)
        self.assertEqual(set(results.by_name), set(scripts))
        return results

    def test_how_programs_end(self):
        results = self.run_scripts({"good": "true", "bad": "exit 3", "killed": "kill -SEGV $$", "skip": "exit 77"})
        self.assertEqual([results.get(name).outcome() for name in ("good", "bad", "killed", "skip", "other")],
                         ["exit 0", "exit 3", "signal 11", "exit 77", "missing"])
        self.assertEqual([results.get(name).is_good() for name in ("good", "bad", "killed", "skip", "other")],
                         [True, False, False, True, False])

    def test_output_is_summed(self):
        results = self.run_scripts({"a": "echo 1", "b": "echo 1", "c": "echo 2", "d": "echo 1 >&2"})
        self.assertTrue(results.get("a").same_as(results.get("b")))
        self.assertTrue(results.get("a").same_as(results.get("d")))
        self.assertFalse(results.get("a").same_as(results.get("c")))

    def test_tap_ignores_the_rest(self):
        script = "echo 1..2; echo '# {}'; echo '    ok 1 - a'; echo 'not ok 2'; echo {}"
        results = self.run_scripts({"a": script.format(1, 2), "b": script.format(3, 4), "c": "echo 1..2; echo ok 1"},
                                   output="tap")
        self.assertTrue(results.get("a").same_as(results.get("b")))
        self.assertFalse(results.get("a").same_as(results.get("c")))
        self.assertEqual((results.get("a").lines, results.get("a").passed), (3, 1))

    def test_late_program_and_its_children_are_killed(self):
        results = self.run_scripts({"late": "sleep 1000 & sleep 1000"}, limit=1)
        self.assertEqual(results.get("late").outcome(), "timeout")

    def test_environment_and_empty_folder(self):
        results = self.run_scripts({"a": "ls; echo $COLOUR; touch left-over", "b": "ls; echo $COLOUR", "c": "echo blue"})
        self.assertTrue(results.get("a").same_as(results.get("c")))
        self.assertTrue(results.get("b").same_as(results.get("c")))

    def test_several_at_once(self):
        # Each waits for the other: one after the other, both would hit the limit.
        meet = f"touch {self.work}/%s; while ! test -e {self.work}/%s; do sleep 0.05; done"
        results = self.run_scripts({"a": meet % ("one", "two"), "b": meet % ("two", "one")}, at_once=2)
        self.assertEqual([results.get(name).outcome() for name in ("a", "b")], ["exit 0", "exit 0"])

    def test_last_lines_of_a_failure(self):
        results = self.run_scripts({"a": "for i in $(seq 30); do echo line $i; done; exit 1", "b": "echo quiet"})
        self.assertEqual(results.get("a").said[-1], "line 30")
        self.assertEqual(results.get("b").said, [])


class ReportTest(unittest.TestCase):
    def compare(self, guest, host):
        results = []
        for lines in (guest, host):
            results.append(program.Results())
            for line in lines:
                results[-1].take(line)
        programs = [program.Program(name, "all", 1, [name]) for name in ("a", "b")]
        return report.Comparison(types.SimpleNamespace(name="x", version="1"), programs, *results)

    def test_differences(self):
        host = ["RESULT a exit 0 00000000000000aa 1 0 1.000 1.000", "RESULT b exit 1 00000000000000bb 1 0 1.000 1.000"]
        self.assertEqual(self.compare(host, host).differences(), [])
        self.assertEqual(self.compare(host, host).failures_everywhere(), ["b"])
        self.assertEqual(self.compare(host[:1], host).differences(), ["b"])
        for changed in (host[0].replace("aa", "ab"), host[0].replace("exit 0", "signal 4"), ""):
            self.assertEqual(self.compare([changed, host[1]], host).differences(), ["a"])

    def test_ratio_is_of_processor_time(self):
        this = self.compare(["RESULT a exit 0 00000000000000aa 1 0 9.000 3.000"],
                            ["RESULT a exit 0 00000000000000aa 1 0 1.000 1.500"])
        self.assertEqual(this.ratios(), {"a": 2.0})


class ArchiveTest(unittest.TestCase):
    def test_entries_and_their_folders(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "x.cpio"
            with open(path, "wb") as out:
                archive = image.Archive(out)
                archive.add("/a/b/c", 0o100644, b"text\n")
                archive.add("/a/b/c", 0o100644, b"once only")
                archive.add("/a/d", 0o100755, b"")
                archive.add("TRAILER!!!", 0)
            self.assertEqual(path.stat().st_size % 4, 0)
            content = path.read_bytes()
        names = [content[at + 110:content.index(b"\0", at + 110)].decode() for at in range(len(content))
                 if content.startswith(b"070701", at)]
        self.assertEqual(names, ["a", "a/b", "a/b/c", "a/d", "TRAILER!!!"])
        self.assertIn(b"text\n", content)
        self.assertNotIn(b"once only", content)


if __name__ == "__main__":
    unittest.main()
