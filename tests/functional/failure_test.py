#!/usr/bin/env python3
"""What cannot work: each case ends by itself, with a message that says what is wrong and a status that says whose fault."""
import os
import signal
import tempfile
import time
import unittest

import guest


class Failure(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def file(self, name, contents):
        path = os.path.join(self.folder.name, name)
        with open(path, "wb") as file:
            file.write(contents)
        return path

    def kernel_bytes(self):
        with open(guest.image("cloud"), "rb") as file:
            return bytearray(file.read())

    def expect_error(self, result, *words):
        self.assertEqual(result.returncode, 125, result.stderr)
        self.assertEqual(result.stdout, b"")
        text = result.stderr.decode()
        self.assertTrue(text.startswith("tenon: "), text)
        for word in words:
            self.assertIn(word, text)

    def test_missing_kernel(self):
        self.expect_error(guest.run("--kernel", "/nonexistent/vmlinuz", "--", "true"), "/nonexistent/vmlinuz")

    def test_corrupt_kernel(self):
        kernel = self.kernel_bytes()
        middle = len(kernel) // 2  # in the compressed payload
        kernel[middle:middle + 64] = bytes(64)
        path = self.file("corrupt", kernel)
        self.expect_error(guest.run("--kernel", path, "--", "true"), "corrupt", "payload")

    def test_truncated_kernel(self):
        path = self.file("short", self.kernel_bytes()[:100_000])
        self.expect_error(guest.run("--kernel", path, "--", "true"), "short", "100000 bytes")

    def test_corrupt_initrd(self):
        with open(guest.image("initramfs"), "rb") as file:
            path = self.file("initrd", file.read()[:1_000_000])  # ends inside a file
        self.expect_error(guest.run("--initrd", path), "initrd", "bin/busybox")

    def test_wrong_usage(self):
        self.expect_error(guest.run("--cpu", "2"), "did you mean '--cpus'?")
        self.expect_error(guest.run("--cpus", "0", "--", "true"), "--cpus")
        self.expect_error(guest.run("--memory", "1M", "--", "true"), "--memory")

    def test_kernel_panic(self):
        result = guest.run("--append", "rdinit=/nonexistent", "--", "true")
        self.expect_error(result, "panicked", "Kernel panic - not syncing: VFS")

    def test_sigterm_ends_command(self):
        process = guest.start("--json", "--", "sh", "-c", "echo up; sleep 100000")
        self.assertEqual(process.stdout.readline(), b"up\n")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=guest.PATIENCE_S)
        self.assertEqual(process.returncode, 128 + signal.SIGTERM)

    def test_sigterm_while_booting(self):
        process = guest.start("--json", "--", "true")
        self.assertIn(b'"start"', process.stderr.readline())
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=guest.PATIENCE_S)
        self.assertEqual(process.returncode, 128 + signal.SIGTERM)

    def test_second_signal_forces(self):
        process = guest.start("--", "sh", "-c", "trap '' TERM INT; echo up; while :; do sleep 1; done")
        self.assertEqual(process.stdout.readline(), b"up\n")
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)  # so that the two do not become one; either way it ends
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=guest.PATIENCE_S)
        self.assertIn(process.returncode, (128 + signal.SIGTERM, 128 + signal.SIGINT))


if __name__ == "__main__":
    unittest.main()
