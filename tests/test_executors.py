"""Who does the work changes nothing of what is found, and bears with what goes wrong."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from conftest import HERE, TINY, UNTRAINED, Desk, wait_until
from fpbench import InputError
from fpbench.builtin.executors.local import local
from fpbench.builtin.executors.ray import Need

TROUBLE = HERE / "trouble.py"
PATIENCE = 900
"""Seconds for what takes a few on an idle machine: a bound on what never happens."""


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def found(data) -> list[object]:
    """What may not depend on who did the work."""
    weights = [model["weights_sha256"] for model in data["models"]]
    return [weights, *([t["matching_rates"], t["calibration_rates"]] for t in data["trials"])]


@pytest.fixture(scope="module")
def inline(tmp_path_factory):
    """What an inline run of the tiny suite finds."""
    return Desk.of(tmp_path_factory.mktemp("inline"), TINY).run(plugins=(TROUBLE,))


@pytest.mark.parametrize("workers", [1, 4])
def test_workers_find_what_one_process_finds_to_the_bit(desk, inline, workers):
    data = desk.run("--workers", workers, plugins=(TROUBLE,))
    assert found(data) == found(inline)
    for trial in data["trials"]:
        if not trial["error"]:
            assert trial["threads"] == 1
            assert trial["construct_cpu_seconds"] >= 0
            assert trial["verify_cpu_seconds"] > 0


def test_threads_are_one_in_a_run_and_as_before_after_it(tmp_path):
    desk = untrained(tmp_path)
    with threads(2):
        data = desk.run()
        assert torch.get_num_threads() == 2
    assert {trial["threads"] for trial in data["trials"]} == {1}


def test_threads_are_as_before_after_a_run_that_stopped(tmp_path, monkeypatch):
    desk = untrained(tmp_path)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with threads(2):
        assert desk("run").exit_code == 3
        assert torch.get_num_threads() == 2
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_jobs_are_done_by_workers_unless_said_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("FPBENCH_EXECUTOR")
    desk = untrained(tmp_path, "kind: exits")
    result = desk("run", plugins=(TROUBLE,))
    assert "its process ended with exit code 7" in result.output


def untrained(folder: Path, *methods: str) -> Desk:
    lines = (f"  - {{method: trouble, {method}}}\n" for method in methods)
    return Desk.of(folder, UNTRAINED + "".join(lines))


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pids(log: Path) -> list[int]:
    return [int(pid) for pid in log.read_text().split()] if log.exists() else []


def test_a_trial_that_takes_its_process_with_it_fails_alone(tmp_path):
    log = tmp_path / "pids"
    kinds = ["exits", "is killed", "hangs", "prints"]
    desk = untrained(tmp_path, *(f"label: {kind}, kind: {kind}, log: {log}" for kind in kinds))
    result = desk("run", "--workers", 2, "--limit", 10, "--json", plugins=(TROUBLE,))
    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 1  # whatever a worker prints
    for said in (
        "exits: 1 failed: its process ended with exit code 7",
        "is killed: 1 failed: its process was ended by SIGKILL, as it is where memory runs out",
        "hangs: 1 failed: took longer than 10 s",
    ):
        assert said in result.stderr
    # The others are kept, and nothing of those that failed.
    assert len([*(tmp_path / "store" / "trials").rglob("*.json")]) == 2
    assert len(pids(log)) == 2
    assert not any(map(alive, pids(log)))


CROWD = UNTRAINED.replace("{recipe: drawn, copies", "{recipe: crowd, MORE, copies")


@pytest.mark.parametrize(("more", "failed"), [("most: 2", []), ("bad: 4", [3, 4])])
def test_a_cohort_that_is_lost_is_tried_again_in_halves(desk, more, failed):
    desk.write(CROWD.replace("MORE", more))
    data = desk.run("--workers", 1, plugins=(TROUBLE,), exit_code=1 if failed else 0)
    lost = {m["digest"]: m["name"] for m in data["models"] if m["weights_sha256"] is None}
    assert sorted(int(name.rpartition("#")[2]) for name in lost.values()) == failed
    assert data["failures"].keys() == lost.keys()
    assert all("was ended by SIGKILL" in reason for reason in data["failures"].values())


def test_what_a_worker_explains_is_told_as_if_it_were_here(desk):
    desk.write(UNTRAINED.replace("blobs", "{scenario: spoiled, trouble: away}"))
    words = desk.words("run", "--workers", 1, plugins=(HERE / "misbehaving.py",))
    command = [sys.executable, "-m", "fpbench", *words]
    # A process of its own, which would wait for ever for a worker that nobody ended.
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert result.returncode == 3
    assert result.stderr.endswith("error: expected the data of spoiled, found none\n")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_no_worker_outlives_its_run(tmp_path, how):
    log = tmp_path / "pids"
    kinds = ("hangs", "clings")
    desk = untrained(tmp_path, *(f"label: {kind}, kind: {kind}, log: {log}" for kind in kinds))
    words = desk.words("run", "--workers", 2, plugins=(TROUBLE,))
    command = [sys.executable, "-m", "fpbench", *words]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as run:
        try:
            wait_until(lambda: len(pids(log)) == 4)
        except BaseException:
            run.kill()
            raise
        children = psutil.Process(run.pid).children(recursive=True)
        began = time.monotonic()
        if how == signal.SIGINT:
            os.killpg(run.pid, how)  # as a terminal does
        else:
            run.send_signal(how)
        run.wait(PATIENCE)
        wait_until(lambda: not any(map(alive, pids(log))))
        assert time.monotonic() - began < 5
        wait_until(lambda: not any(alive(child.pid) for child in children))
        if how == signal.SIGINT:
            assert run.returncode == 130
            said = run.stderr.read().decode()
            assert "stopped; the same command goes on from here" in said
            assert "Traceback" not in said


def test_what_workers_are_forked_from_ends_silently_while_it_loads_torch():
    load = "import fpbench.builtin.executors.preload, time; print(flush=True); time.sleep(1000)"
    with subprocess.Popen(
        [sys.executable, "-c", load], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as server:
        server.stdout.readline()
        server.send_signal(signal.SIGINT)
        assert server.communicate(timeout=PATIENCE) == (b"", b"")
        assert server.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    ("words", "where", "said"),
    [
        (["--executor", "inline", "--limit", 5], "--limit", "leave --executor out"),
        (["--executor", "inline", "--workers", 2], "--workers", "leave --executor out"),
        (["--device", "cpu,cpu"], "--device", "expected every device once, got cpu,cpu"),
        (["--executor", "ray:cpu=2"], "--executor", "names of cpus, gpus, memory, got 'cpu=2'"),
        (["--executor", "ray:cpus=all"], "--executor", "got 'cpus=all'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_an_executor_cannot_do_is_told_in_one_sentence(desk, words, where, said):
    result = desk("run", *words)
    assert result.exit_code == 2
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith(f"error: {where}: ")
    assert said in sentence


def test_a_gpu_has_one_worker():
    with pytest.raises(InputError, match="a GPU has one worker"):
        local(["cuda:0"], 2, lambda: None)


def test_what_a_worker_needs_of_a_cluster_is_read():
    assert Need.of("cpus=4,memory=8e9", gpus=1) == Need(4, 1, 8e9)
    assert Need.of("gpus=0.5", gpus=0) == Need(1, 0.5, 0)


@pytest.fixture
def cluster(monkeypatch):
    """A Ray cluster of two nodes with one core each, and a head that does no work."""
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # read when Ray is imported
    import ray
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 * 2**20}
    head = {"num_cpus": 0, "include_dashboard": False, **small}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    # Now, while there is but one node: a run does not outlive the node that it is connected to.
    ray.init(address=cluster.address, log_to_driver=False)
    for _ in range(2):
        cluster.add_node(num_cpus=1, **small)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_finds_the_same(desk, inline, cluster):
    log = desk.folder / "node"
    desk.write(TINY + f"  - {{method: trouble, kind: waits once, log: {log}}}\n")

    def lose() -> None:
        wait_until(log.exists)
        wait_until(log.read_text)
        (node,) = (n for n in cluster.worker_nodes if n.node_id == log.read_text())
        cluster.remove_node(node, allow_graceful=False)

    loser = threading.Thread(target=lose)
    loser.start()
    data = desk.run("--executor", "ray:cpus=1", plugins=(TROUBLE,))
    loser.join()
    assert len(cluster.worker_nodes) == 1
    assert found(data)[:-2] == found(inline)
    assert [trial["error"] for trial in data["trials"]] == [None] * 8


UNGUARDED = """
from fpbench.builtin.executors.local import local

for _ in local(["cpu"], 1, print).map(print, [1]):
    pass
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_told(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "expected a worker to start, but it imported the script that started it" in last
    assert "if __name__ == '__main__':" in last
