"""Runs on a cluster end in the records of serial ones, whatever is lost on the way; what cannot be is said clearly."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_run import figures, leftovers

from reprolib import BUC, cluster, paths
from reprolib.cluster import ClusterError
from reprolib.files import locked
from reprolib.jobs import Job
from reprolib.record import load_record

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """What ``ray_run.py`` left and saw, and the mark that is in the environment of all its processes."""
    pytest.importorskip("ray", reason="Ray is not installed: make setup")
    folder, mark = tmp_path_factory.mktemp("ray"), uuid.uuid4().hex
    with tempfile.TemporaryDirectory(prefix="ray") as scratch:  # short: Ray keeps sockets there
        environment = os.environ | {
            "PYTHONPATH": str(TESTS),
            "OMP_NUM_THREADS": "1",
            "RAY_TMPDIR": scratch,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": mark,
            "RAY_prestart_worker_first_driver": "0",
        }
        command = [sys.executable, str(TESTS / "ray_run.py"), str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder, json.loads((folder / "seen.json").read_text()), mark, done.stdout + done.stderr


def test_every_record_equals_that_of_the_serial_run_bit_for_bit(ran):
    folder, seen, *_ = ran
    serial = {file.name: load_record(file) for file in (folder / "serial" / "runs").glob("*.json")}
    there = {file.name: load_record(file) for file in (folder / "ray" / "runs").glob("*.json")}
    assert len(serial) == 4
    assert {name: figures(r) for name, r in there.items()} == {name: figures(r) for name, r in serial.items()}
    assert [name.split("_resnet18")[0] for name in seen["names"]] == [
        "tiny_buc",
        "tiny_dbc",
        "tiny_oim",
        "tiny_buc_unregularized",
    ]


def test_a_node_killed_in_the_middle_loses_no_stage(ran):
    folder, seen, *_ = ran
    stages = [json.loads(line) for line in (folder / "ray" / "log").read_text().splitlines()]
    assert len({(title, stage) for title, stage, *_ in stages}) == len(stages)  # none was trained again
    title, stage = seen["killed"]
    nodes = {node for name, k, node in stages if name == title and k > stage}
    assert nodes
    assert nodes.isdisjoint(node for name, k, node in stages if name == title and k <= stage)
    assert leftovers(folder) == []
    assert not list((folder / "ray").rglob("cluster-*"))


def test_one_view_shows_every_run_with_its_rank_1(ran):
    *_, printed = ran
    assert "4/4" in printed
    assert all(f"{name}, seed 0" in printed for name in ("buc", "dbc", "oim", "buc_unregularized"))
    assert "rank-1" in printed
    assert "usage stat" not in printed.lower()


def test_a_run_that_fails_is_named_after_the_others_have_ended(ran):
    _, seen, *_ = ran
    assert seen["error"].startswith(
        "1 of 2 runs failed; run the same command again (without --fresh) to resume them:\n  dbc, seed 0: identities=13"
    )


def test_no_process_is_left_behind(ran):
    *_, mark, _ = ran

    def left() -> list[str]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark.encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except OSError:  # it has ended, or is another user's
                continue
        return found

    deadline = time.monotonic() + 120
    while left() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left() == []


@pytest.fixture
def home(results_folder):
    with cluster._home(paths.STATE) as home:
        yield home


def test_a_worker_that_shares_nothing_refuses_before_it_trains(home, tmp_path):
    home.check()
    with pytest.raises(ClusterError, match=r"does not see .*put the checkout into a folder that all machines share"):
        replace(home, token=tmp_path / "elsewhere" / "token").check()
    free = home.token.with_name("free")
    with locked(free):
        pass
    with pytest.raises(ClusterError, match=r"file locks in .* do not work there"):
        replace(home, token=free).check()
    with pytest.raises(ClusterError, match=r"torch is 1\.0 on the driver, \S+ here; start Ray from the same"):
        replace(home, made_with=home.made_with | {"torch": "1.0"}).check()


@pytest.mark.parametrize(
    ("device", "gpus", "asked"),
    [(None, 0, {"num_cpus": 1}), (None, 8, {"num_gpus": 1}), ("cpu", 8, {"num_cpus": 1}), ("cuda", 8, {"num_gpus": 1})],
)
def test_a_run_asks_for_a_gpu_where_there_are_any(device, gpus, asked):
    assert cluster._resources(Job(BUC, "synthetic", 0, {"device": device}), gpus) == asked


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_refused_at_once(scheme):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ClusterError, match=rf"no cluster at {scheme}127\.0\.0\.1:{port} .*refused.*docs/cluster\.md"):
        cluster.train([Job(BUC, "synthetic")], address=f"{scheme}127.0.0.1:{port}")


def test_cuda_on_a_cluster_without_is_refused_instead_of_waited_for():
    with pytest.raises(ClusterError, match="device 'cuda': the cluster has no GPU; use cpu"):
        cluster._resources(Job(BUC, "synthetic", 0, {"device": "cuda"}), 0)


def test_a_numbered_gpu_is_refused_since_a_worker_sees_its_own_alone():
    with pytest.raises(ClusterError, match="device 'cuda:1': a worker sees only its own GPU; use cuda"):
        cluster._resources(Job(BUC, "synthetic", 0, {"device": "cuda:1"}), 8)


@pytest.mark.parametrize(
    ("settings", "gpu_here", "precision"),
    [
        ({}, False, "float32"),
        ({}, True, "tf32"),
        ({"device": "cpu"}, True, "float32"),
        ({"device": "cuda"}, False, "tf32"),
        ({"precision": "tf32"}, False, "tf32"),
        ({"precision": "bf16", "device": None}, True, "bf16"),
    ],
)
def test_a_run_has_the_precision_asked_for_else_that_of_its_device_else_of_the_sender(
    monkeypatch, settings, gpu_here, precision
):
    monkeypatch.setattr("reprolib.cluster.choose_device", lambda _: torch.device("cuda" if gpu_here else "cpu"))
    assert cluster._precision(Job(BUC, "synthetic", 0, settings)) == precision


def test_without_ray_the_engine_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"Ray is not installed; run make setup, or pip install"):
        cluster.train([Job(BUC, "synthetic")])


def test_reprolib_is_imported_without_ray():
    code = "import sys, reprolib.cli, reprolib.batch, reprolib.cluster; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT).returncode == 0
