#!/usr/bin/env python3
"""`tenon run -- COMMAND`: exit status, and streams that are exact in both directions."""
import hashlib
import json
import os
import subprocess
import tempfile
import unittest

import guest


class Command(unittest.TestCase):
    def test_exit_status(self):
        result = guest.run("--", "sh", "-c", "exit 7")
        self.assertEqual((result.returncode, result.stdout, result.stderr), (7, b"", b""))

    def test_command_not_found(self):
        result = guest.run("--", "no-such-command")
        self.assertEqual(result.returncode, 127)
        self.assertIn(b"no-such-command", result.stderr)

    def test_command_not_runnable(self):
        self.assertEqual(guest.run("--", "/etc/passwd").returncode, 126)

    def test_killed_command(self):
        self.assertEqual(guest.run("--", "sh", "-c", "kill -9 $$").returncode, 128 + 9)

    def test_file_is_exact(self):
        # A checksum from inside beside the file as it arrives outside.
        with tempfile.TemporaryFile() as out:
            result = subprocess.run(guest.arguments("--", "sh", "-c", "md5sum /proc/cpuinfo >&2; cat /proc/cpuinfo"),
                                    stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE,
                                    timeout=guest.PATIENCE_S)
            out.seek(0)
            text = out.read()
        self.assertEqual(result.returncode, 0)
        self.assertTrue(text.startswith(b"processor\t: 0\n"), text[:40])
        self.assertNotIn(b"\r", text)
        self.assertEqual(hashlib.md5(text).hexdigest(), result.stderr.split()[0].decode())

    def test_stdin_reaches_command_exactly(self):
        data = os.urandom(1 << 20)
        result = guest.run("--", "cat", stdin=data)
        self.assertEqual(result.returncode, 0)
        self.assertEqual(len(result.stdout), len(data))
        self.assertEqual(hashlib.sha256(result.stdout).digest(), hashlib.sha256(data).digest())

    def test_streams_stay_apart(self):
        result = guest.run("--", "sh", "-c", "cat; echo problem >&2; echo end", stdin=b"in\0put\xff")
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, b"in\0put\xffend\n", b"problem\n"))

    def test_closed_reader_ends_command(self):
        producer = subprocess.Popen(guest.arguments("--", "yes"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.assertEqual(producer.stdout.readline(), b"y\n")
        producer.stdout.close()
        self.assertEqual(producer.wait(guest.PATIENCE_S), 128 + 13)  # SIGPIPE, as on the host

    def test_closed_descriptors(self):
        command = ["sh", "-c", 'exec "$0" "$@" <&- 2>&-', *guest.arguments("--", "sh", "-c", "cat; echo end")]
        result = subprocess.run(command, stdout=subprocess.PIPE, timeout=guest.PATIENCE_S)
        self.assertEqual((result.returncode, result.stdout), (0, b"end\n"))

    def test_long_command_line(self):
        # More than one window of the control link.
        words = ["x" * 1000] * 60
        result = guest.run("--", "sh", "-c", 'echo $# ${#60}', "sh", *words)
        self.assertEqual((result.returncode, result.stdout), (0, b"60 1000\n"))

    def test_background_process_does_not_hold(self):
        result = guest.run("--", "sh", "-c", "sleep 100000 & echo started")
        self.assertEqual((result.returncode, result.stdout), (0, b"started\n"))

    def test_nothing_extra_when_piped(self):
        result = guest.run("--", "true")
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, b"", b""))

    def test_json_events(self):
        result = guest.run("--json", "--cpus", "1", "--name", "demo", "--", "hostname")
        events = [json.loads(line) for line in result.stderr.splitlines()]
        self.assertEqual(result.stdout, b"demo\n")
        self.assertEqual([event["event"] for event in events], ["start", "ready", "exit"])
        self.assertEqual((events[0]["cpus"], events[0]["name"]), (1, "demo"))
        self.assertIn(events[0]["engine"], guest.ENGINE_NAMES)
        self.assertEqual(events[2]["status"], 0)

    def test_generic_kernel(self):
        result = guest.run("--flavour", "generic", "--", "uname", "-r")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(result.stdout.strip().endswith(b"-amd64"))
        self.assertNotIn(b"cloud", result.stdout)

    def test_own_kernel_file(self):
        result = guest.run("--kernel", guest.image("cloud"), "--append", "tenon.test=1", "--", "cat", "/proc/cmdline")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(result.stdout.endswith(b" tenon.test=1\n"))

    def test_transcript_without_terminal(self):
        result = subprocess.run(guest.arguments(), stdin=subprocess.DEVNULL, capture_output=True,
                                timeout=guest.PATIENCE_S)
        self.assertEqual(result.returncode, 0)
        self.assertIn(b"tenon:~# uname -a\nLinux tenon 6.", result.stdout)
        self.assertIn(b"# echo $((6 * 7))\n42\n", result.stdout)
        self.assertRegex(result.stderr.decode(), f"engine ({'|'.join(guest.ENGINE_NAMES)})")
        self.assertIn(b"shell in ", result.stderr)

    def check_vcpus(self, count):
        result = guest.run("--cpus", str(count), "--", "sh", "-c", "nproc; grep -c ^processor /proc/cpuinfo")
        self.assertEqual((result.returncode, result.stdout), (0, f"{count}\n{count}\n".encode()), result.stderr)

    def test_two_vcpus(self):
        self.check_vcpus(2)

    def test_four_vcpus(self):
        self.check_vcpus(4)


if __name__ == "__main__":
    unittest.main()
