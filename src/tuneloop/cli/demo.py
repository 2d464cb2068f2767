"""`tuneloop demo`: the main job on the embedded model, nothing downloaded."""

from tuneloop.cli.options import RUNS, Again, AsJson, RunsFolder, Settings, emit


def command(settings: Settings = [], runs: RunsFolder = RUNS, again: Again = False, as_json: AsJson = False) -> None:
    """Prepare, tune, evaluate, merge and report on the embedded base and a small dataset, in a few minutes on a CPU.

    Example:

      tuneloop demo
    """
    from tuneloop.flows.demo import demo

    emit(demo(settings, runs, again), as_json)
