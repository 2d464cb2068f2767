"""Several processes on one database, and processes that are killed: no confirmed vote is lost."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.unit.store.conftest import SECRET
from tuneloop.store import answers, store

WRITES = """
import sys, threading
from datetime import UTC, datetime
from tuneloop.core.conversation import Message
from tuneloop.store import records, store
url, secret, rounds = sys.argv[1], bytes.fromhex(sys.argv[2]), int(sys.argv[3])
opened = store.open(url, secret, None)
user = opened.pseudonym("alice")
said = threading.Lock()

def work(number):
    for turn in range(rounds):
        id = records.new_id()
        asked = (Message("user", "question " * 40),)
        opened.record(records.Interaction(id, datetime.now(UTC), user, "m", asked, "answer " * 40, "stop"))
        for thumb in (-1, 1):
            opened.feedback(records.Feedback(id, user, datetime.now(UTC), thumb=thumb))
            with said:
                print(id, thumb, ".", flush=True)
        if turn % 5 == 0:
            opened.audit(f"thread {number}", "turn", {"turn": turn})

threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
opened.close()
"""


def start(url: str, rounds: int, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", WRITES, url, SECRET.hex(), str(rounds)]
    with output.open("ab") as file:
        file.write(b"\n")  # a kill may have cut the line before at the border of a page
        file.flush()
        return subprocess.Popen(command, stdout=file)


def confirmed(output: Path) -> list[tuple[str, int]]:
    """The votes of which a process said that they are written; a line that was cut off says nothing."""
    lines = [line.split() for line in output.read_text().split("\n")[:-1]]
    return [(line[0], int(line[1])) for line in lines if len(line) == 3]


def test_no_confirmed_vote_is_lost_when_a_process_is_killed(url: str, tmp_path: Path) -> None:
    chance, output = random.Random(8), tmp_path / "said"
    output.touch()
    for _ in range(3):
        before = len(confirmed(output))
        process = start(url, 10_000, output)
        try:
            while len(confirmed(output)) == before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.4))  # anywhere within a write, a commit, a checkpoint
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    votes = confirmed(output)
    assert len(votes) >= 3
    with store.open(url, SECRET, None) as opened:
        for id in {id for id, _ in votes}:
            thumbs = [vote.thumb for vote in opened.votes(id)]
            said = [thumb for one, thumb in votes if one == id]
            assert thumbs[: len(said)] == said  # at most one more was written and could not say so any more
            assert len(thumbs) <= len(said) + 1
            (counts,) = answers.counting(opened.votes(id))
            assert counts.thumb == thumbs[-1]
        assert opened.verify_audit() is None
    if url.startswith("sqlite"):
        engine = create_engine(url)
        with engine.connect() as connection:
            assert connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
            assert connection.execute(text("PRAGMA foreign_key_check")).all() == []
        engine.dispose()


def test_several_processes_write_into_one_database(url: str, tmp_path: Path) -> None:
    outputs = [tmp_path / f"said{number}" for number in range(3)]
    processes = [start(url, 6, output) for output in outputs]
    assert [process.wait(300) for process in processes] == [0, 0, 0]
    votes = [vote for output in outputs for vote in confirmed(output)]
    assert len(votes) == 3 * 4 * 6 * 2
    with store.open(url, SECRET, None) as opened:
        assert all([vote.thumb for vote in opened.votes(id)] == [-1, 1] for id in {id for id, _ in votes})
        assert sum(1 for _ in opened.audit_log()) == 3 * 4 * 2
        assert opened.verify_audit() is None


@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "raise KeyError('x')"])
def test_a_process_that_forgets_to_close_loses_nothing(url: str, ending: str) -> None:
    program = WRITES.split("said = ")[0] + (
        "opened.record(records.Interaction('a1', datetime.now(UTC), user, 'm', (), 'x', 'stop'))\n" + ending
    )
    subprocess.run([sys.executable, "-c", program, url, SECRET.hex(), "0"], check=False, capture_output=True)
    with store.open(url, SECRET, None) as opened:
        assert opened.answer("a1") is not None
