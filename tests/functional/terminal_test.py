#!/usr/bin/env python3
"""`tenon run` at a terminal: the console, leaving it, and a terminal that is always given back."""
import os
import signal
import unittest

import guest

PROMPT = "tenon:~# "


class Terminal(unittest.TestCase):
    def begin(self, *words, **size):
        run = guest.TerminalRun(*words, **size)
        self.addCleanup(run.close)
        return run

    def test_shell_prompt_and_escape(self):
        run = self.begin()
        self.assertIn("Ctrl-] leaves", run.expect("Ctrl-] leaves"))
        run.expect("shell in ")
        run.expect(PROMPT)
        run.type("echo $((6 * 7))\r")
        run.expect("\n42\r\n" + PROMPT)
        run.type("\x1d")
        self.assertEqual(run.wait(), 0)
        self.assertTrue(run.terminal_is_restored())

    def test_window_size_follows(self):
        run = self.begin(rows=31, columns=97)
        run.expect(PROMPT)
        run.type("stty size\r")
        run.expect("\n31 97\r\n" + PROMPT)
        run.set_size(40, 120)
        run.type("while [ \"$(stty size)\" != '40 120' ]; do sleep 0.1; done; echo followed $((1 + 1))\r")
        run.expect("followed 2")
        run.type("\x1d")
        self.assertEqual(run.wait(), 0)

    def test_exit_ends_the_machine(self):
        run = self.begin()
        run.expect(PROMPT)
        run.type("exit\r")
        self.assertEqual(run.wait(), 0)
        self.assertTrue(run.terminal_is_restored())

    def test_poweroff_in_the_shell(self):
        run = self.begin()
        run.expect(PROMPT)
        run.type("poweroff\r")
        self.assertEqual(run.wait(), 0)

    def test_reboot_in_the_shell(self):
        run = self.begin()
        run.expect(PROMPT)
        run.type("touch /tmp/before; reboot\r")
        run.expect("busybox shell")
        run.expect(PROMPT)
        run.type("ls /tmp; echo listed $((1 + 1))\r")
        self.assertNotIn("before", run.expect("listed 2").split("\n", 1)[1])
        run.type("\x1d")
        self.assertEqual(run.wait(), 0)

    def test_command_gets_a_terminal(self):
        run = self.begin("--", "sh", "-c", "tty; stty size; read line; echo got $line; exit 5", rows=20, columns=70)
        run.expect("/dev/pts/0")
        run.expect("20 70")
        run.type("words\r")
        run.expect("got words")
        self.assertEqual(run.wait(), 5)
        self.assertTrue(run.terminal_is_restored())

    def test_sigterm_restores_terminal(self):
        run = self.begin()
        run.expect(PROMPT)
        self.assertFalse(run.terminal_is_restored())
        run.process.send_signal(signal.SIGTERM)
        self.assertEqual(run.wait(), 128 + signal.SIGTERM)
        self.assertTrue(run.terminal_is_restored())

    def test_closed_terminal_ends_the_machine(self):
        run = self.begin()
        run.expect(PROMPT)
        os.close(run.slave)
        os.close(run.master)  # the kernel sends SIGHUP
        self.assertEqual(run.process.wait(guest.PATIENCE_S), 128 + signal.SIGHUP)


if __name__ == "__main__":
    unittest.main()
