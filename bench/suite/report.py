"""The report."""
from suite.terminal import say


def write(session, load):
    figures = session.figures
    for (cpus, name, machine), runs in figures.runs.items():
        print(f"{name:16} {cpus} vCPU {machine:10} {figures.median(cpus, name, machine):14.6g} {figures.units[name]:4} {runs}")
    return 0


def publish():
    return 0
